//! The pool of a mapping: which of its targets a session goes to.
//!
//! Owns, for each target and protocol, the sessions that it has, whether it is on hold after a
//! failure, whether it is paused, and how the turns stand. A mapping keeps its pool over reloads,
//! with the state of the targets that stay.
//!
//! [`Pool::order`] gives the targets in the order in which they are tried. First come those that
//! work, by the rule of the mapping ([`rank`](mod@rank)), then the backups that work. A target on
//! hold comes last: it is skipped while another is left. So a wrong hold costs time, never a
//! session. A paused target is not tried at all.
//!
//! A mapping with one target and no key that concerns it has nothing to choose. Then the pool costs
//! one atomic load. Otherwise the lock is held for as long as it takes to look at each target.

mod member;
mod rank;
mod record;

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub(crate) use member::{Member, Place};

use super::{OnDown, Selection, Targets};
use crate::{
    handover::lenient,
    mapping::{Protocol, TargetAddr},
};
use member::MemberRecord;
use rank::{Candidate, rank};

/// The pool of one mapping.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    state: Mutex<State>,
    /// Whether also a single target has to be looked at.
    is_strict: AtomicBool,
}

/// Leads a listener to the pool of its mapping. A change takes hold with the next session.
#[derive(Clone, Debug, Default)]
pub(crate) struct PoolHandle(Arc<ArcSwap<Pool>>);

/// What the pool knows.
#[derive(Debug, Default)]
struct State {
    selection: Selection,
    /// Names lead to lists of their own.
    is_named: bool,
    /// Targets that take no new sessions.
    paused: HashSet<TargetAddr>,
    /// The members of each protocol.
    members: [HashMap<TargetAddr, Arc<Member>>; 2],
    /// The lists that sessions were spread over, of each protocol.
    groups: [HashMap<Targets, Group>; 2],
    /// How the turns stood in an earlier process, until sessions are spread over that list.
    turns: [HashMap<Vec<TargetAddr>, Vec<i64>>; 2],
}

/// A list of targets, and whose turn is next.
#[derive(Debug)]
struct Group {
    members: Vec<Arc<Member>>,
    turns: Vec<i64>,
}

/// What a pool hands over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PoolRecord {
    #[serde(deserialize_with = "lenient::each")]
    paused: Vec<TargetAddr>,
    #[serde(deserialize_with = "lenient::each")]
    members: Vec<(Protocol, TargetAddr, MemberRecord)>,
    #[serde(deserialize_with = "lenient::each")]
    turns: Vec<(Protocol, Vec<TargetAddr>, Vec<i64>)>,
}

/// How much a target is worth to a session that comes; the first is best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    Ready,
    ReadyBackup,
    Held,
    HeldBackup,
}

impl PoolHandle {
    /// Leads to `pool`.
    pub(crate) fn new(pool: &Arc<Pool>) -> Self {
        Self(Arc::new(ArcSwap::new(Arc::clone(pool))))
    }

    /// Leads to another pool from now on.
    pub(crate) fn join(&self, pool: &Arc<Pool>) {
        if !Arc::ptr_eq(&self.0.load(), pool) {
            self.0.store(Arc::clone(pool));
        }
    }

    /// The pool of this moment.
    pub(crate) fn current(&self) -> Arc<Pool> {
        self.0.load_full()
    }
}

impl Pool {
    /// A pool that chooses as `selection` says.
    pub(crate) fn new(selection: &Selection) -> Self {
        let pool = Self::default();
        pool.state().selection = selection.clone();
        pool.note_strictness(&pool.state());
        pool
    }

    /// Takes a plan: how targets are chosen, which there are, and whether names lead to them. What
    /// is known of the targets that stay is kept.
    pub(crate) fn retune(&self, selection: &Selection, lists: &[(Protocol, &Targets)], is_named: bool) {
        let mut state = self.state();
        state.selection = selection.clone();
        state.is_named = is_named;
        if state.members.iter().any(|members| !members.is_empty()) || !state.paused.is_empty() {
            let mut known = [HashSet::new(), HashSet::new()];
            let mut kept = [HashSet::new(), HashSet::new()];
            for (protocol, targets) in lists {
                known[*protocol as usize].insert(*targets);
                kept[*protocol as usize].extend(targets.iter());
            }
            let State { paused, members, groups, .. } = &mut *state;
            for protocol in [0, 1] {
                groups[protocol].retain(|targets, _| known[protocol].contains(targets));
                members[protocol].retain(|addr, _| kept[protocol].contains(addr));
            }
            paused.retain(|addr| kept.iter().any(|kept| kept.contains(addr)));
            if selection.health.is_none() {
                members.iter().flat_map(HashMap::values).for_each(|member| member.is_not_probed());
            }
        }
        self.note_strictness(&state);
    }

    /// The targets in the order in which they are tried. The session has a place at the first one.
    pub(crate) fn order<'t>(&self, protocol: Protocol, targets: &'t Targets, client: IpAddr) -> Order<'t> {
        if targets.is_single() && !self.is_strict.load(Relaxed) {
            return Order::Single(Some(targets.first()));
        }
        let now = Instant::now();
        let mut state = self.state();
        let State { selection, paused, members, groups, turns, .. } = &mut *state;
        let protocol = protocol as usize;
        let group = match groups[protocol].entry(targets.clone()) {
            Entry::Occupied(group) => group.into_mut(),
            Entry::Vacant(place) => {
                let group = place.insert(Group::new(targets, &mut members[protocol], paused));
                record::take_turns_over(&mut turns[protocol], targets, &mut group.turns);
                group
            }
        };
        let mut seats: Vec<(Tier, Candidate)> = Vec::with_capacity(group.members.len());
        let mut places: Vec<&'t TargetAddr> = Vec::with_capacity(group.members.len());
        for (at, (target, member)) in targets.all().zip(&group.members).enumerate() {
            places.push(&target.addr);
            let standing = member.state(now);
            let tier = match (standing.is_held, target.backup) {
                _ if standing.is_paused => continue,
                (false, false) => Tier::Ready,
                (false, true) => Tier::ReadyBackup,
                (true, false) => Tier::Held,
                (true, true) => Tier::HeldBackup,
            };
            let weight = i64::from(target.weight.get()) * standing.share(selection.slow_start, now);
            let candidate = Candidate { at, weight, sessions: member.sessions(), seed: member.seed };
            seats.push((tier, candidate));
        }
        let order = in_tiers(seats, |tier, before| {
            // Only the target that gets the session has its turn.
            if before == 0 {
                rank(selection.balance, tier, &mut group.turns, client);
            } else {
                rank(selection.balance, tier, &mut group.turns.clone(), client);
            }
        });
        let mut all = order.into_iter().map(|at| (places[at], Arc::clone(&group.members[at])));
        let first = all.next().map(|(target, member)| {
            member.tried(now);
            (target, Place::at(&member))
        });
        Order::Several { first, rest: all.collect::<Vec<_>>().into_iter() }
    }

    /// What is known of a target; `None` before it was first looked at.
    pub(crate) fn member(&self, protocol: Protocol, target: &TargetAddr) -> Option<Arc<Member>> {
        self.state().members[protocol as usize].get(target).cloned()
    }

    /// A target of the mapping, from now on known.
    pub(crate) fn member_of(&self, protocol: Protocol, target: &TargetAddr) -> Arc<Member> {
        let State { members, paused, .. } = &mut *self.state();
        member(&mut members[protocol as usize], target, paused)
    }

    /// A place at a target of the mapping, for a session that another process has led there.
    pub(crate) fn take_place(&self, protocol: Protocol, target: &TargetAddr) -> Place {
        Place::at(&self.member_of(protocol, target))
    }

    /// Pauses a target, or resumes it.
    pub(crate) fn pause(&self, target: &TargetAddr, is_paused: bool) {
        let mut state = self.state();
        if is_paused {
            state.paused.insert(target.clone());
        } else {
            state.paused.remove(target);
        }
        for member in state.members.iter().filter_map(|members| members.get(target)) {
            member.pause(is_paused);
        }
        self.note_strictness(&state);
    }

    /// Whether a target is paused.
    pub(crate) fn is_paused(&self, target: &TargetAddr) -> bool {
        self.is_strict.load(Relaxed) && self.state().paused.contains(target)
    }

    fn note_strictness(&self, state: &State) {
        let Selection { health, on_down, .. } = &state.selection;
        let is_strict =
            health.is_some() || *on_down == OnDown::Close || state.is_named || !state.paused.is_empty();
        self.is_strict.store(is_strict, Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The candidates of each tier, each tier ranked: their places in the list.
fn in_tiers(mut seats: Vec<(Tier, Candidate)>, mut rank: impl FnMut(&mut [Candidate], usize)) -> Vec<usize> {
    seats.sort_by_key(|(tier, _)| *tier);
    let mut order = Vec::with_capacity(seats.len());
    let mut seats = seats.into_iter().peekable();
    while let Some((tier, first)) = seats.next() {
        let mut equal = vec![first];
        while let Some((_, next)) = seats.next_if(|(next, _)| *next == tier) {
            equal.push(next);
        }
        rank(&mut equal, order.len());
        order.extend(equal.iter().map(|candidate| candidate.at));
    }
    order
}

/// The member with this address, which is made where it is not there yet.
fn member(
    members: &mut HashMap<TargetAddr, Arc<Member>>,
    addr: &TargetAddr,
    paused: &HashSet<TargetAddr>,
) -> Arc<Member> {
    let new = || Arc::new(Member::new(addr.clone(), paused.contains(addr)));
    Arc::clone(members.entry(addr.clone()).or_insert_with(new))
}

impl Group {
    fn new(
        targets: &Targets,
        members: &mut HashMap<TargetAddr, Arc<Member>>,
        paused: &HashSet<TargetAddr>,
    ) -> Self {
        let members: Vec<_> = targets.iter().map(|addr| member(members, addr, paused)).collect();
        Self { turns: vec![0; members.len()], members }
    }
}

/// The targets that a session tries, one after the other. It has a place at the one that it tries.
#[derive(Debug)]
pub(crate) enum Order<'t> {
    /// There is no choice.
    Single(Option<&'t TargetAddr>),
    /// The best one comes first.
    Several {
        /// The first one, with a place.
        first: Option<(&'t TargetAddr, Place)>,
        /// The others.
        rest: std::vec::IntoIter<(&'t TargetAddr, Arc<Member>)>,
    },
}

impl<'t> Iterator for Order<'t> {
    type Item = (&'t TargetAddr, Place);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Single(target) => Some((target.take()?, Place::default())),
            Self::Several { first, rest } => first.take().or_else(|| {
                let (target, member) = rest.next()?;
                Some((target, Place::at(&member)))
            }),
        }
    }
}

#[cfg(test)]
mod tests;
