//! Listening sockets: made, set up and bound.
//!
//! A socket can be bound over others of this process ([`Aside`]), although their addresses overlap.
//! So a reload proves that a replacement can be bound before it touches what listens.
//!
//! `[::]` is bound dual-stack. Any other IPv6 address takes IPv6 only. If the machine has no IPv6,
//! `[::]` falls back to `0.0.0.0`, and the result says so.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Weak},
};

use socket2::{Domain, SockRef, Socket, Type};

use super::{errno::lacks_ipv6, keepalive::set_keepalive, scope::scoped, stream::prepare};
use crate::mapping::{ListenAddr, Protocol, Timeout};

/// Connections that the kernel keeps for us while we are busy; it caps the number by
/// `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 4096;

/// A socket that was bound.
#[derive(Debug)]
pub(crate) struct Bound {
    /// The socket, non-blocking.
    pub socket: OwnedFd,
    /// Whether `[::]` was asked for and the machine has no IPv6.
    pub ipv4_only: bool,
}

/// A listening socket of a running listener. It does not keep the socket open.
pub(crate) type Listening = Weak<dyn AsFd + Send + Sync>;

/// What a new socket may overlap with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overlap {
    /// Nothing.
    Nothing,
    /// Sockets of this process that stand [`Aside`].
    OwnSockets,
}

/// Sockets that let others be bound over them, for as long as this lives.
///
/// The kernel compares the options of both sockets at the moment of a bind. So the options are on
/// for that moment only, and both sides clear them. For TCP this is `SO_REUSEPORT`, which sockets
/// of one user can share. For UDP it is `SO_REUSEADDR`: the kernel's check for `SO_REUSEPORT` stops
/// at the first match there, and could miss a stranger's socket.
#[must_use = "the sockets stand aside while this lives"]
pub(crate) struct Aside {
    sockets: Vec<(Protocol, Arc<dyn AsFd + Send + Sync>)>,
}

impl Aside {
    /// Makes `sockets` stand aside.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn of(sockets: impl IntoIterator<Item = (Protocol, Listening)>) -> io::Result<Self> {
        let open = sockets.into_iter().filter_map(|(protocol, socket)| Some((protocol, socket.upgrade()?)));
        let aside = Self { sockets: open.collect() };
        aside.share(true)?;
        Ok(aside)
    }

    fn share(&self, on: bool) -> io::Result<()> {
        self.sockets.iter().try_for_each(|(protocol, socket)| share(*protocol, socket, on))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // The option was set a moment ago, so it can be cleared.
        let _ = self.share(false);
    }
}

/// Lets a socket be bound over others and others over it, or not any more.
pub(super) fn share(protocol: Protocol, socket: &impl AsFd, on: bool) -> io::Result<()> {
    match protocol {
        Protocol::Tcp => SockRef::from(socket).set_reuse_port(on),
        Protocol::Udp => SockRef::from(socket).set_reuse_address(on),
    }
}

/// Makes a socket from [`Overlap::OwnSockets`] an ordinary one. A TCP socket listens from here on.
///
/// # Errors
/// What the system says.
pub(crate) fn settle(protocol: Protocol, socket: &impl AsFd) -> io::Result<()> {
    if protocol == Protocol::Tcp {
        SockRef::from(socket).listen(BACKLOG)?;
    }
    share(protocol, socket, false)
}

/// Binds a TCP listener. In [`Overlap::OwnSockets`] it does not listen before [`settle`].
///
/// # Errors
/// What the system says; see [`is_absent`](super::errno::is_absent) for an address that is not
/// there yet.
pub(crate) fn bind_tcp(listen: &ListenAddr, keepalive: Timeout, overlap: Overlap) -> io::Result<Bound> {
    with_fallback(listen, |addr| {
        let socket = open(addr, Type::STREAM)?;
        // Without this a restart waits for the last sessions' TIME_WAIT. A listener that lives
        // still keeps others out.
        socket.set_reuse_address(true)?;
        prepare(&socket)?;
        set_keepalive(&socket, keepalive)?;
        if overlap == Overlap::OwnSockets {
            share(Protocol::Tcp, &socket, true)?;
        }
        socket.bind(&addr.into())?;
        if overlap == Overlap::Nothing {
            socket.listen(BACKLOG)?;
        }
        Ok(socket)
    })
}

/// Binds a UDP listener. It never shares its port: with `SO_REUSEADDR` a second daemon could take
/// its datagrams. Only in [`Overlap::OwnSockets`] it does so until [`settle`].
///
/// # Errors
/// What the system says; see [`is_absent`](super::errno::is_absent) for an address that is not
/// there yet.
pub(crate) fn bind_udp(listen: &ListenAddr, overlap: Overlap) -> io::Result<Bound> {
    with_fallback(listen, |addr| {
        let socket = open(addr, Type::DGRAM)?;
        if overlap == Overlap::OwnSockets {
            share(Protocol::Udp, &socket, true)?;
        }
        socket.bind(&addr.into())?;
        join_group(&socket, addr)?;
        Ok(socket)
    })
}

/// The kernel hands over only what is sent to groups that some socket has joined. A socket on every
/// address takes what is sent to any of them, but a dual-stack one has to be asked to do so for
/// IPv4.
pub(super) fn join_group(socket: &Socket, addr: SocketAddr) -> io::Result<()> {
    match addr {
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            // Without it, only questions to IPv4 groups are missed.
            let _ = socket.set_multicast_all_v4(true);
            Ok(())
        }
        SocketAddr::V4(v4) if v4.ip().is_multicast() => {
            socket.join_multicast_v4(v4.ip(), &Ipv4Addr::UNSPECIFIED)
        }
        SocketAddr::V6(v6) if v6.ip().is_multicast() => socket.join_multicast_v6(v6.ip(), v6.scope_id()),
        _ => Ok(()),
    }
}

fn open(addr: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), kind.nonblocking().cloexec(), None)?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    Ok(socket)
}

fn with_fallback(listen: &ListenAddr, bind: impl Fn(SocketAddr) -> io::Result<Socket>) -> io::Result<Bound> {
    let port = listen.port.get();
    let addr = match &listen.zone {
        Some(zone) => scoped(listen.ip, zone, port)?,
        None => SocketAddr::new(listen.ip, port),
    };
    match bind(addr) {
        Ok(socket) => Ok(Bound { socket: socket.into(), ipv4_only: false }),
        Err(error) if listen.ip.is_unspecified() && listen.ip.is_ipv6() && lacks_ipv6(&error) => {
            let addr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
            Ok(Bound { socket: bind(addr)?.into(), ipv4_only: true })
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU16, time::Duration};

    use super::*;
    use crate::{
        fixture::{self, keepalive_of},
        mapping::Zone,
        sock::errno::is_absent,
    };

    fn free_port() -> NonZeroU16 {
        NonZeroU16::new(fixture::free_port()).unwrap()
    }

    #[test]
    fn every_address_takes_ipv4_and_ipv6_clients_on_one_socket() {
        let port = free_port();
        let bound = bind_tcp(&ListenAddr::every(port), Timeout::Never, Overlap::Nothing).unwrap();
        assert!(!bound.ipv4_only);
        std::net::TcpStream::connect(("127.0.0.1", port.get())).unwrap();
        std::net::TcpStream::connect(("::1", port.get())).unwrap();
    }

    #[test]
    fn what_is_accepted_has_the_options_of_its_listener() {
        let secs = Duration::from_secs;
        let port = free_port();
        let bound = bind_tcp(&ListenAddr::every(port), Timeout::After(secs(30)), Overlap::Nothing);
        let listener = std::net::TcpListener::from(bound.unwrap().socket);
        let accepted = || {
            let _client = std::net::TcpStream::connect(("127.0.0.1", port.get())).unwrap();
            listener.accept().unwrap().0
        };
        listener.set_nonblocking(false).unwrap();
        let first = accepted();
        assert!(first.nodelay().unwrap());
        assert!(SockRef::from(&first).out_of_band_inline().unwrap());
        assert_eq!(keepalive_of(&first), Some((secs(30), secs(15), 3)));
        // As a reload does it, on the socket that listens.
        set_keepalive(&listener, Timeout::After(secs(5))).unwrap();
        assert_eq!(keepalive_of(&accepted()), Some((secs(5), secs(5), 3)));
        set_keepalive(&listener, Timeout::Never).unwrap();
        assert_eq!(keepalive_of(&accepted()), None);
    }

    #[test]
    fn a_second_udp_listener_on_the_same_port_fails() {
        let listen = ListenAddr { ip: Ipv4Addr::LOCALHOST.into(), zone: None, port: free_port() };
        let _first = bind_udp(&listen, Overlap::Nothing).unwrap();
        let error = bind_udp(&listen, Overlap::Nothing).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn an_address_or_interface_that_is_not_there_is_absent() {
        let elsewhere = ListenAddr { ip: [192, 0, 2, 1].into(), zone: None, port: free_port() };
        assert!(is_absent(&bind_tcp(&elsewhere, Timeout::Never, Overlap::Nothing).unwrap_err()));
        let no_interface = ListenAddr {
            ip: "fe80::1".parse().unwrap(),
            zone: Some(Zone::new("nosuch0").unwrap()),
            port: free_port(),
        };
        let error = bind_udp(&no_interface, Overlap::Nothing).unwrap_err();
        assert!(is_absent(&error), "{error:?}");
    }

    /// Whether a socket of an overlapping address can be bound in the ordinary way.
    fn is_free(protocol: Protocol, listen: &ListenAddr) -> bool {
        match protocol {
            Protocol::Tcp => bind_tcp(listen, Timeout::Never, Overlap::Nothing).is_ok(),
            Protocol::Udp => bind_udp(listen, Overlap::Nothing).is_ok(),
        }
    }

    fn bound(
        protocol: Protocol,
        listen: &ListenAddr,
        overlap: Overlap,
    ) -> io::Result<Arc<dyn AsFd + Send + Sync>> {
        Ok(match protocol {
            Protocol::Tcp => Arc::new(bind_tcp(listen, Timeout::Never, overlap)?.socket),
            Protocol::Udp => Arc::new(bind_udp(listen, overlap)?.socket),
        })
    }

    #[test]
    fn a_socket_is_bound_over_our_own_and_never_over_a_strangers() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let port = free_port();
            let at = |last| ListenAddr { ip: [127, 0, 0, last].into(), zone: None, port };
            let (narrow, wide) = (at(1), ListenAddr::every(port));
            let old = bound(protocol, &narrow, Overlap::Nothing).unwrap();
            let aside = || Aside::of([(protocol, Arc::downgrade(&old))]).unwrap();
            let stranger = bound(protocol, &at(2), Overlap::Nothing).unwrap();
            {
                let _aside = aside();
                let error = bound(protocol, &wide, Overlap::OwnSockets).err().unwrap();
                assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{protocol:?}");
            }
            drop(stranger);
            assert!(
                bound(protocol, &wide, Overlap::OwnSockets).is_err(),
                "{protocol:?}: the old one stands in its place"
            );
            let new = {
                let _aside = aside();
                let new = bound(protocol, &wide, Overlap::OwnSockets).unwrap();
                settle(protocol, &new).unwrap();
                new
            };
            assert!(!is_free(protocol, &narrow) && !is_free(protocol, &wide) && !is_free(protocol, &at(2)));
            drop(old);
            assert!(!is_free(protocol, &at(2)), "{protocol:?}: the new one holds the port alone");
            drop(new);
            assert!(is_free(protocol, &narrow), "{protocol:?}");
        }
    }
}
