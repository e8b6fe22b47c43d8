//! Pauses between failures, so that an error that stays does not keep a processor busy.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(1);

/// A run of failures. A success starts a new one ([`Backoff::default`]).
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    last: Option<Duration>,
}

impl Backoff {
    /// How long to wait after one more failure: from 10 ms, doubling, up to 1 s.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.last.map_or(FIRST, |last| (last * 2).min(LONGEST));
        self.last = Some(pause);
        pause
    }

    /// The same, but the first `free` failures of the run cost no time.
    pub(crate) fn next_after(&mut self, free: u32) -> Duration {
        self.failures = self.failures.saturating_add(1);
        if self.failures <= free { Duration::ZERO } else { self.next() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_failure_is_tried_once_a_second() {
        let mut backoff = Backoff::default();
        let millis: Vec<_> = std::iter::repeat_with(|| backoff.next().as_millis()).take(9).collect();
        assert_eq!(millis, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    }

    #[test]
    fn the_first_failures_can_be_free() {
        let mut backoff = Backoff::default();
        assert!((0..64).all(|_| backoff.next_after(64).is_zero()));
        assert_eq!(backoff.next_after(64), FIRST);
    }
}
