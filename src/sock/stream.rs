//! TCP streams: how they are connected, accepted, read, ended and given up.
//!
//! A stream of either side has the same options: no delay, urgent bytes in line, and what is left
//! to read announced. A listener sets them once, and what it accepts inherits them, which saves
//! every session the system calls. A stream that connects sets them itself.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};
pub(crate) use rustix::event::PollFlags;
use rustix::{
    event::{PollFd, Timespec, poll},
    io::Errno,
    net::{RecvFlags, SendFlags, Shutdown, SocketFlags, acceptfrom_with, recv, send, shutdown},
};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::TcpStream;

use super::{
    keepalive::{copy_keepalive, may_wait, set_keepalive},
    tcp_info::announce_rest,
    transparent::{self, Port, Source},
};
use crate::mapping::Timeout;

/// Sets what is the same for every stream.
pub(super) fn prepare(socket: &impl AsFd) -> io::Result<()> {
    let options = SockRef::from(socket);
    options.set_tcp_nodelay(true)?;
    // A byte that is marked urgent stays where it stands in the stream (RFC 6093, 6).
    options.set_out_of_band_inline(true)?;
    announce_rest(socket);
    Ok(())
}

/// Lets the system hold about so many bytes that the peer has not taken yet.
///
/// # Errors
/// What the system says.
pub(crate) fn limit_unsent(stream: &impl AsFd, bytes: usize) -> io::Result<()> {
    SockRef::from(stream).set_send_buffer_size(bytes)
}

/// Connects to `addr` from `source`. A `keepalive` that [`may_wait`] is left to the session.
///
/// # Errors
/// What the system says, or that this process may not have the address of a client.
pub(crate) async fn connect(addr: SocketAddr, source: Source, keepalive: Timeout) -> io::Result<TcpStream> {
    let source = source.toward(addr);
    match connect_by(addr, source, Port::Same, keepalive).await {
        Err(error) if matches!(source, Source::Client(_)) && transparent::is_of_port(&error) => {
            connect_by(addr, source, Port::Other, keepalive).await
        }
        connected => connected,
    }
}

async fn connect_by(
    addr: SocketAddr,
    source: Source,
    port: Port,
    keepalive: Timeout,
) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking().cloexec(), None)?;
    prepare(&socket)?;
    if !may_wait(keepalive) {
        set_keepalive(&socket, keepalive)?;
    }
    match source {
        Source::Any => {}
        Source::Own(ip) => {
            // The port is chosen at connect, when the target is known: without this, one source
            // address would have no more than its ephemeral ports for all targets together.
            setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
            socket.bind(&SocketAddr::new(ip, 0).into())?;
        }
        Source::Client(client) => transparent::bind(&socket, client, port)?,
    }
    reach(socket, addr).await
}

/// Connects a socket. A near target has answered by the time that the system call returns, so the
/// kernel is asked once more before the reactor is: that costs less than a turn of its loop.
async fn reach(socket: Socket, addr: SocketAddr) -> io::Result<TcpStream> {
    let addr = addr.into();
    let is_on_its_way = |error: &io::Error| {
        matches!(Errno::from_io_error(error), Some(Errno::INPROGRESS | Errno::ALREADY | Errno::INTR))
    };
    let connected = match socket.connect(&addr) {
        Err(error) if is_on_its_way(&error) => socket.connect(&addr),
        connected => connected,
    };
    let waits = match connected {
        Ok(()) => false,
        Err(error) if Errno::from_io_error(&error) == Some(Errno::ISCONN) => false,
        Err(error) if is_on_its_way(&error) => true,
        Err(error) => return Err(error),
    };
    let stream = TcpStream::from_std(socket.into())?;
    if waits {
        stream.writable().await?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
    }
    Ok(stream)
}

/// Takes a connection off a listening socket.
///
/// # Errors
/// What the system says; see [`is_of_one_connection`](super::errno::is_of_one_connection).
pub(crate) fn accept(listener: &impl AsFd) -> io::Result<(OwnedFd, SocketAddr)> {
    let (socket, addr) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    // An address of another family than the listener's would be the kernel's mistake.
    let addr = addr.and_then(|addr| SocketAddr::try_from(addr).ok()).ok_or(Errno::CONNABORTED)?;
    Ok((socket, addr))
}

/// Gives an accepted connection the options of its listener. It inherits them from the kernel,
/// except where it was made before the listener had them.
///
/// # Errors
/// What the system says.
pub(crate) fn make_up_for_listener(connection: &impl AsFd, listener: &impl AsFd) -> io::Result<()> {
    prepare(connection)?;
    copy_keepalive(listener, connection)
}

/// Reads without the control message of [`receive`](super::receive).
///
/// # Errors
/// What the system says.
pub(crate) fn read(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(recv(socket, buffer, RecvFlags::empty()).map(|(bytes, _)| bytes)?)
}

/// Writes what the socket takes. A peer that is gone is an error and not a signal.
///
/// # Errors
/// What the system says.
pub(crate) fn write(socket: &impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(send(socket, bytes, SendFlags::NOSIGNAL)?)
}

/// Whether bytes wait at a socket.
pub(crate) fn holds_bytes(socket: &impl AsFd) -> bool {
    let mut one = [0; 1];
    recv(socket, &mut one, RecvFlags::PEEK | RecvFlags::DONTWAIT).is_ok_and(|(n, _)| n > 0)
}

/// Which of `flags` hold for a socket now, beside errors, by the kernel's word. Tokio may not have
/// heard of it yet.
pub(crate) fn readiness(socket: &impl AsFd, flags: PollFlags) -> PollFlags {
    let mut fds = [PollFd::new(socket, flags)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0) { fds[0].revents() } else { PollFlags::empty() }
}

/// Ends the stream toward the peer (half-close). A connection that is already gone has no end to
/// pass on.
///
/// # Errors
/// What the system says.
pub(crate) fn end(socket: &impl AsFd) -> io::Result<()> {
    match shutdown(socket, Shutdown::Write) {
        Ok(()) | Err(Errno::NOTCONN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes the close of a socket a RST. It has no effect on a connection that is already dead, which
/// is as good.
pub(crate) fn reset_on_close(socket: &impl AsFd) {
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// Makes the close of a socket send nothing. Returns whether it may: this needs CAP_NET_ADMIN
/// (TCP_REPAIR).
pub(crate) fn close_without_a_word(socket: &impl AsFd) -> bool {
    setsockopt(socket, sockopt::TcpRepair, &1).is_ok()
}

/// Whether [`close_without_a_word`] works for this process; `None` where the machine has no IPv4 to
/// try it with.
pub(crate) fn may_close_without_a_word() -> Option<bool> {
    Socket::new(Domain::IPV4, Type::STREAM, None).ok().map(|socket| close_without_a_word(&socket))
}

/// Lets what is sent from now on go no further than the first router.
pub(crate) fn keep_in_own_network(socket: &impl AsFd) {
    let socket = SockRef::from(socket);
    // Both: a client of a dual-stack listener may be either, and the one that does not fit has no
    // effect.
    let _ = socket.set_ttl_v4(1);
    let _ = socket.set_unicast_hops_v6(1);
}

/// Limits what the kernel holds for a socket that is not read, in bytes. It has a minimum of its
/// own.
pub(crate) fn limit_receive_buffer(socket: &impl AsFd, bytes: usize) {
    let _ = SockRef::from(socket).set_recv_buffer_size(bytes);
}
