//! Where connections lead: to the targets of the mapping, or by the name that the client wants.

use std::sync::Arc;

use crate::{
    mapping::TargetAddr,
    policy::PartAccess,
    preface::{Match, hosts::HostTable, proxy::SendProxy},
    targets::Targets,
    wake::WakeSpec,
};

/// Where the connections of a listener lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// All of them to these targets.
    Targets(Targets),
    /// Each by the name that the client wants.
    Names(Arc<Names>),
}

impl Route {
    /// The targets that need no name: those of the mapping.
    pub(crate) fn targets(&self) -> Option<&Targets> {
        match self {
            Self::Targets(targets) => Some(targets),
            Self::Names(names) => names.otherwise.as_ref(),
        }
    }

    /// What starts the targets of its host names, where these have something of their own.
    pub(crate) fn wakes(&self) -> impl Iterator<Item = &WakeSpec> {
        let hosts = match self {
            Self::Targets(_) => None,
            Self::Names(names) => Some(names.hosts.values()),
        };
        hosts.into_iter().flatten().filter_map(|host| host.wake.as_deref())
    }

    /// Every list of targets, that of the mapping first.
    pub(crate) fn lists(&self) -> impl Iterator<Item = &Targets> {
        let hosts = match self {
            Self::Targets(_) => None,
            Self::Names(names) => Some(names.hosts.values().map(|host| &host.targets)),
        };
        self.targets().into_iter().chain(hosts.into_iter().flatten())
    }

    /// Every target, those of the mapping first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &TargetAddr> {
        self.lists().flat_map(Targets::iter)
    }
}

/// The names on one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// Where the client says the name.
    pub by: Match,
    /// The targets of each name.
    pub hosts: Arc<HostTable<HostRoute>>,
    /// The targets of every other name; without them such a client is closed.
    pub otherwise: Option<Targets>,
    /// What players are told while no target is up.
    pub asleep: Option<Arc<Asleep>>,
}

/// What a name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostRoute {
    /// The targets.
    pub targets: Targets,
    /// The clients that may come to it, besides what the mapping says of them.
    pub access: PartAccess,
    /// The PROXY header for its targets; `None` as the mapping says.
    pub send_proxy: Option<SendProxy>,
    /// What starts its target; `None` as the mapping says.
    pub wake: Option<Arc<WakeSpec>>,
}

/// What players are told while no target is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asleep {
    /// The text in the list of servers, and of the disconnect.
    pub motd: Arc<str>,
    /// Players that are on, and the most that may be.
    pub players: (u32, u32),
}
