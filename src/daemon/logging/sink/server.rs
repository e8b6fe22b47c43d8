//! A syslog server: datagrams, or a stream.
//!
//! Both look the name of the server up when they connect. A datagram that the server's machine
//! refuses is reported by the system a moment later: it is counted, and the count is given when
//! nothing was refused for a while. A stream that breaks loses what the system had taken and the
//! server had not read, and no program can count that. Between two tries to connect is a pause that
//! grows.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use rustix::io::Errno;
use tokio::time::Instant;

use super::{Sent, is_full};
use crate::{
    daemon::logging::syslog,
    mapping::{Host, TargetAddr, Timeout},
    sock::{self, Backoff},
};

/// How long the server may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// A silent connection is probed after this time, so that a server that vanished is found.
const KEEPALIVE: Timeout = Timeout::After(Duration::from_secs(30));
/// A connection that lived for this long was good: the next pause is short again.
const GOOD: Duration = Duration::from_secs(10);
/// What the system holds for a server: it is lost when the connection breaks.
const UNSENT: usize = 64 << 10;
/// Without a refusal for this long, the server is there again.
const CALM: Duration = Duration::from_secs(5);

/// The addresses of a server now.
fn addresses(server: &TargetAddr) -> io::Result<Vec<SocketAddr>> {
    let port = server.port.get();
    match &server.host {
        Host::Ip(ip, None) => Ok(vec![SocketAddr::new(*ip, port)]),
        Host::Ip(ip, Some(zone)) => Ok(vec![sock::scoped(*ip, zone, port)?]),
        // The configuration takes no service here.
        Host::Srv(_) => Ok(Vec::new()),
        Host::Name(name) => Ok((&**name, port).to_socket_addrs()?.collect()),
    }
}

/// The error of a name that has no address.
fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the name has no address")
}

/// When the next try may be.
#[derive(Debug, Default)]
struct Pause {
    backoff: Backoff,
    until: Option<Instant>,
}

impl Pause {
    fn is_over(&self) -> bool {
        self.until.is_none_or(|until| until <= Instant::now())
    }

    /// Notes a try.
    fn start(&mut self) {
        self.until = Instant::now().checked_add(self.backoff.next());
    }

    /// Notes that a try led to something.
    fn end(&mut self) {
        *self = Self::default();
    }
}

/// A server that takes datagrams.
#[derive(Debug)]
pub(super) struct Udp {
    server: TargetAddr,
    host: String,
    socket: Option<UdpSocket>,
    pause: Pause,
    refused: u64,
    refused_at: Option<Instant>,
}

impl Udp {
    /// Nothing is opened yet.
    pub(super) fn to(server: TargetAddr) -> Self {
        let host = syslog::host_name();
        Self { server, host, socket: None, pause: Pause::default(), refused: 0, refused_at: None }
    }

    /// The name of this machine.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Looks the server up. Whether it takes datagrams is not known.
    pub(super) fn reach(&mut self) -> io::Result<()> {
        if self.socket.is_some() {
            return Ok(());
        }
        let mut last = no_address();
        for to in addresses(&self.server)? {
            let from = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let connected = UdpSocket::bind(SocketAddr::new(from, 0)).and_then(|socket| {
                socket.set_nonblocking(true)?;
                socket.connect(to)?;
                Ok(socket)
            });
            match connected {
                Ok(socket) => {
                    self.socket = Some(socket);
                    return Ok(());
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Sends a datagram.
    pub(super) fn send(&mut self, datagram: &[u8]) -> Sent {
        if self.socket.is_none() {
            if !self.pause.is_over() {
                return Sent::Busy;
            }
            self.pause.start();
            if let Err(error) = self.reach() {
                return Sent::Away(error);
            }
            self.pause.end();
        }
        let Some(socket) = &self.socket else { return Sent::Busy };
        let mut sent = socket.send(datagram);
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            // That was the one before.
            self.refused += 1;
            self.refused_at = Some(Instant::now());
            sent = socket.send(datagram);
        }
        match sent {
            Ok(_) => Sent::Bytes(datagram.len()),
            Err(error) if is_full(&error) => Sent::Busy,
            Err(error) => {
                // The way may have changed: a new socket finds the new one.
                self.socket = None;
                Sent::Failed(error)
            }
        }
    }

    /// How many datagrams were refused, once that has ended.
    pub(super) fn missed(&mut self) -> u64 {
        if self.refused_at.is_none_or(|at| at.elapsed() < CALM) {
            return 0;
        }
        self.refused_at = None;
        std::mem::take(&mut self.refused)
    }
}

/// A server that takes a stream.
#[derive(Debug)]
pub(super) struct Tcp {
    server: TargetAddr,
    host: String,
    stream: Option<(TcpStream, Instant)>,
    pause: Pause,
    /// Which of several addresses is next.
    turn: usize,
}

impl Tcp {
    /// Nothing is opened yet.
    pub(super) fn to(server: TargetAddr) -> Self {
        Self { server, host: syslog::host_name(), stream: None, pause: Pause::default(), turn: 0 }
    }

    /// The name of this machine.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(|(stream, _)| stream.as_fd())
    }

    /// Connects, unless that is done. Each try takes the next address of the server.
    pub(super) fn reach(&mut self) -> io::Result<()> {
        if self.stream.is_some() {
            return Ok(());
        }
        self.pause.start();
        let addresses = addresses(&self.server)?;
        let turn = self.turn;
        self.turn = turn.wrapping_add(1);
        let to = turn.checked_rem(addresses.len()).map(|at| addresses[at]).ok_or_else(no_address)?;
        let stream = TcpStream::connect_timeout(&to, CONNECT_LIMIT)?;
        stream.set_nonblocking(true)?;
        sock::set_keepalive(&stream, KEEPALIVE)?;
        sock::stream::limit_unsent(&stream, UNSENT)?;
        self.stream = Some((stream, Instant::now()));
        Ok(())
    }

    /// Sends a part of the stream.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Sent {
        if self.stream.is_none() {
            if !self.pause.is_over() {
                return Sent::Busy;
            }
            if let Err(error) = self.reach() {
                return Sent::Away(error);
            }
        }
        let Some((stream, since)) = &mut self.stream else { return Sent::Busy };
        let sent = ended(stream).and_then(|()| stream.write(bytes));
        match sent {
            Ok(bytes) if bytes > 0 => Sent::Bytes(bytes),
            Err(error) if is_full(&error) => Sent::Busy,
            _ => {
                if since.elapsed() >= GOOD {
                    self.pause.end();
                }
                self.stream = None;
                Sent::Restarted
            }
        }
    }
}

/// Finds out whether the server has ended the stream. A first write after that would succeed, and
/// what it holds would be lost. What a server says is not read: syslog has no answers.
fn ended(stream: &mut TcpStream) -> io::Result<()> {
    match stream.read(&mut [0; 512]) {
        Ok(0) => Err(Errno::PIPE.into()),
        Ok(_) => Ok(()),
        Err(error) if is_full(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn address(addr: SocketAddr) -> TargetAddr {
        TargetAddr { host: Host::Ip(addr.ip(), None), port: addr.port().try_into().unwrap() }
    }

    /// Sends until it is taken.
    fn push(tcp: &mut Tcp, bytes: &[u8]) {
        for _ in 0..10_000 {
            match tcp.send(bytes) {
                Sent::Bytes(n) => return assert_eq!(n, bytes.len()),
                Sent::Failed(error) => panic!("{error}"),
                Sent::Busy | Sent::Away(_) | Sent::Restarted => {
                    super::super::wait_for(None, Duration::from_millis(2));
                }
            }
        }
        panic!("nothing is taken");
    }

    #[test]
    fn a_stream_is_opened_again_after_its_end() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut tcp = Tcp::to(address(server.local_addr().unwrap()));
        push(&mut tcp, b"one");
        let (mut first, _) = server.accept().unwrap();
        let mut read = [0; 3];
        first.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"one");
        drop(first);
        while !matches!(tcp.send(b"x"), Sent::Restarted) {}
        push(&mut tcp, b"two");
        let (mut second, _) = server.accept().unwrap();
        second.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"two");
    }

    #[test]
    fn a_server_that_reads_nothing_is_busy() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut tcp = Tcp::to(address(server.local_addr().unwrap()));
        push(&mut tcp, b"one");
        let piece = vec![b'x'; 64 << 10];
        let mut sent = 0;
        loop {
            match tcp.send(&piece) {
                Sent::Bytes(bytes) => sent += bytes,
                Sent::Busy => break,
                other => panic!("{other:?}"),
            }
            assert!(sent < 1 << 30, "the buffers of a stream are bounded");
        }
        assert!(sent > 0);
    }

    #[test]
    fn a_server_that_is_down_is_tried_with_pauses() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut tcp = Tcp::to(address(server.local_addr().unwrap()));
        drop(server);
        assert!(matches!(tcp.send(b"one"), Sent::Away(e) if e.kind() == io::ErrorKind::ConnectionRefused));
        let mut pauses = 0;
        for _ in 0..3 {
            while matches!(tcp.send(b"one"), Sent::Busy) {
                pauses += 1;
                super::super::wait_for(None, Duration::from_millis(1));
            }
        }
        assert!(pauses > 10, "{pauses} pauses");
    }

    #[test]
    fn refused_datagrams_are_counted_after_a_while() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut udp = Udp::to(address(server.local_addr().unwrap()));
        drop(server);
        let mut tries = 0;
        while udp.refused == 0 {
            assert!(matches!(udp.send(b"one"), Sent::Bytes(3)));
            tries += 1;
            assert!(tries < 100_000, "the system reports what is refused");
        }
        assert_eq!(udp.missed(), 0, "it may go on");
        udp.refused_at = udp.refused_at.and_then(|at| at.checked_sub(CALM));
        assert_eq!((udp.missed(), udp.missed()), (1, 0));
    }
}
