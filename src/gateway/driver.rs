//! What is asked of a router and what it answers, whatever protocol it speaks.
//!
//! Owns the vocabulary and [`Driver`], the closed set of protocols. Knows nothing of when an opening is wanted, what is
//! kept between two runs, or whose an opening is. Invariants: every call ends within [`LONGEST_CALL`], a router that
//! does not answer included, and a search within [`LONGEST_SEARCH`]; no answer of a router makes one panic or take more
//! memory than a few MiB; text of a router is cut and cleaned. A driver holds no socket between two calls, so that it
//! ends by being dropped.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    num::NonZeroU16,
    time::Duration,
};

use super::{RouterProtocol, natpmp::NatPmp, pcp::Pcp, upnp::Upnp};
use crate::mapping::Protocol;

/// How long one question to the router may take.
pub(super) const CALL: Duration = Duration::from_secs(3);

/// How long one call of [`Driver`] may take: most are one question; a list of openings or another port take some more.
pub(super) const LONGEST_CALL: Duration = Duration::from_secs(9);

/// How long [`Driver::search`] may take: two tries.
pub(super) const LONGEST_SEARCH: Duration = Duration::from_secs(6);

/// Where the router is, and from where it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RouterAddr {
    /// The router's address.
    pub(super) gateway: IpAddr,
    /// The address of this machine toward it: what is sent to the router leaves from here.
    pub(super) own: IpAddr,
    /// The port of its UPnP search where it is not 1900. The router is then asked there alone, not by multicast.
    pub(super) search_port: Option<NonZeroU16>,
    /// The router's IPv6 address, usually link-local; needed for pinholes.
    pub(super) gateway6: Option<Ipv6Addr>,
    /// The index of the interface toward the router, the zone of a link-local address; 0 where it is not known.
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

    /// A router that says nothing of itself but that it is there.
    pub(super) fn found(&self, via: RouterProtocol) -> Found {
        Found { via, addr: self.gateway, model: String::new(), id: self.gateway.to_string() }
    }
}

/// A router, spoken to in one protocol.
#[derive(Debug)]
pub(super) enum Driver {
    /// UPnP Internet Gateway Device.
    Upnp(Box<Upnp>),
    /// Port Control Protocol.
    Pcp(Pcp),
    /// NAT Port Mapping Protocol.
    NatPmp(NatPmp),
}

impl Driver {
    /// Looks for the router in one protocol.
    ///
    /// # Errors
    ///
    /// [`RouterError::Lost`] where nobody answers in that protocol, [`RouterError::Denied`] where it is switched off.
    pub(super) async fn search(via: RouterProtocol, at: &RouterAddr) -> Result<(Self, Found), RouterError> {
        Ok(match via {
            RouterProtocol::Upnp => {
                let (upnp, found) = Upnp::search(at).await?;
                (Self::Upnp(Box::new(upnp)), found)
            }
            RouterProtocol::Pcp => {
                let (pcp, found) = Pcp::search(at).await?;
                (Self::Pcp(pcp), found)
            }
            RouterProtocol::NatPmp => {
                let (natpmp, found) = NatPmp::search(at).await?;
                (Self::NatPmp(natpmp), found)
            }
        })
    }

    /// The protocol it speaks.
    pub(super) fn via(&self) -> RouterProtocol {
        match self {
            Self::Upnp(_) => RouterProtocol::Upnp,
            Self::Pcp(_) => RouterProtocol::Pcp,
            Self::NatPmp(_) => RouterProtocol::NatPmp,
        }
    }

    /// Opens a port, or renews it: the same request, and nothing is removed first.
    ///
    /// For an IPv6 `internal` address it is a pinhole in the router's firewall, whose external port is the internal one.
    /// What UPnP grants is what was asked for: only [`look`](Self::look) tells what the router really keeps.
    ///
    /// # Errors
    ///
    /// Each of [`RouterError`]. [`RouterError::Conflict`] also where the router gave another port, which was given back.
    pub(super) async fn open(&self, request: &MapRequest) -> Result<Granted, RouterError> {
        match self {
            Self::Upnp(upnp) => upnp.open(request).await,
            Self::Pcp(pcp) => pcp.open(request).await,
            Self::NatPmp(natpmp) => natpmp.open(request).await,
        }
    }

    /// What the router has at the external port. Only UPnP can tell, and not for pinholes: else [`Entry::Unknown`].
    ///
    /// # Errors
    ///
    /// [`RouterError::Lost`], [`RouterError::Denied`], [`RouterError::Failed`].
    pub(super) async fn look(&self, request: &MapRequest) -> Result<Entry, RouterError> {
        match self {
            Self::Upnp(upnp) => upnp.look(request).await,
            Self::Pcp(_) | Self::NatPmp(_) => Ok(Entry::Unknown),
        }
    }

    /// Opens the external port asked for or, where that is taken, any other one.
    ///
    /// # Errors
    ///
    /// Each of [`RouterError`] but [`RouterError::Conflict`], unless no port is free.
    pub(super) async fn any_port(&self, request: &MapRequest) -> Result<Granted, RouterError> {
        match self {
            Self::Upnp(upnp) => upnp.any_port(request).await,
            Self::Pcp(pcp) => pcp.any_port(request).await,
            Self::NatPmp(natpmp) => natpmp.any_port(request).await,
        }
    }

    /// Closes what is open at the external port, whosever it is (UPnP; PCP and NAT-PMP only close one's own). One that
    /// is gone already is fine.
    ///
    /// # Errors
    ///
    /// [`RouterError::Lost`], [`RouterError::Denied`] (it is another machine's), [`RouterError::Failed`].
    pub(super) async fn close(&self, request: &MapRequest) -> Result<(), RouterError> {
        match self {
            Self::Upnp(upnp) => upnp.close(request).await,
            Self::Pcp(pcp) => pcp.close(request).await,
            Self::NatPmp(natpmp) => natpmp.close(request).await,
        }
    }

    /// The external address, and a number that tells a restart: with UPnP the one that the last search or
    /// [`still_there`](Self::still_there) saw.
    ///
    /// # Errors
    ///
    /// [`RouterError::Lost`] where the router does not answer.
    pub(super) async fn health(&self) -> Result<Health, RouterError> {
        match self {
            Self::Upnp(upnp) => upnp.health().await,
            Self::Pcp(pcp) => pcp.health().await,
            Self::NatPmp(natpmp) => natpmp.health().await,
        }
    }

    /// Searches again for this very router, and gives the number of its start, if it has one.
    ///
    /// # Errors
    ///
    /// [`RouterError::Lost`] where it is gone, or its description moved: then only a new search finds it.
    pub(super) async fn still_there(&self) -> Result<Option<u32>, RouterError> {
        match self {
            Self::Upnp(upnp) => upnp.still_there().await,
            Self::Pcp(pcp) => pcp.health().await.map(|health| health.boot_id),
            Self::NatPmp(natpmp) => natpmp.health().await.map(|health| health.boot_id),
        }
    }
}

/// An opening that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MapRequest {
    /// TCP or UDP.
    pub(super) protocol: Protocol,
    /// The address and port of this machine that it leads to; requests leave from this very address.
    pub(super) internal: SocketAddr,
    /// The port on the router.
    pub(super) external_port: NonZeroU16,
    /// How long it shall last; `None` asks for one without end.
    pub(super) lease: Option<Duration>,
    /// The text the router shows beside it: ASCII, at most 48 characters.
    pub(super) text: String,
    /// PCP: the nonce of the opening, if there was one before.
    pub(super) nonce: Option<[u8; 12]>,
    /// UPnP pinhole: its number, if there was one before.
    pub(super) pinhole: Option<u16>,
}

/// An opening that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Granted {
    /// The port on the router, which need not be the one asked for (PCP, NAT-PMP).
    pub(super) external_port: NonZeroU16,
    /// How long it lasts; `None` without end.
    pub(super) lease: Option<Duration>,
    /// PCP: the nonce with which it can be renewed and taken back.
    pub(super) nonce: Option<[u8; 12]>,
    /// UPnP pinhole: its number.
    pub(super) pinhole: Option<u16>,
}

/// Why the router did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RouterError {
    /// Somebody else has the port (UPnP 718; a PCP or NAT-PMP router that gave another port, which was given back).
    #[error("another machine holds the port")]
    Conflict,
    /// The router's rules do not allow it (UPnP 606, 729, 732; PCP NOT_AUTHORIZED; NAT-PMP 2). It will not change soon.
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
        /// The machine it leads to.
        client: IpAddr,
        /// The port of that machine.
        port: u16,
        /// The text beside it: printable, cut.
        text: String,
        /// What is left of it; `None` without end (or so the router says).
        lease: Option<Duration>,
    },
    /// The router cannot tell.
    Unknown,
}

/// A router that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The protocol it is spoken to in.
    pub(super) via: RouterProtocol,
    /// Its address.
    pub(super) addr: IpAddr,
    /// The model as it names itself: printable, cut to 200 characters; empty where it does not say.
    pub(super) model: String,
    /// What tells it from another router: its UDN, or its address.
    pub(super) id: String,
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

#[cfg(test)]
mod tests;
