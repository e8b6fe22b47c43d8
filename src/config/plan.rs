//! The plan: every promise of the configuration, keyed by the socket it needs.
//!
//! [`Plan`] is a map, so two listeners for one socket cannot be written down, and the difference of two plans is a
//! difference of sets.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    mapping::{Exposure, ListenerKey, MappingName},
    meter::SessionLines,
    policy::Policy,
    relay::{tcp::TcpSpec, udp::UdpSpec},
    targets::Targets,
};

/// What one listener promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerPlan {
    /// The mapping it belongs to; several listeners may share one.
    pub mapping: MappingName,
    /// What it does with what arrives.
    pub service: Service,
    /// Who may enter; the listeners of one mapping share it.
    pub policy: Arc<Policy>,
    /// Which sessions get a line in the log; the same for all listeners of one mapping.
    pub log: SessionLines,
    /// Whether it shall be open on the home router.
    pub exposure: Option<Exposure>,
}

/// What a listener does, by protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// Relays connections.
    Tcp(TcpSpec),
    /// Relays datagrams.
    Udp(UdpSpec),
    /// A decoy: whoever connects is banned.
    Trap,
}

impl Service {
    /// Where it leads; a decoy leads nowhere.
    pub fn targets(&self) -> Option<&Targets> {
        match self {
            Self::Tcp(spec) => Some(&spec.targets),
            Self::Udp(spec) => Some(&spec.targets),
            Self::Trap => None,
        }
    }
}

/// Every listener that shall run.
pub(crate) type Plan = BTreeMap<ListenerKey, ListenerPlan>;
