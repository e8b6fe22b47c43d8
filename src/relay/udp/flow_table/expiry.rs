//! When a flow has been idle for too long.
//!
//! Expiry is lazy. A flow stands in the heap once, at some moment not after its deadline; a
//! datagram only moves the deadline in the flow itself. When the moment comes, a flow that was
//! touched since goes back in at its new deadline: one heap operation for each flow and timeout,
//! none for a datagram. Only a deadline that moved *forward* (a reload shortened the timeout) is
//! entered at once, and the entry it supersedes is ignored when it comes up.

use std::{cmp::Reverse, time::Instant};

use super::{FlowId, FlowTable, Phase};

/// Heap entries that may be out of date before they are swept out, beside one for each flow.
pub(super) const STALE_ENTRIES: usize = 64;

/// An entry of the heap: look at this flow at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    pub(super) at: Instant,
    pub(super) slot: usize,
    pub(super) serial: u64,
}

impl<T> FlowTable<T> {
    /// Removes every flow that has been idle for too long, and hands each to `expired`. One for
    /// which `has_news` holds was not idle: the shell only has not told yet.
    pub(in crate::relay::udp) fn expire(
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
    pub(in crate::relay::udp) fn arm(&mut self) -> Option<Instant> {
        self.armed = self.due.peek().map(|due| due.0.at);
        self.armed
    }

    /// Whether the shell waits too long, and has to [`FlowTable::arm`] again.
    pub(in crate::relay::udp) fn is_armed_late(&self) -> bool {
        match (self.due.peek(), self.armed) {
            (Some(due), Some(armed)) => due.0.at < armed,
            (due, None) => due.is_some(),
            (None, Some(_)) => false,
        }
    }

    pub(super) fn set_deadline(&mut self, slot: usize, to: Option<Instant>) {
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
    pub(super) fn sweep(&mut self) {
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
}
