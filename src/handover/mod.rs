//! What one process hands to the next: records, and beside them sockets and bytes.
//!
//! Owns how a record refers to a socket ([`SocketId`]) and to bytes ([`Held`]), and the two ends of
//! that: [`Packer`] collects them, [`Unpacker`] gives them out. It also owns how a message travels:
//! a [`Frame`], in a file or over a [`Wire`]; and how one is asked for ([`Upgrades`]). The parts
//! that hand something over own their records. The daemon owns the steps.
//!
//! A socket is known by its cookie, a number that the kernel never gives twice. So the order in
//! which descriptors arrive means nothing, and one that arrived earlier is found as well.
//!
//! A record is read by another version of the program. So each of its fields that came later has a
//! default, unknown fields are left alone, and what cannot be used is [`Unusable`], never a panic.
//! Times are durations before or after the moment of packing: another process has another clock.

#[cfg(test)]
mod claims;
mod frame;
pub(crate) mod lenient;
mod request;
mod wire;

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

pub(crate) use frame::{FORMAT, Frame, MOST_DESCRIPTORS, WireError, is_readable};
pub(crate) use request::{Fault, Refusal, Reply, Report, Requests, Upgrades, requests};
use rustix::net::{ipproto, sockopt, sockopt::socket_cookie};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpStream, time::Instant};
pub(crate) use wire::{Received, Wire};

/// A socket of the message, by its cookie (`SO_COOKIE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct SocketId(u64);

impl SocketId {
    /// The cookie of `socket`.
    ///
    /// # Errors
    /// What the system says: this is no socket.
    pub(crate) fn of(socket: impl AsFd) -> io::Result<Self> {
        Ok(Self(socket_cookie(socket)?))
    }
}

/// A time before the moment of packing, or left after it, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Span(u64);

impl Span {
    /// The longest that is read; more makes no sense, and could overflow a time.
    const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

    /// A duration.
    pub(crate) fn of(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }

    /// From `then` to `now`; none where `then` is to come.
    pub(crate) fn since(then: Instant, now: Instant) -> Self {
        Self::of(now.saturating_duration_since(then))
    }

    /// From `now` to `then`, rounded up: nothing ends early. None where `then` is over.
    pub(crate) fn until(then: Instant, now: Instant) -> Self {
        let left = then.saturating_duration_since(now);
        Self::of(left.saturating_add(Duration::from_nanos(999)))
    }

    /// The duration.
    pub(crate) fn duration(self) -> Duration {
        Duration::from_micros(self.0).min(Self::LONGEST)
    }

    /// So long before `now`.
    pub(crate) fn before(self, now: Instant) -> Instant {
        now.checked_sub(self.duration()).unwrap_or(now)
    }

    /// So long after `now`.
    pub(crate) fn after(self, now: Instant) -> Instant {
        now.checked_add(self.duration()).unwrap_or(now)
    }
}

/// Bytes of the message: where they stand beside the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    at: usize,
    len: usize,
}

/// Collects what the records of a message refer to.
#[derive(Debug, Default)]
pub(crate) struct Packer<'a> {
    sockets: HashMap<SocketId, BorrowedFd<'a>>,
    bytes: Vec<u8>,
    /// How many bytes went with the parts before.
    gone: usize,
}

impl<'a> Packer<'a> {
    /// Adds a socket, once. It stays open here.
    ///
    /// # Errors
    /// What the system says: this is no socket.
    pub(crate) fn socket(&mut self, socket: BorrowedFd<'a>) -> io::Result<SocketId> {
        let id = SocketId::of(socket)?;
        self.sockets.insert(id, socket);
        Ok(id)
    }

    /// Adds bytes.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Held {
        let at = self.gone + self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        Held { at, len: bytes.len() }
    }

    /// What was collected since the last part.
    pub(crate) fn take_part(&mut self) -> (HashMap<SocketId, BorrowedFd<'a>>, Vec<u8>) {
        self.gone += self.bytes.len();
        (std::mem::take(&mut self.sockets), std::mem::take(&mut self.bytes))
    }

    /// What was collected.
    pub(crate) fn into_parts(self) -> (HashMap<SocketId, BorrowedFd<'a>>, Vec<u8>) {
        (self.sockets, self.bytes)
    }
}

/// A record that this program cannot use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    /// A socket did not come along, or two records name it.
    #[error("a socket is missing")]
    Socket,
    /// Bytes are missing.
    #[error("bytes are missing")]
    Bytes,
    /// A value has no meaning here.
    #[error("{0}")]
    Value(&'static str),
}

/// Gives out what the records of a message refer to.
#[derive(Debug, Default)]
pub(crate) struct Unpacker {
    sockets: HashMap<SocketId, OwnedFd>,
    /// Those that the reactor knows already.
    streams: HashMap<SocketId, TcpStream>,
    bytes: Vec<u8>,
}

impl Unpacker {
    /// The bytes of a message.
    #[cfg(test)]
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// Adds the bytes of a message, or of the next part of it. Sockets may have arrived before.
    pub(crate) fn add_bytes(&mut self, bytes: Vec<u8>) {
        if self.bytes.is_empty() {
            self.bytes = bytes;
        } else {
            self.bytes.extend_from_slice(&bytes);
        }
    }

    /// Adds a descriptor that arrived. What is no socket is closed.
    pub(crate) fn add(&mut self, socket: OwnedFd) {
        if let Ok(id) = SocketId::of(&socket)
            && !self.streams.contains_key(&id)
        {
            self.sockets.insert(id, socket);
        }
    }

    /// Registers the TCP connections that have arrived by now with tokio's reactor, within its
    /// context. It is work that is better done before a freeze than during one. No byte moves by
    /// it.
    pub(crate) fn register_streams(&mut self) {
        let is_connection = |_: &SocketId, socket: &mut OwnedFd| is_tcp_connection(socket);
        for (id, socket) in self.sockets.extract_if(is_connection) {
            if let Ok(stream) = registered(socket) {
                self.streams.insert(id, stream);
            }
        }
    }

    /// The socket that a record refers to; each is given out once.
    ///
    /// # Errors
    /// It did not arrive, or is given out.
    pub(crate) fn socket(&mut self, id: SocketId) -> Result<OwnedFd, Unusable> {
        if let Some(socket) = self.sockets.remove(&id) {
            return Ok(socket);
        }
        let stream = self.streams.remove(&id).and_then(|stream| stream.into_std().ok());
        stream.map(OwnedFd::from).ok_or(Unusable::Socket)
    }

    /// The TCP connection that a record refers to, registered with tokio's reactor.
    ///
    /// # Errors
    /// As [`Unpacker::socket`], or the reactor does not take it.
    pub(crate) fn stream(&mut self, id: SocketId) -> Result<TcpStream, Unusable> {
        match self.streams.remove(&id) {
            Some(stream) => Ok(stream),
            None => {
                let socket = self.socket(id)?;
                if !is_tcp_connection(&socket) {
                    return Err(Unusable::Value("a socket is not of a TCP connection"));
                }
                registered(socket).map_err(|_| Unusable::Socket)
            }
        }
    }

    /// The bytes that a record refers to.
    ///
    /// # Errors
    /// They did not arrive.
    pub(crate) fn bytes(&self, held: Held) -> Result<&[u8], Unusable> {
        let end = held.at.checked_add(held.len).ok_or(Unusable::Bytes)?;
        self.bytes.get(held.at..end).ok_or(Unusable::Bytes)
    }

    /// How many sockets were not given out.
    #[cfg(test)]
    pub(crate) fn left(&self) -> usize {
        self.sockets.len() + self.streams.len()
    }
}

fn is_tcp_connection(socket: &OwnedFd) -> bool {
    sockopt::socket_protocol(socket).is_ok_and(|protocol| protocol == Some(ipproto::TCP))
        && sockopt::socket_acceptconn(socket).is_ok_and(|listens| !listens)
}

fn registered(socket: OwnedFd) -> io::Result<TcpStream> {
    let stream = std::net::TcpStream::from(socket);
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsFd};

    use super::*;

    #[test]
    fn a_socket_is_found_by_its_cookie_in_whatever_order_it_arrives() {
        let sockets: Vec<_> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let mut packer = Packer::default();
        let ids: Vec<_> = sockets.iter().map(|socket| packer.socket(socket.as_fd()).unwrap()).collect();
        let mut unpacker = Unpacker::default();
        for socket in sockets.iter().rev() {
            unpacker.add(socket.try_clone().unwrap().into());
        }
        for (id, socket) in ids.iter().zip(&sockets) {
            let taken = UdpSocket::from(unpacker.socket(*id).unwrap());
            assert_eq!(taken.local_addr().unwrap(), socket.local_addr().unwrap());
            assert_eq!(unpacker.socket(*id).unwrap_err(), Unusable::Socket, "it is given out once");
        }
        assert_eq!(unpacker.left(), 0);
    }

    #[test]
    fn bytes_outside_the_message_are_refused() {
        let mut packer = Packer::default();
        packer.bytes(b"one");
        let held = packer.bytes(b"two");
        let unpacker = Unpacker::new(packer.into_parts().1);
        assert_eq!(unpacker.bytes(held).unwrap(), b"two");
        for (at, len) in [(0, 7), (7, 0), (usize::MAX, 2)] {
            assert_eq!(unpacker.bytes(Held { at, len }).unwrap_err(), Unusable::Bytes, "{at} {len}");
        }
    }

    #[test]
    fn what_is_no_socket_is_closed() {
        let mut unpacker = Unpacker::default();
        unpacker.add(std::fs::File::open("/dev/null").unwrap().into());
        assert_eq!(unpacker.left(), 0);
    }
}
