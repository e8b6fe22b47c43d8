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
//!   before it.
//!
//! Expiry is lazy. A flow stands in the heap once, at some moment not after its deadline; a
//! datagram only moves the deadline in the flow itself. When the moment comes, a flow that was
//! touched since goes back in at its new deadline: one heap operation for each flow and timeout,
//! none for a datagram. Only a deadline that moved *forward* (a reload shortened the timeout) is
//! entered at once, and the entry it supersedes is ignored when it comes up.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use slab::Slab;

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
/// Heap entries that may be out of date before they are swept out, beside one for each flow.
const STALE_ENTRIES: usize = 64;
/// A table that had room for more flows than this gives the memory back when the last one ends.
const KEPT_CAPACITY: usize = 1024;

/// What makes two datagrams belong to one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FlowKey {
    /// Where the client's datagrams come from, as the socket reports it.
    pub(super) client: SocketAddr,
    /// The address the client sent them to, which replies leave from. `None` when the system has to
    /// choose.
    pub(super) local: Option<IpAddr>,
}

/// What has come from a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival<'a> {
    /// Whose it is.
    pub(super) key: FlowKey,
    /// The client that a new flow counts for: another one than that of the key behind a proxy.
    pub(super) client: IpAddr,
    /// The first datagram.
    pub(super) payload: &'a [u8],
    /// How many datagrams there are, with the first. An open flow takes them all at once; else each
    /// is decided on by itself.
    pub(super) count: usize,
    /// When.
    pub(super) now: Instant,
}

/// One flow. Never reused: an event that comes too late names no flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlowId {
    slot: usize,
    serial: u64,
}

impl FlowId {
    /// The order in which flows began.
    pub(super) fn serial(self) -> u64 {
        self.serial
    }
}

/// How far a flow is: what goes with it to another table.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// Its target is not connected yet: the datagrams that are held, and how many were sent.
    Connecting { held: Vec<Vec<u8>>, sent: u32 },
    /// It is open. Without a deadline it never expires.
    Open { activity: Activity, deadline: Option<Instant> },
}

/// What becomes of a client's datagram.
#[derive(Debug)]
pub(super) enum Verdict<'a, T> {
    /// Its flow is open: forward it. The target may be silent: several datagrams had no answer.
    Known(&'a T, Silent),
    /// It started a flow, which holds it: open the flow.
    New(FlowId, &'a T),
    /// Its flow is connecting and holds it.
    Held,
    /// It is not forwarded.
    Dropped(DropReason),
    /// Its client may not enter, or not send so many.
    Refused(Refusal),
}

/// Whether a flow's target does not answer; told at most once in a few seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Silent(pub(super) bool);

/// What a connecting flow has to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Early {
    /// Send these, in this order, and ask again.
    Send(Vec<Vec<u8>>),
    /// Nothing is left: the flow is open from now on.
    Open,
    /// The flow does not exist any more.
    Gone,
}

/// The flows of one listener.
#[derive(Debug)]
pub(super) struct FlowTable<T> {
    flows: Slab<Flow<T>>,
    by_key: HashMap<FlowKey, usize>,
    due: BinaryHeap<Reverse<Due>>,
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
    },
}

/// An entry of the heap: look at this flow at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Instant,
    slot: usize,
    serial: u64,
}

impl<T> FlowTable<T> {
    /// A table without flows.
    pub(super) fn new(idle: Timeout, budget: FlowBudget) -> Self {
        Self {
            flows: Slab::new(),
            by_key: HashMap::new(),
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

    /// How far each flow is.
    #[cfg(test)]
    pub(super) fn all_shapes(&self) -> impl Iterator<Item = Shape> {
        let id = |(slot, flow): (usize, &Flow<T>)| FlowId { slot, serial: flow.serial };
        self.flows.iter().filter_map(move |flow| self.shape(id(flow)))
    }

    /// How far a flow is.
    pub(super) fn shape(&self, id: FlowId) -> Option<Shape> {
        let flow = self.flows.get(id.slot).filter(|flow| flow.serial == id.serial)?;
        Some(match &flow.phase {
            Phase::Connecting { held, sent, .. } => Shape::Connecting { held: held.clone(), sent: *sent },
            Phase::Open { activity, deadline, .. } => {
                Shape::Open { activity: activity.clone(), deadline: *deadline }
            }
        })
    }

    /// Enters a flow of `client` that another table had. What it holds may be more than a flow of
    /// this table could.
    ///
    /// # Errors
    /// The handle, where the key has a flow.
    pub(super) fn enter(
        &mut self,
        key: FlowKey,
        client: IpAddr,
        handle: T,
        shape: Shape,
    ) -> Result<FlowId, T> {
        if self.by_key.contains_key(&key) {
            return Err(handle);
        }
        let (owner, serial) = (ClientKey::of(client), self.next_serial);
        self.next_serial += 1;
        let mut due_at = None;
        let phase = match shape {
            Shape::Connecting { held, sent } => {
                let bytes = held.iter().map(Vec::len).sum();
                self.held += bytes;
                Phase::Connecting { held, bytes, sent }
            }
            Shape::Open { activity, deadline } => {
                due_at = deadline;
                Phase::Open { activity, deadline: None, queued: None }
            }
        };
        let is_settled = matches!(&phase, Phase::Open { activity, .. } if activity.is_settled());
        let slot = self.flows.insert(Flow { key, owner, serial, handle, phase });
        self.by_key.insert(key, slot);
        if is_settled {
            self.settled.insert(owner, serial, slot);
        }
        self.set_deadline(slot, due_at);
        Ok(FlowId { slot, serial })
    }

    /// The flow of a client, where there is one.
    pub(super) fn find(&self, key: &FlowKey) -> Option<&T> {
        self.by_key.get(key).map(|slot| &self.flows[*slot].handle)
    }

    /// Ends the oldest settled flow of the client or, with `or_anyone`, else the oldest of all.
    /// Whether there was one.
    fn make_way(&mut self, client: IpAddr, or_anyone: bool, give_way: &mut impl FnMut(T)) -> bool {
        let own = self.settled.oldest_of(ClientKey::of(client));
        let Some(slot) = own.or_else(|| self.settled.oldest().filter(|_| or_anyone)) else { return false };
        give_way(self.take(slot).0);
        true
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
        self.flows[id.slot].phase = Phase::Open { activity, deadline: None, queued: None };
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

    /// Removes every flow that has been idle for too long, and hands each to `expired`. One for
    /// which `has_news` holds was not idle: the shell only has not told yet.
    pub(super) fn expire(
        &mut self,
        now: Instant,
        mut has_news: impl FnMut(&T) -> bool,
        mut expired: impl FnMut(T),
    ) {
        while let Some(&Reverse(due)) = self.due.peek().filter(|due| due.0.at <= now) {
            self.due.pop();
            if !self.is_live(FlowId { slot: due.slot, serial: due.serial }) {
                continue;
            }
            let Phase::Open { deadline, queued, .. } = &mut self.flows[due.slot].phase else { continue };
            if *queued != Some(due.at) {
                continue;
            }
            match *deadline {
                Some(at) if at <= now => {
                    *queued = None;
                    if has_news(&self.flows[due.slot].handle) {
                        self.renew(due.slot, now, |_| {});
                    } else {
                        expired(self.take(due.slot).0);
                    }
                }
                Some(at) => {
                    *queued = Some(at);
                    self.due.push(Reverse(Due { at, ..due }));
                }
                None => *queued = None,
            }
        }
    }

    /// The moment at which [`FlowTable::expire`] wants to be called, if any; noted as what the
    /// shell waits for.
    pub(super) fn arm(&mut self) -> Option<Instant> {
        self.armed = self.due.peek().map(|due| due.0.at);
        self.armed
    }

    /// Whether the shell waits too long, and has to [`FlowTable::arm`] again.
    pub(super) fn is_armed_late(&self) -> bool {
        match (self.due.peek(), self.armed) {
            (Some(due), Some(armed)) => due.0.at < armed,
            (due, None) => due.is_some(),
            (None, Some(_)) => false,
        }
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
        let Flow { owner, serial, phase: Phase::Open { activity, .. }, .. } = &mut self.flows[slot] else {
            return;
        };
        let was_settled = activity.is_settled();
        pass(activity);
        let deadline = activity.linger(self.idle).and_then(|linger| now.checked_add(linger));
        if activity.is_settled() != was_settled {
            if was_settled {
                self.settled.remove(*owner, *serial, slot);
            } else {
                self.settled.insert(*owner, *serial, slot);
            }
        }
        self.set_deadline(slot, deadline);
    }

    fn set_deadline(&mut self, slot: usize, to: Option<Instant>) {
        let flow = &mut self.flows[slot];
        let Phase::Open { deadline, queued, .. } = &mut flow.phase else { return };
        *deadline = to;
        let Some(at) = to else { return };
        if queued.is_none_or(|queued| at < queued) {
            *queued = Some(at);
            self.due.push(Reverse(Due { at, slot, serial: flow.serial }));
            self.sweep();
        }
    }

    /// Drops the heap entries of flows that ended by other means, when they are many: a long
    /// timeout would keep them for hours.
    fn sweep(&mut self) {
        if self.due.len() <= 2 * self.flows.len() + STALE_ENTRIES {
            return;
        }
        let flows = &self.flows;
        self.due.retain(|Reverse(due)| {
            flows.get(due.slot).is_some_and(|flow| {
                let here = matches!(flow.phase, Phase::Open { queued, .. } if queued == Some(due.at));
                here && flow.serial == due.serial
            })
        });
    }

    fn take(&mut self, slot: usize) -> (T, usize) {
        let flow = self.flows.remove(slot);
        self.by_key.remove(&flow.key);
        let held = match flow.phase {
            Phase::Connecting { held, bytes, .. } => {
                self.held -= bytes;
                held.len()
            }
            Phase::Open { activity, .. } => {
                if activity.is_settled() {
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
