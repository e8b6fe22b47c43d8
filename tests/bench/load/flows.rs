//! Many datagram flows opened one after the other, each proved by an echo.

use std::{
    collections::VecDeque,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    EventFlags, Work, World,
    ping::{datagram_answer, datagram_client},
    sessions::MESSAGE,
};
use crate::clock;

/// How many wait for their answer at a time.
const AT_ONCE: usize = 64;
/// When an unanswered datagram is sent again; it was lost.
const RESEND: Duration = Duration::from_millis(500);
/// No relay takes so long.
const LIMIT: Duration = Duration::from_secs(60);

/// The flows: first sockets only, then open.
pub(crate) struct Flows {
    clients: Vec<Client>,
    /// Those that have asked, the one that waits longest first; also some that have their answer.
    waiting: VecDeque<usize>,
    asked: usize,
    answered: usize,
    resent: u64,
}

struct Client {
    socket: UdpSocket,
    asked: Instant,
    answered: bool,
}

impl Flows {
    /// Makes the sockets; the relay has seen none of them yet.
    pub(crate) fn prepare(world: &World, relay: SocketAddr, count: usize) -> Result<Self> {
        let mut clients = Vec::with_capacity(count);
        for id in 0..count as u64 {
            let socket = datagram_client(relay)?;
            world.reactor.watch(&socket, id, EventFlags::IN)?;
            clients.push(Client { socket, asked: clock::now(), answered: false });
        }
        Ok(Self { clients, waiting: VecDeque::new(), asked: 0, answered: 0, resent: 0 })
    }

    /// Opens them all and returns the seconds that it took.
    pub(crate) fn open(&mut self, world: &mut World) -> Result<f64> {
        let started = clock::now();
        world.spin(true);
        world.until(self, "the flows to open", LIMIT, |flows, _| flows.answered == flows.clients.len())?;
        world.spin(false);
        Ok(started.elapsed().as_secs_f64())
    }

    /// Datagrams that had to be sent again.
    pub(crate) fn resent(&self) -> u64 {
        self.resent
    }

    fn send(&mut self, world: &World, index: usize) -> Result<()> {
        let client = &mut self.clients[index];
        client.asked = clock::now();
        client.socket.send(world.pattern.slice(index as u64, 0, MESSAGE)).context("send to the relay")?;
        self.waiting.push_back(index);
        Ok(())
    }
}

impl Work for Flows {
    fn ready(&mut self, world: &mut World, token: usize, _: EventFlags) -> Result<()> {
        let client = &mut self.clients[token];
        let mut answer = [0; 2 * MESSAGE];
        let Some(length) = datagram_answer(&client.socket, &mut answer)? else { return Ok(()) };
        world.pattern.check(token as u64, 0, &answer[..length])?;
        if !client.answered {
            client.answered = true;
            self.answered += 1;
        }
        Ok(())
    }

    fn turn(&mut self, world: &mut World) -> Result<bool> {
        let asked = self.asked;
        while self.asked < self.clients.len() && self.asked - self.answered < AT_ONCE {
            self.send(world, self.asked)?;
            self.asked += 1;
        }
        while let Some(&index) = self.waiting.front() {
            let client = &self.clients[index];
            if !client.answered && client.asked.elapsed() < RESEND {
                break;
            }
            self.waiting.pop_front();
            if !client.answered {
                self.resent += 1;
                self.send(world, index)?;
            }
        }
        Ok(self.asked > asked)
    }

    fn done(&self, _: &World) -> u64 {
        self.answered as u64
    }

    fn restart(&mut self, _: &mut World) {}
}
