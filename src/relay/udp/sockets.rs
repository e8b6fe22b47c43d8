//! The sockets of the UDP relay: what is switched on at a listener's and at a flow's, and why.
//!
//! `quinn-udp` makes a socket fit for QUIC, which must not be fragmented and wants time stamps and congestion marks. A
//! forwarder wants none of that: it passes on datagrams of any size, so both its sockets let routers fragment
//! (`IP_PMTUDISC_DONT`; an ICMP "too big" then costs no datagram). So `quinn-udp` is shown a socket of its own, made for
//! the purpose, and is used for its batched system calls only; the options of the real ones are set here.
//!
//! No socket here shares its port (`SO_REUSEADDR`): a second one could take the first one's datagrams.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use nix::sys::socket::{
    setsockopt,
    sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo, UdpGroSegment},
};
use quinn_udp::UdpSocketState;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::sockopt::{Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover},
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use crate::mapping::canonical_socket;

/// What the kernel may queue at a listener's socket, where it allows as much: a burst of all clients together.
const LISTENER_QUEUE: usize = 4 * 1024 * 1024;
/// What the kernel may queue at a flow's socket: a burst of one target's replies.
const FLOW_QUEUE: usize = 1024 * 1024;

/// Whether the kernel may join and split datagrams for us; see [`allow_joins`].
static JOINS: AtomicBool = AtomicBool::new(true);

/// Allows or forbids, for listeners registered from now on, that the kernel joins the datagrams of a flow (GRO and GSO).
/// They are on; a network driver that gets them wrong is a reason to turn them off.
pub fn allow_joins(allow: bool) {
    JOINS.store(allow, Relaxed);
}

/// Whether datagrams may be joined, by us and by what the kernel can do.
pub(super) fn joins(offload: &UdpSocketState) -> bool {
    JOINS.load(Relaxed) && offload.max_gso_segments() > 1
}

/// The batched system calls, as the kernel has them.
///
/// # Errors
/// What the system says to a socket of the family of `listen`.
pub(super) fn offload(listen: SocketAddr) -> io::Result<UdpSocketState> {
    let specimen = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    UdpSocketState::new((&specimen).into())
}

/// Makes a bound socket a listener's. Where it listens on every address, each datagram arrives with the one it was sent
/// to, which its answer has to leave from. A socket of one address sends from that anyhow, for less.
///
/// # Errors
/// What the system says.
pub(super) fn listener(socket: std::net::UdpSocket) -> io::Result<UdpSocket> {
    let addr = socket.local_addr()?;
    socket.set_nonblocking(true)?;
    match addr {
        addr if !addr.ip().is_unspecified() => {}
        SocketAddr::V4(_) => setsockopt(&socket, Ipv4PacketInfo, &true)?,
        // For IPv4 clients of a dual-stack socket as well: their addresses come mapped.
        SocketAddr::V6(_) => setsockopt(&socket, Ipv6RecvPacketInfo, &true)?,
    }
    allow_fragments(&socket, addr)?;
    join(&socket);
    // Best effort, as the kernel's limit for unprivileged programs may be lower.
    let _ = SockRef::from(&socket).set_recv_buffer_size(LISTENER_QUEUE);
    let _ = SockRef::from(&socket).set_send_buffer_size(LISTENER_QUEUE);
    UdpSocket::from_std(socket)
}

/// A flow's socket: connected, so that only its target's datagrams and ICMP errors come in.
///
/// # Errors
/// What the system says, or that `source` is of another family than `target`.
pub(super) fn connect(target: SocketAddr, source: Option<IpAddr>) -> io::Result<UdpSocket> {
    let target = canonical_socket(target);
    let socket = Socket::new(Domain::for_address(target), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    allow_fragments(&socket, target)?;
    let _ = socket.set_recv_buffer_size(FLOW_QUEUE);
    socket.connect(&target.into())?;
    UdpSocket::from_std(socket.into())
}

/// Whether datagrams wait at a socket, by the kernel's word. Tokio may not have heard of them yet.
pub(super) fn holds_datagrams(socket: &UdpSocket) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0) && fds[0].revents().contains(PollFlags::IN)
}

/// Whether a socket could not be had because the machine, or the daemon, has run out of something.
pub(super) fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        // The last two: no source port is left.
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::AGAIN | Errno::ADDRINUSE)
    )
}

/// The address replies leave from, for a datagram that was sent to `hit`: that one, unless it stands for many machines.
pub(super) fn reply_source(hit: Option<IpAddr>) -> Option<IpAddr> {
    hit.filter(|hit| match hit.to_canonical() {
        IpAddr::V4(ip) => !ip.is_multicast() && ip != Ipv4Addr::BROADCAST && ip != Ipv4Addr::UNSPECIFIED,
        IpAddr::V6(ip) => !ip.is_multicast() && ip != Ipv6Addr::UNSPECIFIED,
    })
}

/// Lets the kernel hand over a sender's datagrams joined. A flow asks for it once its target sends bursts; until then it
/// would only cost.
pub(super) fn join(socket: impl AsFd) {
    if JOINS.load(Relaxed) {
        // Before Linux 5.0 each datagram comes by itself, which is only slower.
        let _ = setsockopt(&socket, UdpGroSegment, &true);
    }
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
