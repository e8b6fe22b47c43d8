//! The state of the router and of every wanted opening, for display.
//!
//! Values only, ready to be serialized. Times are seconds since 1970, because a reader has another
//! clock.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::{
    RouterProtocol,
    lease::{Lease, State},
    router::Holder,
    verdict::Verdict,
    want::{Key, Unfit},
};
use crate::mapping::{ListenAddr, MappingName, Protocol};

/// How the gateway is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RouterState {
    /// Nothing is to be open.
    #[default]
    Off,
    /// This machine has no way to a router.
    NoNetwork,
    /// A router is looked for.
    Searching,
    /// A router was found.
    Ready,
    /// No router was found; it is looked for again after a while.
    Lost,
}

/// The router and what is to be open on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct RouterStatus {
    /// How it is doing as a whole.
    pub state: RouterState,
    /// Why, where nothing was found; empty elsewhere.
    pub reason: String,
    /// The router's model, as it names itself: at most 200 visible characters. Empty where it does
    /// not say.
    pub model: String,
    /// The router's address.
    pub address: Option<IpAddr>,
    /// The protocol that it is spoken to in.
    pub protocol: Option<RouterProtocol>,
    /// Its external address.
    pub external: Option<IpAddr>,
    /// What that address says; `None` before it was asked for, and where the router cannot tell.
    pub verdict: Option<Verdict>,
    /// Every exposed listener, and every pinhole of one.
    pub openings: Vec<OpeningStatus>,
}

/// How one opening is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct OpeningStatus {
    /// The mapping.
    pub mapping: MappingName,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The listener.
    pub listen: ListenAddr,
    /// Where it can be reached from the internet, once it is open: the router's external address,
    /// or for a pinhole the listener's own.
    pub external: Option<SocketAddr>,
    /// The port on the router.
    pub external_port: u16,
    /// The address of this machine that it leads to; `None` while that is not known.
    pub internal: Option<IpAddr>,
    /// Whether it is a pinhole in the router's IPv6 firewall.
    pub pinhole: bool,
    /// How it is doing.
    #[serde(flatten)]
    pub state: OpeningState,
    /// How often it was opened where nothing was; a renewal does not count.
    #[serde(skip)]
    pub(super) times_opened: u32,
}

/// How one opening is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub(crate) enum OpeningState {
    /// No router is known yet, or it is being asked.
    Searching,
    /// It is open.
    Open {
        /// The protocol by which it was opened.
        via: RouterProtocol,
        /// The lease that was granted, in seconds; `None` without end.
        lease_s: Option<u64>,
        /// When the lease ends, in seconds since 1970; it is renewed long before.
        ends: Option<u64>,
        /// The router granted it and does not show it, although routers of this protocol can.
        unverified: bool,
    },
    /// Another machine has the port on the router.
    Conflict {
        /// Its address, and the text that the router shows; `None` where the router does not report
        /// it.
        holder: Option<String>,
    },
    /// The router refuses it.
    Denied {
        /// Its words.
        error: String,
        /// When it is asked again, in seconds since 1970.
        next_try: u64,
    },
    /// It does not work.
    Failed {
        /// Why.
        error: String,
        /// When it is tried again, in seconds since 1970; `None` where only a changed configuration
        /// helps.
        next_try: Option<u64>,
    },
}

/// What is said of every opening alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// The protocol of the router, while there is one.
    pub(super) via: Option<RouterProtocol>,
    /// Its external address.
    pub(super) external: Option<IpAddr>,
}

impl OpeningStatus {
    /// How a lease is doing.
    pub(super) fn of(lease: &Lease, frame: Frame, unix: impl Fn(tokio::time::Instant) -> u64) -> Self {
        let want = lease.want();
        let state = match (lease.state(), frame.via) {
            (State::Open(open), Some(via)) if open.settled => OpeningState::Open {
                via,
                lease_s: open.lease.map(|lease| lease.as_secs()),
                ends: open.ends.map(&unix),
                unverified: via == RouterProtocol::Upnp && want.key.pinhole.is_none() && !lease.is_shown(),
            },
            (State::Conflict(holder), Some(_)) => {
                OpeningState::Conflict { holder: holder.as_ref().map(Holder::to_string) }
            }
            (State::Denied(error), Some(_)) => {
                OpeningState::Denied { error: error.clone(), next_try: unix(lease.due()) }
            }
            (State::Failed(error), Some(_)) => {
                OpeningState::Failed { error: error.clone(), next_try: Some(unix(lease.due())) }
            }
            _ => OpeningState::Searching,
        };
        let port = lease.external_port().get();
        let reached = want.key.pinhole.map(IpAddr::V6).or(frame.external);
        let is_open = matches!(state, OpeningState::Open { .. });
        Self {
            external: reached.filter(|_| is_open).map(|ip| SocketAddr::new(ip, port)),
            external_port: port,
            internal: Some(want.internal.ip()),
            state,
            times_opened: lease.times_opened(),
            ..Self::blank(&want.key, want.mapping.clone())
        }
    }

    /// What cannot be open at all.
    pub(super) fn unfit(unfit: &Unfit) -> Self {
        let state = OpeningState::Failed { error: unfit.reason.to_owned(), next_try: None };
        Self { state, ..Self::blank(&unfit.key, unfit.mapping.clone()) }
    }

    /// What has no router yet.
    pub(super) fn blank(key: &Key, mapping: MappingName) -> Self {
        Self {
            mapping,
            protocol: key.listener.protocol,
            listen: key.listener.addr.clone(),
            external: None,
            external_port: key.listener.addr.port.get(),
            internal: key.pinhole.map(IpAddr::V6),
            pinhole: key.pinhole.is_some(),
            state: OpeningState::Searching,
            times_opened: 0,
        }
    }
}
