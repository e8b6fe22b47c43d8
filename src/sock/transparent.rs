//! Connections to targets from the client's own address, so that the target sees it.
//!
//! Owns `IP_TRANSPARENT`, which lets a socket have an address that is not this machine's, and the
//! words about what it needs: a right, and routing that brings the replies back ([`ROUTING`]).
//!
//! The option is one flag of a socket for both families: an IPv6 socket takes it at the level of
//! IPv4, too. The socket has the client's port as well where that is free, and another one
//! otherwise: the client may be on this machine, or lead to the same target twice.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use nix::sys::socket::{setsockopt, sockopt};
use rustix::io::Errno;
use socket2::{Domain, SockRef, Socket, Type};

use super::rules;

/// The own address of a socket to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The one that the system chooses.
    Any,
    /// This one, of this machine.
    Own(IpAddr),
    /// That of the client, which the target sees.
    Client(SocketAddr),
}

/// Which port of a client a socket has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    /// Its own.
    Same,
    /// One that is free toward the target.
    Other,
}

/// What brings the replies back: they are sent to an address that is not this machine's, so the
/// kernel has to be told to take them.
pub(crate) const ROUTING: &str = "\
ip rule add fwmark 1 lookup 100
ip route add local default dev lo table 100
ip -6 rule add fwmark 1 lookup 100
ip -6 route add local default dev lo table 100
nft add table inet portway
nft add chain inet portway prerouting '{ type filter hook prerouting priority mangle; }'
nft add rule inet portway prerouting meta l4proto '{ tcp, udp }' socket transparent 1 meta mark set 1 accept";

/// Why this process may not do it, and the cure.
const NO_RIGHT: &str = "`transparent` needs the capability CAP_NET_ADMIN: give it in the systemd unit \
                        (AmbientCapabilities=CAP_NET_ADMIN, and the same in CapabilityBoundingSet=), or to the \
                        container (--cap-add NET_ADMIN); where root gave up its rights ([daemon] user), restart portway";

impl Source {
    /// The client's address where that is given, else an own one where that is.
    pub(crate) fn new(own: Option<IpAddr>, client: Option<SocketAddr>) -> Self {
        match (client, own) {
            (Some(client), _) => Self::Client(client),
            (None, Some(own)) => Self::Own(own),
            (None, None) => Self::Any,
        }
    }

    /// Whether a target can be reached from it.
    pub(crate) fn fits(self, target: SocketAddr) -> bool {
        self.ip().is_none_or(|ip| ip.is_ipv4() == target.is_ipv4()) && !self.strands(target)
    }

    /// Whether the target, on this machine, could not answer: no packet leaves `127.0.0.0/8` for
    /// another address.
    fn strands(self, target: SocketAddr) -> bool {
        let is_far = matches!(self, Self::Client(client) if !client.ip().is_loopback());
        is_far && target.is_ipv4() && target.ip().is_loopback()
    }

    /// Why the target does not fit, for people.
    pub(crate) fn misfit(self, target: SocketAddr) -> io::Error {
        let why = match self {
            _ if self.strands(target) => {
                "a target on 127.0.0.1 cannot answer the address of another machine: with `transparent`, let it \
                 listen on an address of this machine and name that one"
            }
            Self::Client(client) if client.is_ipv4() => {
                "the client has an IPv4 address and the target has none: `transparent` needs both of one family"
            }
            Self::Client(_) => {
                "the client has an IPv6 address and the target has none: `transparent` needs both of one family"
            }
            _ => "the source address is of the other IP family",
        };
        io::Error::new(io::ErrorKind::Unsupported, why)
    }

    /// Whether an error is about this address, and says nothing of the target.
    pub(crate) fn is_to_blame(self, error: &io::Error) -> bool {
        match self {
            Self::Any => false,
            Self::Own(_) => error.kind() == io::ErrorKind::AddrNotAvailable,
            Self::Client(_) => matches!(
                error.kind(),
                io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
            ),
        }
    }

    /// The address toward `target`. A client of the loopback interface is on this machine, and
    /// leaves it with an address that others can answer to.
    pub(super) fn toward(self, target: SocketAddr) -> Self {
        match self {
            Self::Client(client) if client.ip().is_loopback() && !target.ip().is_loopback() => Self::Any,
            other => other,
        }
    }

    fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Any => None,
            Self::Own(ip) => Some(ip),
            Self::Client(client) => Some(client.ip()),
        }
    }
}

/// Whether this process may have the address of a client.
///
/// # Errors
/// It may not; the text has the cure.
pub(crate) fn check() -> io::Result<()> {
    // Without IPv4 there is no such socket, and nothing to refuse here.
    let Ok(socket) = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), None) else { return Ok(()) };
    allow(&socket)
}

/// Whether nothing brings replies back to this machine: it has no rule of routing but those that
/// are always there.
pub(crate) fn lacks_routing() -> bool {
    // Where the kernel does not say, nothing is wrong for all that is known.
    !rules::any_own().unwrap_or(true)
}

/// Binds a socket to the address of `client`.
///
/// # Errors
/// What the system says; see [`is_of_port`].
pub(super) fn bind(socket: &Socket, mut client: SocketAddr, port: Port) -> io::Result<()> {
    allow(socket)?;
    match port {
        // Sockets of two sessions of one client may share it, as they lead to different targets.
        Port::Same if socket.r#type()? == Type::STREAM => socket.set_reuse_address(true)?,
        Port::Same => {}
        Port::Other => {
            client.set_port(0);
            // The port is chosen at connect, when the target is known.
            setsockopt(socket, sockopt::IpBindAddressNoPort, &true)?;
        }
    }
    socket.bind(&client.into())
}

/// Whether a bind or a connect failed by its port: another one may work.
pub(super) fn is_of_port(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    // EACCES: a port below 1024, where this process has no right to these.
    matches!(errno, Some(Errno::ADDRINUSE | Errno::ADDRNOTAVAIL | Errno::ACCESS))
}

/// Whether a socket may have an address that is not this machine's.
pub(super) fn is_on(socket: &impl std::os::fd::AsFd) -> bool {
    SockRef::from(socket).ip_transparent_v4().unwrap_or(false)
}

fn allow(socket: &Socket) -> io::Result<()> {
    socket.set_ip_transparent_v4(true).map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::PERM | Errno::ACCESS) => io::Error::new(io::ErrorKind::PermissionDenied, NO_RIGHT),
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_client_and_a_target_of_two_families_do_not_fit_and_the_error_says_so() {
        let (four, six) = (addr("192.0.2.7:5000"), addr("[2001:db8::7]:5000"));
        let client = |client| Source::new(Some([127, 0, 0, 1].into()), Some(client));
        assert!(client(four).fits(four) && client(six).fits(six) && Source::Any.fits(six));
        assert!(!client(four).fits(six) && !client(six).fits(four));
        assert!(
            client(four).misfit(six).to_string().starts_with("the client has an IPv4 address and the target")
        );
        assert!(
            client(six).misfit(four).to_string().starts_with("the client has an IPv6 address and the target")
        );
    }

    #[test]
    fn a_client_on_this_machine_leaves_it_with_another_address() {
        let (local, far) = (addr("127.0.0.1:5000"), addr("192.0.2.7:80"));
        assert_eq!(Source::Client(local).toward(far), Source::Any);
        assert_eq!(Source::Client(local).toward(local), Source::Client(local));
        assert_eq!(Source::Client(far).toward(local), Source::Client(far));
    }

    #[test]
    fn a_target_on_the_loopback_of_ipv4_has_no_client_of_another_machine() {
        let (local, far) = (addr("127.0.0.1:80"), Source::Client(addr("192.0.2.7:5000")));
        assert!(!far.fits(local));
        assert!(far.misfit(local).to_string().starts_with("a target on 127.0.0.1 cannot answer"));
        assert!(Source::Client(local).fits(local) && Source::Any.fits(local));
        assert!(Source::Client(addr("[2001:db8::7]:5000")).fits(addr("[::1]:80")));
    }
}
