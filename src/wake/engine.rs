//! One thing that can be started: it is started once for all clients, and stopped when it is time.
//!
//! The [`Ledger`] decides, and the engine does it: it runs the start and the stop on tasks of their
//! own, so that a client that leaves ends neither. It ends with its last handle; a start or a stop
//! under way comes to its end.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::task::TaskTracker;

use super::{
    StartError, WakeSpec,
    ledger::{Ledger, LedgerRecord, Need, State},
    starter::{Call, Starter},
};
use crate::{
    events::{Draft, EventKind, Events},
    log_limiter::LogLimiter,
};

/// The longest that a stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(300);
/// Lines about failed starts, at once and one more each period.
const LINES: (u32, Duration) = (3, Duration::from_secs(60));

/// One thing that can be started.
#[derive(Debug)]
pub(super) struct Engine {
    starter: Starter,
    /// For whom it was made: the mapping, and the words for a command.
    call: Call,
    ledger: watch::Sender<Ledger>,
    tasks: TaskTracker,
    events: Events,
    lines: LogLimiter,
}

impl Engine {
    pub(super) fn new(starter: Starter, call: Call, tasks: TaskTracker, events: Events) -> Self {
        let ledger = watch::Sender::new(Ledger::new(Instant::now()));
        let lines = LogLimiter::new(LINES.0, LINES.1);
        Self { starter, call, ledger, tasks, events, lines }
    }

    pub(super) fn call(&self) -> &Call {
        &self.call
    }

    /// Goes on where another process was; `wait` is the time that a start has.
    pub(super) fn take_over(self: &Arc<Self>, record: LedgerRecord, wait: Duration) {
        let now = Instant::now();
        if let Some((start, since)) = self.tell(|ledger| ledger.take_over(record, self.what(), now)) {
            let engine = Arc::clone(self);
            self.tasks.spawn(async move {
                sleep_until(since + wait).await;
                engine.tell(|ledger| ledger.settle(start, Instant::now()));
                engine.watch_for_stop();
            });
        }
        self.watch_for_stop();
    }

    /// What starts it, in words.
    pub(super) fn what(&self) -> &Arc<str> {
        self.starter.what()
    }

    #[cfg(test)]
    pub(super) fn tasks_running(&self) -> usize {
        self.tasks.len()
    }

    /// Looks at what is known.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.ledger.borrow())
    }

    /// Changes what is known. Nobody who waits hears of it.
    pub(super) fn note<T>(&self, change: impl FnOnce(&mut Ledger) -> T) -> T {
        self.modify(false, change)
    }

    /// Changes the state, and tells all who wait.
    fn tell<T>(&self, change: impl FnOnce(&mut Ledger) -> T) -> T {
        self.modify(true, change)
    }

    fn modify<T>(&self, tell: bool, change: impl FnOnce(&mut Ledger) -> T) -> T {
        let mut outcome = None;
        self.ledger.send_if_modified(|ledger| {
            outcome = Some(change(ledger));
            tell
        });
        outcome.expect("the closure was called")
    }

    pub(super) fn enter(&self) {
        self.note(Ledger::enter);
    }

    pub(super) fn leave(self: &Arc<Self>, stop_after: Option<Duration>) {
        self.note(|ledger| ledger.leave(stop_after, Instant::now()));
        self.watch_for_stop();
    }

    /// Begins a start if one is needed: `missed` as [`Ledger::need`] has it.
    pub(super) fn need(self: &Arc<Self>, spec: &Arc<WakeSpec>, missed: Option<u64>) -> Need {
        let need = self.note(|ledger| ledger.need(missed, Instant::now()));
        if let Need::Begin(start) = need {
            // Those who wait for a start see that it began.
            self.tell(|_| ());
            let (engine, spec) = (Arc::clone(self), Arc::clone(spec));
            self.tasks.spawn(async move { engine.start(start, &spec).await });
        }
        need
    }

    /// Waits until `done` holds of what is known.
    pub(super) async fn until<T>(&self, done: impl Fn(&Ledger) -> Option<T>) -> T {
        let mut changes = self.ledger.subscribe();
        loop {
            if let Some(outcome) = done(&changes.borrow_and_update()) {
                return outcome;
            }
            // The sender is in `self`, so it lives.
            let _ = changes.changed().await;
        }
    }

    /// A session has reached the target.
    pub(super) fn reached(&self) {
        if self.look(Ledger::is_in_use) {
            return;
        }
        let Some(took) = self.tell(|ledger| ledger.reached(Instant::now())) else { return };
        let (mapping, what) = (&self.call.mapping, self.what());
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(%mapping, wake = %what, took_ms, "target started");
        self.emit(EventKind::TargetStarted, || Draft::new(format_args!("{what}: up after {took_ms} ms")));
    }

    pub(super) fn lost(&self) {
        self.tell(Ledger::lost);
    }

    /// A session waits no longer; with an error, it waited in vain.
    pub(super) fn wait_ends(self: &Arc<Self>, in_vain: Option<StartError>, wait: Duration) {
        let (error, now) = (in_vain.clone(), Instant::now());
        let ends_start = self.tell(|ledger| ledger.wait_ends(in_vain, wait, now));
        match error {
            Some(error) if ends_start => self.say_failed(&error),
            Some(_) if self.look(Ledger::is_acting) && self.lines.take(now).is_some() => {
                let (mapping, what) = (&self.call.mapping, self.what());
                tracing::warn!(
                    %mapping, wake = %what, wait_s = wait.as_secs(),
                    "start still runs, and the target takes no client"
                );
            }
            _ => {}
        }
        self.watch_for_stop();
    }

    /// Tells whether the plan knows it.
    pub(super) fn plan(self: &Arc<Self>, is_planned: bool) {
        self.note(|ledger| ledger.plan(is_planned, Instant::now()));
        self.watch_for_stop();
    }

    async fn start(self: Arc<Self>, start: u64, spec: &WakeSpec) {
        let (mapping, what, began) = (&self.call.mapping, self.what(), Instant::now());
        tracing::info!(%mapping, wake = %what, "starting target");
        self.emit(EventKind::TargetStarting, || Draft::new(format_args!("{what}: a client came")));
        match self.starter.start(&self.call).await {
            Ok(()) => {
                self.tell(|ledger| ledger.started(start, spec.stop_after));
                sleep_until(began + spec.wait).await;
                self.tell(|ledger| ledger.settle(start, Instant::now()));
            }
            Err(error) => {
                let is_news = self.tell(|ledger| ledger.failed(start, error.clone(), Instant::now()));
                if is_news {
                    self.say_failed(&error);
                } else {
                    tracing::warn!(%mapping, wake = %what, %error, "start failed although the target is up");
                }
            }
        }
        self.watch_for_stop();
    }

    fn say_failed(&self, error: &StartError) {
        let (mapping, what) = (&self.call.mapping, self.what());
        let State::Failed { next_try, .. } = self.look(|ledger| ledger.state().clone()) else { return };
        let pause_s = next_try.saturating_duration_since(Instant::now()).as_secs_f64().round();
        if let Some(left_out) = self.lines.take(Instant::now()) {
            tracing::warn!(%mapping, wake = %what, %error, pause_s, left_out, "target not started");
        }
        self.emit(EventKind::StartFailed, || Draft::new(error));
    }

    /// Has the target stopped when it is time, unless that is watched already.
    fn watch_for_stop(self: &Arc<Self>) {
        // Without a waiting task for each session that ends: one looks again and again.
        if self.note(Ledger::watch) {
            let engine = Arc::clone(self);
            self.tasks.spawn(async move { engine.stop_when_due().await });
        }
    }

    async fn stop_when_due(self: Arc<Self>) {
        loop {
            match self.note(|ledger| ledger.look(Instant::now())) {
                None => return,
                Some(Err(due)) => sleep_until(due).await,
                Some(Ok(())) => break,
            }
        }
        self.tell(|_| ());
        self.stop().await;
        self.watch_for_stop();
    }

    async fn stop(&self) {
        let (mapping, what) = (&self.call.mapping, self.what());
        tracing::info!(%mapping, wake = %what, "stopping target: no session is left");
        let late = StartError::TimedOut { what: Arc::clone(what), limit: STOP_LIMIT };
        let stopped = timeout(STOP_LIMIT, self.starter.stop(&self.call)).await.unwrap_or(Err(late));
        self.tell(|ledger| ledger.stopped(stopped.is_ok(), Instant::now()));
        match stopped {
            Ok(()) => {
                tracing::info!(%mapping, wake = %what, "target stopped");
                self.emit(EventKind::TargetStopped, || {
                    Draft::new(format_args!("{what}: no session was left"))
                });
            }
            Err(error) => tracing::warn!(%mapping, wake = %what, %error, "target not stopped"),
        }
    }

    fn emit(&self, kind: EventKind, draft: impl FnOnce() -> Draft) {
        self.events.emit(kind, || draft().mapping(self.call.mapping.clone()));
    }
}
