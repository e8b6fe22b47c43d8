//! What is asked of a router and what it answers, whatever protocol it speaks.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    time::Duration,
};

use crate::{config::RouterProtocol, mapping::Protocol};

/// An opening that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
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
pub(super) struct Pulse {
    /// Its external address; `None` where it has none or does not say.
    pub(super) external: Option<IpAddr>,
    /// A number that grows with the router's uptime, in seconds (PCP's and NAT-PMP's epoch).
    pub(super) epoch: Option<u32>,
    /// A number that changes with each start of the router (UPnP's BOOTID).
    pub(super) boot_id: Option<u32>,
}
