//! How many clients were refused, and what the log says of it.
//!
//! Owns the counters of a mapping by [`Refusal`], and when the next [`Summary`] is due. Strangers
//! cannot make the log grow by more than one line a minute.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::Refusal;

/// At most one summary in this time.
const INTERVAL: Duration = Duration::from_secs(60);
const REASONS: usize = Refusal::ALL.len();

/// The refusals of a mapping.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    counts: [AtomicU64; REASONS],
    told: Mutex<Summarized>,
}

#[derive(Debug, Default)]
struct Summarized {
    last: Option<Instant>,
    counts: [u64; REASONS],
}

impl Refusals {
    pub(super) fn count(&self, refusal: Refusal, times: u64) {
        self.counts[refusal as usize].fetch_add(times, Ordering::Relaxed);
    }

    pub(super) fn of(&self, refusal: Refusal) -> u64 {
        self.counts[refusal as usize].load(Ordering::Relaxed)
    }

    /// How many there are of a reason, and how many of them a summary has told.
    pub(super) fn of_and_told(&self, refusal: Refusal) -> (u64, u64) {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        (self.of(refusal), told.counts[refusal as usize])
    }

    /// Adds refusals of an earlier process, of which a summary has told some.
    pub(super) fn add(&self, refusal: Refusal, times: u64, of_them_told: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, told) = (&self.counts[refusal as usize], &mut told.counts[refusal as usize]);
        // A sum that is too great cannot be true, and stays below the end of the numbers.
        let add = |before: u64, more: u64| before.saturating_add(more).min(u64::MAX / 2);
        let now = add(count.load(Ordering::Relaxed), times);
        count.store(now, Ordering::Relaxed);
        *told = add(*told, of_them_told).min(now);
    }

    /// Whether there are refusals that no summary has told.
    pub(super) fn unsaid(&self) -> bool {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        Refusal::ALL.into_iter().any(|refusal| self.of(refusal) != told.counts[refusal as usize])
    }

    pub(super) fn summary(&self, now: Instant, is_last: bool) -> Option<Summary> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_last && told.last.is_some_and(|last| now < last + INTERVAL) {
            return None;
        }
        let counts = Refusal::ALL.map(|refusal| self.of(refusal));
        let new =
            Refusal::ALL.map(|refusal| (refusal, counts[refusal as usize] - told.counts[refusal as usize]));
        let summary = Summary { by_reason: new.into_iter().filter(|(_, count)| *count > 0).collect() };
        if summary.by_reason.is_empty() {
            return None;
        }
        *told = Summarized { last: Some(now), counts };
        Some(summary)
    }
}

/// Refusals of one mapping in one time; there is at least one. As text: `denied 12, client-rate 3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How many for each reason that there was.
    pub by_reason: Vec<(Refusal, u64)>,
}

impl Summary {
    /// How many in all.
    pub fn total(&self) -> u64 {
        self.by_reason.iter().map(|(_, count)| count).sum()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (refusal, count)) in self.by_reason.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{} {count}", refusal.as_str())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter() {
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, index);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_refusal_is_told_at_once_and_then_a_minute_at_a_time() {
        let refusals = Refusals::default();
        let summary =
            || refusals.summary(Instant::now(), false).map(|summary| (summary.total(), summary.to_string()));
        assert_eq!(summary(), None, "nothing to tell");
        refusals.count(Refusal::Denied, 1);
        assert_eq!(summary(), Some((1, "denied 1".to_owned())));
        refusals.count(Refusal::Denied, 2);
        refusals.count(Refusal::DatagramRate, 40);
        assert_eq!(summary(), None);
        tokio::time::advance(INTERVAL - Duration::from_millis(1)).await;
        assert_eq!(summary(), None);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(summary(), Some((42, "denied 2, datagram-rate 40".to_owned())));
        tokio::time::advance(INTERVAL * 10).await;
        assert_eq!(summary(), None, "what was told is not told again");
        refusals.count(Refusal::Denied, 1);
        assert_eq!(summary(), Some((1, "denied 1".to_owned())));
        assert_eq!(refusals.of(Refusal::Denied), 4);
    }
}
