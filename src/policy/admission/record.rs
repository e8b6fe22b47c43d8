//! What an admission hands to the next process: how full its buckets are ([`RatesRecord`]), and how
//! many clients it refused ([`RefusalsRecord`]).
//!
//! Not its places: each session that is handed over takes its place again.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Admission, SessionRates, summary::Refusals};
use crate::{
    handover::lenient,
    policy::{
        Refusal,
        rate::{ClientLimiterRecord, LimiterRecord},
    },
};

/// How full the buckets of a mapping are. A bucket that is missing is full.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RatesRecord {
    #[serde(deserialize_with = "lenient::some")]
    tcp: Option<SessionRatesRecord>,
    #[serde(deserialize_with = "lenient::some")]
    udp: Option<SessionRatesRecord>,
    #[serde(deserialize_with = "lenient::some")]
    datagrams_per_client: Option<ClientLimiterRecord>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct SessionRatesRecord {
    #[serde(deserialize_with = "lenient::some")]
    of_all: Option<LimiterRecord>,
    #[serde(deserialize_with = "lenient::some")]
    per_client: Option<ClientLimiterRecord>,
}

/// How many clients of a mapping were refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct RefusalsRecord(#[serde(deserialize_with = "lenient::each")] Vec<RefusalRecord>);

/// The refusals of one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RefusalRecord {
    reason: String,
    count: u64,
    /// Those of them that a summary has told.
    #[serde(default)]
    told: u64,
}

impl RefusalsRecord {
    /// Whether no client was refused.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Admission {
    /// How full its buckets are.
    pub(crate) fn rates(&self, now: Instant) -> RatesRecord {
        let terms = self.terms.load();
        let of = |rates: &SessionRates| rates.snapshot(now);
        RatesRecord {
            tcp: of(&terms.sessions.tcp),
            udp: of(&terms.sessions.udp),
            datagrams_per_client: terms.datagrams_per_client.as_ref().and_then(|rate| rate.snapshot(now)),
        }
    }

    /// Takes over how full the buckets were, where the rates are the same.
    pub(crate) fn take_over_rates(&self, record: &RatesRecord, now: Instant) {
        let terms = self.terms.load();
        for (rates, record) in [(&terms.sessions.tcp, &record.tcp), (&terms.sessions.udp, &record.udp)] {
            if let Some(record) = record {
                rates.take_over(record, now);
            }
        }
        if let (Some(rate), Some(record)) = (&terms.datagrams_per_client, &record.datagrams_per_client) {
            rate.take_over(record, now);
        }
    }

    /// How many clients it refused.
    pub(crate) fn refusals_so_far(&self) -> RefusalsRecord {
        self.refusals.snapshot()
    }

    /// Adds the clients that an earlier process refused.
    pub(crate) fn take_over_refusals(&self, record: &RefusalsRecord) {
        self.refusals.take_over(record);
    }
}

impl SessionRates {
    fn snapshot(&self, now: Instant) -> Option<SessionRatesRecord> {
        let of_all = self.of_all.as_ref().and_then(|rate| rate.snapshot(now));
        let per_client = self.per_client.as_ref().and_then(|rate| rate.snapshot(now));
        (of_all.is_some() || per_client.is_some()).then_some(SessionRatesRecord { of_all, per_client })
    }

    fn take_over(&self, record: &SessionRatesRecord, now: Instant) {
        if let (Some(rate), Some(record)) = (&self.of_all, &record.of_all) {
            rate.take_over(record, now);
        }
        if let (Some(rate), Some(record)) = (&self.per_client, &record.per_client) {
            rate.take_over(record, now);
        }
    }
}

impl Refusals {
    fn snapshot(&self) -> RefusalsRecord {
        let of = |reason: Refusal| {
            let (count, told) = self.of_and_told(reason);
            (count > 0).then(|| RefusalRecord { reason: reason.as_str().into(), count, told })
        };
        RefusalsRecord(Refusal::ALL.into_iter().filter_map(of).collect())
    }

    fn take_over(&self, record: &RefusalsRecord) {
        for RefusalRecord { reason, count, told } in &record.0 {
            match Refusal::ALL.into_iter().find(|known| known.as_str() == reason) {
                Some(reason) => self.add(reason, *count, *told),
                None => tracing::debug!(reason, "unknown refusals were handed over"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::{
        super::tests::{caps, ip, rate, tcp, udp, with},
        *,
    };
    use crate::{
        fixture::each_spoilt,
        policy::{Policy, Rates},
    };

    const HOUR: Duration = Duration::from_secs(3600);

    fn policy() -> Policy {
        Policy {
            rates: Rates {
                new_sessions: rate(10, HOUR),
                new_sessions_per_client: rate(2, HOUR),
                datagrams_per_client: rate(4, HOUR),
            },
            caps: caps(100, 100),
            ..Policy::default()
        }
    }

    /// The admission of the next process, which has the same policy.
    fn next(before: &Arc<Admission>) -> Arc<Admission> {
        let (next, _gate) = with(policy());
        let json = serde_json::to_string(&before.rates(Instant::now())).unwrap();
        next.take_over_rates(&serde_json::from_str(&json).unwrap(), Instant::now());
        next
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_used_up_its_rate_has_no_fresh_one_in_the_next_process() {
        let (before, _gate) = with(policy());
        let _ = (tcp(&before, "192.0.2.1").unwrap(), tcp(&before, "192.0.2.1").unwrap());
        let _ = udp(&before, "192.0.2.2").unwrap();
        assert_eq!(before.datagrams(ip("192.0.2.2"), 2, Instant::now()), 2);
        let next = next(&next(&before));
        assert_eq!(tcp(&next, "192.0.2.1").unwrap_err(), Refusal::ClientRate);
        let _ = tcp(&next, "192.0.2.3").unwrap();
        assert_eq!(next.datagrams(ip("192.0.2.2"), 9, Instant::now()), 1, "three of four were used");
        for n in 0..7 {
            let _ = tcp(&next, &format!("192.0.2.{}", 10 + n)).unwrap();
        }
        assert_eq!(tcp(&next, "192.0.2.200").unwrap_err(), Refusal::Rate, "ten in both together");
        tokio::time::advance(HOUR).await;
        let _ = (tcp(&next, "192.0.2.1").unwrap(), tcp(&next, "192.0.2.1").unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn another_rate_begins_whole() {
        let (before, _gate) = with(policy());
        let _ = (tcp(&before, "192.0.2.1").unwrap(), tcp(&before, "192.0.2.1").unwrap());
        let other = Rates { new_sessions_per_client: rate(3, HOUR), ..Rates::default() };
        let (next, _gate) = with(Policy { rates: other, ..policy() });
        next.take_over_rates(&before.rates(Instant::now()), Instant::now());
        for _ in 0..3 {
            let _ = tcp(&next, "192.0.2.1").unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_go_on_and_each_is_summed_up_once() {
        let (before, _gate) = with(policy());
        let refused = |admission: &Arc<Admission>, times| {
            let _ = (tcp(admission, "192.0.2.1"), tcp(admission, "192.0.2.1"));
            assert!((0..times).all(|_| tcp(admission, "192.0.2.1").is_err()));
        };
        refused(&before, 3);
        assert_eq!(before.summary(Instant::now(), true).unwrap().to_string(), "client-rate 3");
        assert!((0..2).all(|_| tcp(&before, "192.0.2.1").is_err()));
        let (next, _gate) = with(policy());
        let json = serde_json::to_string(&before.refusals_so_far()).unwrap();
        next.take_over_refusals(&serde_json::from_str(&json).unwrap());
        refused(&next, 1);
        assert_eq!(next.refusals.of(Refusal::ClientRate), 6);
        assert_eq!(next.summary(Instant::now(), true).unwrap().to_string(), "client-rate 3");
    }

    #[tokio::test(start_paused = true)]
    async fn a_spoilt_record_neither_panics_nor_locks_out_for_longer_than_the_rate() {
        let (before, _gate) = with(policy());
        let _ = (tcp(&before, "192.0.2.1").unwrap(), tcp(&before, "192.0.2.1").unwrap());
        assert_eq!(tcp(&before, "192.0.2.1").unwrap_err(), Refusal::ClientRate);
        let (rates, refusals) = (before.rates(Instant::now()), before.refusals_so_far());
        let later = Instant::now() + 2 * HOUR;
        each_spoilt(&rates, |spoilt| {
            let Ok(record) = serde_json::from_value::<RatesRecord>(spoilt) else { return };
            let (next, _gate) = with(policy());
            next.take_over_rates(&record, Instant::now());
            assert!(next.admit(ip("192.0.2.1"), crate::mapping::Protocol::Tcp, later).is_ok());
        });
        each_spoilt(&refusals, |spoilt| {
            let Ok(record) = serde_json::from_value::<RefusalsRecord>(spoilt) else { return };
            let (next, _gate) = with(policy());
            next.take_over_refusals(&record);
            next.take_over_refusals(&record);
            let _ = next.summary(Instant::now(), true);
        });
    }
}
