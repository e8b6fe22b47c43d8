//! How often: rates, as token buckets of the crate `governor` (GCRA).
//!
//! Owns [`Limiter`], one bucket, and [`ClientLimiter`], one for each client with bounded memory. In
//! a crowd, the networks of the clients have shares. Time is an argument. governor asks a clock
//! ([`Hands`]), which shows the latest time that was passed in, so that a test can pause time.
//! Invariant: what is given back leaves a bucket as if it had not been taken.

mod buckets;
mod record;
mod shares;

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use governor::{Quota, RateLimiter, clock::Clock, middleware::NoOpMiddleware, nanos::Nanos, state::NotKeyed};
use tokio::time::Instant;

pub(super) use self::buckets::CLIENTS;
pub(crate) use self::buckets::Crowded;
use self::buckets::{Bucket, Buckets};
pub(crate) use self::record::{ClientLimiterRecord, LimiterRecord};
use super::Rate;
use crate::mapping::ClientKey;

/// The longest time in which a bucket fills, 146 years in nanoseconds: governor counts in 64 bits,
/// and adds two such.
const LONGEST: u64 = 1 << 62;

/// A bucket for all.
#[derive(Debug)]
pub(super) struct Limiter {
    rate: Rate,
    time: Time,
    bucket: Bucket,
    limiter: RateLimiter<NotKeyed, Bucket, Hands, NoOpMiddleware<Nanos>>,
}

impl Limiter {
    pub(super) fn new(rate: Rate) -> Self {
        let (time, bucket) = (Time::new(rate), Bucket::default());
        let limiter = RateLimiter::new(time.quota, bucket.clone(), time.hands.clone());
        Self { rate, time, bucket, limiter }
    }

    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    /// Whether one more may; it is counted if so.
    pub(super) fn take(&self, now: Instant) -> bool {
        self.time.set(now);
        self.limiter.check().is_ok()
    }

    /// Uncounts one that was taken and came to nothing.
    pub(super) fn give_back(&self) {
        self.bucket.give_back(self.time.each());
    }
}

/// A bucket for each client.
#[derive(Debug)]
pub(crate) struct ClientLimiter {
    rate: Rate,
    time: Time,
    buckets: Buckets,
    limiter: RateLimiter<ClientKey, Buckets, Hands, NoOpMiddleware<Nanos>>,
}

impl ClientLimiter {
    /// Buckets for up to `clients` clients that are not full; `crowded` says what happens to more.
    pub(crate) fn new(rate: Rate, clients: usize, crowded: Crowded) -> Self {
        let time = Time::new(rate);
        let buckets = Buckets::new(clients, crowded, time.hands.clone());
        let limiter = RateLimiter::new(time.quota, buckets.clone(), time.hands.clone());
        Self { rate, time, buckets, limiter }
    }

    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    /// Whether one more of `client` may; it is counted if so.
    pub(crate) fn take(&self, client: ClientKey, now: Instant) -> bool {
        self.time.set(now);
        self.limiter.check_key(&client).is_ok()
    }

    /// Whether `client` has a bucket of its own. A refusal without one is caused by other clients.
    pub(super) fn knows(&self, client: ClientKey) -> bool {
        self.buckets.has(client)
    }

    /// How many of `wanted` of `client` may; those are counted.
    pub(super) fn take_up_to(&self, client: ClientKey, wanted: u32, now: Instant) -> u32 {
        self.time.set(now);
        let take = |n: u32| {
            let n = NonZeroU32::new(n).filter(|n| *n <= self.time.quota.burst_size());
            n.is_some_and(|n| matches!(self.limiter.check_key_n(&client, n), Ok(Ok(()))))
        };
        if take(wanted) {
            return wanted;
        }
        // governor lets in all or none: halves are tried, each once, which adds up to as many as
        // there is room for.
        let mut taken = 0;
        let mut step = wanted.checked_ilog2().map_or(0, |bit| 1 << bit);
        while step > 0 {
            if wanted - taken >= step && take(step) {
                taken += step;
            }
            step /= 2;
        }
        taken
    }

    /// Uncounts one that was taken and came to nothing.
    pub(crate) fn give_back(&self, client: ClientKey) {
        self.buckets.give_back(client, self.time.each());
    }

    /// Forgets what `client` has taken.
    pub(super) fn forget(&self, client: ClientKey) {
        self.buckets.forget(client);
    }
}

/// A rate in governor's terms, and its clock.
#[derive(Debug)]
struct Time {
    quota: Quota,
    start: Instant,
    hands: Hands,
}

impl Time {
    fn new(rate: Rate) -> Self {
        let each =
            u64::try_from((rate.per / rate.count.get()).as_nanos()).unwrap_or(LONGEST).clamp(1, LONGEST);
        let most = u32::try_from(LONGEST / each).unwrap_or(u32::MAX);
        let burst = NonZeroU32::new(most).map_or(rate.burst, |most| rate.burst.min(most));
        let quota =
            Quota::with_period(Duration::from_nanos(each)).expect("at least a nanosecond").allow_burst(burst);
        Self { quota, start: Instant::now(), hands: Hands::default() }
    }

    /// Moves the clock's hands to `now`, unless another thread has moved them further.
    fn set(&self, now: Instant) {
        let since = now.saturating_duration_since(self.start).as_nanos();
        let since = u64::try_from(since).unwrap_or(LONGEST).min(LONGEST);
        if self.hands.0.load(Ordering::Relaxed) < since {
            self.hands.0.fetch_max(since, Ordering::Relaxed);
        }
    }

    /// The time in which one is regained, in nanoseconds.
    fn each(&self) -> u64 {
        Nanos::from(self.quota.replenish_interval()).as_u64()
    }
}

/// A clock that shows what it is set to: nanoseconds since it was made.
#[derive(Clone, Debug, Default)]
struct Hands(Arc<AtomicU64>);

impl Hands {
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Clock for Hands {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.load(Ordering::Relaxed).into()
    }
}

#[cfg(test)]
mod tests;
