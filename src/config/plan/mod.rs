//! The plan: every promise of the configuration, by mapping and by the socket that it needs.
//!
//! Both parts are maps. So two listeners for one socket cannot be written down, and the difference
//! of two plans is a difference of sets. Every listener names its mapping by [`MappingId`], and
//! that mapping is in the same plan.

pub(super) mod about;
pub(super) mod diff;

use std::{collections::BTreeMap, sync::Arc};

use about::About;

use crate::{
    mapping::{Exposure, ListenerKey, MappingId, MappingName, TargetAddr},
    meter::SessionLines,
    policy::Policy,
    preface::proxy::SendProxy,
    relay::{
        tcp::{Route, TcpSpec},
        udp::UdpSpec,
    },
    targets::{Selection, Targets},
    wake::WakeSpec,
};

/// Everything that should run.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The mappings.
    pub(crate) mappings: BTreeMap<MappingId, MappingPlan>,
    /// Their listeners, and the decoys.
    pub(crate) listeners: BTreeMap<ListenerKey, ListenerPlan>,
    /// What is known of the mappings, also of those that are closed.
    pub(crate) about: Arc<BTreeMap<MappingId, About>>,
}

/// Two plans are the same where the same runs. Where it stands does not matter.
impl PartialEq for Plan {
    fn eq(&self, other: &Self) -> bool {
        (&self.mappings, &self.listeners) == (&other.mappings, &other.listeners)
    }
}

impl Eq for Plan {}

impl Plan {
    /// What starts targets, with the name that a session's mapping is shown by.
    pub(crate) fn wakes(&self) -> impl Iterator<Item = (&MappingName, &WakeSpec)> {
        self.listeners.values().flat_map(ListenerPlan::wakes)
    }

    /// The mapping of a listener of this plan; `None` for a decoy.
    pub(crate) fn mapping_of(&self, listener: &ListenerPlan) -> Option<&MappingPlan> {
        self.mappings.get(listener.mapping.as_ref()?)
    }
}

/// What the listeners of one mapping share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MappingPlan {
    /// The rules for its clients.
    pub policy: Arc<Policy>,
    /// The sessions that get a line in the log.
    pub log: SessionLines,
    /// How its targets are chosen.
    pub selection: Selection,
}

/// What one listener promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListenerPlan {
    /// The mapping that it belongs to; a decoy has none, nor has a port of knocks.
    pub mapping: Option<MappingId>,
    /// The name that is shown: that of the mapping, or the default name of this listener.
    pub name: MappingName,
    /// What it does with what arrives.
    pub service: Service,
    /// How it should be reachable through the home router; `None` keeps it closed there.
    pub exposure: Option<Exposure>,
}

impl ListenerPlan {
    fn wakes(&self) -> impl Iterator<Item = (&MappingName, &WakeSpec)> {
        self.service.wakes().map(|spec| (&self.name, spec))
    }
}

/// What a listener does, by protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Relays connections.
    Tcp(TcpSpec),
    /// Relays datagrams.
    Udp(UdpSpec),
    /// A decoy: a client that connects is banned.
    Trap,
    /// The port of knocks.
    Knock,
    /// A port of the sequence that opens.
    Step,
}

impl Service {
    /// The targets of clients that say no name; a decoy leads nowhere.
    pub(crate) fn targets(&self) -> Option<&Targets> {
        match self {
            Self::Tcp(spec) => spec.route.targets(),
            Self::Udp(spec) => Some(&spec.targets),
            Self::Trap | Self::Knock | Self::Step => None,
        }
    }

    /// Whether its targets see the client's own address.
    pub(crate) fn is_transparent(&self) -> bool {
        match self {
            Self::Tcp(spec) => spec.options.transparent,
            Self::Udp(spec) => spec.options.transparent,
            Self::Trap | Self::Knock | Self::Step => false,
        }
    }

    /// Whether the name that a client asks for decides where it leads.
    pub(crate) fn leads_by_names(&self) -> bool {
        matches!(self, Self::Tcp(TcpSpec { route: Route::Names(_), .. }))
    }

    /// The host names that clients ask for, without the star of a wildcard.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let names = match self {
            Self::Tcp(TcpSpec { route: Route::Names(names), .. }) => Some(names.hosts.iter()),
            _ => None,
        };
        names.into_iter().flatten().map(|(name, _)| name.trim_start_matches("*."))
    }

    /// What starts its targets, those of its host names too.
    fn wakes(&self) -> impl Iterator<Item = &WakeSpec> {
        let (named, plain) = match self {
            Self::Tcp(spec) => (Some(spec.route.wakes()), spec.options.wake.as_deref()),
            Self::Udp(spec) => (None, spec.options.wake.as_deref()),
            Self::Trap | Self::Knock | Self::Step => (None, None),
        };
        named.into_iter().flatten().chain(plain)
    }

    /// Every list of targets with the PROXY header that they get, where the mapping says
    /// `of_mapping`.
    pub(crate) fn target_lists_with_proxy(
        &self,
        of_mapping: SendProxy,
    ) -> impl Iterator<Item = (&Targets, SendProxy)> {
        let of_names = match self {
            Self::Tcp(TcpSpec { route: Route::Names(names), .. }) => Some(names.hosts.values()),
            _ => None,
        };
        let of_names = of_names.into_iter().flatten();
        let of_names = of_names.map(move |host| (&host.targets, host.send_proxy.unwrap_or(of_mapping)));
        self.targets().map(|targets| (targets, of_mapping)).into_iter().chain(of_names)
    }

    /// Every list of targets, those of its host names too.
    pub(crate) fn target_lists(&self) -> impl Iterator<Item = &Targets> {
        let (named, plain) = match self {
            Self::Tcp(spec) => (Some(spec.route.lists()), None),
            Self::Udp(spec) => (None, Some(&spec.targets)),
            Self::Trap | Self::Knock | Self::Step => (None, None),
        };
        named.into_iter().flatten().chain(plain)
    }

    /// Every target, those of its host names too.
    pub(crate) fn all_targets(&self) -> impl Iterator<Item = &TargetAddr> {
        let (named, plain) = match self {
            Self::Tcp(spec) => (Some(spec.route.all()), None),
            Self::Udp(spec) => (None, Some(spec.targets.iter())),
            Self::Trap | Self::Knock | Self::Step => (None, None),
        };
        named.into_iter().flatten().chain(plain.into_iter().flatten())
    }
}
