//! Which flow a datagram belongs to, and when a flow has been idle for too long: the UDP relay's
//! decisions, without its sockets.
//!
//! Owns the flows of one listener by client and by the address the client hit, the datagrams held
//! for a flow whose target is not known yet, and the one deadline that the shell has to wait for.
//! It reads no clock (`now` is an argument), touches no socket, spawns nothing, and knows no more
//! of a flow than a handle `T` that the shell gave it.
//!
//! ```text
//!            datagram                     take_early: nothing held any more
//! (no flow) ──────────► connecting: holds ─────────────────────────────────────► open ──► expire │ remove
//!                          └─ remove (and, where nothing could be reached, no new flow for a while)
//! ```
//!
//! Invariants, checked at every step of the simulation in the tests:
//! - A client (at one local address) has at most one flow, and a flow one handle for its whole
//!   life.
//! - A datagram that is dropped or refused allocates nothing and keeps no permit.
//! - A client is asked for its admission once for each flow, after everything else that could keep
//!   it out.
//! - At a cap, a settled flow (see `activity`) ends in favour of a new one: the client's own
//!   oldest, or, where the cap is for all clients, the oldest of all. No other flow ends before its
//!   deadline.
//! - A datagram is held only after its client's rate has let it through, as any other.
//! - A flow that is connecting never expires; its time begins when it is open. Either direction
//!   renews it, by the timeout of its state.
//! - What is held leaves in the order in which it came, before anything later is
//!   [`Verdict::Known`].
//! - No flow outlives its deadline once [`FlowTable::expire`] was called after it, and none expires
//!   before it (`expiry`).

mod expiry;
mod handed;
mod terms;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::IpAddr,
    time::{Duration, Instant},
};

use expiry::Due;
use foldhash::quality::RandomState;
use slab::Slab;
pub(super) use terms::{Arrival, Early, FlowId, FlowKey, Shape, Silent, Verdict};

use super::{
    activity::{Activity, Settled},
    budget::{FlowBudget, FlowPermit},
    drops::DropReason,
};
use crate::{
    mapping::{ClientKey, Timeout},
    policy::Refusal,
};

/// The datagrams held for one connecting flow.
const EARLY_DATAGRAMS: usize = 16;
/// The bytes held for one connecting flow, unless a single datagram has more.
const EARLY_BYTES: usize = 64 * 1024;
/// The bytes held for all connecting flows of a listener.
const EARLY_BYTES_OF_ALL: usize = 4 * 1024 * 1024;
/// A table that had room for more flows than this gives the memory back when the last one ends.
const KEPT_CAPACITY: usize = 1024;

/// The flows of one listener.
#[derive(Debug)]
pub(super) struct FlowTable<T> {
    flows: Slab<Flow<T>>,
    /// By random numbers of this table: strangers choose the keys, and see no hash.
    by_key: HashMap<FlowKey, usize, RandomState>,
    due: BinaryHeap<Reverse<Due>>,
    /// The flows that were settled, and are brief still. Some may have an open question by now.
    settled: Settled,
    budget: FlowBudget,
    idle: Timeout,
    next_serial: u64,
    /// The first flow that was started under the present tuning.
    tuned_at: u64,
    /// The bytes held for all connecting flows.
    held: usize,
    /// No new flow before this moment: none of the targets could be reached.
    hold_off: Option<Instant>,
    draining: bool,
    /// The deadline that the shell waits for.
    armed: Option<Instant>,
}

#[derive(Debug)]
struct Flow<T> {
    key: FlowKey,
    owner: ClientKey,
    serial: u64,
    handle: T,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Connecting {
        held: Vec<Vec<u8>>,
        bytes: usize,
        /// Datagrams that were held and have been sent.
        sent: u32,
    },
    Open {
        activity: Activity,
        /// When it has been idle for too long; `None` is never.
        deadline: Option<Instant>,
        /// Where its valid entry in the heap stands.
        queued: Option<Instant>,
        /// It stands among the settled ones.
        is_listed: bool,
    },
}

impl<T> FlowTable<T> {
    /// A table without flows.
    pub(super) fn new(idle: Timeout, budget: FlowBudget) -> Self {
        Self {
            flows: Slab::new(),
            by_key: HashMap::default(),
            due: BinaryHeap::new(),
            settled: Settled::default(),
            budget,
            idle,
            next_serial: 0,
            tuned_at: 0,
            held: 0,
            hold_off: None,
            draining: false,
            armed: None,
        }
    }

    /// Decides on a client's datagram. One that would start a flow needs its client to be admitted
    /// by `admit`, one that would be held for a connecting flow to be let through by `pass`;
    /// `enter` makes the handle of the flow.
    ///
    /// Before it refuses for a cap, `admit` can ask for the end of a settled flow. The table
    /// removes one and hands it to `give_way`, which has to give its places back at once.
    pub(super) fn datagram<P>(
        &mut self,
        Arrival { key, client, payload, count, now }: Arrival<'_>,
        admit: impl FnOnce(&mut dyn FnMut(Refusal) -> bool) -> Result<P, Refusal>,
        pass: impl FnOnce() -> Result<(), Refusal>,
        mut give_way: impl FnMut(T),
        enter: impl FnOnce(FlowPermit, P) -> T,
    ) -> Verdict<'_, T> {
        if let Some(&slot) = self.by_key.get(&key) {
            return self.datagram_of(slot, payload, count, now, pass);
        }
        if self.draining {
            return Verdict::Dropped(DropReason::Draining);
        }
        if self.hold_off.is_some_and(|until| now < until) {
            return Verdict::Dropped(DropReason::Unreachable);
        }
        if self.held + payload.len() > EARLY_BYTES_OF_ALL {
            return Verdict::Dropped(DropReason::EarlyLimit);
        }
        // Before the client is asked for: what its admission takes of its rates is not given back.
        let taken = self.budget.take().or_else(|| {
            // A place that is given back may be taken by another listener: then there is none, as
            // before.
            self.make_way(client, true, &mut give_way).then(|| self.budget.take()).flatten()
        });
        let Some(permit) = taken else {
            return Verdict::Dropped(DropReason::FlowLimit);
        };
        let mut make_way = |refusal| match refusal {
            Refusal::ClientFull => self.make_way(client, false, &mut give_way),
            Refusal::Full => self.make_way(client, true, &mut give_way),
            _ => false,
        };
        let admitted = match admit(&mut make_way) {
            Ok(admitted) => admitted,
            Err(refusal) => return Verdict::Refused(refusal),
        };
        let serial = self.next_serial;
        self.next_serial += 1;
        self.held += payload.len();
        let phase = Phase::Connecting { held: vec![payload.to_vec()], bytes: payload.len(), sent: 0 };
        let owner = ClientKey::of(client);
        let slot = self.flows.insert(Flow { key, owner, serial, handle: enter(permit, admitted), phase });
        self.by_key.insert(key, slot);
        Verdict::New(FlowId { slot, serial }, &self.flows[slot].handle)
    }

    /// How many flows there are.
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    /// Every flow.
    pub(super) fn all(&self) -> impl Iterator<Item = &T> {
        self.flows.iter().map(|(_, flow)| &flow.handle)
    }

    /// The flow of a client, where there is one.
    pub(super) fn find(&self, key: &FlowKey) -> Option<&T> {
        self.by_key.get(key).map(|slot| &self.flows[*slot].handle)
    }

    /// Ends the oldest settled flow of the client or, with `or_anyone`, else the oldest of all.
    /// Whether there was one.
    fn make_way(&mut self, client: IpAddr, or_anyone: bool, give_way: &mut impl FnMut(T)) -> bool {
        loop {
            let own = self.settled.oldest_of(ClientKey::of(client));
            let Some(slot) = own.or_else(|| self.settled.oldest().filter(|_| or_anyone)) else {
                return false;
            };
            if matches!(&self.flows[slot].phase, Phase::Open { activity, .. } if activity.is_settled()) {
                give_way(self.take(slot).0);
                return true;
            }
            // Its next answer lists it again: each answer pays for one flow that is looked at.
            self.list(slot, false);
        }
    }

    /// Enters a flow among the settled ones, or removes it.
    fn list(&mut self, slot: usize, on: bool) {
        let Flow { owner, serial, phase: Phase::Open { is_listed, .. }, .. } = &mut self.flows[slot] else {
            return;
        };
        if std::mem::replace(is_listed, on) != on {
            match on {
                true => self.settled.insert(*owner, *serial, slot),
                false => self.settled.remove(*owner, *serial, slot),
            }
        }
    }

    fn datagram_of(
        &mut self,
        slot: usize,
        payload: &[u8],
        count: usize,
        now: Instant,
        pass: impl FnOnce() -> Result<(), Refusal>,
    ) -> Verdict<'_, T> {
        if let Phase::Connecting { held, bytes, .. } = &mut self.flows[slot].phase {
            let fits = held.len() < EARLY_DATAGRAMS
                && (held.is_empty() || *bytes + payload.len() <= EARLY_BYTES)
                && self.held + payload.len() <= EARLY_BYTES_OF_ALL;
            if !fits {
                return Verdict::Dropped(DropReason::EarlyLimit);
            }
            if let Err(refusal) = pass() {
                return Verdict::Refused(refusal);
            }
            held.push(payload.to_vec());
            *bytes += payload.len();
            self.held += payload.len();
            return Verdict::Held;
        }
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let mut silent = false;
        self.renew(slot, now, |activity| silent = activity.ask(count, now));
        Verdict::Known(&self.flows[slot].handle, Silent(silent))
    }

    /// Notes that the target sent so many datagrams for the flow.
    pub(super) fn reply(&mut self, id: FlowId, count: usize, now: Instant) {
        if self.is_live(id) {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            self.renew(id.slot, now, |activity| activity.answer(count, now));
        }
    }

    /// Takes what is held for a flow whose target is connected, or opens the flow when nothing is.
    pub(super) fn take_early(&mut self, id: FlowId, now: Instant) -> Early {
        if !self.is_live(id) {
            return Early::Gone;
        }
        let Phase::Connecting { held, bytes, sent } = &mut self.flows[id.slot].phase else {
            return Early::Open;
        };
        if !held.is_empty() {
            self.held -= std::mem::take(bytes);
            *sent = sent.saturating_add(u32::try_from(held.len()).unwrap_or(u32::MAX));
            return Early::Send(std::mem::take(held));
        }
        let activity = Activity::new(*sent, now);
        self.flows[id.slot].phase = Phase::Open { activity, deadline: None, queued: None, is_listed: false };
        self.renew(id.slot, now, |_| {});
        Early::Open
    }

    /// Notes that no target could be reached for the flow, and starts no other flow for `hold_off`.
    /// The next client's flow could not reach one either, and a try for each datagram would cost
    /// more than it helps. A flow from before the last [`FlowTable::retune`] does not count,
    /// because the targets may be others now.
    pub(super) fn unreachable(&mut self, id: FlowId, now: Instant, hold_off: Duration) {
        if id.serial >= self.tuned_at {
            self.hold_off = now.checked_add(hold_off);
        }
    }

    /// Removes a flow that ended: its handle, and how many datagrams were still held for it.
    pub(super) fn remove(&mut self, id: FlowId) -> Option<(T, usize)> {
        self.is_live(id).then(|| self.take(id.slot))
    }

    /// Takes another idle timeout, which holds for a flow from its next datagram on, and forgets
    /// what could not be reached: the targets may be others now.
    pub(super) fn retune(&mut self, idle: Timeout) {
        self.idle = idle;
        self.hold_off = None;
        self.tuned_at = self.next_serial;
    }

    /// Takes no new flows from now on; those that are there go on.
    pub(super) fn drain(&mut self) {
        self.draining = true;
    }

    fn is_live(&self, id: FlowId) -> bool {
        self.flows.get(id.slot).is_some_and(|flow| flow.serial == id.serial)
    }

    /// Notes what has passed through an open flow, and moves its deadline.
    fn renew(&mut self, slot: usize, now: Instant, pass: impl FnOnce(&mut Activity)) {
        let Phase::Open { activity, is_listed, .. } = &mut self.flows[slot].phase else { return };
        pass(activity);
        let deadline = activity.linger(self.idle).and_then(|linger| now.checked_add(linger));
        // A flow with an open question stays listed: to remove it and to enter it again with the
        // answer would cost more than everything else here.
        if activity.is_settled() && !*is_listed {
            self.list(slot, true);
        } else if *is_listed && activity.is_assured() {
            self.list(slot, false);
        }
        self.set_deadline(slot, deadline);
    }

    fn take(&mut self, slot: usize) -> (T, usize) {
        let flow = self.flows.remove(slot);
        self.by_key.remove(&flow.key);
        let held = match flow.phase {
            Phase::Connecting { held, bytes, .. } => {
                self.held -= bytes;
                held.len()
            }
            Phase::Open { is_listed, .. } => {
                if is_listed {
                    self.settled.remove(flow.owner, flow.serial, slot);
                }
                0
            }
        };
        self.sweep();
        if self.flows.is_empty() && self.flows.capacity() > KEPT_CAPACITY {
            self.flows.shrink_to_fit();
            self.by_key.shrink_to_fit();
            self.due = BinaryHeap::new();
        }
        (flow.handle, held)
    }
}

#[cfg(test)]
mod tests;
