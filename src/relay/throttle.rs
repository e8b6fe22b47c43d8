//! A limit on bandwidth: how many bytes may pass now, and when the next ones may.
//!
//! Owns the arithmetic ([`ByteBucket`], pure), and the wait of a stream that has to go slower
//! ([`Throttle`]). A session has one for each direction; both are made when it starts, so that a
//! limit changed by a reload holds for new sessions.
//!
//! A bucket never lets more than [`WINDOW`] worth of bytes pass at once, however long it was quiet.
//! A stream is held back (its sender sees a full window, as with any slow receiver) and goes on in
//! steps of [`STEP`], so that it is smooth and its timer is not busy. Datagrams are not held back:
//! what is too much is dropped, as a router with a short queue would; a bucket that is full lets
//! one datagram of any size pass, and is in debt for it.

use std::{
    future::Future,
    num::NonZeroU64,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::handover::Span;

/// The most that passes at once, as time at the full rate.
const WINDOW: Duration = Duration::from_millis(100);
/// The least that a stream goes on with, as time at the full rate …
const STEP: Duration = Duration::from_millis(20);
/// … or for so many bytes where that takes longer (a full packet), within the window.
const STEP_BYTES: u64 = 1460;

/// A token bucket: `rate` bytes a second, of which at most [`WINDOW`] are saved up.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByteBucket {
    rate: NonZeroU64,
    /// [`WINDOW`], or the time of one byte where that is longer.
    window: Duration,
    /// When all that has passed is paid for.
    paid: Instant,
}

impl ByteBucket {
    /// A full one.
    pub(super) fn new(rate: NonZeroU64, now: Instant) -> Self {
        let mut bucket = Self { rate, window: WINDOW, paid: now };
        bucket.window = bucket.time(1).max(WINDOW);
        bucket.paid = bucket.earliest(now);
        bucket
    }

    /// What it hands to the next process.
    pub(super) fn record(&self, now: Instant) -> BucketRecord {
        BucketRecord {
            rate: self.rate,
            saved_us: Span::of(now.saturating_duration_since(self.paid).min(self.window)),
            owed_us: Span::until(self.paid, now),
        }
    }

    /// The bucket that another process handed over.
    pub(super) fn taken_over(record: BucketRecord, now: Instant) -> Self {
        let mut bucket = Self::new(record.rate, now);
        let saved = record.saved_us.duration().min(bucket.window);
        // The largest datagram is in debt for no longer than this.
        let owed = record.owed_us.duration().min(bucket.time(1 << 16));
        bucket.paid = now.checked_sub(saved).unwrap_or(now) + owed;
        bucket
    }

    /// How many bytes may pass at `now`.
    fn allowance(&self, now: Instant) -> u64 {
        self.bytes(now.saturating_duration_since(self.paid).min(self.window))
    }

    /// What may be saved up reaches back to here. A machine that started a moment ago has no
    /// earlier time.
    fn earliest(&self, now: Instant) -> Instant {
        now.checked_sub(self.window).unwrap_or(now)
    }

    /// When so many bytes may pass.
    fn ready_at(&self, bytes: u64) -> Instant {
        self.paid + self.time(bytes)
    }

    /// Notes that `bytes` pass.
    fn take(&mut self, bytes: u64, now: Instant) {
        self.paid = self.paid.max(self.earliest(now)) + self.time(bytes);
    }

    /// Whether a datagram of `bytes` may pass; it is taken then.
    pub(super) fn try_take(&mut self, bytes: usize, now: Instant) -> bool {
        let bytes = bytes as u64;
        let is_full = self.paid + self.window <= now;
        let passes = is_full || bytes <= self.allowance(now);
        if passes {
            self.take(bytes, now);
        }
        passes
    }

    /// The bytes of so much time. 128 bits, so that no rate overflows.
    fn bytes(&self, time: Duration) -> u64 {
        let bytes = time.as_nanos() * u128::from(self.rate.get()) / NANOS;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// The time that so many bytes take, rounded up: never faster than the rate.
    fn time(&self, bytes: u64) -> Duration {
        let nanos = (u128::from(bytes) * NANOS).div_ceil(u128::from(self.rate.get()));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// A bucket as it is handed to the next process: what of the rate is saved up, or owed, as time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BucketRecord {
    rate: NonZeroU64,
    #[serde(default)]
    saved_us: Span,
    #[serde(default)]
    owed_us: Span,
}

const NANOS: u128 = 1_000_000_000;

/// The limit of one direction of a stream.
#[derive(Debug)]
pub(super) struct Throttle {
    bucket: ByteBucket,
    /// The least that is worth a turn.
    step: u64,
    timer: Option<Pin<Box<Sleep>>>,
    is_waiting: bool,
}

impl Throttle {
    /// A limit of `rate` bytes a second.
    pub(super) fn new(rate: NonZeroU64) -> Self {
        let bucket = ByteBucket::new(rate, Instant::now());
        let step = bucket.bytes(STEP).max(STEP_BYTES).min(bucket.bytes(bucket.window));
        Self { bucket, step, timer: None, is_waiting: false }
    }

    /// One that goes on with what of the rate was saved up, as time.
    pub(super) fn resumed(rate: NonZeroU64, saved: Duration, now: Instant) -> Self {
        let mut throttle = Self::new(rate);
        let bucket = &mut throttle.bucket;
        bucket.paid = now.checked_sub(saved.min(bucket.window)).unwrap_or(now);
        throttle
    }

    /// Bytes a second.
    pub(super) fn rate(&self) -> NonZeroU64 {
        self.bucket.rate
    }

    /// What of the rate is saved up, as time.
    pub(super) fn saved(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.bucket.paid).min(self.bucket.window)
    }

    /// Ready with the bytes that may pass now, at least one.
    pub(super) fn poll_allowance(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        loop {
            let allowance = self.bucket.allowance(Instant::now());
            if allowance >= self.step {
                self.is_waiting = false;
                return Poll::Ready(usize::try_from(allowance).unwrap_or(usize::MAX));
            }
            // Later than now, so this ends: there is less room than a step.
            let at = self.bucket.ready_at(self.step);
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if !self.is_waiting || timer.deadline() != at {
                self.is_waiting = true;
                timer.as_mut().reset(at);
            }
            ready!(timer.as_mut().poll(cx));
        }
    }

    /// Notes that `bytes` of what there was allowance for have passed.
    pub(super) fn took(&mut self, bytes: usize) {
        self.bucket.take(bytes as u64, Instant::now());
    }

    /// Whether the stream is being held back.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_waiting
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(bytes: u64) -> NonZeroU64 {
        NonZeroU64::new(bytes).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_keeps_its_rate_within_a_twentieth_over_ten_seconds() {
        for bytes in [1_024, 50_000, 1_000_000, 10_000_000, 1_000_000_000] {
            let mut throttle = Throttle::new(rate(bytes));
            let (start, mut passed, mut waits) = (Instant::now(), 0, 0_u32);
            while start.elapsed() < 10 * SECOND {
                let before = Instant::now();
                let allowance = poll_fn(|cx| throttle.poll_allowance(cx)).await;
                waits += u32::from(before != Instant::now());
                throttle.took(allowance);
                passed += allowance as u64;
            }
            let exact = bytes * 10;
            assert!(passed.abs_diff(exact) <= exact / 20, "{passed} in place of {exact}");
            assert!(waits <= 510, "{waits} waits for {bytes} bytes a second");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn never_more_than_a_tenth_of_a_second_at_once_however_long_it_was_quiet() {
        let mut throttle = Throttle::new(rate(1_000_000));
        for _ in 0..3 {
            let allowance = poll_fn(|cx| throttle.poll_allowance(cx)).await;
            assert_eq!(allowance, 100_000);
            throttle.took(allowance);
            tokio::time::sleep(60 * SECOND).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_byte_a_second_is_still_progress() {
        let mut throttle = Throttle::new(rate(1));
        let start = Instant::now();
        for _ in 0..10 {
            let allowance = poll_fn(|cx| throttle.poll_allowance(cx)).await;
            assert_eq!(allowance, 1);
            throttle.took(allowance);
        }
        assert!((9..=10).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn datagrams_pass_at_the_rate_and_one_of_any_size_after_a_pause() {
        let mut bucket = ByteBucket::new(rate(10_000), Instant::now());
        let mut passed = 0;
        for _ in 0..10_000 {
            passed += u64::from(bucket.try_take(100, Instant::now())) * 100;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(passed.abs_diff(100_000) <= 5_000, "{passed}");

        tokio::time::sleep(SECOND).await;
        assert!(bucket.try_take(65_507, Instant::now()), "a full bucket takes any datagram");
        tokio::time::sleep(6 * SECOND).await;
        assert!(!bucket.try_take(1_000, Instant::now()), "it is still in debt for it");
        tokio::time::sleep(SECOND).await;
        assert!(bucket.try_take(1_000, Instant::now()));
    }
}
