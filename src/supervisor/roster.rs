//! What a reader outside sees of the supervisor: the plan and every listener.
//!
//! A [`Roster`] is a value of read ends. The supervisor sends another one when a listener or the
//! plan changes, and not when a session does: live sessions are in each listener's meter.

use std::sync::Arc;

use crate::{
    config::{Plan, PlanDiff, Problem},
    mapping::{ListenerKey, MappingId, MappingName, Protocol},
    meter::{Ended, ListenerMeter},
    relay::udp::UdpDrops,
};

/// The most entries of a list in [`Changes`].
pub(super) const MOST_LISTED: usize = 1000;

/// The plan that is applied, and its listeners.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roster {
    /// The plan.
    pub(crate) plan: Arc<Plan>,
    /// Its listeners by key, and then the closed ones that may still have sessions.
    pub(crate) listeners: Vec<ListenerRecord>,
    /// The warnings of its configuration.
    pub(crate) warnings: Arc<[Problem]>,
    /// The daemon stops: nothing listens any more.
    pub(crate) is_stopping: bool,
}

/// A listener, as others may see it.
#[derive(Clone, Debug)]
pub(crate) struct ListenerRecord {
    /// The socket that it needs.
    pub(crate) key: ListenerKey,
    /// The mapping that it belongs to; `None` for a decoy.
    pub(crate) mapping: Option<MappingId>,
    /// What it does.
    pub(crate) state: Serving,
    /// Its sessions and totals.
    pub(crate) meter: Arc<ListenerMeter>,
    /// Its count of datagrams that were not forwarded; `None` with TCP.
    pub(crate) drops: Option<Arc<UdpDrops>>,
}

impl ListenerRecord {
    /// Whether its mapping has this name, or the listener itself.
    pub(crate) fn has_name(&self, name: &MappingName) -> bool {
        self.mapping.as_ref().is_some_and(|id| id.name == *name) || self.meter.mapping() == *name
    }
}

/// What a listener does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Serving {
    /// It takes clients.
    Listening,
    /// It has no socket yet. It is tried every second.
    Waiting(Trouble),
    /// Its socket died. It is tried every second.
    Failed(Trouble),
    /// It takes no more clients, and its sessions may go on.
    Closing,
}

/// Why a listener has no socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// The cause and the cure.
    pub(crate) error: String,
    /// The program that has the port, where that is known.
    pub(crate) holder: Option<String>,
    /// Another program has the port.
    pub(crate) is_taken: bool,
}

/// What a plan changes, by listener. Each list has the first thousand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Listeners that open.
    pub(crate) opened: Vec<(MappingName, ListenerKey)>,
    /// Listeners that close.
    pub(crate) closed: Vec<(MappingName, ListenerKey)>,
    /// Listeners that change in place.
    pub(crate) changed: Vec<(MappingName, ListenerKey)>,
    /// Listeners that open in the place of others that overlap.
    pub(crate) replaced: Vec<(MappingName, ListenerKey)>,
    /// The live sessions that end with their listener, when the grace is over.
    pub(crate) cut: Vec<u64>,
    /// How many these are.
    pub(crate) cut_count: usize,
}

impl Changes {
    /// The changes of `diff` between two plans. `live` has the meters of the listeners.
    pub(super) fn of<'l>(
        diff: &PlanDiff,
        old: &Plan,
        new: &Plan,
        live: impl Fn(&ListenerKey) -> Option<&'l Arc<ListenerMeter>>,
    ) -> Self {
        let closing = diff.replace.iter().flat_map(|group| &group.close);
        // TCP sessions of a replaced listener stay with their mapping. Flows need the socket.
        let stays = |key: &ListenerKey| {
            let name = old.listeners.get(key).map(|listener| &listener.name);
            key.protocol == Protocol::Tcp
                && new.listeners.iter().any(|(k, l)| k.protocol == Protocol::Tcp && Some(&l.name) == name)
        };
        let ending = diff.close.iter().chain(closing.clone().filter(|key| !stays(key)));
        let mut cut: Vec<u64> = Vec::new();
        for meter in ending.filter_map(live) {
            cut.extend(meter.live().iter().map(|session| session.id));
        }
        cut.sort_unstable();
        let cut_count = cut.len();
        cut.truncate(MOST_LISTED);
        Self {
            opened: named(new, diff.open.iter()),
            closed: named(old, diff.close.iter().chain(closing)),
            changed: named(new, diff.retune.iter()),
            replaced: named(new, diff.replace.iter().flat_map(|group| &group.open)),
            cut,
            cut_count,
        }
    }
}

fn named<'k>(plan: &Plan, keys: impl Iterator<Item = &'k ListenerKey>) -> Vec<(MappingName, ListenerKey)> {
    let name = |key: &ListenerKey| Some((plan.listeners.get(key)?.name.clone(), key.clone()));
    keys.filter_map(name).take(MOST_LISTED).collect()
}

/// Which sessions are meant; every condition holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionFilter {
    /// These numbers; all where empty.
    pub(crate) ids: Vec<u64>,
    /// Sessions of this mapping.
    pub(crate) mapping: Option<MappingName>,
    /// Sessions of this client: an address, or a network.
    pub(crate) client: Option<ipnet::IpNet>,
}

impl SessionFilter {
    /// Whether it leaves nothing out.
    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.mapping.is_none() && self.client.is_none()
    }

    /// Whether sessions of this listener can be meant.
    pub(crate) fn takes_listener(&self, listener: &ListenerRecord) -> bool {
        self.mapping.as_ref().is_none_or(|name| listener.has_name(name))
    }

    /// Whether it means this session, whose listener it takes.
    pub(crate) fn takes(&self, session: &crate::meter::LiveSession) -> bool {
        (self.ids.is_empty() || self.ids.contains(&session.id))
            && self.client.is_none_or(|net| net.contains(&session.client.ip()))
    }
}

impl Roster {
    /// Ends the sessions that `which` means. Returns how many these are.
    pub(super) fn close_sessions(&self, which: &SessionFilter) -> usize {
        let listeners = self.listeners.iter().filter(|listener| which.takes_listener(listener));
        let sessions = listeners.flat_map(|listener| listener.meter.live());
        // One that was asked before and has not ended yet is not counted again.
        sessions.filter(|session| which.takes(session) && session.cut(Ended::ClosedByOperator)).count()
    }
}
