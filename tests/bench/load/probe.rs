//! Asks whether listeners relay: a message through each, and its echo back.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::{
    EventFlags, Work, World,
    target::{STREAM_REQUEST, Target},
};
use crate::clock;

/// Bytes of the echo.
const LENGTH: usize = 64;
/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(1);
/// When an attempt that got no answer is given up.
const GIVE_UP: Duration = Duration::from_millis(200);

/// How a PROXY header begins, in its two versions.
const HEADERS: [&[u8]; 2] = [b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT\n"];

/// Probes some listeners, all at once.
pub(crate) struct Probe {
    listeners: Vec<Asked>,
}

struct Asked {
    addr: SocketAddr,
    attempt: Option<Attempt>,
    last: Option<Instant>,
    answered: bool,
}

enum Attempt {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Probe {
    /// Asks no process: for waits in which only the target has work.
    pub(crate) fn nothing() -> Self {
        Self { listeners: Vec::new() }
    }

    /// Waits until each of the listeners has relayed a message and its echo.
    pub(crate) fn all(
        world: &mut World,
        addrs: impl IntoIterator<Item = SocketAddr>,
        limit: Duration,
        alive: impl Fn() -> Result<()>,
    ) -> Result<()> {
        let asked = |addr| Asked { addr, attempt: None, last: None, answered: false };
        let mut probe = Self { listeners: addrs.into_iter().map(asked).collect() };
        let deadline = clock::now() + limit;
        let slice = Duration::from_millis(100);
        let over = |probe: &Self, _: &World| probe.listeners.iter().all(|asked| asked.answered);
        loop {
            if world.until(&mut probe, "the relay", slice, over).is_ok() {
                return Ok(());
            }
            alive()?;
            ensure!(clock::now() < deadline, "an echo through the relay did not come within {limit:?}");
        }
    }
}

impl Work for Probe {
    fn ready(&mut self, world: &mut World, token: usize, _: EventFlags) -> Result<()> {
        let asked = &mut self.listeners[token];
        let mut answer = [0; LENGTH];
        let length = match &mut asked.attempt {
            Some(Attempt::Tcp(socket)) => socket.read(&mut answer),
            Some(Attempt::Udp(socket)) => socket.recv(&mut answer),
            None => return Ok(()),
        };
        asked.attempt = None;
        if let Ok(length) = length
            && length > 0
        {
            // The echo of a PROXY header comes before that of the message.
            if !HEADERS.iter().any(|header| answer[..length].starts_with(header)) {
                world.pattern.check(token as u64, 0, &answer[..length])?;
            }
            asked.answered = true;
        }
        Ok(())
    }

    fn turn(&mut self, world: &mut World) -> Result<bool> {
        for (token, asked) in self.listeners.iter_mut().enumerate().filter(|(_, asked)| !asked.answered) {
            let patience = if asked.attempt.is_some() { GIVE_UP } else { AGAIN };
            if asked.last.is_some_and(|last| last.elapsed() < patience) {
                continue;
            }
            asked.last = Some(clock::now());
            asked.attempt = attempt(world, asked.addr, token).ok();
        }
        Ok(false)
    }

    fn done(&self, _: &World) -> u64 {
        self.listeners.iter().filter(|asked| asked.answered).count() as u64
    }

    fn restart(&mut self, _: &mut World) {}
}

fn attempt(world: &World, addr: SocketAddr, token: usize) -> Result<Attempt> {
    let id = token as u64;
    if let Target::Udp(_) = world.target {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(addr)?;
        socket.set_nonblocking(true)?;
        world.reactor.watch(&socket, id, EventFlags::IN)?;
        socket.send(world.pattern.slice(id, 0, LENGTH))?;
        return Ok(Attempt::Udp(socket));
    }
    let mut socket = connect(addr)?;
    world.reactor.watch(&socket, id, EventFlags::IN)?;
    if world.target.streams() {
        socket.write_all(&stream_request(id, LENGTH as u64))?;
    } else {
        socket.write_all(world.pattern.slice(id, 0, LENGTH))?;
    }
    Ok(Attempt::Tcp(socket))
}

/// Connects; on loopback that takes no waiting, since the queues are longer than what we have under way.
pub(crate) fn connect(addr: SocketAddr) -> Result<TcpStream> {
    let socket = TcpStream::connect(addr)?;
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Asks for `length` bytes of a stream.
pub(crate) fn stream_request(id: u64, length: u64) -> [u8; STREAM_REQUEST] {
    let mut request = [0; STREAM_REQUEST];
    request[..8].copy_from_slice(&id.to_le_bytes());
    request[8..].copy_from_slice(&length.to_le_bytes());
    request
}
