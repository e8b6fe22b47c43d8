//! What a session holds: the way to its target, and its place among those that keep it awake.

use std::{fmt::Display, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::{
    StartError, State, WakeSpec,
    engine::Engine,
    ledger::{Ledger, Need},
};

/// The pause between dials in the first seconds.
const FIRST_STEP: Duration = Duration::from_millis(250);
/// The pause after these.
const STEP: Duration = Duration::from_secs(1);
/// How long the first pause holds.
const FIRST_STEPS: Duration = Duration::from_secs(5);
/// All clients together dial about as often as this. When one gets through, all dial at once.
const DIALS_APART: Duration = Duration::from_millis(10);
/// The longest pause, however many clients there are.
const LONGEST_STEP: Duration = Duration::from_secs(5);

/// The way to a target that can be started. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Waker {
    pub(super) engine: Arc<Engine>,
    pub(super) spec: Arc<WakeSpec>,
}

/// A session that keeps its target awake, from before its dial to its end. The time until the stop
/// runs from the moment when the last one is dropped.
#[derive(Debug)]
#[must_use = "the target is kept awake while this lives"]
pub(crate) struct Awake {
    engine: Arc<Engine>,
    stop_after: Option<Duration>,
}

/// Why a session did not reach its target.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreached<E: Display> {
    /// It was not started.
    #[error("{start} (before that: {dial})")]
    NotStarted {
        /// Why the start failed.
        start: StartError,
        /// What the last dial met.
        dial: E,
    },
    /// It was started, and takes no client in the time that a client waits.
    #[error("{start}: {dial}")]
    NotInTime {
        /// How long it had.
        start: StartError,
        /// What the last dial met; `None` if there was no time for one.
        dial: E,
    },
}

impl Waker {
    /// Counts a session. Do this before the dial, and for sessions only: a status ping or a refused
    /// client keeps nothing awake.
    pub(crate) fn enter(&self) -> Awake {
        self.engine.enter();
        Awake { engine: Arc::clone(&self.engine), stop_after: self.spec.stop_after }
    }

    /// Reaches the target for a client that `came` then: dials, and if that fails starts it and
    /// dials again until the time for it is over. Returns what the dial gave.
    ///
    /// The dial is called many times, so it must not count or log its failures as a session's. The
    /// caller drops this when the client is gone. A start under way goes on then.
    ///
    /// # Errors
    /// [`Unreached`] with the error of the last dial.
    pub(crate) async fn reach<T, E, F>(&self, came: Instant, dial: impl Fn() -> F) -> Result<T, Unreached<E>>
    where
        E: Display,
        F: Future<Output = Result<T, E>>,
    {
        let deadline = came + self.spec.wait;
        // A target that is being stopped may still take a connection, and cut it.
        let _ = timeout_at(deadline, self.engine.until(|ledger| is_not_stopping(ledger).then_some(()))).await;
        let starts = self.engine.look(Ledger::starts);
        let mut missed = match dial().await {
            Ok(reached) => {
                self.engine.reached();
                return Ok(reached);
            }
            Err(error) => error,
        };
        let mut waiting = Waiting::new(self);
        if let Need::GiveUp(start) = self.engine.need(&self.spec, Some(starts)) {
            return Err(Unreached::NotStarted { start, dial: missed });
        }
        loop {
            if let Some(start) = self.pause(came, deadline).await {
                return Err(Unreached::NotStarted { start, dial: missed });
            }
            match timeout_at(deadline, dial()).await {
                Ok(Ok(reached)) => {
                    self.engine.reached();
                    return Ok(reached);
                }
                Ok(Err(error)) => missed = error,
                Err(_) => {}
            }
            if Instant::now() >= deadline {
                let start = self.too_late();
                waiting.in_vain = Some(start.clone());
                return Err(Unreached::NotInTime { start, dial: missed });
            }
        }
    }

    /// Has the target started, if it is not known to run, and waits for the end of the start. What
    /// was started may need a moment before it answers. For flows of UDP, where a dial says
    /// nothing: [`Waker::reached`] and [`Waker::lost`] tell what they see.
    ///
    /// # Errors
    /// Why it was not started, or that it takes too long.
    pub(crate) async fn start(&self) -> Result<(), StartError> {
        let deadline = Instant::now() + self.spec.wait;
        loop {
            match self.engine.need(&self.spec, None) {
                Need::Nothing => return Ok(()),
                Need::GiveUp(error) => return Err(error),
                Need::Begin(_) | Need::Wait => {}
            }
            let done = self.engine.until(|ledger| (!is_busy(ledger)).then_some(()));
            if timeout_at(deadline, done).await.is_err() {
                return Err(self.too_late());
            }
        }
    }

    /// Begins a start, if the target is not known to run, and waits for nothing: for a client that
    /// is answered at once, as a player is. Its dial has failed. The state afterwards.
    pub(crate) fn start_soon(&self) -> State {
        let starts = self.engine.look(Ledger::starts);
        let _ = self.engine.need(&self.spec, Some(starts));
        self.state()
    }

    /// A session has reached the target in another way than by [`Waker::reach`]: a flow of UDP had
    /// an answer, a player's dial worked.
    pub(crate) fn reached(&self) {
        self.engine.reached();
    }

    /// A session saw that the target, taken to run, answers no more. The next one starts it.
    pub(crate) fn lost(&self) {
        self.engine.lost();
    }

    /// How it is with the target.
    pub(crate) fn state(&self) -> State {
        self.engine.look(|ledger| ledger.state().clone())
    }

    /// Waits until it is time for the next dial; the error of a start that failed meanwhile.
    async fn pause(&self, came: Instant, deadline: Instant) -> Option<StartError> {
        let waiting = u32::try_from(self.engine.look(Ledger::waiting)).unwrap_or(u32::MAX);
        let own = if came.elapsed() < FIRST_STEPS { FIRST_STEP } else { STEP };
        let step = own.max(DIALS_APART.saturating_mul(waiting).min(LONGEST_STEP));
        let until = (Instant::now() + step).min(deadline);
        // A target that another client has reached just now is worth a dial.
        let was_up = self.engine.look(|ledger| *ledger.state() == State::Running);
        let news = self.engine.until(|ledger| match ledger.state() {
            State::Failed { error, .. } => Some(Some(error.clone())),
            State::Running if !was_up => Some(None),
            _ => None,
        });
        timeout_at(until, news).await.unwrap_or(None)
    }

    fn too_late(&self) -> StartError {
        let what = Arc::clone(self.engine.what());
        match self.state() {
            State::Stopping => StartError::Stopping { what },
            _ => StartError::NotReached { what, limit: self.spec.wait },
        }
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.engine.leave(self.stop_after);
    }
}

fn is_not_stopping(ledger: &Ledger) -> bool {
    *ledger.state() != State::Stopping
}

/// Whether a start or a stop is under way.
fn is_busy(ledger: &Ledger) -> bool {
    ledger.is_acting() || *ledger.state() == State::Stopping
}

/// A session that waits for the start.
struct Waiting<'a> {
    waker: &'a Waker,
    in_vain: Option<StartError>,
}

impl<'a> Waiting<'a> {
    fn new(waker: &'a Waker) -> Self {
        waker.engine.note(Ledger::wait);
        Self { waker, in_vain: None }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.waker.engine.wait_ends(self.in_vain.take(), self.waker.spec.wait);
    }
}
