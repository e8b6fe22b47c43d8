//! How often a duration fell into each of a few fixed ranges: plain numbers, under the lock of
//! their owner.

use std::{ops::AddAssign, time::Duration};

/// The ranges, but for the last, which has no upper end.
pub(super) const RANGES: usize = 12;

/// The upper ends of the ranges of a dial, in milliseconds.
pub(super) const DIAL_MS: &[u64; RANGES] = &[1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000];
/// The upper ends of the ranges of a session, in milliseconds: from a tenth of a second to a week.
pub(super) const SESSION_MS: &[u64; RANGES] = &[
    100,
    500,
    1_000,
    5_000,
    15_000,
    60_000,
    300_000,
    1_800_000,
    7_200_000,
    28_800_000,
    86_400_000,
    604_800_000,
];

/// A count for each range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Histogram {
    ends_ms: &'static [u64; RANGES],
    counts: [u64; RANGES + 1],
    sum_us: u64,
}

impl Histogram {
    pub(super) const fn new(ends_ms: &'static [u64; RANGES]) -> Self {
        Self { ends_ms, counts: [0; RANGES + 1], sum_us: 0 }
    }

    /// Notes a duration. One that is exactly the end of a range is inside it.
    pub(super) fn note(&mut self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let range = self.ends_ms.partition_point(|end_ms| end_ms * 1_000 < us);
        self.counts[range] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// The counts and the sum, as another process adds them.
    pub(super) fn handed(&self) -> (Vec<u64>, u64) {
        (self.counts.to_vec(), self.sum_us)
    }

    /// Adds what another process has noted. A version with other ranges is left out.
    pub(super) fn take_over(&mut self, counts: &[u64], sum_us: u64) {
        if counts.len() == self.counts.len() {
            for (count, more) in self.counts.iter_mut().zip(counts) {
                *count = count.saturating_add(*more);
            }
            self.sum_us = self.sum_us.saturating_add(sum_us);
        }
    }

    pub(super) fn read(&self) -> Durations {
        let ends = self.ends_ms.iter().map(|end_ms| Some(Duration::from_millis(*end_ms)));
        Durations {
            ranges: ends.chain([None]).zip(self.counts).collect(),
            sum: Duration::from_micros(self.sum_us),
        }
    }
}

impl AddAssign<&Self> for Histogram {
    /// Both have the same ranges.
    fn add_assign(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }
}

/// Durations, by ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Durations {
    /// The upper end of each range (`None` for the last one), and how many are inside it alone.
    pub ranges: Vec<(Option<Duration>, u64)>,
    /// All of them together.
    pub sum: Duration,
}

impl Durations {
    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.ranges.iter().map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_in_one_range_and_in_the_sum() {
        for ends_ms in [DIAL_MS, SESSION_MS] {
            assert!(ends_ms.is_sorted_by(|a, b| a < b));
            let mut histogram = Histogram::new(ends_ms);
            for (n, end_ms) in ends_ms.iter().enumerate() {
                let end = Duration::from_millis(*end_ms);
                for (duration, range) in [(end, n), (end + Duration::from_micros(1), n + 1)] {
                    let before = histogram.read();
                    histogram.note(duration);
                    let after = histogram.read();
                    assert_eq!(after.ranges[range].1, before.ranges[range].1 + 1, "{duration:?}");
                    assert_eq!((after.count(), after.sum), (before.count() + 1, before.sum + duration));
                }
            }
            assert_eq!(histogram.read().ranges.last().unwrap(), &(None, 1));
            histogram.note(Duration::MAX);
        }
    }
}
