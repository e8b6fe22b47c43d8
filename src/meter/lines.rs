//! Which session lines a mapping writes, and how many.
//!
//! Owns [`SessionLines`], the value of the key `log`, and [`SessionLog`], the budget of one mapping
//! with the sums of what it left out. Every client that reaches a port can end sessions at will, so
//! their lines need a bound: [`AT_ONCE`] after a quiet time, then one every [`EACH`]. What is over
//! that is counted, and [`SessionLog::summary`] gives the sums at most once in [`INTERVAL`]. Writes
//! no line itself.
//!
//! Invariant: a session of a kind that the mapping logs is either written or in exactly one
//! summary.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::{sync::Notify, time::Instant};

use super::Ended;
use crate::log_limiter::LogLimiter;

/// How many lines a mapping may write at once after a quiet time.
const AT_ONCE: u32 = 1_000;
/// The time in which the budget grows by one line: 100 a second.
const EACH: Duration = Duration::from_millis(10);
/// At most one summary in this time.
const INTERVAL: Duration = Duration::from_secs(60);

/// Which sessions a mapping writes a line for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SessionLines {
    /// Every session.
    #[default]
    All,
    /// Those that ended with an error ([`Ended::is_error`]).
    Errors,
    /// No session.
    None,
}

impl SessionLines {
    /// The word of the configuration.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Errors => "errors",
            Self::None => "none",
        }
    }

    fn include(self, ended: Ended) -> bool {
        match self {
            Self::All => true,
            Self::Errors => ended.is_error(),
            Self::None => false,
        }
    }
}

/// The budget for the lines of a mapping, over all its listeners.
#[derive(Debug)]
pub(crate) struct SessionLog {
    budget: LogLimiter,
    state: Mutex<State>,
    /// Told when there is something to sum up.
    bell: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    lines: SessionLines,
    left_out: LeftOut,
    /// When the last summary was given.
    summed: Option<Instant>,
}

impl SessionLog {
    /// A whole budget; `bell` is notified when something was left out.
    pub(crate) fn new(lines: SessionLines, bell: Arc<Notify>) -> Arc<Self> {
        let state = Mutex::new(State { lines, ..State::default() });
        Arc::new(Self { budget: LogLimiter::new(AT_ONCE, EACH), state, bell })
    }

    /// Takes a changed key; the budget stays.
    pub(crate) fn retune(&self, lines: SessionLines) {
        self.state().lines = lines;
    }

    /// Whether the line of a session is written. One that is left out for the budget is counted.
    pub(super) fn takes(&self, ended: Ended, bytes: (u64, u64), now: Instant) -> bool {
        let mut state = self.state();
        if !state.lines.include(ended) {
            return false;
        }
        if self.budget.take(now).is_some() {
            return true;
        }
        let is_first = state.left_out.is_empty();
        state.left_out.add(ended, bytes);
        drop(state);
        if is_first {
            self.bell.notify_one();
        }
        false
    }

    /// Whether the mapping may write another line that strangers can cause; it counts against the
    /// budget.
    pub(super) fn takes_other(&self, now: Instant) -> bool {
        self.budget.take(now).is_some()
    }

    /// What was left out since the last summary, if anything was and that one is a minute ago. The
    /// last summary, at the end of the daemon, does not wait.
    pub(crate) fn summary(&self, now: Instant, is_last: bool) -> Option<LeftOut> {
        let mut state = self.state();
        let is_due = is_last || state.summed.is_none_or(|last| now >= last + INTERVAL);
        if !is_due || state.left_out.is_empty() {
            return None;
        }
        state.summed = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }

    /// Whether something was left out that no summary has told yet.
    pub(crate) fn unsaid(&self) -> bool {
        !self.state().left_out.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No change of the state can stop half-way: a panic elsewhere does not matter.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sessions whose lines were left out. As text, the reasons: `client-closed 12, idle 3`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// Bytes from the clients to the targets.
    pub bytes_in: u64,
    /// Bytes from the targets to the clients.
    pub bytes_out: u64,
    /// How many, in the order of [`Ended::ALL`].
    by_reason: [u64; Ended::ALL.len()],
}

impl LeftOut {
    /// How many in all.
    pub(crate) fn count(&self) -> u64 {
        self.by_reason.iter().sum()
    }

    fn is_empty(&self) -> bool {
        self.count() == 0
    }

    fn add(&mut self, ended: Ended, (bytes_in, bytes_out): (u64, u64)) {
        self.bytes_in = self.bytes_in.saturating_add(bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(bytes_out);
        self.by_reason[ended.index()] += 1;
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = Ended::ALL.into_iter().zip(self.by_reason).filter(|(_, count)| *count > 0);
        for (i, (reason, count)) in counted.enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{} {count}", reason.as_str())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: SessionLines) -> Arc<SessionLog> {
        SessionLog::new(lines, Arc::default())
    }

    fn written(log: &SessionLog, sessions: u32, now: Instant) -> u32 {
        (0..sessions).map(|_| u32::from(log.takes(Ended::ClientClosed, (2, 3), now))).sum()
    }

    #[tokio::test(start_paused = true)]
    async fn a_mapping_writes_a_thousand_lines_at_once_and_then_a_hundred_a_second() {
        let log = log(SessionLines::All);
        let start = Instant::now();
        assert_eq!(written(&log, 5_000, start), AT_ONCE);
        assert_eq!(written(&log, 5_000, start + Duration::from_secs(1)), 100);
        assert!(log.takes_other(start + Duration::from_secs(2)));
        assert_eq!(written(&log, 5_000, start + Duration::from_secs(2)), 99, "other lines count as well");
        assert_eq!(written(&log, 5_000, start + Duration::from_secs(3600)), AT_ONCE);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_out_is_summed_up_once_a_minute_and_nothing_twice() {
        let log = log(SessionLines::All);
        let start = Instant::now();
        written(&log, AT_ONCE + 7, start);
        assert!(!log.takes(Ended::Idle, (10, 0), start));
        assert!(log.unsaid());
        let sums = log.summary(start, false).unwrap();
        assert_eq!((sums.count(), sums.bytes_in, sums.bytes_out), (8, 24, 21));
        assert_eq!(sums.to_string(), "client-closed 7, idle 1");
        assert!(log.summary(start + INTERVAL, false).is_none() && !log.unsaid());
        let later = start + INTERVAL - Duration::from_millis(1);
        written(&log, 2 * AT_ONCE, later);
        assert!(log.summary(later, false).is_none() && log.unsaid());
        assert_eq!(log.summary(start + INTERVAL, false).map(|sums| sums.count()), Some(AT_ONCE.into()));
        written(&log, 2 * AT_ONCE, start + INTERVAL);
        assert!(log.summary(start + INTERVAL, false).is_none());
        assert!(log.summary(start + INTERVAL, true).is_some(), "the end does not wait");
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_lines_that_are_asked_for_count() {
        let now = Instant::now();
        for (lines, errors, others) in [
            (SessionLines::All, true, true),
            (SessionLines::Errors, true, false),
            (SessionLines::None, false, false),
        ] {
            let log = log(lines);
            for ended in Ended::ALL {
                let expected = if ended.is_error() { errors } else { others };
                assert_eq!(log.takes(ended, (1, 1), now), expected, "{lines:?} {ended:?}");
            }
            assert!(!log.unsaid());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_bell_rings_for_the_first_line_that_is_left_out() {
        let bell = Arc::<Notify>::default();
        let log = SessionLog::new(SessionLines::All, Arc::clone(&bell));
        let waits = |wait| tokio::time::timeout(wait, bell.notified());
        written(&log, AT_ONCE, Instant::now());
        assert!(waits(Duration::from_secs(1)).await.is_err());
        written(&log, AT_ONCE, Instant::now());
        assert!(waits(Duration::ZERO).await.is_ok());
    }
}
