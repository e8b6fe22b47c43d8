//! UDP sockets: what is switched on at a listener's and at a flow's, and why.
//!
//! `quinn-udp` makes a socket fit for QUIC, which must not be fragmented and wants time stamps and
//! congestion marks. A forwarder wants none of that: it passes on datagrams of any size, so both
//! its sockets let routers fragment (`IP_PMTUDISC_DONT`; an ICMP "too big" then costs no datagram).
//! So `quinn-udp` is shown a socket of its own, made for the purpose, and is used for its batched
//! system calls only; the options of the real ones are set here.
//!
//! No socket here shares its port (`SO_REUSEADDR`): a second one could take the first one's
//! datagrams.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
};

use nix::sys::socket::{
    getsockopt, setsockopt,
    sockopt::{Ipv4PacketInfo, Ipv4RecvErr, Ipv6RecvErr, Ipv6RecvPacketInfo, RcvBufForce, UdpGroSegment},
};
use quinn_udp::UdpSocketState;
use rustix::net::{
    RecvFlags, SendFlags, recv, sendto,
    sockopt::{Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover},
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use super::{
    stream::{PollFlags, readiness},
    transparent::{self, Port, Source},
};
use crate::mapping::canonical_socket;

/// What the kernel may queue at a listener's socket: a burst of all clients together, also while
/// the flows are handed over. Without `CAP_NET_ADMIN` the kernel allows no more than
/// `net.core.rmem_max`, which is 208 KiB on many systems: the room for some 550 small datagrams.
/// The kernel takes memory only for what waits.
const LISTENER_QUEUE: usize = 4 * 1024 * 1024;
/// What the kernel may queue at a flow's socket: a burst of one target's replies.
const FLOW_QUEUE: usize = 1024 * 1024;

/// ICMP errors that are taken at once.
const ICMP_ERRORS_A_TURN: usize = 64;

/// The batched system calls, as the kernel has them.
///
/// # Errors
/// What the system says to a socket of the family of `listen`.
pub(crate) fn offload(listen: SocketAddr) -> io::Result<UdpSocketState> {
    let specimen = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    UdpSocketState::new((&specimen).into())
}

/// Makes a bound socket a listener's. Where it listens on every address, each datagram arrives with
/// the one it was sent to, which its answer has to leave from. A socket of one address sends from
/// that anyhow, for less. With `joins` the kernel may join datagrams.
///
/// # Errors
/// What the system says.
pub(crate) fn listener(socket: std::net::UdpSocket, joins: bool) -> io::Result<UdpSocket> {
    let addr = socket.local_addr()?;
    socket.set_nonblocking(true)?;
    match addr {
        addr if !addr.ip().is_unspecified() => {}
        SocketAddr::V4(_) => setsockopt(&socket, Ipv4PacketInfo, &true)?,
        // For IPv4 clients of a dual-stack socket as well: their addresses come mapped.
        SocketAddr::V6(_) => setsockopt(&socket, Ipv6RecvPacketInfo, &true)?,
    }
    allow_fragments(&socket, addr)?;
    if joins {
        join(&socket);
    }
    // Best effort, as the kernel's limit for unprivileged programs may be lower.
    if setsockopt(&socket, RcvBufForce, &LISTENER_QUEUE).is_err() {
        let _ = SockRef::from(&socket).set_recv_buffer_size(LISTENER_QUEUE);
    }
    let _ = SockRef::from(&socket).set_send_buffer_size(LISTENER_QUEUE);
    UdpSocket::from_std(socket)
}

/// The senders that a flow's socket takes answers from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The target alone: the socket is connected.
    One,
    /// Every machine that a broadcast or multicast target stands for. Each answers from its own
    /// address, which a connected socket would not take. So the socket is not connected, and takes
    /// whatever is sent to its port.
    Many,
}

/// A flow's socket: connected, so that only its target's datagrams and ICMP errors come in, unless
/// the target stands for many machines.
///
/// # Errors
/// What the system says, or that `source` is of another family than `target`.
pub(crate) fn connect(target: SocketAddr, source: Source) -> io::Result<(UdpSocket, Peer)> {
    let target = canonical_socket(target);
    let source = source.toward(target);
    match connect_by(target, source, Port::Same) {
        Err(error) if matches!(source, Source::Client(_)) && transparent::is_of_port(&error) => {
            connect_by(target, source, Port::Other)
        }
        connected => connected,
    }
}

fn connect_by(target: SocketAddr, source: Source, port: Port) -> io::Result<(UdpSocket, Peer)> {
    if !source.fits(target) {
        return Err(source.misfit(target));
    }
    let socket = open(target, |socket| match source {
        Source::Any => Ok(()),
        Source::Own(ip) => socket.bind(&SocketAddr::new(ip, 0).into()),
        Source::Client(client) => transparent::bind(socket, client, port),
    })?;
    let peer = match socket.connect(&target.into()) {
        Ok(()) if target.ip().is_multicast() => Peer::Many,
        Ok(()) => Peer::One,
        // To a socket that did not ask for it, the kernel forbids a broadcast address; which ones
        // there are, only it knows.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && target.is_ipv4() => {
            socket.set_broadcast(true)?;
            socket.connect(&target.into())?;
            Peer::Many
        }
        Err(error) => return Err(error),
    };
    let socket = match peer {
        Peer::One => socket,
        Peer::Many => unconnected(target, &socket)?,
    };
    Ok((UdpSocket::from_std(socket.into())?, peer))
}

/// A socket that is not connected, with the own address that the kernel chose for `connected`.
fn unconnected(target: SocketAddr, connected: &Socket) -> io::Result<Socket> {
    let own = connected.local_addr()?.as_socket();
    let is_of_client = transparent::is_on(connected);
    let socket = open(target, |socket| match own {
        Some(own) if is_of_client => transparent::bind(socket, own, Port::Other),
        Some(mut own) => {
            own.set_port(0);
            socket.bind(&own.into())
        }
        None => Ok(()),
    })?;
    if target.is_ipv4() {
        socket.set_broadcast(true)?;
    }
    Ok(socket)
}

fn open(target: SocketAddr, bind: impl FnOnce(&Socket) -> io::Result<()>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(target), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    bind(&socket)?;
    allow_fragments(&socket, target)?;
    // Without it, the kernel keeps most of the ICMP errors to itself: those of a target whose
    // machine is off, for one.
    let _ = if target.is_ipv4() {
        setsockopt(&socket, Ipv4RecvErr, &true)
    } else {
        setsockopt(&socket, Ipv6RecvErr, &true)
    };
    let _ = socket.set_recv_buffer_size(FLOW_QUEUE);
    Ok(socket)
}

/// Sends a datagram to the peer of a connected socket.
///
/// # Errors
/// What the system says.
pub(crate) fn send(socket: &UdpSocket, contents: &[u8]) -> io::Result<()> {
    Ok(rustix::net::send(socket, contents, SendFlags::empty()).map(drop)?)
}

/// Sends a datagram to an address.
///
/// # Errors
/// What the system says.
pub(crate) fn send_to(socket: &UdpSocket, contents: &[u8], to: SocketAddr) -> io::Result<()> {
    Ok(sendto(socket, contents, SendFlags::empty(), &to).map(drop)?)
}

/// Takes what ICMP messages left in a flow socket's queue of errors. Whether there was any. The
/// queue has to be emptied: it counts against the room for datagrams.
pub(crate) fn take_icmp_errors(socket: &UdpSocket) -> bool {
    let mut any = false;
    let mut none = [0_u8; 0];
    // Bounded, for the sake of the other flows: what is left is taken with the next error.
    for _ in 0..ICMP_ERRORS_A_TURN {
        // Neither the datagram that it is about is wanted, nor the details.
        if recv(socket, &mut none, RecvFlags::ERRQUEUE | RecvFlags::DONTWAIT).is_err() {
            break;
        }
        any = true;
    }
    any
}

/// Whether the machine still has a flow socket's own address. A reply to another one would not
/// arrive.
pub(crate) fn has_own_address(socket: &UdpSocket) -> bool {
    let Ok(mut own) = socket.local_addr() else { return true };
    if transparent::is_on(socket) {
        // The client's address was never this machine's.
        return true;
    }
    own.set_port(0);
    // Any other error says nothing of the address.
    !std::net::UdpSocket::bind(own).is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// Whether datagrams wait at a socket, by the kernel's word. Tokio may not have heard of them yet.
pub(crate) fn holds_datagrams(socket: &UdpSocket) -> bool {
    readiness(socket, PollFlags::IN).contains(PollFlags::IN)
}

/// The address replies leave from, for a datagram that was sent to `hit`: that one, unless it
/// stands for many machines.
pub(crate) fn reply_source(hit: Option<IpAddr>) -> Option<IpAddr> {
    hit.filter(|hit| match hit.to_canonical() {
        IpAddr::V4(ip) => !ip.is_multicast() && ip != Ipv4Addr::BROADCAST && ip != Ipv4Addr::UNSPECIFIED,
        IpAddr::V6(ip) => !ip.is_multicast() && ip != Ipv6Addr::UNSPECIFIED,
    })
}

/// Lets the kernel hand over a sender's datagrams joined. A flow asks for it once its target sends
/// bursts; until then it would only cost.
pub(crate) fn join(socket: impl AsFd) {
    // Before Linux 5.0 each datagram comes by itself, which is only slower.
    let _ = setsockopt(&socket, UdpGroSegment, &true);
}

/// Whether the kernel hands over a sender's datagrams joined: then each read has to be told where
/// they end.
pub(crate) fn is_joined(socket: &UdpSocket) -> bool {
    getsockopt(socket, UdpGroSegment).unwrap_or(false)
}

/// Whether a socket that another process handed over is one of datagrams.
pub(crate) fn is_of_datagrams(socket: impl AsFd) -> bool {
    SockRef::from(&socket).r#type().is_ok_and(|kind| kind == Type::DGRAM)
}

fn allow_fragments(socket: impl AsFd, addr: SocketAddr) -> io::Result<()> {
    if addr.is_ipv6() {
        set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::DONT)?;
        // An IPv6 socket may carry IPv4 too; where it cannot, there is nothing to set.
        let _ = set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DONT);
    } else {
        set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DONT)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_queue_of_a_listener_is_as_long_as_the_system_allows() {
        let bare = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let may_force = setsockopt(&bare, RcvBufForce, &LISTENER_QUEUE).is_ok();
        let most = std::fs::read_to_string("/proc/sys/net/core/rmem_max");
        // In a network namespace of its own, the limit is there and cannot be read.
        let most = most.ok().and_then(|most| most.trim().parse().ok()).unwrap_or(usize::MAX);
        let expected = if may_force { LISTENER_QUEUE } else { LISTENER_QUEUE.min(most) };
        if most == usize::MAX && !may_force {
            return;
        }
        let socket = listener(std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), true).unwrap();
        // The kernel doubles it, for its own part.
        assert_eq!(SockRef::from(&socket).recv_buffer_size().unwrap(), 2 * expected);
    }
}
