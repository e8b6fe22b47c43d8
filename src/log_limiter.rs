//! A kind of log line that outsiders can cause, kept from filling the disk.
//!
//! Owns the budget of one kind of line: some at once after a quiet time, then one a period. It
//! counts the lines that are left out, for the next line that is written. The caller gives the time
//! and writes the line.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The budget of one kind of line.
#[derive(Debug)]
pub(crate) struct LogLimiter {
    at_once: u32,
    period: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the budget is whole again.
    whole_at: Option<Instant>,
    left_out: u64,
}

impl LogLimiter {
    /// Allows `at_once` lines after a quiet time, and one more each `period`.
    pub(crate) fn new(at_once: u32, period: Duration) -> Self {
        Self { at_once, period, state: Mutex::default() }
    }

    /// Takes one line out of the budget: `Some` with the number of lines left out since the last
    /// one. `None` means that this line is left out, too.
    pub(crate) fn take(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // A token bucket as GCRA has it.
        let whole_at = state.whole_at.map_or(now, |at| at.max(now)) + self.period;
        if whole_at > now + self.period * self.at_once {
            state.left_out += 1;
            return None;
        }
        state.whole_at = Some(whole_at);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_a_period_with_the_number_left_out() {
        let (limiter, start) = (LogLimiter::new(1, Duration::from_secs(60)), Instant::now());
        let seconds = [(0, Some(0)), (1, None), (59, None), (60, Some(2)), (119, None), (300, Some(1))];
        for (second, taken) in seconds {
            assert_eq!(limiter.take(start + Duration::from_secs(second)), taken, "after {second} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn some_lines_at_once_and_as_many_again_after_a_quiet_time() {
        let (limiter, start) = (LogLimiter::new(5, Duration::from_secs(1)), Instant::now());
        let taken =
            |second| (0..100).filter(|_| limiter.take(start + Duration::from_secs(second)).is_some()).count();
        assert_eq!([0, 1, 2, 4, 3600].map(taken), [5, 1, 1, 2, 5]);
    }
}
