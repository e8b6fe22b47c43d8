//! One run: a relay started, a case done on it, the relay ended, and the numbers of it.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::{
    cases::{Disturbance, Load},
    clock,
    config::{First, Forward, Setup},
    kernel::Rules,
    load::{
        Meter, Span, Window, World,
        bulk::Bulk,
        churn::{Churn, Request},
        flood::Flood,
        flows::Flows,
        hello::client_hello,
        ping::DatagramPing,
        probe::Probe,
        sessions::Sessions,
        target::Target,
    },
    process::{Cores, Process},
    subject::{Kind, Subject},
};

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;
const MICROSECONDS: f64 = 1_000_000.0;
/// How long a relay may take to listen, even on thousands of addresses, and to end thousands of sessions.
pub(crate) const START_WITHIN: Duration = Duration::from_secs(15);
/// When a reload that shows no effect is asked for again.
const SIGNAL_AGAIN: Duration = Duration::from_secs(3);
/// The port of the first of many listeners: below the range that the system gives to clients.
pub(crate) const FIRST_PORT: u16 = 10_000;

/// How long everything takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) span: Span,
    /// Connections of a connect-request-close run.
    pub(crate) connections: u64,
    /// Memory that has not fallen for so long is held.
    pub(crate) calm: Duration,
    /// Mappings that are reloaded.
    mappings: u16,
}

impl Pace {
    /// For numbers that count.
    pub(crate) fn full() -> Self {
        let span = Span { warm: Duration::from_millis(500), length: Duration::from_secs(2) };
        Self { span, connections: 10_000, calm: Duration::from_secs(3), mappings: 1_000 }
    }

    /// To see that everything works.
    pub(crate) fn smoke() -> Self {
        let span = Span { warm: Duration::from_millis(10), length: Duration::from_millis(60) };
        Self { span, connections: 160, calm: Duration::from_millis(30), mappings: 20 }
    }

    /// Forwards beside that of a ping-pong.
    pub(crate) fn beside(self, what: Disturbance) -> u16 {
        match what {
            Disturbance::Bulk => 1,
            Disturbance::Refused => 0,
            Disturbance::Reload => self.mappings - 1,
            Disturbance::Dashboard => self.mappings / 10,
        }
    }

    /// For a first look.
    pub(crate) fn quick() -> Self {
        let span = Span { warm: Duration::from_millis(150), length: Duration::from_millis(500) };
        Self { span, connections: 3_000, calm: Duration::from_secs(1), mappings: 1_000 }
    }
}

/// The values of one run by the keys of the case's metrics.
pub(crate) type Values = BTreeMap<String, f64>;

/// What every run needs.
pub(crate) struct Bench<'a> {
    pub(crate) cores: Cores,
    pub(crate) pace: Pace,
    pub(crate) home: &'a Path,
    pub(crate) show_stderr: bool,
    /// How many a process may have.
    pub(crate) descriptors: usize,
    /// Runs so far: each has addresses of its own, so that no connection of an earlier one stands in its way.
    pub(crate) runs: u16,
}

impl Bench<'_> {
    /// Does a case once on a relay.
    pub(crate) fn run(&mut self, subject: &Subject, load: Load) -> Result<Values> {
        let at = self.addresses();
        if let Load::Grow { by, size } = load {
            return self.grow(subject, by, size, at);
        }
        if let Load::Under(what) = load {
            return self.under(subject, what, at);
        }
        let target = match load {
            Load::Bulk { .. } => Target::tcp_stream(at(2, 0))?,
            load if load.is_udp() => Target::udp(at(2, 0))?,
            _ => Target::tcp_echo(at(2, 0))?,
        };
        let target_addr = target.addr()?;
        let first = match load {
            Load::Named { .. } => First::Name,
            Load::Greeted { .. } => First::Header,
            _ => First::Nothing,
        };
        // Without a relay the target stands where the relay would.
        let place = if subject.kind == Kind::Direct { 2 } else { 1 };
        let forward =
            |port| Forward { listen: at(place, port), target: target_addr, udp: load.is_udp(), first };
        let mut world = World::new(target)?;
        if let Load::Listeners { count } = load {
            let ports = FIRST_PORT..=FIRST_PORT + u16::try_from(count).context("too many listeners")?;
            let forwards: Vec<Forward> = ports.map(forward).collect();
            return self.listeners(subject, &mut world, &forwards);
        }
        let forward = forward(target_addr.port());
        let relay = self.start(subject, &Setup::of(vec![forward]))?;
        Probe::all(&mut world, [forward.listen], START_WITHIN, || relay.check_alive())?;
        let mut found = self.load(&mut world, &relay, forward.listen, load)?;
        without_process(subject, &mut found);
        Ok(found)
    }

    /// The addresses of the next run: each has a network of its own.
    fn addresses(&mut self) -> impl Fn(u8, u16) -> SocketAddr + use<> {
        self.runs += 1;
        let [high, low] = self.runs.to_be_bytes();
        move |last, port| SocketAddr::from((Ipv4Addr::new(127, 80 + high, low, last), port))
    }

    /// Starts a relay, or sets the rules that are in its place.
    pub(crate) fn start(&self, subject: &Subject, setup: &Setup) -> Result<Process> {
        match subject.kind {
            Kind::Direct => Ok(Process::none(None)),
            Kind::Kernel => Ok(Process::none(Some(Rules::set(&setup.forwards)?))),
            _ => {
                let command = subject.configure(setup, self.home)?;
                Process::start(&command, &self.cores.first(setup.threads), self.home, self.show_stderr)
            }
        }
    }

    fn load(&self, world: &mut World, relay: &Process, at: SocketAddr, load: Load) -> Result<Values> {
        match load {
            Load::Bulk { streams } => {
                let window = world.measure(&mut Bulk::open(world, at, streams)?, relay, self.pace.span)?;
                let gib = window.done / GIB;
                Ok(values([
                    ("cpu", window.cpu / gib),
                    ("machine", window.machine / gib),
                    ("rest", window.rest / gib),
                    ("rate", window.done * 8.0 / 1e9 / window.wall),
                ]))
            }
            Load::Ping { connections } => {
                let mut sessions = Sessions::open(world, at, connections)?;
                sessions.start(world, connections)?;
                let window = world.measure(&mut sessions, relay, self.pace.span)?;
                Ok(each(window, sessions.latencies()))
            }
            Load::Churn { parallel } | Load::Named { parallel } | Load::Greeted { parallel } => {
                let request = match load {
                    Load::Named { .. } => Request::Hello(client_hello()),
                    Load::Greeted { .. } => Request::BehindHeader,
                    _ => Request::Message,
                };
                let mut churn = Churn::new(vec![at], parallel, request);
                churn.run(world, relay, self.pace.connections / 10)?;
                let window = churn.run(world, relay, self.pace.connections)?;
                Ok(each(window, churn.latencies()))
            }
            Load::Idle { sessions } => self.idle(world, relay, at, sessions),
            Load::DatagramPing { flows } => {
                let mut ping = DatagramPing::open(world, at, flows, flows)?;
                let window = world.measure(&mut ping, relay, self.pace.span)?;
                ensure!(ping.lost() <= 10, "{} datagrams of a ping-pong were lost", ping.lost());
                Ok(each(window, ping.latencies()))
            }
            Load::Flood { size, flows } => {
                let mut flood = Flood::open(at, flows, size)?;
                flood.greet(world, START_WITHIN)?;
                let window = world.measure(&mut flood, relay, self.pace.span)?;
                let loss = world.target.sink()?.loss();
                Ok(each(window, vec![("loss", loss)]))
            }
            Load::Flows { count } => flows(world, relay, at, count),
            Load::Listeners { .. } | Load::Grow { .. } | Load::Under(_) => anyhow::bail!("a case of its own"),
        }
    }

    fn idle(&self, world: &mut World, relay: &Process, at: SocketAddr, wanted: usize) -> Result<Values> {
        // What a relay sets up once, at its first sessions, is not a session's share.
        let first = Sessions::open(world, at, 16)?;
        drop(first);
        world.until(&mut Probe::nothing(), "the first to end", START_WITHIN, |_, world| {
            world.target.ended() >= 16
        })?;
        let before = relay.memory()?;
        let ended = world.target.ended();
        let sessions = Sessions::open(world, at, wanted)?;
        let count = sessions.count();
        let during = relay.memory()?;
        drop(sessions);
        world.until(&mut Probe::nothing(), "the sessions to end", START_WITHIN, |_, world| {
            world.target.ended() - ended >= count as u64
        })?;
        let after = relay.settled_memory(self.pace.calm)?;
        relay.check_alive()?;
        let (growth, held) = (during - before, (after - before).max(0.0));
        #[expect(clippy::cast_precision_loss, reason = "a count, shown with three digits")]
        let count = count as f64;
        Ok(values([
            ("memory", growth / count),
            ("held", held / 1024.0),
            ("returned", 100.0 * (1.0 - held / growth.max(1.0)).clamp(0.0, 1.0)),
            ("sessions", count),
        ]))
    }

    /// The last of the forwards is what the reload adds.
    fn listeners(&self, subject: &Subject, world: &mut World, forwards: &[Forward]) -> Result<Values> {
        let (added, first) = forwards.split_last().context("no listeners")?;
        let mut setup = Setup { reload: true, ..Setup::of(first.to_vec()) };
        let command = subject.configure(&setup, self.home)?;
        let started = clock::now();
        let relay = Process::start(&command, &self.cores.first(1), self.home, self.show_stderr)?;
        let witnesses = [first.first(), first.get(first.len() / 2), first.last()];
        let witnesses = witnesses.into_iter().flatten().map(|forward| forward.listen);
        Probe::all(world, witnesses, START_WITHIN, || relay.check_alive())?;
        let start = started.elapsed().as_secs_f64() * 1_000.0;
        let mut found = values([("start", start), ("memory", relay.memory()? / 1024.0)]);
        if let Some(signal) = subject.reload_signal() {
            setup.forwards.push(*added);
            subject.configure(&setup, self.home)?;
            found.insert("reload".to_owned(), reload(world, &relay, signal, added.listen)?);
        }
        for part in first.chunks(32) {
            let listening = part.iter().map(|forward| forward.listen);
            Probe::all(world, listening, START_WITHIN, || relay.check_alive())?;
        }
        Ok(found)
    }
}

/// Milliseconds from the signal that takes effect to the first echo through the listener that it adds.
pub(crate) fn reload(world: &mut World, relay: &Process, signal: Signal, added: SocketAddr) -> Result<f64> {
    let mut tries = 0;
    loop {
        let asked = clock::now();
        relay.signal(signal)?;
        tries += 1;
        let probed = Probe::all(world, [added], SIGNAL_AGAIN, || relay.check_alive());
        // HAProxy's master may lose a signal that comes right after its start: that is not a slow reload.
        if probed.is_ok() || tries == 5 {
            probed.context("after a reload")?;
            return Ok(asked.elapsed().as_secs_f64() * 1_000.0);
        }
    }
}

fn flows(world: &mut World, relay: &Process, at: SocketAddr, count: usize) -> Result<Values> {
    let before = relay.memory()?;
    let mut flows = Flows::prepare(world, at, count)?;
    let meter = Meter::begin(world, relay)?;
    let wall = flows.open(world)?;
    let window = meter.end(world, relay)?;
    let growth = relay.memory()? - before;
    #[expect(clippy::cast_precision_loss, reason = "counts, shown with three digits")]
    let (count, resent) = (count as f64, flows.resent() as f64);
    Ok(values([
        ("memory", growth / count),
        ("rate", count / wall),
        ("cpu", window.cpu * MICROSECONDS / count),
        ("machine", window.machine * MICROSECONDS / count),
        ("rest", window.rest * MICROSECONDS / count),
        ("resent", 100.0 * resent / count),
    ]))
}

/// Where there is no process, nothing is its own.
pub(crate) fn without_process(subject: &Subject, found: &mut Values) {
    if subject.kind.is_floor() {
        found.retain(|key, _| key != "cpu" && key != "memory");
    }
}

/// CPU of each request or datagram, their rate, and what else was found.
pub(crate) fn each(window: Window, more: Vec<(&'static str, f64)>) -> Values {
    let each = |seconds: f64| seconds * MICROSECONDS / window.done.max(1.0);
    let mut found = values([
        ("cpu", each(window.cpu)),
        ("machine", each(window.machine)),
        ("rest", each(window.rest)),
        ("rate", window.done / window.wall),
    ]);
    found.extend(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
    found
}

fn values<const N: usize>(found: [(&str, f64); N]) -> Values {
    found.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
