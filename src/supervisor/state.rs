//! What the mappings know, for the next process: the part of a hand-over that is neither a socket
//! nor a session.
//!
//! It goes in two parts. What can be large, and may be a moment old, goes *ahead* of the freeze:
//! bans, rates, pools, lookups, events. What has to be exact goes at the *freeze*, when no session
//! runs: totals, refusals, knocks, what was started, the last numbers, and what has changed since
//! the first part. Both are one type, and the next process takes each over as it comes, before it
//! serves.
//!
//! Each part of the program makes its own record and takes it over. A record of a mapping that the
//! next process does not have is left out, and so is whatever cannot be read. Taking over never
//! fails.
//!
//! Not handed over, on purpose:
//! - The places of sessions (caps, budgets, pools): each session takes its own again.
//! - What listens, and which sockets wait: the next process knows.
//! - The budgets of log lines, and the sums of session lines that were left out: this process still
//!   tells these when it ends.
//! - The shares of networks in a crowd (`policy::rate`), as a secret decides on them.
//! - Clients that are refused in silence: they hear nothing from this process until it ends.
//! - For how long no UDP flow is tried after one could not be opened: a second at most.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Handle;
use crate::{
    events::{Events, EventsRecord},
    handover::lenient,
    mapping::{MappingId, Protocol},
    meter::AccountRecord,
    policy::{GuardRecord, KnockSnapshot, RatesRecord, RefusalsRecord},
    targets::{DialerRecord, PoolRecord},
    wake::WakeRecord,
};

/// What the mappings know, or a part of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SupervisorState {
    /// Bans, and refusals that have not earned one yet.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::some")]
    guard: Option<GuardRecord>,
    /// Grants, and the knocks that were taken.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::some")]
    knocks: Option<KnockSnapshot>,
    /// The change of the guard that it has; not for the next process.
    #[serde(skip)]
    guard_change: u64,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "lenient::each")]
    rates: Vec<(MappingId, RatesRecord)>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "lenient::each")]
    refusals: Vec<(MappingId, RefusalsRecord)>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "lenient::each")]
    totals: Vec<(MappingId, Protocol, AccountRecord)>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "lenient::each")]
    pools: Vec<(MappingId, PoolRecord)>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::some")]
    dialer: Option<DialerRecord>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::some")]
    started: Option<WakeRecord>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::some")]
    events: Option<EventsRecord>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::some")]
    last_session: Option<u64>,
}

impl SupervisorState {
    /// The part that goes ahead of the freeze.
    pub(crate) fn ahead(handle: &Handle, events: &Events) -> Self {
        let now = Instant::now();
        let guard = handle.gate.guard();
        let guard_change = *guard.changes().borrow();
        let pools = handle.pools.borrow().clone();
        let pools = pools.into_iter().map(|(id, pool)| (id, pool.snapshot(now)));
        Self {
            guard: Some(guard.hand_over(now)),
            guard_change,
            rates: rates(handle, now),
            pools: pools.filter(|(_, pool)| !pool.is_empty()).collect(),
            dialer: Some(handle.dialer.snapshot(now)),
            events: Some(events.snapshot(0)),
            last_session: Some(handle.ledger.last_id()),
            ..Self::default()
        }
    }

    /// The part that goes at the freeze; `ahead` has gone before. Without one, this is all of it.
    pub(crate) fn at_freeze(handle: &Handle, events: &Events, ahead: Option<&Self>) -> Self {
        let now = Instant::now();
        let whole = || Self::ahead(handle, events);
        let mut state = ahead.map_or_else(whole, |ahead| {
            let guard = handle.gate.guard();
            let has_changed = *guard.changes().borrow() != ahead.guard_change;
            let told = ahead.events.as_ref().map_or(0, |events| events.last);
            Self {
                guard: has_changed.then(|| guard.hand_over(now)),
                events: Some(events.snapshot(told)),
                last_session: Some(handle.ledger.last_id()),
                ..Self::default()
            }
        });
        let admissions = handle.admissions.borrow().clone();
        let refusals = admissions.into_iter().map(|(id, admission)| (id, admission.refusals_so_far()));
        state.refusals = refusals.filter(|(_, refusals)| !refusals.is_empty()).collect();
        for (id, totals) in handle.totals.borrow().clone() {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let account = totals.record(protocol);
                if account != AccountRecord::default() {
                    state.totals.push((id.clone(), protocol, account));
                }
            }
        }
        state.knocks = Some(handle.gate.knocks().snapshot(now));
        state.started = Some(handle.wakers.snapshot(now));
        state
    }

    /// Whether it has bans.
    pub(crate) fn has_bans(&self) -> bool {
        self.guard.is_some()
    }

    /// Takes over what another process has handed over. It belongs before the first client. What it
    /// started is left for the moment when this process serves.
    pub(crate) fn take_over(self, handle: &Handle, events: &Events) -> Started {
        let now = Instant::now();
        if let Some(guard) = self.guard {
            handle.gate.guard().take_over(guard, now);
        }
        if let Some(knocks) = self.knocks {
            handle.gate.knocks().restore(knocks, now);
        }
        let admissions = handle.admissions.borrow().clone();
        each_known(&admissions, &self.rates, |admission, rates| admission.take_over_rates(rates, now));
        each_known(&admissions, &self.refusals, |admission, refusals| admission.take_over_refusals(refusals));
        let pools = handle.pools.borrow().clone();
        each_known(&pools, &self.pools, |pool, record| pool.take_over(record, now));
        let all = handle.totals.borrow().clone();
        for (id, protocol, account) in &self.totals {
            match find(&all, id) {
                Some(totals) => totals.take_over(*protocol, account),
                None => left_out(id),
            }
        }
        if let Some(dialer) = &self.dialer {
            handle.dialer.take_over(dialer, now);
        }
        if let Some(record) = &self.events {
            events.take_over(record);
        }
        if let Some(last) = self.last_session.filter(|last| *last < u64::MAX / 2) {
            handle.ledger.raise_last_id(last);
        }
        Started(self.started)
    }
}

/// What another process started. Both would stop it, if this one went on with it too early.
#[derive(Debug)]
#[must_use = "what was started would never be stopped"]
pub(crate) struct Started(Option<WakeRecord>);

impl Started {
    /// Goes on with it, inside the runtime's context: this process serves now.
    pub(crate) fn go_on(self, handle: &Handle) {
        if let Some(started) = self.0 {
            handle.wakers.take_over(started, handle.roster.borrow().plan.wakes());
        }
    }
}

fn rates(handle: &Handle, now: Instant) -> Vec<(MappingId, RatesRecord)> {
    let admissions = handle.admissions.borrow().clone();
    let rates = admissions.into_iter().map(|(id, admission)| (id, admission.rates(now)));
    rates.filter(|(_, rates)| *rates != RatesRecord::default()).collect()
}

/// Hands each record to the part of its mapping.
fn each_known<P, R>(all: &[(MappingId, P)], records: &[(MappingId, R)], mut take: impl FnMut(&P, &R)) {
    for (id, record) in records {
        match find(all, id) {
            Some(part) => take(part, record),
            None => left_out(id),
        }
    }
}

/// The part of a mapping; all are in the order of the mappings.
fn find<'a, P>(all: &'a [(MappingId, P)], id: &MappingId) -> Option<&'a P> {
    let at = all.binary_search_by(|(known, _)| known.cmp(id)).ok()?;
    Some(&all[at].1)
}

fn left_out(mapping: &MappingId) {
    tracing::debug!(%mapping, "state of a mapping that is not there was handed over");
}

#[cfg(test)]
mod tests;
