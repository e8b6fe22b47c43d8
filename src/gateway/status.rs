//! The state of the router and of every wanted opening.
//!
//! Values only: they change when there is something to tell, not with the time. The log compares
//! them ([`report`](super::report)).

use std::{net::IpAddr, time::Duration};

use tokio::time::Instant;

use super::{
    RouterProtocol,
    lease::{Lease, State},
    router::{Found, Holder},
    verdict::Verdict,
    want::{Key, Unfit},
};
use crate::mapping::MappingName;

/// How the search for a router is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum RouterState {
    /// Nothing is to be open.
    #[default]
    Off,
    /// The search goes on.
    Searching,
    /// This router was found.
    Ready(Found),
    /// This machine has no way to a router, or no router answers; with the reason.
    Missing(String),
}

/// The router and what is to be open on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RouterStatus {
    /// How the search is doing.
    pub(crate) router: RouterState,
    /// The router's external address.
    pub(crate) external: Option<IpAddr>,
    /// What that address says; `None` before the router was asked, and where it cannot tell.
    pub(crate) verdict: Option<Verdict>,
    /// Every exposed listener, and every pinhole of one.
    pub(crate) openings: Vec<OpeningStatus>,
}

/// How one opening is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpeningStatus {
    /// The listener, and the address of a pinhole.
    pub(crate) key: Key,
    /// The mapping.
    pub(crate) mapping: MappingName,
    /// What is known of it.
    pub(crate) state: OpeningState,
    /// Where the internet reaches it while it is open: the router's external address, or for a
    /// pinhole the listener's own.
    pub(crate) external: Option<IpAddr>,
    /// The port on the router.
    pub(crate) external_port: u16,
    /// The granted lease; `None` without end, and while it is not open.
    pub(crate) lease: Option<Duration>,
    /// When it is tried again after a failure; `None` where only a changed configuration helps.
    pub(crate) retry_at: Option<Instant>,
    /// How often it was opened where nothing was; a renewal does not count.
    pub(crate) times_opened: u32,
}

/// What is known of one opening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OpeningState {
    /// No router is known yet, or it is being asked.
    Searching,
    /// It is open.
    Open {
        /// The protocol by which it was opened.
        via: RouterProtocol,
        /// The router granted it and does not show it, although routers of this protocol can.
        unverified: bool,
    },
    /// Another machine has the port; `None` where the router does not report which one.
    Conflict(Option<Holder>),
    /// The router refuses it, with these words.
    Denied(String),
    /// It does not work, for this reason.
    Failed(String),
}

impl OpeningStatus {
    /// The status of a lease, on a router with this protocol and external address.
    pub(super) fn of(lease: &Lease, via: Option<RouterProtocol>, external: Option<IpAddr>) -> Self {
        let key = &lease.want().key;
        let (mut reached, mut granted, mut retry_at) = (None, None, None);
        let state = match (lease.state(), via) {
            (State::Open(open), Some(via)) if open.settled => {
                (reached, granted) = (key.pinhole.map(IpAddr::V6).or(external), open.lease);
                let can_show = via == RouterProtocol::Upnp && key.pinhole.is_none();
                OpeningState::Open { via, unverified: can_show && !lease.is_shown() }
            }
            (State::Conflict(holder), Some(_)) => OpeningState::Conflict(holder.clone()),
            (State::Denied(error), Some(_)) => OpeningState::Denied(error.clone()),
            (State::Failed(error), Some(_)) => {
                retry_at = Some(lease.due());
                OpeningState::Failed(error.clone())
            }
            _ => OpeningState::Searching,
        };
        Self {
            key: key.clone(),
            mapping: lease.want().mapping.clone(),
            state,
            external: reached,
            external_port: lease.external_port().get(),
            lease: granted,
            retry_at,
            times_opened: lease.times_opened(),
        }
    }

    /// The status of a listener that cannot be open at all.
    pub(super) fn unfit(unfit: &Unfit) -> Self {
        Self {
            key: unfit.key.clone(),
            mapping: unfit.mapping.clone(),
            state: OpeningState::Failed(unfit.reason.to_owned()),
            external: None,
            external_port: unfit.key.listener.addr.port.get(),
            lease: None,
            retry_at: None,
            times_opened: 0,
        }
    }
}
