//! What goes on beside a ping-pong: each is a thread with an event loop and a target of its own.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use slab::Slab;
use socket2::{Domain, Socket, Type};

use crate::{
    cases::Disturbance,
    clock,
    config::{Forward, Setup},
    load::{EventFlags, Work, World, bulk::Bulk, probe::Probe, sessions::Sessions, target::Target},
    process::Process,
    runs::reload,
    subject::{Kind, Subject},
};

/// Streams of the bulk load.
const STREAMS: usize = 8;
/// Clients a second that are refused.
const REFUSED_PER_SECOND: f64 = 10_000.0;
/// Refused clients that may be under way: a relay that does not come round to them gets no more.
const WAITING: usize = 2_000;
/// Between two reloads, and between two rounds of the dashboard. A page asks each second; here it asks more often, so that
/// there are enough rounds to count.
const PAUSE: Duration = Duration::from_millis(100);
/// Sessions that the dashboard shows.
const SHOWN: usize = 100;
/// What the page asks for in each round, and what it asks for in every third one, too.
const ROUND: [&str; 3] = ["/v1/status", "/v1/mappings", "/v1/sessions?limit=200"];
const SELDOM: [&str; 2] = ["/v1/bans", "/v1/router"];
/// No load goes on for so long.
const LIMIT: Duration = Duration::from_secs(300);
/// No answer of a dashboard takes so long.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// All that a load needs.
pub(crate) struct Scene<'a> {
    pub(crate) subject: &'a Subject,
    pub(crate) relay: &'a Process,
    /// The first forward is the ping-pong's.
    pub(crate) setup: Setup,
    /// The first port that no forward has.
    pub(crate) next: u16,
    pub(crate) home: &'a Path,
    /// Set when it is enough.
    pub(crate) stop: &'a AtomicBool,
    /// To set when it has begun.
    pub(crate) ready: &'a AtomicBool,
}

/// What happened.
pub(crate) struct Disturbed {
    /// When the relay had it to do.
    pub(crate) spans: Vec<(Instant, Instant)>,
    /// How much of it: Gbit/s, refusals a second, reloads, rounds.
    pub(crate) amount: f64,
}

impl Scene<'_> {
    /// Goes on until it is stopped.
    pub(crate) fn run(self, what: Disturbance, target: Target) -> Result<Disturbed> {
        let mut world = World::new(target)?;
        match what {
            Disturbance::Bulk => self.bulk(&mut world),
            Disturbance::Refused => self.refused(&mut world),
            Disturbance::Reload => self.reloads(&mut world),
            Disturbance::Dashboard => self.dashboard(&mut world),
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    fn begun(&self) -> Instant {
        self.ready.store(true, Relaxed);
        clock::now()
    }

    fn bulk(&self, world: &mut World) -> Result<Disturbed> {
        let at = self.setup.forwards.get(1).context("no forward for the bulk load")?.listen;
        Probe::all(world, [at], ANSWER_WITHIN, || self.relay.check_alive())?;
        let mut bulk = Bulk::open(world, at, STREAMS)?;
        world.until(&mut bulk, "the first bytes", ANSWER_WITHIN, |bulk, world| bulk.done(world) > 0)?;
        bulk.restart(world);
        let began = self.begun();
        world.until(&mut bulk, "the end", LIMIT, |_, _| self.stopped())?;
        let ended = clock::now();
        #[expect(clippy::cast_precision_loss, reason = "a count, shown with three digits")]
        let amount = bulk.done(world) as f64 * 8.0 / 1e9 / (ended - began).as_secs_f64();
        Ok(Disturbed { spans: vec![(began, ended)], amount })
    }

    fn refused(&self, world: &mut World) -> Result<Disturbed> {
        let at = self.setup.forwards.first().context("no forward")?.listen;
        let began = self.begun();
        let mut refused = Refused { at, waiting: Slab::new(), began, sent: 0, refused: 0 };
        world.until(&mut refused, "the end", LIMIT, |_, _| self.stopped())?;
        let ended = clock::now();
        ensure!(refused.refused > 0, "no client was refused");
        #[expect(clippy::cast_precision_loss, reason = "a count, shown with three digits")]
        let amount = refused.refused as f64 / (ended - began).as_secs_f64();
        Ok(Disturbed { spans: vec![(began, ended)], amount })
    }

    /// Each reload adds a mapping, and is over when the new one forwards.
    fn reloads(mut self, world: &mut World) -> Result<Disturbed> {
        let signal = self.subject.reload_signal().context("no reload")?;
        let last = *self.setup.forwards.last().context("no forward")?;
        let mut spans = Vec::new();
        self.begun();
        while !self.stopped() || spans.is_empty() {
            let listen = SocketAddr::new(last.listen.ip(), self.next);
            self.next += 1;
            self.setup.forwards.push(Forward { listen, ..last });
            self.subject.configure(&self.setup, self.home)?;
            let asked = clock::now();
            reload(world, self.relay, signal, listen)?;
            spans.push((asked, clock::now()));
            self.pause(world)?;
        }
        Ok(Disturbed { amount: count(&spans), spans })
    }

    /// A page that is open, with some sessions to show.
    fn dashboard(&self, world: &mut World) -> Result<Disturbed> {
        let at = self.setup.forwards.get(1).context("no forward for sessions")?.listen;
        let window = self.setup.window.context("no dashboard")?;
        let sessions = Sessions::open(world, at, SHOWN)?;
        let follows = self.subject.kind == Kind::Portway;
        let mut events = if follows { Some(ask(window, "/v1/events", "keep-alive")?) } else { None };
        let mut spans = Vec::new();
        self.begun();
        while !self.stopped() || spans.is_empty() {
            let seldom = if spans.len() % 3 == 0 { &SELDOM[..] } else { &[] };
            let paths = if follows { [&ROUND[..], seldom].concat() } else { vec!["/"] };
            let asked = clock::now();
            let open: Vec<TcpStream> =
                paths.iter().map(|path| ask(window, path, "close")).collect::<Result<_>>()?;
            open.into_iter().zip(&paths).try_for_each(|(socket, path)| {
                answered(socket).with_context(|| format!("ask {path} of the dashboard"))
            })?;
            spans.push((asked, clock::now()));
            events.as_mut().map_or(Ok(()), drain)?;
            self.pause(world)?;
        }
        drop(sessions);
        Ok(Disturbed { amount: count(&spans), spans })
    }

    fn pause(&self, world: &mut World) -> Result<()> {
        let began = clock::now();
        let over = |_: &Probe, _: &World| began.elapsed() > PAUSE || self.stopped();
        world.until(&mut Probe::nothing(), "the pause", LIMIT, over)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count, shown with three digits")]
fn count<T>(of: &[T]) -> f64 {
    of.len() as f64
}

/// Sends a request of HTTP.
fn ask(window: SocketAddr, path: &str, after: &str) -> Result<TcpStream> {
    let mut socket = TcpStream::connect(window).context("connect to the dashboard")?;
    socket.set_read_timeout(Some(ANSWER_WITHIN))?;
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {window}\r\nConnection: {after}\r\n\r\n")?;
    Ok(socket)
}

/// Reads the answer up to its end.
fn answered(mut socket: TcpStream) -> Result<()> {
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    let head = String::from_utf8_lossy(answer.get(..16).unwrap_or(&answer));
    ensure!(head.starts_with("HTTP/1.1 200"), "the answer was {head}");
    Ok(())
}

/// Takes the events that have come.
fn drain(events: &mut TcpStream) -> Result<()> {
    events.set_nonblocking(true)?;
    let mut scratch = [0; 64 * 1024];
    loop {
        match events.read(&mut scratch) {
            Ok(0) => bail!("the dashboard ended its events"),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("read the dashboard's events"),
        }
    }
}

/// Clients that the relay does not let in, so many a second.
struct Refused {
    at: SocketAddr,
    waiting: Slab<Socket>,
    began: Instant,
    sent: u32,
    refused: u64,
}

impl Refused {
    fn send(&mut self, world: &World) -> Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
        // No port is kept for a while after its connection, and each client has an address of its own.
        socket.set_linger(Some(Duration::ZERO))?;
        let [.., high, low] = self.sent.to_be_bytes();
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 66, high, low.max(1)), 0)).into())?;
        self.sent += 1;
        match socket.connect(&self.at.into()) {
            Err(error) if error.raw_os_error() != Some(nix::errno::Errno::EINPROGRESS as i32) => {
                self.refused += 1;
                return Ok(());
            }
            _ => {}
        }
        let entry = self.waiting.vacant_entry();
        world.reactor.watch(&socket, entry.key() as u64, EventFlags::IN)?;
        entry.insert(socket);
        Ok(())
    }
}

impl Work for Refused {
    fn ready(&mut self, _: &mut World, token: usize, _: EventFlags) -> Result<()> {
        let Some(mut socket) = self.waiting.get(token) else { return Ok(()) };
        match socket.read(&mut [0; 64]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Ok(length) => ensure!(length == 0, "a client that is to be refused got {length} bytes"),
            Err(_) => {}
        }
        self.waiting.remove(token);
        self.refused += 1;
        Ok(())
    }

    fn turn(&mut self, world: &mut World) -> Result<bool> {
        let due = self.began.elapsed().as_secs_f64() * REFUSED_PER_SECOND;
        let before = self.sent;
        while f64::from(self.sent) < due && self.waiting.len() < WAITING {
            self.send(world)?;
        }
        Ok(self.sent > before)
    }

    fn done(&self, _: &World) -> u64 {
        self.refused
    }

    fn restart(&mut self, _: &mut World) {
        self.refused = 0;
    }
}
