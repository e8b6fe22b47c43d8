//! Datagram flows that send one request at a time and check its echo.

use std::{
    collections::VecDeque,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{EventFlags, Latencies, Work, World, not_yet, sessions::MESSAGE};
use crate::clock;

/// When an unanswered request is sent again; it was lost.
const RESEND: Duration = Duration::from_millis(200);
/// No relay takes so long to open a flow.
const OPEN_WITHIN: Duration = Duration::from_secs(5);

/// The flows.
pub(crate) struct DatagramPing {
    clients: Vec<Client>,
    /// Those that wait for their turn.
    resting: VecDeque<usize>,
    /// Whether an answer is followed by the next request.
    busy: bool,
    /// The flow that is looked at next for a lost request.
    looked: usize,
    answers: u64,
    lost: u64,
    latencies: Latencies,
}

struct Client {
    socket: UdpSocket,
    sequence: u64,
    asked: Instant,
    /// A request is under way.
    waits: bool,
}

impl DatagramPing {
    /// Opens the flows, one after the other (socat mixes up flows that begin together), and lets so many of them send
    /// at a time.
    pub(crate) fn open(world: &mut World, relay: SocketAddr, flows: usize, at_once: usize) -> Result<Self> {
        let mut ping = Self {
            clients: Vec::with_capacity(flows),
            resting: VecDeque::new(),
            busy: false,
            looked: 0,
            answers: 0,
            lost: 0,
            latencies: Latencies::default(),
        };
        for id in 0..flows as u64 {
            let socket = datagram_client(relay)?;
            world.reactor.watch(&socket, id, EventFlags::IN)?;
            ping.clients.push(Client { socket, sequence: 0, asked: clock::now(), waits: false });
            ping.resting.push_back(usize::try_from(id)?);
            // The others have had their answer and rest.
            ping.resting.rotate_right(1);
            ping.next(world)?;
            let answered = |ping: &Self, _: &World| ping.clients.last().is_none_or(|last| last.sequence > 0);
            world.until(&mut ping, "the first answer of a flow", OPEN_WITHIN, answered)?;
        }
        ping.busy = true;
        (0..at_once).try_for_each(|_| ping.next(world))?;
        Ok(ping)
    }

    fn next(&mut self, world: &World) -> Result<()> {
        let Some(index) = self.resting.pop_front() else { return Ok(()) };
        let client = &mut self.clients[index];
        (client.asked, client.waits) = (clock::now(), true);
        client.send(world, index as u64)
    }

    /// Requests or answers lost while measuring.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// Shares of the latencies.
    pub(crate) fn latencies(&mut self) -> Vec<(&'static str, f64)> {
        self.latencies.shares()
    }
}

impl Client {
    fn send(&self, world: &World, id: u64) -> Result<()> {
        let message = world.pattern.slice(id, self.sequence * MESSAGE as u64, MESSAGE);
        match self.socket.send(message) {
            // What an earlier datagram met; this one will be sent again.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
            sent => sent.map(|_| ()).context("send to the relay"),
        }
    }
}

impl Work for DatagramPing {
    fn ready(&mut self, world: &mut World, token: usize, _: EventFlags) -> Result<()> {
        let (id, client) = (token as u64, &mut self.clients[token]);
        let mut answer = [0; 2 * MESSAGE];
        let Some(length) = datagram_answer(&client.socket, &mut answer)? else { return Ok(()) };
        let place = client.sequence * MESSAGE as u64;
        if let Err(wrong) = world.pattern.check(id, place, &answer[..length]) {
            // The only other answer that may come is a late one to a request that was sent twice.
            let late = place.checked_sub(MESSAGE as u64).context(wrong)?;
            return world.pattern.check(id, late, &answer[..length]);
        }
        self.answers += 1;
        self.latencies.add(client.asked.elapsed());
        client.sequence += 1;
        client.waits = false;
        self.resting.push_back(token);
        if self.busy { self.next(world) } else { Ok(()) }
    }

    fn turn(&mut self, world: &mut World) -> Result<bool> {
        // With one flow in turn, so that the look at the clock costs little.
        self.looked = (self.looked + 1) % self.clients.len();
        let client = &mut self.clients[self.looked];
        if client.waits && client.asked.elapsed() > RESEND {
            self.lost += 1;
            client.asked = clock::now();
            client.send(world, self.looked as u64)?;
        }
        Ok(false)
    }

    fn done(&self, _: &World) -> u64 {
        self.answers
    }

    fn restart(&mut self, _: &mut World) {
        (self.answers, self.lost) = (0, 0);
        self.latencies.clear();
    }
}

/// Takes an answer of the length of a message; `None` while there is none.
pub(super) fn datagram_answer(socket: &UdpSocket, answer: &mut [u8]) -> Result<Option<usize>> {
    let length = match socket.recv(answer) {
        Ok(length) => length,
        Err(error) if not_yet(&error) => return Ok(None),
        Err(error) => return Err(error).context("receive from the relay"),
    };
    // rinetd adds empty datagrams of its own.
    if length == 0 {
        return Ok(None);
    }
    ensure!(length == MESSAGE, "an answer of {length} bytes");
    Ok(Some(length))
}

/// A socket that talks to the relay only.
pub(crate) fn datagram_client(relay: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(relay)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
