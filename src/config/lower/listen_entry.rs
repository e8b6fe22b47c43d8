//! One `listen` entry or publish spec after the grammar: ports of an address that lead to targets.

use std::{
    num::NonZeroU16,
    sync::{Arc, OnceLock},
};

use crate::{
    config::text::Span,
    mapping::{
        Protocol, TargetAddr,
        publish::{ListenSpec, Protocols, TargetSpec},
    },
    policy::AccessSpec,
    preface::{Match, hosts::HostTable, proxy::SendProxy},
    relay::tcp::{Asleep, HostRoute},
    targets::Target,
    wake::WakeSpec,
};

/// Ports of an address that lead to targets.
pub(crate) struct ListenEntry {
    pub(crate) listen: ListenSpec,
    pub(crate) span: Span,
    pub(crate) protocols: Protocols,
    /// Shared by all entries of a mapping. A decoy has none, and so may a mapping with names.
    pub(crate) targets: Arc<[TargetEntry]>,
    /// Where TCP clients lead by the name that they want. Shared, too.
    pub(crate) names: Option<Arc<NamesEntry>>,
}

/// A target, and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct TargetEntry {
    pub(crate) spec: TargetSpec,
    pub(crate) span: Span,
    pub(crate) weight: NonZeroU16,
    pub(crate) backup: bool,
}

/// The names on a port.
pub(crate) struct NamesEntry {
    pub(crate) by: Match,
    pub(crate) hosts: Vec<HostEntry>,
    pub(crate) asleep: Option<Arc<Asleep>>,
    /// Where the names lead, where that is the same for every port.
    pub(crate) shared: OnceLock<Arc<HostTable<HostRoute>>>,
}

/// A name, and where it leads.
pub(crate) struct HostEntry {
    pub(crate) name: String,
    pub(crate) targets: Vec<TargetEntry>,
    pub(crate) access: AccessSpec,
    pub(crate) send_proxy: Option<SendProxy>,
    pub(crate) wake: Option<Arc<WakeSpec>>,
}

impl ListenEntry {
    /// The targets of a protocol: those of the mapping, then those of its names.
    pub(crate) fn leads(&self, protocol: Protocol) -> impl Iterator<Item = &TargetEntry> {
        let names = self.names.as_deref().filter(|_| protocol == Protocol::Tcp);
        self.targets.iter().chain(names.into_iter().flat_map(NamesEntry::targets))
    }

    /// Every target.
    pub(crate) fn all(&self) -> impl Iterator<Item = &TargetEntry> {
        let protocol = if self.protocols.has_tcp() { Protocol::Tcp } else { Protocol::Udp };
        self.leads(protocol)
    }

    /// The address of a target for one of the listen ports.
    pub(crate) fn addr_of(&self, target: &TargetEntry, port: NonZeroU16) -> TargetAddr {
        target.spec.counterpart(self.listen.ports, port)
    }

    /// The target for one of the listen ports.
    pub(crate) fn target(&self, target: &TargetEntry, port: NonZeroU16) -> Target {
        let TargetEntry { weight, backup, .. } = *target;
        Target { addr: self.addr_of(target, port), weight, backup }
    }
}

impl NamesEntry {
    /// The targets of every name.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &TargetEntry> {
        self.hosts.iter().flat_map(|host| &host.targets)
    }
}
