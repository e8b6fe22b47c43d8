//! Pauses between failures, so that an error that stays does not keep a processor busy.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(1);
/// Errors in a row that are taken as they come: a burst of ICMP messages is no standing failure.
const FREE: u32 = 64;

/// A run of failures; a success starts a new one.
#[derive(Debug, Default)]
pub(super) struct Pause {
    failures: u32,
    last: Option<Duration>,
}

impl Pause {
    /// How long to wait after one more failure: from 10 ms, doubling, up to 1 s.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.last.map_or(FIRST, |last| (last * 2).min(LONGEST));
        self.last = Some(pause);
        pause
    }

    /// The same for a flow, whose first errors are the network's answers to single datagrams.
    pub(super) fn next_after_first(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        if self.failures <= FREE { Duration::ZERO } else { self.next() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_failure_is_tried_once_a_second() {
        let mut pause = Pause::default();
        let millis: Vec<_> = std::iter::repeat_with(|| pause.next().as_millis()).take(9).collect();
        assert_eq!(millis, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    }

    #[test]
    fn single_icmp_errors_cost_no_time() {
        let mut pause = Pause::default();
        assert!((0..FREE).all(|_| pause.next_after_first().is_zero()));
        assert_eq!(pause.next_after_first(), FIRST);
    }
}
