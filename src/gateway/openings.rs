//! All openings on one router: which is next, and what one means for another.
//!
//! Pure: time is an argument, and nothing is sent from here. Owns every [`Lease`], those that are
//! wanted and those on their way out, and what was learnt about the router. Invariants: at most one
//! request is under way; between two that change something lies [`BETWEEN_WRITES`]; a place on the
//! router is not asked for while an earlier opening of ours at the same place is still on its way
//! out; what may be open because of us is in [`Openings::record`] before the request is sent.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use fastrand::Rng;
use tokio::time::Instant;

use super::{
    RouterSettings,
    lease::{Answer, Call, Context, Habits, Lease, Mark, State},
    want::{Key, Want},
};

/// The least time between two requests that change something: small routers fail under load.
const BETWEEN_WRITES: Duration = Duration::from_secs(1);
/// How many former addresses of this machine are remembered.
const MOST_FORMERS: usize = 16;

/// Which lease a request belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// One that is wanted.
    Wanted(Key),
    /// One on its way out, by its place in the queue.
    Leaving(usize),
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// This request, now.
    Call(Slot, Call),
    /// Nothing before then.
    Wait(Instant),
    /// Nothing at all.
    Rest,
}

/// What is known of an opening that may be there, as it is kept over a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OpeningRecord {
    /// What it is for.
    pub(super) want: Want,
    /// How it is found and taken back.
    pub(super) mark: Mark,
    /// When it ends by itself.
    pub(super) ends: Option<Instant>,
}

/// What is known of one router, as it is kept over a restart.
#[derive(Debug, Default)]
pub(super) struct RouterRecord {
    pub(super) openings: Vec<OpeningRecord>,
    pub(super) habits: Habits,
    /// Addresses that this machine had before.
    pub(super) formers: Vec<IpAddr>,
}

/// All openings on one router.
#[derive(Debug, Default)]
pub(super) struct Openings {
    wanted: BTreeMap<Key, Lease>,
    leaving: Vec<Lease>,
    departed: Vec<Lease>,
    habits: Habits,
    formers: Vec<IpAddr>,
    last_write: Option<Instant>,
    /// The lease whose last answer led to a request that must follow at once.
    hot: Option<Slot>,
    rng: Rng,
}

impl Openings {
    /// None yet.
    pub(super) fn new(rng: Rng) -> Self {
        Self { rng, ..Self::default() }
    }

    /// Starts on another router, or on the first, with what is known of it from before. What is
    /// still wanted there is taken over; the rest of it is taken back.
    pub(super) fn move_to(&mut self, known: RouterRecord, now: Instant) {
        self.leaving.clear();
        self.hot = None;
        (self.habits, self.formers) = (known.habits, known.formers);
        for lease in self.wanted.values_mut() {
            *lease = Lease::wanted(lease.want().clone(), now);
        }
        for OpeningRecord { want, mark, ends } in known.openings {
            if ends.is_some_and(|ends| ends <= now) {
                continue;
            }
            match self.wanted.get_mut(&want.key) {
                Some(lease)
                    if lease.want().internal == want.internal
                        && lease.want().external_port == want.external_port =>
                {
                    *lease = Lease::adopted(lease.want().clone(), mark, now);
                }
                _ => {
                    let lease = Lease::adopted(want, mark, now);
                    self.send_off(lease, now);
                }
            }
        }
        self.forget_own_formers();
    }

    /// Takes a lease out, and what it may have left on the router back.
    fn send_off(&mut self, mut lease: Lease, now: Instant) {
        self.remember_former(lease.want().internal.ip());
        lease.leave(now);
        if !matches!(lease.state(), State::Gone(_)) {
            self.leaving.push(lease);
        }
    }

    /// Sets what is to be open. What stays is not touched.
    pub(super) fn retarget(&mut self, mut wants: BTreeMap<Key, Want>, now: Instant) {
        let changed = self.wanted.iter().filter(|(key, lease)| wants.get(key) != Some(lease.want()));
        let changed: Vec<Key> = changed.map(|(key, _)| key.clone()).collect();
        for key in changed {
            if let Some(lease) = self.wanted.remove(&key) {
                self.send_off(lease, now);
            }
        }
        wants.retain(|key, _| !self.wanted.contains_key(key));
        for (key, want) in wants {
            self.wanted.insert(key, Lease::wanted(want, now));
        }
        self.hot = None;
        self.forget_own_formers();
    }

    /// What is to be done next.
    pub(super) fn next(&mut self, now: Instant, settings: &RouterSettings) -> Next {
        self.wanted.values_mut().for_each(|lease| lease.lapse(now));
        let hot = self.hot.take().filter(|slot| self.due(slot, now).is_some_and(|at| at <= now));
        let Some((at, slot)) = hot.map(|slot| (now, slot)).or_else(|| self.soonest(now)) else {
            return Next::Rest;
        };
        if at > now {
            return Next::Wait(at);
        }
        let habits = self.habits;
        match self.lease(&slot) {
            Some(lease) => Next::Call(slot, lease.call(settings, habits)),
            None => Next::Rest,
        }
    }

    fn soonest(&self, now: Instant) -> Option<(Instant, Slot)> {
        let leaving = self.leaving.iter().enumerate();
        let leaving = leaving.map(|(nth, lease)| (self.due_of(lease, now), nth)).min_by_key(|(at, _)| *at);
        let free = self.wanted.iter().filter(|(_, lease)| !self.is_blocked(lease));
        let wanted = free.map(|(key, lease)| (self.due_of(lease, now), key)).min_by_key(|(at, _)| *at);
        match (leaving, wanted) {
            (Some((first, nth)), wanted) if wanted.is_none_or(|(then, _)| first <= then) => {
                Some((first, Slot::Leaving(nth)))
            }
            (_, wanted) => wanted.map(|(at, key)| (at, Slot::Wanted(key.clone()))),
        }
    }

    /// When the request of a lease may be sent; never, while it waits for another that is on its
    /// way out.
    fn due(&self, slot: &Slot, now: Instant) -> Option<Instant> {
        let lease = match slot {
            Slot::Wanted(key) => self.wanted.get(key).filter(|lease| !self.is_blocked(lease)),
            Slot::Leaving(nth) => self.leaving.get(*nth),
        }?;
        Some(self.due_of(lease, now))
    }

    fn due_of(&self, lease: &Lease, now: Instant) -> Instant {
        let free = self.last_write.filter(|_| lease.leads_to_write()).map(|last| last + BETWEEN_WRITES);
        // What is overdue is served in the order in which it became due.
        free.filter(|free| *free > now).map_or(lease.due(), |free| lease.due().max(free))
    }

    fn is_blocked(&self, lease: &Lease) -> bool {
        let same_place = |other: &Lease| {
            other.want().protocol() == lease.want().protocol()
                && other.external_port() == lease.external_port()
                && other.want().key.pinhole == lease.want().key.pinhole
        };
        self.leaving.iter().any(same_place)
    }

    /// Notes that the request of this slot is about to be sent.
    pub(super) fn sending(&mut self, slot: &Slot, call: &Call, now: Instant) {
        if call.is_write() {
            self.last_write = Some(now);
        }
        if let Some(lease) = self.lease(slot) {
            lease.sending();
        }
    }

    /// Takes the answer to the request of this slot.
    pub(super) fn answered(
        &mut self,
        slot: Slot,
        call: &Call,
        answer: Answer,
        now: Instant,
        settings: &RouterSettings,
    ) {
        if call.is_write() {
            self.last_write = Some(now);
        }
        let took_back = matches!(call, Call::Close(_)) && answer.is_ok();
        let Self { wanted, leaving, habits, formers, rng, .. } = self;
        let mut cx = Context { now, settings, habits, formers, rng };
        let lease = match &slot {
            Slot::Wanted(key) => wanted.get_mut(key),
            Slot::Leaving(nth) => leaving.get_mut(*nth),
        };
        let Some(lease) = lease else { return };
        lease.answered(answer, &mut cx);
        let want = lease.want().clone();
        if let (State::Gone(_), Slot::Leaving(nth)) = (lease.state(), &slot) {
            self.departed.push(leaving.remove(*nth));
            self.hot = None;
        } else {
            self.hot = Some(slot);
        }
        if took_back {
            self.renovate_siblings(&want, now);
        }
    }

    /// Closing TCP also closes UDP on some routers, and the reverse, if both lead to the same
    /// address and port. They still list what they closed, so the other protocol is closed and
    /// opened again.
    fn renovate_siblings(&mut self, closed: &Want, now: Instant) {
        if closed.key.pinhole.is_some() {
            return;
        }
        let siblings = self.wanted.values_mut().filter(|lease| {
            lease.want().internal == closed.internal && lease.want().protocol() != closed.protocol()
        });
        siblings.for_each(|lease| lease.renovate(now));
    }

    /// The router may have forgotten everything: each is looked at, or renewed, at once.
    pub(super) fn doubt(&mut self, now: Instant) {
        self.wanted.values_mut().for_each(|lease| lease.doubt(now));
    }

    /// The router restarted: requests that it refused are sent again.
    pub(super) fn try_again(&mut self, now: Instant) {
        self.wanted.values_mut().for_each(|lease| lease.try_again(now));
    }

    /// Everything that may be open because of us, and what was learnt about the router, for the
    /// state file.
    pub(super) fn record(&self) -> RouterRecord {
        let all = self.wanted.values().chain(&self.leaving).filter(|lease| lease.is_touched());
        let record = |lease: &Lease| {
            let ends = match lease.state() {
                State::Open(open) => open.ends,
                _ => None,
            };
            OpeningRecord { want: lease.want().clone(), mark: lease.mark().clone(), ends }
        };
        RouterRecord {
            openings: all.map(record).collect(),
            habits: self.habits,
            formers: self.formers.clone(),
        }
    }

    /// What was learnt about the router.
    pub(super) fn habits(&self) -> Habits {
        self.habits
    }

    /// The leases that have ended since the last call.
    pub(super) fn departed(&mut self) -> Vec<Lease> {
        std::mem::take(&mut self.departed)
    }

    /// Every lease that is wanted.
    pub(super) fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.wanted.values()
    }

    /// Whether nothing is open and nothing is wanted.
    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.leaving.is_empty()
    }

    /// Every lease that has something to take back, on its way out: to take all of it back at once,
    /// from outside. It is still known here, until [`leave_behind`](Self::leave_behind).
    pub(super) fn parting(&self, now: Instant) -> Vec<Lease> {
        let all = self.wanted.values().chain(&self.leaving).filter(|lease| lease.is_touched());
        let mut all: Vec<Lease> = all.cloned().collect();
        all.iter_mut().for_each(|lease| lease.leave(now));
        all
    }

    /// Nothing is wanted any more, and this is all that could not be taken back.
    pub(super) fn leave_behind(&mut self, left: Vec<Lease>) {
        self.wanted.clear();
        self.leaving = left;
        self.hot = None;
    }

    fn lease(&mut self, slot: &Slot) -> Option<&mut Lease> {
        match slot {
            Slot::Wanted(key) => self.wanted.get_mut(key),
            Slot::Leaving(nth) => self.leaving.get_mut(*nth),
        }
    }

    fn remember_former(&mut self, ip: IpAddr) {
        if !self.formers.contains(&ip) {
            if self.formers.len() == MOST_FORMERS {
                self.formers.remove(0);
            }
            self.formers.push(ip);
        }
    }

    /// An address that we have is none that we had.
    fn forget_own_formers(&mut self) {
        let Self { formers, wanted, .. } = self;
        formers.retain(|ip| !wanted.values().any(|lease| lease.want().internal.ip() == *ip));
    }
}

#[cfg(test)]
mod tests;
