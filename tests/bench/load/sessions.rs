//! Many TCP sessions, each of which has proved by an echo that it reaches the target.

use std::{
    collections::VecDeque,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::{EventFlags, Latencies, Work, World, not_yet, probe::connect};
use crate::clock;

/// Bytes of a request, and of its answer.
pub(crate) const MESSAGE: usize = 64;
/// How many are being opened at a time: fewer than any relay's queue takes.
const AT_ONCE: usize = 64;
/// When a session that does not answer counts as refused.
const PATIENCE: Duration = Duration::from_secs(5);

/// The sessions, first being opened, then open.
pub(crate) struct Sessions {
    relay: SocketAddr,
    wanted: usize,
    clients: Vec<Client>,
    /// Those being opened, the oldest first; also some that are open or refused by now.
    opening: VecDeque<usize>,
    opened: usize,
    refused: usize,
    /// Whether an answer is followed by the next request.
    busy: bool,
    /// Those that wait for their turn to send a request, once it is busy.
    resting: VecDeque<usize>,
    answers: u64,
    latencies: Latencies,
}

struct Client {
    /// None when the relay refused it.
    socket: Option<TcpStream>,
    /// Bytes sent before the message under way.
    offset: u64,
    got: usize,
    open: bool,
    asked: Instant,
}

impl Sessions {
    /// Opens sessions; fewer than wanted may be open afterwards, see [`Self::count`].
    pub(crate) fn open(world: &mut World, relay: SocketAddr, wanted: usize) -> Result<Self> {
        let mut sessions = Self {
            relay,
            wanted,
            clients: Vec::with_capacity(wanted),
            opening: VecDeque::new(),
            opened: 0,
            refused: 0,
            busy: false,
            resting: VecDeque::new(),
            answers: 0,
            latencies: Latencies::default(),
        };
        let over = |sessions: &Self, _: &World| sessions.opened + sessions.refused == sessions.wanted;
        world.until(&mut sessions, "the sessions to open", Duration::from_secs(60), over)?;
        ensure!(sessions.opened > 0, "the relay opened no session");
        Ok(sessions)
    }

    /// How many are open.
    pub(crate) fn count(&self) -> usize {
        self.opened
    }

    /// Lets so many sessions send their next request. After each answer the one that has waited longest follows.
    pub(crate) fn start(&mut self, world: &mut World, at_once: usize) -> Result<()> {
        ensure!(self.refused == 0, "the relay refused {} sessions", self.refused);
        self.busy = true;
        self.resting.extend(0..self.clients.len());
        (0..at_once.min(self.clients.len())).try_for_each(|_| self.next(world))
    }

    fn next(&mut self, world: &mut World) -> Result<()> {
        let Some(index) = self.resting.pop_front() else { return Ok(()) };
        self.clients[index].ask(world, index)
    }

    /// Shares of the latencies.
    pub(crate) fn latencies(&mut self) -> Vec<(&'static str, f64)> {
        self.latencies.shares()
    }

    /// Remembers from now on when each answer came.
    pub(crate) fn date_latencies(&mut self) {
        self.latencies.date();
    }

    /// Shares of the latencies of the requests that were under way in one of the spans.
    pub(crate) fn latencies_within(&self, spans: &[(Instant, Instant)]) -> Vec<(&'static str, f64)> {
        self.latencies.within(spans).shares()
    }

    fn open_more(&mut self, world: &mut World) -> Result<()> {
        while self.clients.len() < self.wanted && self.clients.len() - self.opened - self.refused < AT_ONCE {
            let index = self.clients.len();
            let socket = connect(self.relay).ok();
            if let Some(socket) = &socket {
                world.reactor.watch(socket, index as u64, EventFlags::IN)?;
            } else {
                self.refused += 1;
            }
            self.clients.push(Client { socket, offset: 0, got: 0, open: false, asked: clock::now() });
            self.opening.push_back(index);
            self.clients[index].ask(world, index)?;
        }
        Ok(())
    }

    fn refuse(&mut self, index: usize) -> Result<()> {
        let client = &mut self.clients[index];
        ensure!(!client.open, "the relay ended an open session");
        if client.socket.take().is_some() {
            self.refused += 1;
        }
        Ok(())
    }
}

impl Client {
    fn ask(&mut self, world: &World, index: usize) -> Result<()> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        self.got = 0;
        self.asked = clock::now();
        match socket.write(world.pattern.slice(index as u64, self.offset, MESSAGE)) {
            Ok(sent) => ensure!(sent == MESSAGE, "the relay takes no requests"),
            // A session that the relay refused after the handshake: the read that follows says so.
            Err(_) if !self.open => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

impl Work for Sessions {
    fn ready(&mut self, world: &mut World, token: usize, _: EventFlags) -> Result<()> {
        let mut answer = [0; MESSAGE];
        let client = &mut self.clients[token];
        let Some(socket) = &mut client.socket else { return Ok(()) };
        let length = match socket.read(&mut answer[client.got..]) {
            Ok(0) => return self.refuse(token),
            Ok(length) => length,
            Err(error) if not_yet(&error) => return Ok(()),
            Err(_) => return self.refuse(token),
        };
        let place = client.offset + client.got as u64;
        world.pattern.check(token as u64, place, &answer[client.got..client.got + length])?;
        client.got += length;
        if client.got < MESSAGE {
            return Ok(());
        }
        client.offset += MESSAGE as u64;
        if !client.open {
            client.open = true;
            self.opened += 1;
            return Ok(());
        }
        self.answers += 1;
        self.latencies.add(client.asked.elapsed());
        self.resting.push_back(token);
        if self.busy { self.next(world) } else { Ok(()) }
    }

    fn turn(&mut self, world: &mut World) -> Result<bool> {
        if self.opened + self.refused == self.wanted {
            return Ok(false);
        }
        self.open_more(world)?;
        while let Some(&index) = self.opening.front() {
            let client = &self.clients[index];
            let waits = !client.open && client.socket.is_some();
            if waits && client.asked.elapsed() < PATIENCE {
                break;
            }
            self.opening.pop_front();
            if waits {
                self.refuse(index)?;
            }
        }
        Ok(false)
    }

    fn done(&self, _: &World) -> u64 {
        self.answers
    }

    fn restart(&mut self, _: &mut World) {
        self.answers = 0;
        self.latencies.clear();
    }
}
