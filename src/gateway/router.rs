//! A router as every protocol describes it: its address, a request, its answer, its errors.
//!
//! Owns the vocabulary of the drivers. Sends nothing and decides nothing.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    num::NonZeroU16,
    time::Duration,
};

use super::RouterProtocol;
use crate::mapping::Protocol;

/// How long one question to the router may take.
pub(super) const CALL: Duration = Duration::from_secs(3);

/// The router's addresses, and the address of this machine toward it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RouterAddr {
    /// The router's address.
    pub(super) gateway: IpAddr,
    /// The address of this machine toward it, from which requests leave.
    pub(super) own: IpAddr,
    /// The port of its UPnP search where it is not 1900. The router is then asked there alone, not
    /// by multicast.
    pub(super) search_port: Option<NonZeroU16>,
    /// The router's IPv6 address, usually link-local; needed for pinholes.
    pub(super) gateway6: Option<Ipv6Addr>,
    /// The index of the interface toward the router, the zone of a link-local address; 0 where it
    /// is not known.
    pub(super) interface: u32,
}

impl RouterAddr {
    /// The router at one of its ports.
    pub(super) fn gateway_at(&self, port: u16) -> SocketAddr {
        match self.gateway {
            IpAddr::V4(ip) => SocketAddr::from((ip, port)),
            IpAddr::V6(ip) => self.scoped(ip, port),
        }
    }

    /// An IPv6 address in the zone of the interface, where it needs one.
    pub(super) fn scoped(&self, ip: Ipv6Addr, port: u16) -> SocketAddr {
        let zone = if ip.is_unicast_link_local() || ip.is_multicast() { self.interface } else { 0 };
        SocketAddrV6::new(ip, port, 0, zone).into()
    }

    /// A router that reports nothing about itself.
    pub(super) fn found(&self, via: RouterProtocol) -> Found {
        Found { via, addr: self.gateway, model: String::new(), id: self.gateway.to_string() }
    }
}

/// An opening that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MapRequest {
    /// TCP or UDP.
    pub(super) protocol: Protocol,
    /// The address and port of this machine that it leads to; requests leave from this very
    /// address.
    pub(super) internal: SocketAddr,
    /// The port on the router.
    pub(super) external_port: NonZeroU16,
    /// The requested lease; `None` asks for one without end.
    pub(super) lease: Option<Duration>,
    /// The text the router shows beside it: ASCII, at most 48 characters.
    pub(super) text: String,
    /// PCP: the nonce of the opening. Without it, the router refuses to renew or close (RFC 6887
    /// section 11.1).
    pub(super) nonce: [u8; 12],
    /// UPnP pinhole: its number, if there was one before.
    pub(super) pinhole: Option<u16>,
}

impl MapRequest {
    /// The internal port, which every opening needs.
    pub(super) fn internal_port(&self) -> Result<NonZeroU16, RouterError> {
        NonZeroU16::new(self.internal.port())
            .ok_or_else(|| RouterError::Failed("port 0 cannot be opened".into()))
    }
}

/// An opening that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Granted {
    /// The port on the router, which need not be the one asked for (PCP, NAT-PMP).
    pub(super) external_port: NonZeroU16,
    /// How long it lasts; `None` without end.
    pub(super) lease: Option<Duration>,
    /// UPnP pinhole: its number.
    pub(super) pinhole: Option<u16>,
}

/// Why the router did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RouterError {
    /// Another machine has the port (UPnP 718), or a PCP or NAT-PMP router granted another port,
    /// which was closed again.
    #[error("another machine holds the port")]
    Conflict,
    /// The router's rules do not allow it (UPnP 606, 729, 732; PCP NOT_AUTHORIZED; NAT-PMP 2). It
    /// will not change soon.
    #[error("the router does not allow it: {0}")]
    Denied(String),
    /// The router only keeps openings without end (UPnP 725).
    #[error("the router keeps permanent leases only")]
    OnlyPermanent,
    /// The router wants the external port to be the internal one (UPnP 724).
    #[error("the router wants both ports to be the same")]
    SamePort,
    /// The router answered that it cannot, for now.
    #[error("the router says: {0}")]
    Failed(String),
    /// The router did not answer, or not in this protocol: it has to be searched for again.
    #[error("no answer from the router: {0}")]
    Lost(String),
}

/// What the router has at a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Nothing.
    Free,
    /// An opening.
    Taken {
        /// Its holder.
        holder: Holder,
        /// What is left of it; `None` without end (or so the router says).
        lease: Option<Duration>,
    },
    /// The router cannot tell.
    Unknown,
}

/// The holder of a port of the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// The machine and port that the opening leads to.
    pub(crate) addr: SocketAddr,
    /// The text beside it: printable, cut.
    pub(crate) text: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.addr)?;
        if self.text.is_empty() { Ok(()) } else { write!(f, " ({})", self.text) }
    }
}

/// A router that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The protocol it is spoken to in.
    pub(crate) via: RouterProtocol,
    /// Its address.
    pub(crate) addr: IpAddr,
    /// The model as it names itself: printable, cut to 200 characters; empty where it does not say.
    pub(crate) model: String,
    /// What tells it from another router: its UDN, or its address.
    pub(crate) id: String,
}

/// How a router is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// Its external address; `None` where it has none or does not say.
    pub(super) external: Option<IpAddr>,
    /// Whether no address means that it has none: PCP alone cannot tell before the first opening.
    pub(super) tells: bool,
    /// A number that grows with the router's uptime, in seconds (PCP's and NAT-PMP's epoch).
    pub(super) epoch: Option<u32>,
    /// A number that changes with each start of the router (UPnP's BOOTID).
    pub(super) boot_id: Option<u32>,
}
