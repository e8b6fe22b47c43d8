//! A log line that cannot flood: at most one in an interval, with the number of those left out.

use std::{sync::Mutex, time::Duration};

use tokio::time::Instant;

/// The memory of one kind of line.
#[derive(Debug)]
pub(crate) struct Quiet {
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

impl Quiet {
    /// Lets one line through every `interval`.
    pub(crate) const fn new(interval: Duration) -> Self {
        Self { interval, state: Mutex::new(State { last: None, left_out: 0 }) }
    }

    /// Whether the line may be written now; `Some` with the number of those left out since the last
    /// one.
    pub(crate) fn may_speak(&self) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if state.last.is_some_and(|last| now < last + self.interval) {
            state.left_out += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_an_interval_with_the_number_left_out() {
        let quiet = Quiet::new(Duration::from_secs(1));
        assert_eq!(quiet.may_speak(), Some(0));
        assert_eq!(quiet.may_speak(), None);
        assert_eq!(quiet.may_speak(), None);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(quiet.may_speak(), Some(2));
    }
}
