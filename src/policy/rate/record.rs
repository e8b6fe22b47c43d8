//! What of a rate is handed to the next process: when each bucket that is not full will be.
//!
//! A bucket is taken over only where the rate is the same, as over a reload. Of many clients, those
//! that have used up most count: [`CLIENTS`]. The shares of networks ([`super::shares`]) are not
//! handed over, because a secret of the process decides on their places: a crowd of more than
//! [`CLIENTS`] clients finds them whole again, once.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{CLIENTS, ClientLimiter, Limiter, Time};
use crate::{handover::lenient, mapping::ClientKey, policy::Rate};

/// One bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LimiterRecord {
    rate: String,
    /// Until the bucket is full, in microseconds.
    full_in_us: u64,
}

/// The buckets of clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClientLimiterRecord {
    rate: String,
    #[serde(default, deserialize_with = "lenient::each")]
    clients: Vec<(ClientKey, u64)>,
}

/// A rate, to be compared.
fn text(Rate { count, per, burst }: Rate) -> String {
    format!("{count} in {} ns, at once {burst}", per.as_nanos())
}

impl Time {
    /// What the clock shows at `now`.
    fn shows(&self, now: Instant) -> u64 {
        self.set(now);
        self.hands.get()
    }

    /// A moment of the clock, that many microseconds after `now`: no later than an empty bucket
    /// needs.
    fn full_at(&self, us: u64, now: u64) -> u64 {
        let empty = self.each().saturating_mul(self.quota.burst_size().get().into());
        now.saturating_add(us.saturating_mul(1000).min(empty)).min(super::LONGEST)
    }
}

fn micros(nanos: u64) -> u64 {
    nanos.div_ceil(1000)
}

impl Limiter {
    /// How full the bucket is; `None` where it is full.
    pub(in crate::policy) fn snapshot(&self, now: Instant) -> Option<LimiterRecord> {
        let left = self.bucket.full_at().saturating_sub(self.time.shows(now));
        (left > 0).then(|| LimiterRecord { rate: text(self.rate), full_in_us: micros(left) })
    }

    /// Takes over how full the bucket was.
    pub(in crate::policy) fn take_over(&self, record: &LimiterRecord, now: Instant) {
        if record.rate == text(self.rate) {
            self.bucket.is_full_at(self.time.full_at(record.full_in_us, self.time.shows(now)));
        }
    }
}

impl ClientLimiter {
    /// How full the buckets are; `None` where all are full.
    pub(crate) fn snapshot(&self, now: Instant) -> Option<ClientLimiterRecord> {
        let now = self.time.shows(now);
        let mut clients = self.buckets.all();
        clients.retain(|(_, full_at)| *full_at > now);
        if clients.len() > CLIENTS {
            clients.sort_unstable_by_key(|(_, full_at)| std::cmp::Reverse(*full_at));
            clients.truncate(CLIENTS);
        }
        clients.iter_mut().for_each(|(_, full_at)| *full_at = micros(*full_at - now));
        (!clients.is_empty()).then(|| ClientLimiterRecord { rate: text(self.rate), clients })
    }

    /// Takes over how full the buckets were.
    pub(crate) fn take_over(&self, record: &ClientLimiterRecord, now: Instant) {
        if record.rate != text(self.rate) {
            return;
        }
        let now = self.time.shows(now);
        for (client, us) in &record.clients {
            self.buckets.is_full_at(*client, self.time.full_at(*us, now));
        }
    }
}
