//! Clients: what stands before the daemon.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};

use super::DEADLINE;

/// A TCP client that waits no longer than [`DEADLINE`].
#[derive(Debug)]
pub(crate) struct Client(pub(crate) TcpStream);

impl Client {
    /// Connects.
    #[track_caller]
    pub(crate) fn to(addr: SocketAddr) -> Self {
        Self::try_to(addr).unwrap_or_else(|e| panic!("connect to {addr}: {e}"))
    }

    /// Tries to.
    pub(crate) fn try_to(addr: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect_timeout(&addr, DEADLINE)?)
    }

    /// Connects from an address of this machine.
    #[track_caller]
    pub(crate) fn from(ip: IpAddr, to: SocketAddr) -> Self {
        Self::try_from_ip(ip, to).unwrap_or_else(|e| panic!("connect to {to} from {ip}: {e}"))
    }

    /// Tries to.
    pub(crate) fn try_from_ip(ip: IpAddr, to: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        if ip.is_ipv6() {
            // One of a whole network that is local, without being an address of an interface.
            socket.set_freebind_v6(true)?;
        }
        socket.bind(&SocketAddr::new(ip, 0).into())?;
        socket.connect_timeout(&to.into(), DEADLINE)?;
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// Sends all of it.
    #[track_caller]
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the client sends");
    }

    /// Says that nothing more will come.
    #[track_caller]
    pub(crate) fn finish(&self) {
        self.0.shutdown(Shutdown::Write).expect("the client ends its side");
    }

    /// Reads so many bytes.
    #[track_caller]
    pub(crate) fn hear(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).expect("the client reads");
        bytes
    }

    /// Sends something to an echo and gets it back.
    #[track_caller]
    pub(crate) fn ping(&mut self) {
        self.say(b"ping");
        assert_eq!(self.hear(4), b"ping");
    }

    /// Whether something sent to an echo comes back.
    pub(crate) fn still_echoes(&mut self) -> bool {
        let mut back = [0; 4];
        self.0.write_all(b"ping").and_then(|()| self.0.read_exact(&mut back)).is_ok() && &back == b"ping"
    }

    /// Reads until the other side ends or resets, and throws everything away.
    #[track_caller]
    pub(crate) fn until_closed(&mut self) {
        match io::copy(&mut self.0, &mut io::sink()) {
            Ok(_) => {}
            Err(e) if is_reset(&e) => {}
            Err(e) => panic!("the connection was not closed: {e}"),
        }
    }

    /// Resets the connection.
    pub(crate) fn reset(self) {
        reset(self.0);
    }
}

/// Whether a new client of an echo gets its bytes back.
pub(crate) fn echoes(addr: SocketAddr) -> bool {
    Client::try_to(addr).is_ok_and(|mut client| client.still_echoes())
}

/// Whether a new client from an address of this machine gets its bytes back from an echo.
pub(crate) fn enters(ip: IpAddr, at: SocketAddr) -> bool {
    Client::try_from_ip(ip, at).is_ok_and(|mut client| client.still_echoes())
}

/// Closes with a reset in place of an end.
pub(crate) fn reset(stream: TcpStream) {
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}

/// Whether the connection was reset by the other side.
pub(crate) fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// Whether the stream ends with a reset, and not with an orderly end.
#[track_caller]
pub(crate) fn reset_seen(stream: &mut TcpStream) -> bool {
    match io::copy(stream, &mut io::sink()) {
        Ok(_) => false,
        Err(e) if e.kind() == io::ErrorKind::ConnectionReset => true,
        Err(e) => panic!("neither an end nor a reset: {e}"),
    }
}

/// A UDP client that hears only from `to`, and waits no longer than [`DEADLINE`].
pub(crate) fn udp_client(to: SocketAddr) -> UdpSocket {
    let any = match to.ip() {
        IpAddr::V4(_) => IpAddr::from([0, 0, 0, 0]),
        IpAddr::V6(_) => IpAddr::from([0_u16; 8]),
    };
    udp_client_from(any, to)
}

/// The same, from an address of this machine.
pub(crate) fn udp_client_from(ip: IpAddr, to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).expect("a client binds");
    socket.connect(to).expect("a client chooses its peer");
    socket.set_read_timeout(Some(DEADLINE)).expect("a socket takes a timeout");
    socket
}
