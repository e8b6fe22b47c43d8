//! Sessions and totals that go from one process to the next.
//!
//! Owns their records. A live session goes with its own counters ([`LiveRecord`]), and the totals
//! of a mapping go without what live sessions moved ([`AccountRecord`]). So each byte is in exactly
//! one of the two, and the sums of the new process are those of the old one. The old process packs
//! the totals while the sessions are frozen, before it lets one go.
//!
//! In the new process a session has the same id, start and counters. It is not counted as a new
//! one, no event says that it started, and its end writes its line. In the old process
//! [`SessionMeter::let_go`] takes it out of the table without a line, an event or a count of its
//! end. What it moved here stays in the sums of this process, which never go back.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, SeqCst},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Ended, Ledger, ListenerMeter, LiveSession, SessionMeter, live::END, reached::Reached};
use crate::{
    handover::{Span, Unusable},
    targets::Place,
};

/// The longest name that is taken: that of a host has 253 bytes at most.
const LONGEST_NAME: usize = 255;

/// A live session, as the next process counts it on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LiveRecord {
    /// Its number.
    pub id: u64,
    /// The client's canonical address.
    pub client: Option<SocketAddr>,
    /// How long ago it was admitted.
    pub age_us: Span,
    /// The name that the client asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The address that it was connected to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<SocketAddr>,
    /// The target of the mapping that it has a place at, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    bytes_in: u64,
    bytes_out: u64,
    #[serde(skip_serializing_if = "is_zero")]
    datagrams_in: u64,
    #[serde(skip_serializing_if = "is_zero")]
    datagrams_out: u64,
    #[serde(skip_serializing_if = "is_zero")]
    noted: u64,
    #[serde(skip_serializing_if = "is_zero")]
    moved_ms: u64,
    /// It was asked to end, for this reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What happened to the sessions of a mapping in one protocol, without what live ones moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct AccountRecord {
    /// Sessions that were admitted, also the live ones.
    pub(super) sessions: u64,
    // Sums that wrap, as `Moved` has it.
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) datagrams_in: u64,
    pub(super) datagrams_out: u64,
    /// How many ended for each reason.
    pub(super) ended: BTreeMap<String, u64>,
    pub(super) dials: DurationsRecord,
    pub(super) durations: DurationsRecord,
}

/// How often a duration fell into each range.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct DurationsRecord {
    pub(super) counts: Vec<u64>,
    pub(super) sum_us: u64,
}

impl Ledger {
    /// The number of the last session.
    pub(crate) fn last_id(&self) -> u64 {
        self.last_id.load(Relaxed)
    }

    /// Gives the numbers up to this one to no further session.
    pub(crate) fn raise_last_id(&self, id: u64) {
        self.last_id.fetch_max(id, Relaxed);
    }
}

impl ListenerMeter {
    /// Enters a session that another process hands over, with its place at the target.
    ///
    /// # Errors
    /// The record is of no session.
    pub(crate) fn take_over(
        self: &Arc<Self>,
        record: &LiveRecord,
        place: Place,
        now: Instant,
    ) -> Result<SessionMeter, Unusable> {
        // The highest numbers would leave none for the sessions that come.
        if record.id == 0 || record.id > u64::MAX / 2 {
            return Err(Unusable::Value("a session without a number"));
        }
        let client = record.client.ok_or(Unusable::Value("a session without a client"))?;
        if record.name.as_ref().is_some_and(|name| name.len() > LONGEST_NAME) {
            return Err(Unusable::Value("a session with a name that is too long"));
        }
        let live = LiveSession::new(record.id, client, record.age_us.before(now));
        if let Some(name) = &record.name {
            live.asks_for(name);
        }
        *live.target() = record.target.map(|addr| Reached::Address(addr, place));
        for (counter, value) in [
            (&live.bytes_in, record.bytes_in),
            (&live.bytes_out, record.bytes_out),
            (&live.datagrams_in, record.datagrams_in),
            (&live.datagrams_out, record.datagrams_out),
            (&live.noted, record.noted),
        ] {
            counter.store(value, Relaxed);
        }
        live.set_moved(Duration::from_millis(record.moved_ms));
        let end = Ended::ALL.into_iter().find(|reason| Some(reason.as_str()) == record.end.as_deref());
        if let Some(reason) = end {
            live.cut(reason);
        }
        self.ledger.raise_last_id(record.id);
        let live = Arc::new(live);
        let slot = self.table().enter(&live);
        Ok(SessionMeter { listener: Arc::clone(self), live, slot, settled: false })
    }
}

impl LiveSession {
    /// Its record.
    pub(crate) fn record(&self, now: Instant) -> LiveRecord {
        let moved = self.moved();
        let (target, place) = match &*self.target() {
            Some(Reached::Address(addr, place)) => {
                (Some(*addr), place.member().map(|member| member.addr().to_string()))
            }
            _ => (None, None),
        };
        let end = Ended::from_code(self.asked.load(SeqCst) & END);
        LiveRecord {
            id: self.id,
            client: Some(self.client),
            age_us: Span::since(self.started, now),
            name: self.name().map(Into::into),
            target,
            place,
            bytes_in: moved.bytes_in,
            bytes_out: moved.bytes_out,
            datagrams_in: moved.datagrams_in,
            datagrams_out: moved.datagrams_out,
            noted: self.noted.load(Relaxed),
            moved_ms: u64::try_from(self.last_moved().as_millis()).unwrap_or(u64::MAX),
            end: end.map(|reason| reason.as_str().into()),
        }
    }
}

impl SessionMeter {
    /// Lets the session go, which another process has taken over: no line, no event, and its end is
    /// not counted.
    pub(crate) fn let_go(mut self) {
        self.settled = true;
        self.live.leave();
        let mut table = self.listener.table();
        table.live.remove(self.slot);
        table.account.moved += self.live.moved();
    }
}

#[cfg(test)]
mod tests;
