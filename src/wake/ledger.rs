//! What is known of one thing that can be started: pure state, and what becomes of it.
//!
//! Knows no task and starts nothing: the engine does that. The time is an argument.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::StartError;
use crate::{handover::Span, text::clean_start};

/// The pause after the first failed start.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between failed starts.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The longest error that is taken over, in characters.
const LONGEST_ERROR: usize = 400;
/// The shortest pause before a failed stop is tried again.
const STOP_PAUSE: Duration = Duration::from_secs(60);

/// How it is with a target that can be started, for windows and for the answer to a player.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing is known to run.
    Asleep,
    /// It is being started, or was started and no session has reached it yet.
    Starting {
        /// When the start began.
        since: Instant,
    },
    /// It runs.
    Running,
    /// It is being stopped.
    Stopping,
    /// The last start failed.
    Failed {
        /// Why.
        error: StartError,
        /// Until then no client starts it again.
        next_try: Instant,
    },
}

impl State {
    /// The word of the interface.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Asleep => "asleep",
            Self::Starting { .. } => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Failed { .. } => "failed",
        }
    }
}

/// What is known of one thing, as it is handed to the next process. Not its sessions: each that is
/// handed over counts again there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LedgerRecord {
    state: StateRecord,
    /// The number of starts so far.
    #[serde(default)]
    starts: u64,
    /// Starts that failed one after the other.
    #[serde(default)]
    failures: u32,
    is_ours: bool,
    /// How long it has been without a session.
    #[serde(default)]
    idle_us: Span,
    #[serde(default)]
    stop_after_us: Option<Span>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StateRecord {
    Asleep,
    Starting { since_us: Span },
    Running,
    Stopping,
    Failed { error: String, next_try_us: Span },
}

/// What a client that needs the target has to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: it was started, and may be up already.
    Nothing,
    /// To begin the start of this number.
    Begin(u64),
    /// To wait for the end of a start or of a stop.
    Wait,
    /// To give up.
    GiveUp(StartError),
}

/// What is known of one thing.
#[derive(Debug)]
pub(super) struct Ledger {
    state: State,
    /// Whether the start that began is still under way.
    is_acting: bool,
    /// The number of the last start.
    starts: u64,
    /// Starts that failed one after the other.
    failures: u32,
    /// Sessions, those included that wait.
    sessions: usize,
    /// Sessions that wait for the target.
    waiting: usize,
    /// Whether it carried a session, or was started here. Nothing else is ever stopped.
    is_ours: bool,
    /// Whether the plan knows it.
    is_planned: bool,
    /// When the last session ended, or the start without one.
    idle_since: Instant,
    /// The time until the stop, as the last session had it.
    stop_after: Option<Duration>,
    /// Whether a task watches for the time of the stop.
    is_watched: bool,
}

impl Ledger {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: State::Asleep,
            is_acting: false,
            starts: 0,
            failures: 0,
            sessions: 0,
            waiting: 0,
            is_ours: false,
            is_planned: true,
            idle_since: now,
            stop_after: None,
            is_watched: false,
        }
    }

    /// What is handed to the next process; `None` where nothing is known.
    pub(super) fn snapshot(&self, now: Instant) -> Option<LedgerRecord> {
        let state = match &self.state {
            State::Asleep => StateRecord::Asleep,
            State::Starting { since } => StateRecord::Starting { since_us: Span::since(*since, now) },
            State::Running => StateRecord::Running,
            State::Stopping => StateRecord::Stopping,
            State::Failed { error, next_try } => {
                StateRecord::Failed { error: error.to_string(), next_try_us: Span::until(*next_try, now) }
            }
        };
        (self.is_ours || state != StateRecord::Asleep).then(|| LedgerRecord {
            state,
            starts: self.starts,
            failures: self.failures,
            is_ours: self.is_ours,
            // With sessions there is no such time yet; the last one of them will give it.
            idle_us: if self.sessions > 0 { Span::default() } else { Span::since(self.idle_since, now) },
            stop_after_us: self.stop_after.map(Span::of),
        })
    }

    /// Goes on where another process was. What that one does at this moment comes to its end there,
    /// without a word to this one:
    ///
    /// - A start goes on. Clients dial, and find out how it ends. [`Ledger::settle`] is for the
    ///   caller: the number of the start is the outcome.
    /// - A stop may end well or badly. The target is taken to run, with its whole time before
    ///   another stop. A client that does not reach it starts it.
    pub(super) fn take_over(
        &mut self,
        record: LedgerRecord,
        what: &Arc<str>,
        now: Instant,
    ) -> Option<(u64, Instant)> {
        let LedgerRecord { state, starts, failures, is_ours, idle_us, stop_after_us } = record;
        // No number overflows, however often it is counted up.
        self.starts = self.starts.max(starts.min(u64::MAX / 2));
        self.failures = failures.min(64);
        self.is_ours = is_ours;
        self.idle_since = idle_us.before(now);
        self.stop_after = stop_after_us.map(Span::duration);
        self.is_acting = false;
        self.state = match state {
            StateRecord::Asleep => State::Asleep,
            StateRecord::Running => State::Running,
            StateRecord::Starting { since_us } => State::Starting { since: since_us.before(now) },
            StateRecord::Stopping => {
                self.idle_since = now;
                State::Running
            }
            StateRecord::Failed { error, next_try_us } => {
                let why = clean_start(&error, LONGEST_ERROR);
                // The words begin with what failed.
                let why = why.strip_prefix(&format!("{what}: ")).unwrap_or(&why);
                let next_try = next_try_us.after(now).min(now + LONGEST_PAUSE);
                State::Failed { error: StartError::failed(what, why), next_try }
            }
        };
        match self.state {
            State::Starting { since } => Some((self.starts, since)),
            _ => None,
        }
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    pub(super) fn sessions(&self) -> usize {
        self.sessions
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many starts there were: a dial that failed before the last one says nothing of it.
    pub(super) fn starts(&self) -> u64 {
        self.starts
    }

    /// Whether a session reached it, and nothing has changed since.
    pub(super) fn is_in_use(&self) -> bool {
        self.is_ours && self.state == State::Running
    }

    pub(super) fn enter(&mut self) {
        self.sessions += 1;
    }

    pub(super) fn leave(&mut self, stop_after: Option<Duration>, now: Instant) {
        self.sessions -= 1;
        if self.sessions == 0 {
            (self.idle_since, self.stop_after) = (now, stop_after);
        }
    }

    /// A session needs the target. `missed` is the number of starts before its last dial, which
    /// failed; `None` where it has not tried.
    pub(super) fn need(&mut self, missed: Option<u64>, now: Instant) -> Need {
        match &self.state {
            State::Starting { .. } if self.is_acting => return Need::Wait,
            State::Starting { .. } => return Need::Nothing,
            State::Stopping => return Need::Wait,
            State::Running if missed != Some(self.starts) => return Need::Nothing,
            State::Failed { error, next_try } if now < *next_try => return Need::GiveUp(error.clone()),
            State::Asleep | State::Running | State::Failed { .. } => {}
        }
        self.starts += 1;
        self.is_acting = true;
        self.state = State::Starting { since: now };
        Need::Begin(self.starts)
    }

    /// What starts it has done its part. False if that is no news.
    pub(super) fn started(&mut self, start: u64, stop_after: Option<Duration>) -> bool {
        if start != self.starts || !self.is_acting {
            return false;
        }
        self.is_acting = false;
        self.is_ours = true;
        if self.sessions == 0 {
            self.stop_after = stop_after;
        }
        true
    }

    /// The start failed. False if a session has reached the target meanwhile, or it was started
    /// once more.
    pub(super) fn failed(&mut self, start: u64, error: StartError, now: Instant) -> bool {
        let is_of_this = start == self.starts && matches!(self.state, State::Starting { .. });
        if is_of_this {
            self.fail(error, now);
        }
        is_of_this
    }

    fn fail(&mut self, error: StartError, now: Instant) {
        let pause = FIRST_PAUSE * 2_u32.pow(self.failures.min(6));
        self.failures += 1;
        self.is_acting = false;
        self.state = State::Failed { error, next_try: now + pause.min(LONGEST_PAUSE) };
        self.idle_since = now;
    }

    /// The time for the start is over. A target that no session tried to reach is taken to run.
    pub(super) fn settle(&mut self, start: u64, now: Instant) {
        let is_quiet = self.waiting == 0 && !self.is_acting;
        if start == self.starts && is_quiet && matches!(self.state, State::Starting { .. }) {
            self.state = State::Running;
            self.idle_since = now;
        }
    }

    /// A session has reached the target. The time of its start if that ended with it.
    pub(super) fn reached(&mut self, now: Instant) -> Option<Duration> {
        let took = match self.state {
            State::Starting { since } => Some(now.saturating_duration_since(since)),
            State::Stopping => return None,
            State::Asleep | State::Running | State::Failed { .. } => None,
        };
        (self.state, self.failures, self.is_ours) = (State::Running, 0, true);
        took
    }

    /// A session found that the target does not answer any more.
    pub(super) fn lost(&mut self) {
        if self.state == State::Running {
            self.state = State::Asleep;
        }
    }

    /// A session begins to wait.
    pub(super) fn wait(&mut self) {
        self.waiting += 1;
    }

    /// A session waits no longer. With an error, it waited in vain: true if that ends the start.
    pub(super) fn wait_ends(&mut self, in_vain: Option<StartError>, wait: Duration, now: Instant) -> bool {
        self.waiting -= 1;
        let State::Starting { since } = self.state else { return false };
        if self.waiting > 0 || self.is_acting {
            return false;
        }
        match in_vain {
            Some(error) => {
                self.fail(error, now);
                true
            }
            None => {
                if now >= since + wait {
                    self.settle(self.starts, now);
                }
                false
            }
        }
    }

    /// Whether what starts it is still under way.
    pub(super) fn is_acting(&self) -> bool {
        self.is_acting
    }

    /// When it is to be stopped, as things are.
    pub(super) fn stop_due(&self) -> Option<Instant> {
        let may_run = matches!(self.state, State::Running | State::Failed { .. });
        let may_stop = may_run && self.is_ours && self.is_planned && self.sessions == 0;
        may_stop.then_some(self.idle_since + self.stop_after?)
    }

    /// Takes on the watch for the time of the stop: false if there is no such time, or a watch.
    pub(super) fn watch(&mut self) -> bool {
        let is_needed = !self.is_watched && self.stop_due().is_some();
        self.is_watched |= is_needed;
        is_needed
    }

    /// What the watch has to do: to wait until then, or to stop the target now, which has begun.
    /// `None` ends the watch.
    pub(super) fn look(&mut self, now: Instant) -> Option<Result<(), Instant>> {
        match self.stop_due() {
            None => {
                self.is_watched = false;
                None
            }
            Some(due) if now < due => Some(Err(due)),
            Some(_) => {
                self.state = State::Stopping;
                Some(Ok(()))
            }
        }
    }

    /// The stop has ended. A target that could not be stopped is taken to run.
    pub(super) fn stopped(&mut self, worked: bool, now: Instant) {
        self.is_watched = false;
        if worked {
            (self.state, self.is_ours) = (State::Asleep, false);
            return;
        }
        self.state = State::Running;
        let pause = STOP_PAUSE.saturating_sub(self.stop_after.unwrap_or_default());
        self.idle_since = now + pause;
    }

    /// Whether the plan knows it. Nothing that it does not know is stopped, and what comes back has
    /// its whole time again.
    pub(super) fn plan(&mut self, is_planned: bool, now: Instant) {
        if is_planned && !self.is_planned {
            self.idle_since = now;
        }
        self.is_planned = is_planned;
    }
}
