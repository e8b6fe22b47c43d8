//! Probes: whether the targets of mappings with `health` work, asked from one place.
//!
//! Owns the times of the probes of all mappings, and the task that makes them. A probe connects,
//! and exchanges bytes where the configuration has some. Probes of one interval are spread over it,
//! at most [`AT_ONCE`] run at a time, and a changed plan ends those that are under way. What came
//! of a probe goes to the pool of the mapping, which counts how many say the same in a row. A
//! change writes the same lines as a session would.
//!
//! It ends when the sender of the plan is gone.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use fastrand::Rng;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    Dialer, Health, Leg, Member, Sign,
    dial::{DialOptions, dial},
};
use crate::{
    mapping::{Protocol, Timeout},
    preface::proxy::{SendProxy, local},
    sock::{transparent::Source, udp as sockets},
};

/// The most probes at a time: each holds a descriptor.
const AT_ONCE: usize = 64;
/// The most bytes of an answer that are searched for what is expected.
const LONGEST_ANSWER: usize = 64 * 1024;
/// By how much the time between two probes strays, in percent.
const JITTER: u32 = 10;

/// A target that is probed.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    /// The target, and the mapping that it belongs to.
    pub leg: Leg,
    /// What is known of it.
    pub member: Arc<Member>,
    /// How it is probed.
    pub health: Health,
    /// The local address of the connection.
    pub source: Option<IpAddr>,
    /// The PROXY header that the target wants.
    pub send_proxy: SendProxy,
}

/// The next time of each probe that is not under way, by its place among the probes.
type Due = BTreeSet<(Instant, usize)>;

/// All that is probed.
pub(crate) type Probes = Arc<[Probe]>;

/// Probes what `plan` says, for as long as it can change.
pub(crate) async fn watch_over(dialer: Dialer, mut plan: watch::Receiver<Probes>) {
    let mut rng = Rng::new();
    let mut probes = Arc::clone(&plan.borrow_and_update());
    let mut due = schedule(&probes, &[], &Due::new(), &mut rng);
    let mut running: JoinSet<(usize, Result<(), String>)> = JoinSet::new();
    loop {
        let next = due.first().copied().filter(|_| running.len() < AT_ONCE);
        tokio::select! {
            changed = plan.changed() => {
                if changed.is_err() {
                    return;
                }
                running = JoinSet::new();
                let now = Arc::clone(&plan.borrow_and_update());
                due = schedule(&now, &probes, &due, &mut rng);
                probes = now;
            }
            Some(Ok((at, outcome))) = running.join_next() => {
                probes[at].note(&dialer, outcome);
                due.insert((Instant::now() + about(&mut rng, probes[at].health.interval), at));
            }
            () = wait(next), if next.is_some() => if let Some((_, at)) = due.pop_first() {
                let (probe, dialer) = (probes[at].clone(), dialer.clone());
                running.spawn(async move { (at, probe.run(&dialer).await) });
            },
        }
    }
}

async fn wait(next: Option<(Instant, usize)>) {
    if let Some((at, _)) = next {
        sleep_until(at).await;
    }
}

/// When each probe is due. One that goes on keeps its time, or comes now if it was under way, and
/// the first of a new one comes within its interval.
fn schedule(probes: &[Probe], before: &[Probe], was_due: &Due, rng: &mut Rng) -> Due {
    let now = Instant::now();
    let mut known: HashMap<&Leg, Instant> = before.iter().map(|probe| (&probe.leg, now)).collect();
    known.extend(was_due.iter().map(|(due, at)| (&before[*at].leg, *due)));
    let mut first = |probe: &Probe| now + probe.health.interval.mul_f64(rng.f64());
    let mut due = |probe: &Probe| known.get(&probe.leg).copied().unwrap_or_else(|| first(probe));
    probes.iter().map(&mut due).enumerate().map(|(at, due)| (due, at)).collect()
}

fn about(rng: &mut Rng, time: Duration) -> Duration {
    time * (100 - JITTER + rng.u32(0..=2 * JITTER)) / 100
}

impl Probe {
    /// Notes what came of it.
    fn note(&self, dialer: &Dialer, outcome: Result<(), String>) {
        let news = self.member.probed(outcome.is_ok(), &self.health);
        match outcome {
            Err(error) if news == Some(false) => {
                dialer.target_failed(&self.leg, Sign::Clear, &format_args!("probe: {error}"));
            }
            Err(error) => {
                tracing::debug!(mapping = %self.leg.mapping, target.addr = %self.leg.target, error, "probe failed");
            }
            Ok(()) if !self.member.is_down() => dialer.target_worked(|| self.leg.clone()),
            Ok(()) => {}
        }
    }

    async fn run(&self, dialer: &Dialer) -> Result<(), String> {
        let deadline = Instant::now() + self.health.timeout;
        let outcome = match self.leg.protocol {
            Protocol::Tcp => timeout_at(deadline, self.connect(dialer)).await,
            Protocol::Udp => timeout_at(deadline, self.ask(dialer)).await,
        };
        outcome.unwrap_or_else(|_| Err(self.silent()))
    }

    fn silent(&self) -> String {
        let what = if self.health.expect.is_some() { "no such answer as expected" } else { "no answer" };
        format!("{what} within {} ms", self.health.timeout.as_millis())
    }

    /// Connects, and exchanges what there is to exchange.
    async fn connect(&self, dialer: &Dialer) -> Result<(), String> {
        let options = DialOptions {
            connect_timeout: self.health.timeout,
            keepalive: Timeout::Never,
            source: Source::new(self.source, None),
        };
        let (mut stream, addr) =
            dial(dialer, &self.leg.target, options).await.map_err(|error| error.to_string())?;
        let failed = |error: std::io::Error| format!("{addr}: {error}");
        stream.write_all(local(self.send_proxy)).await.map_err(failed)?;
        if let Some(send) = &self.health.send {
            stream.write_all(send).await.map_err(failed)?;
        }
        let Some(expect) = &self.health.expect else { return Ok(()) };
        let (mut answer, mut part) = (Vec::new(), [0; 2048]);
        loop {
            let read = stream.read(&mut part).await.map_err(failed)?;
            answer.extend_from_slice(&part[..read]);
            if contains(&answer, expect) {
                return Ok(());
            }
            if read == 0 || answer.len() > LONGEST_ANSWER {
                return Err(format!("{addr}: the answer has not what is expected"));
            }
        }
    }

    /// Sends a datagram, and waits for the answer.
    async fn ask(&self, dialer: &Dialer) -> Result<(), String> {
        let (protocol, limit) = (Protocol::Udp, self.health.timeout);
        let addrs =
            dialer.candidates(protocol, &self.leg.target, limit).await.map_err(|error| error.to_string())?;
        let mut missed = String::new();
        for addr in addrs {
            match self.ask_one(addr).await {
                Ok(()) => {
                    dialer.worked(protocol, addr);
                    return Ok(());
                }
                Err(error) => {
                    dialer.failed(protocol, addr, &error);
                    missed = format!("{addr}: {error}");
                }
            }
        }
        Err(missed)
    }

    async fn ask_one(&self, addr: std::net::SocketAddr) -> std::io::Result<()> {
        let (socket, peer) = sockets::connect(addr, Source::new(self.source, None))?;
        let mut datagram = local(self.send_proxy).to_vec();
        datagram.extend_from_slice(self.health.send.as_deref().unwrap_or_default());
        match peer {
            sockets::Peer::One => socket.send(&datagram).await?,
            sockets::Peer::Many => socket.send_to(&datagram, addr).await?,
        };
        let mut answer = vec![0; LONGEST_ANSWER];
        loop {
            let length = socket.recv(&mut answer).await?;
            if self.health.expect.as_ref().is_none_or(|expect| contains(&answer[..length], expect)) {
                return Ok(());
            }
        }
    }
}

fn contains(answer: &[u8], expected: &[u8]) -> bool {
    expected.is_empty() || answer.windows(expected.len()).any(|window| window == expected)
}
