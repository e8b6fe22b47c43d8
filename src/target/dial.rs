//! Opening a connection to a target.
//!
//! One target may have several addresses: they are tried in order, within one time limit for all of them, each with a
//! fair share of what is left, so that one dead address of two does not use up the time of the other.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout_at},
};

use super::{ResolveError, Resolver};
use crate::mapping::{TargetAddr, Timeout};

/// Why a target could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Its name has no address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The connection was refused, or there is no way.
    #[error("connect {addr}: {source}")]
    Connect {
        /// The last address tried.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing answered.
    #[error("connect {addr}: no answer within {} ms", limit.as_millis())]
    TimedOut {
        /// The last address tried.
        addr: SocketAddr,
        /// The limit for the whole target.
        limit: Duration,
    },
}

/// How to connect.
#[derive(Clone, Copy, Debug)]
pub struct DialOptions {
    /// The time for the target, all of its addresses together.
    pub connect_timeout: Duration,
    /// The idle time before TCP keepalive probes.
    pub keepalive: Timeout,
    /// The local address to connect from.
    pub source: Option<IpAddr>,
}

/// Connects to `target`.
///
/// # Errors
/// [`DialError`] with the last address's trouble when none of them took the connection.
pub async fn dial(
    resolver: &Resolver,
    target: &TargetAddr,
    options: DialOptions,
) -> Result<(TcpStream, SocketAddr), DialError> {
    let deadline = Instant::now() + options.connect_timeout;
    let addrs = resolver.resolve(target).await?;
    let usable = |a: &&SocketAddr| options.source.is_none_or(|s| s.is_ipv4() == a.is_ipv4());
    let mut left = addrs.iter().filter(usable).count();
    let mut last = Err(DialError::Connect {
        addr: addrs[0],
        source: io::Error::new(io::ErrorKind::Unsupported, "the source address is of the other IP family"),
    });
    for addr in addrs.iter().filter(usable) {
        let now = Instant::now();
        let share = deadline.saturating_duration_since(now) / u32::try_from(left).unwrap_or(u32::MAX);
        left -= 1;
        last = match timeout_at(now + share, connect(*addr, options)).await {
            Ok(Ok(stream)) => return Ok((stream, *addr)),
            Ok(Err(source)) => Err(DialError::Connect { addr: *addr, source }),
            Err(_) => Err(DialError::TimedOut { addr: *addr, limit: options.connect_timeout }),
        };
    }
    last
}

async fn connect(addr: SocketAddr, options: DialOptions) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking().cloexec(), None)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(idle) = options.keepalive.duration() {
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))?;
    }
    if let Some(source) = options.source {
        // The port is chosen at connect, when the target is known: without this, one source address would have no
        // more than its ephemeral ports for all targets together.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    TcpSocket::from_std_stream(socket.into()).connect(addr).await
}

/// Makes the close of `stream` a reset, as the other side of the session saw one.
pub fn reset_on_close(stream: &TcpStream) {
    // Without effect on a socket that is already dead, which is as good.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
