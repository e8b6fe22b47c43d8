//! The target behind the relay: it echoes, streams, or takes a flood and checks it.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
};

use anyhow::{Context as _, Result, ensure};
use slab::Slab;
use socket2::{Domain, Socket, Type};

use super::{EventFlags, Reactor, TARGET, flood::Sink, not_yet};
use crate::pattern::{LONGEST, Pattern};

/// Bytes of the request for a stream: its id and its length, each eight.
pub(crate) const STREAM_REQUEST: usize = 16;
/// The token of the socket that listens.
const LISTENER: u64 = TARGET | u64::MAX;
/// Bigger than any message that is echoed.
const SCRATCH: usize = 64 * 1024;
/// Sessions taken in one go.
const ACCEPT_AT_ONCE: usize = 64;
/// The target's own queue must never be what loses a datagram.
const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;

/// Where the relay forwards to.
pub(crate) enum Target {
    Tcp(TcpTarget),
    Udp(UdpTarget),
}

impl Target {
    /// A target that sends back what it gets.
    pub(crate) fn tcp_echo(at: SocketAddr) -> Result<Self> {
        TcpTarget::bind(at, false).map(Self::Tcp)
    }

    /// A target that sends as many bytes as it is asked for.
    pub(crate) fn tcp_stream(at: SocketAddr) -> Result<Self> {
        TcpTarget::bind(at, true).map(Self::Tcp)
    }

    /// A target that sends datagrams back, until it becomes a sink.
    pub(crate) fn udp(at: SocketAddr) -> Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking(), None)?;
        // Root may go over the system's limit; for anyone else the plain call takes as much as there is.
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
        socket.bind(&at.into()).context("bind the target")?;
        Ok(Self::Udp(UdpTarget { socket: socket.into(), sink: None, scratch: vec![0; SCRATCH] }))
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> Result<SocketAddr> {
        Ok(match self {
            Self::Tcp(target) => target.listener.local_addr()?,
            Self::Udp(target) => target.socket.local_addr()?,
        })
    }

    /// Whether a session begins with a request for a stream.
    pub(crate) fn streams(&self) -> bool {
        matches!(self, Self::Tcp(target) if target.streams)
    }

    /// TCP sessions that the relay has ended.
    pub(crate) fn ended(&self) -> u64 {
        if let Self::Tcp(target) = self { target.ended } else { 0 }
    }

    /// The sink of a flood.
    pub(crate) fn sink(&mut self) -> Result<&mut Sink> {
        let Self::Udp(target) = self else { anyhow::bail!("a flood needs a datagram target") };
        Ok(target.sink.get_or_insert_default())
    }

    /// The sink of a flood, if there is one.
    pub(crate) fn sunk(&self) -> Option<&Sink> {
        if let Self::Udp(target) = self { target.sink.as_ref() } else { None }
    }

    pub(super) fn watch(&self, reactor: &Reactor) -> Result<()> {
        match self {
            Self::Tcp(target) => reactor.watch(&target.listener, LISTENER, EventFlags::IN)?,
            Self::Udp(target) => reactor.watch(&target.socket, LISTENER, EventFlags::IN)?,
        }
        Ok(())
    }

    pub(super) fn ready(
        &mut self,
        reactor: &Reactor,
        pattern: &Pattern,
        token: u64,
        flags: EventFlags,
    ) -> Result<()> {
        match self {
            Self::Tcp(target) if token == LISTENER => target.accept(reactor),
            Self::Tcp(target) => target.serve(reactor, pattern, token, flags),
            Self::Udp(target) => target.serve(pattern),
        }
    }
}

/// The TCP target.
pub(crate) struct TcpTarget {
    listener: TcpListener,
    streams: bool,
    sessions: Slab<Served>,
    ended: u64,
    scratch: Vec<u8>,
}

/// A session at the target.
struct Served {
    socket: TcpStream,
    /// What is being streamed, once it was asked for.
    stream: Option<Stream>,
}

struct Stream {
    id: u64,
    sent: u64,
    length: u64,
}

impl TcpTarget {
    fn bind(at: SocketAddr, streams: bool) -> Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&at.into()).context("bind the target")?;
        socket.listen(4096)?;
        let scratch = vec![0; SCRATCH];
        Ok(Self { listener: socket.into(), streams, sessions: Slab::new(), ended: 0, scratch })
    }

    fn accept(&mut self, reactor: &Reactor) -> Result<()> {
        for _ in 0..ACCEPT_AT_ONCE {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if not_yet(&error) => return Ok(()),
                Err(error) => return Err(error).context("accept at the target"),
            };
            socket.set_nonblocking(true)?;
            let entry = self.sessions.vacant_entry();
            reactor.watch(&socket, TARGET | entry.key() as u64, EventFlags::IN)?;
            entry.insert(Served { socket, stream: None });
        }
        Ok(())
    }

    fn serve(&mut self, reactor: &Reactor, pattern: &Pattern, token: u64, flags: EventFlags) -> Result<()> {
        let key = usize::try_from(token & !TARGET)?;
        let Some(session) = self.sessions.get_mut(key) else { return Ok(()) };
        let readable = flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR);
        let over = if readable && !self.streams {
            session.echo(&mut self.scratch)?
        } else if readable {
            session.take_request(&mut self.scratch, reactor, token)?
        } else {
            session.send_stream(pattern, reactor, token)?
        };
        if over {
            self.sessions.remove(key);
            self.ended += 1;
        }
        Ok(())
    }
}

impl Served {
    /// Sends back what came; true when the session is over.
    fn echo(&mut self, scratch: &mut [u8]) -> Result<bool> {
        match self.socket.read(scratch) {
            Ok(0) => Ok(true),
            Ok(length) => {
                let sent = self.socket.write(&scratch[..length]).context("answer at the target")?;
                ensure!(sent == length, "the relay reads no answers");
                Ok(false)
            }
            Err(error) if not_yet(&error) => Ok(false),
            Err(_) => Ok(true),
        }
    }

    fn take_request(&mut self, scratch: &mut [u8], reactor: &Reactor, token: u64) -> Result<bool> {
        let length = match self.socket.read(scratch) {
            Ok(0) => return Ok(true),
            Ok(length) => length,
            Err(error) if not_yet(&error) => return Ok(false),
            Err(_) => return Ok(true),
        };
        ensure!(length == STREAM_REQUEST && self.stream.is_none(), "the request for a stream came in pieces");
        let number = |bytes: &[u8]| Ok::<_, anyhow::Error>(u64::from_le_bytes(bytes.try_into()?));
        self.stream = Some(Stream { id: number(&scratch[..8])?, sent: 0, length: number(&scratch[8..16])? });
        reactor.rewatch(&self.socket, token, EventFlags::IN | EventFlags::OUT)?;
        Ok(false)
    }

    fn send_stream(&mut self, pattern: &Pattern, reactor: &Reactor, token: u64) -> Result<bool> {
        let Some(stream) = &mut self.stream else { return Ok(false) };
        let length = usize::try_from((stream.length - stream.sent).min(LONGEST as u64))?;
        if length == 0 {
            reactor.rewatch(&self.socket, token, EventFlags::IN)?;
            return Ok(false);
        }
        match self.socket.write(pattern.slice(stream.id, stream.sent, length)) {
            Ok(sent) => stream.sent += sent as u64,
            Err(error) if not_yet(&error) => {}
            Err(_) => return Ok(true),
        }
        Ok(false)
    }
}

/// The UDP target.
pub(crate) struct UdpTarget {
    socket: UdpSocket,
    sink: Option<Sink>,
    scratch: Vec<u8>,
}

impl UdpTarget {
    fn serve(&mut self, pattern: &Pattern) -> Result<()> {
        if let Some(sink) = &mut self.sink {
            return sink.receive(&self.socket, pattern);
        }
        for _ in 0..ACCEPT_AT_ONCE {
            let (length, from) = match self.socket.recv_from(&mut self.scratch) {
                Ok(received) => received,
                Err(error) if not_yet(&error) => return Ok(()),
                // An answer to a flow that the relay has closed meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error).context("receive at the target"),
            };
            // rinetd begins each flow with one, and takes an empty answer for the end of the flow.
            if length == 0 {
                continue;
            }
            self.socket.send_to(&self.scratch[..length], from).context("answer at the target")?;
        }
        Ok(())
    }
}
