//! Unix sockets that listen: made with their mode, and asked which process is at the other end.
//!
//! A socket file has its mode from the moment it exists: the kernel takes the mode of the socket
//! that is bound. So no other user can connect in between.

use std::{
    io,
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
};

use rustix::{
    fs::{Mode, chmod, fchmod},
    net::sockopt::socket_peercred,
};
use socket2::{Domain, SockAddr, Socket, Type};

/// Clients that the kernel keeps for us while we are busy.
const BACKLOG: i32 = 128;

/// Binds a socket file with this mode, and listens. The file must not exist.
///
/// # Errors
/// What the system says.
pub(crate) fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let addr = SockAddr::unix(path)?;
    let mode = Mode::from_raw_mode(mode);
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    fchmod(&socket, mode)?;
    socket.bind(&addr)?;
    // The mask of the process has taken bits off.
    chmod(path, mode)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Connects to a socket file without waiting.
///
/// # Errors
/// What the system says. [`io::ErrorKind::WouldBlock`] means that a process listens and is busy.
pub(crate) fn knock(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}

/// The process at the other end.
pub(crate) fn peer_process(socket: &impl AsFd) -> Option<i32> {
    let peer = socket_peercred(socket).ok()?;
    Some(peer.pid.as_raw_nonzero().get())
}
