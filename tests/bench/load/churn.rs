//! Connect, one request, its answer, close: as many in parallel as asked, one after the other in each place.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{EventFlags, Latencies, Meter, Window, Work, World, not_yet, probe::connect, sessions::MESSAGE};
use crate::{clock, process::Process};

/// No relay takes so long.
const LIMIT: Duration = Duration::from_secs(120);
/// When a session that the target has not seen end is forgotten.
const END_WITHIN: Duration = Duration::from_secs(2);

/// From one listener to the next: a prime, so that all take part and neighbours do not follow each other.
const STRIDE: u64 = 7_919;

/// What a client sends, and what comes back from a target that echoes.
pub(crate) enum Request {
    /// A message, and the same again.
    Message,
    /// The first message of a TLS client, and the same again.
    Hello(Vec<u8>),
    /// A message, and the same again behind the PROXY header that the target got.
    BehindHeader,
}

/// The longest answer: the message of a TLS client, or one behind a header.
const LONGEST: usize = 1024;

/// The clients.
pub(crate) struct Churn {
    /// The relay's listeners, which take turns.
    relays: Vec<SocketAddr>,
    request: Request,
    places: Vec<Option<Client>>,
    started: u64,
    wanted: u64,
    answered: u64,
    latencies: Latencies,
}

struct Client {
    socket: TcpStream,
    id: u64,
    began: Instant,
    /// Bytes of the answer so far.
    got: usize,
}

impl Churn {
    /// Nothing yet.
    pub(crate) fn new(relays: Vec<SocketAddr>, parallel: usize, request: Request) -> Self {
        let places = std::iter::repeat_with(|| None).take(parallel).collect();
        Self { relays, request, places, started: 0, wanted: 0, answered: 0, latencies: Latencies::default() }
    }

    /// Makes so many connections, and waits until the target has seen them end.
    pub(crate) fn run(&mut self, world: &mut World, relay: &Process, wanted: u64) -> Result<Window> {
        self.restart(world);
        let before = world.target.ended();
        self.wanted = wanted;
        world.spin(true);
        let meter = Meter::begin(world, relay)?;
        let started = clock::now();
        for place in 0..self.places.len() {
            self.next(world, place)?;
        }
        world.until(self, "the answers", LIMIT, |churn, _| churn.answered == churn.wanted)?;
        let wall = started.elapsed().as_secs_f64();
        // rinetd forgets to end one now and then: its work on the others is measured all the same.
        let ended = |world: &World| world.target.ended() - before;
        let _ = world.until(self, "the ends", END_WITHIN, |_, world| ended(world) == wanted);
        ensure!(ended(world) >= wanted - wanted / 100, "only {} of {wanted} sessions ended", ended(world));
        let window = meter.end(world, relay)?;
        world.spin(false);
        #[expect(clippy::cast_precision_loss, reason = "a count, shown with three digits")]
        let done = wanted as f64;
        // The rate is that of the answers; the cost is that of the ends, too.
        Ok(Window { wall, done, ..window })
    }

    /// Shares of the latencies.
    pub(crate) fn latencies(&mut self) -> Vec<(&'static str, f64)> {
        self.latencies.shares()
    }

    fn next(&mut self, world: &World, place: usize) -> Result<()> {
        self.places[place] = None;
        if self.started == self.wanted {
            return Ok(());
        }
        let (id, began) = (self.started, clock::now());
        let turn = usize::try_from(id * STRIDE % self.relays.len() as u64)?;
        let mut socket = connect(self.relays[turn]).context("connect to the relay")?;
        socket.write_all(match &self.request {
            Request::Hello(hello) => hello,
            Request::Message | Request::BehindHeader => world.pattern.slice(id, 0, MESSAGE),
        })?;
        world.reactor.watch(&socket, place as u64, EventFlags::IN)?;
        self.places[place] = Some(Client { socket, id, began, got: 0 });
        self.started += 1;
        Ok(())
    }
}

impl Work for Churn {
    fn ready(&mut self, world: &mut World, token: usize, _: EventFlags) -> Result<()> {
        let Some(client) = &mut self.places[token] else { return Ok(()) };
        let mut answer = [0; LONGEST];
        let length = match client.socket.read(&mut answer) {
            Ok(length) => length,
            Err(error) if not_yet(&error) => return Ok(()),
            Err(error) => return Err(error).context("read from the relay"),
        };
        client.got += length;
        match &self.request {
            Request::Message => {
                ensure!(length == MESSAGE, "an answer of {length} bytes");
                world.pattern.check(client.id, 0, &answer[..length])?;
            }
            Request::Hello(hello) => {
                ensure!(answer[..length] == hello[..], "another answer of {length} bytes");
            }
            // The header may come by itself, and relays send headers of different lengths.
            Request::BehindHeader => {
                ensure!(length > 0, "the relay ended a session");
                let message = world.pattern.slice(client.id, 0, MESSAGE);
                if client.got <= MESSAGE || !answer[..length].ends_with(message) {
                    return Ok(());
                }
            }
        }
        self.latencies.add(client.began.elapsed());
        self.answered += 1;
        self.next(world, token)
    }

    fn done(&self, _: &World) -> u64 {
        self.answered
    }

    fn restart(&mut self, _: &mut World) {
        (self.started, self.answered) = (0, 0);
        self.latencies.clear();
    }
}
