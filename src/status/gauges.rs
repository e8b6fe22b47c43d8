//! The numbers that only metrics show.

use std::{collections::BTreeMap, time::SystemTime};

use super::Board;
use crate::{mapping::Protocol, meter::Totals, policy::False, relay::udp::DropReason};

/// The numbers that only metrics show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gauges {
    /// As many TCP sessions as there may be.
    pub(crate) sessions_limit: u64,
    /// As many UDP flows as there may be.
    pub(crate) flows_limit: u64,
    /// Whether the last reload was applied; the start counts.
    pub(crate) reload_successful: bool,
    /// When a configuration was last applied.
    pub(crate) reload_success: SystemTime,
    /// When the daemon started.
    pub(crate) started: SystemTime,
    /// How often clients touched a decoy.
    pub(crate) trap_touches: u64,
    /// The memory of the process; 0 where the system does not say.
    pub(crate) resident_bytes: u64,
}

impl Board {
    /// The numbers that only metrics show.
    pub(crate) fn gauges(&self) -> Gauges {
        let last = self.last_reload.borrow();
        let resident = procfs::process::Process::myself().and_then(|me| me.statm());
        Gauges {
            sessions_limit: self.budgets.sessions().limit as u64,
            flows_limit: self.budgets.flows().limit as u64,
            reload_successful: last.as_ref().is_none_or(|last| last.is_applied()),
            reload_success: last.as_ref().and_then(|last| last.applied).unwrap_or(self.facts.started),
            started: self.facts.started,
            trap_touches: self.gate.guard().trap_touches(),
            resident_bytes: resident.map_or(0, |pages| pages.resident * procfs::page_size()),
        }
    }

    /// Knocks by what became of them.
    pub(crate) fn knocks(&self) -> Vec<(&'static str, u64)> {
        let knocks = self.gate.knocks();
        let falses = knocks.falses().map(|(why, count): (False, u64)| (why.as_str(), count));
        std::iter::once(("accepted", knocks.accepted())).chain(falses).collect()
    }

    /// Datagrams of clients that were dropped, by mapping and reason. A listener that closes takes
    /// its number along.
    pub(crate) fn dropped(&self) -> BTreeMap<(String, &'static str), u64> {
        let (roster, mut dropped) = (self.roster(), BTreeMap::new());
        for listener in &roster.listeners {
            let (Some(id), Some(drops)) = (&listener.mapping, &listener.drops) else { continue };
            // A closed listener stays for its sessions, after its mapping has gone.
            if !roster.plan.about.contains_key(id) {
                continue;
            }
            for reason in DropReason::ALL {
                *dropped.entry((id.name.to_string(), reason.as_str())).or_default() += drops.count(reason);
            }
        }
        dropped
    }

    /// The totals of each mapping by protocol, in the order of their names, for the protocols that
    /// the mapping has listeners of.
    pub(crate) fn totals(&self) -> Vec<(String, Protocol, Totals)> {
        let (roster, all) = (self.roster(), self.totals.borrow());
        let mut totals = Vec::new();
        for (id, of_mapping) in all.iter() {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let read = of_mapping.read(protocol);
                let mut listeners = roster.listeners.iter().filter(|l| l.key.protocol == protocol);
                if read.sessions > 0 || listeners.any(|listener| listener.mapping.as_ref() == Some(id)) {
                    totals.push((id.name.to_string(), protocol, read));
                }
            }
        }
        totals
    }
}
