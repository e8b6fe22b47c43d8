//! The level of the log while the daemon runs.
//!
//! Owns the words for a level, and the one place that decides which level is in force: that of the
//! configuration, or one that an operator asked for. The latter ends with its time, with the next
//! reload, or with the next one that is asked for. Knows nothing of how lines are written: the
//! logger gives it a function that puts a level in force.
//!
//! [`LevelControl`] is a handle: clones share one level. [`LevelControl::follow`] ends a level
//! whose time is over, and runs as long as the daemon.

use std::{convert::Infallible, fmt, future, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tracing::level_filters::LevelFilter;

/// The least important line that is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Nothing at all.
    Off,
    /// What failed.
    Error,
    /// What an operator should act on.
    Warn,
    /// What an operator wants to know.
    #[default]
    Info,
    /// What strangers do.
    Debug,
    /// Every step.
    Trace,
}

impl LogLevel {
    /// Every level, the quietest first.
    pub const ALL: [Self; 6] = [Self::Off, Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// The word for it in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    /// The level with this name, in upper or lower case.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str().eq_ignore_ascii_case(name))
    }
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => Self::OFF,
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Changes the level of the running log, and says what it is.
#[derive(Clone)]
pub(crate) struct LevelControl(Arc<Shared>);

struct Shared {
    state: watch::Sender<State>,
    /// Puts a level in force.
    apply: Box<dyn Fn(LogLevel) + Send + Sync>,
}

/// What decides the level.
#[derive(Clone, Copy, Debug)]
struct State {
    configured: LogLevel,
    asked: Option<Asked>,
}

/// What an operator asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    level: LogLevel,
    /// When it ends; `None` is the next reload.
    until: Option<Instant>,
}

/// A level that an operator asked for, as it is handed to the next process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AskedLevel {
    level: LogLevel,
    /// How long it stays; `None` where only a reload ends it.
    #[serde(default)]
    left_ms: Option<u64>,
}

impl State {
    fn level(&self) -> LogLevel {
        self.asked.map_or(self.configured, |asked| asked.level)
    }

    fn until(&self) -> Option<Instant> {
        self.asked?.until
    }
}

#[cfg_attr(not(feature = "api"), allow(dead_code, reason = "only the API changes the level"))]
impl LevelControl {
    /// The control of a log that writes `configured` and more important lines now. `apply` puts
    /// another level in force; it is called with a lock held, and must not call the control.
    pub(crate) fn new(configured: LogLevel, apply: impl Fn(LogLevel) + Send + Sync + 'static) -> Self {
        let state = watch::Sender::new(State { configured, asked: None });
        Self(Arc::new(Shared { state, apply: Box::new(apply) }))
    }

    /// The level in force.
    pub(crate) fn level(&self) -> LogLevel {
        self.0.state.borrow().level()
    }

    /// How long the level in force stays; `None` where only a reload ends it.
    pub(crate) fn left(&self) -> Option<Duration> {
        let until = self.0.state.borrow().until()?;
        Some(until.saturating_duration_since(Instant::now()))
    }

    /// Puts a level in force at once. It stays for this time, or until the next reload.
    pub(crate) fn set(&self, level: LogLevel, time: Option<Duration>) {
        // A time beyond the clock never ends.
        let until = time.and_then(|time| Instant::now().checked_add(time));
        self.change(|state| state.asked = Some(Asked { level, until }));
        tracing::info!(%level, seconds = time.map(|time| time.as_secs()), "log level changed");
    }

    /// What an operator asked for, for the next process.
    pub(crate) fn snapshot(&self) -> Option<AskedLevel> {
        let Asked { level, .. } = self.0.state.borrow().asked?;
        let left = self.left();
        Some(AskedLevel {
            level,
            left_ms: left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        })
    }

    /// Goes on with what an operator asked an earlier process for.
    pub(crate) fn take_over(&self, AskedLevel { level, left_ms }: AskedLevel) {
        let until = left_ms.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)));
        self.change(|state| state.asked = Some(Asked { level, until }));
    }

    /// Takes the level of the configuration that a reload has read. It ends what was asked for.
    pub(crate) fn reloaded(&self, configured: LogLevel) {
        self.change(|state| *state = State { configured, asked: None });
    }

    /// Ends each level that was asked for when its time is over, and calls `tell` with the level
    /// that is in force then.
    pub(crate) async fn follow(&self, tell: impl Fn(LogLevel)) -> Infallible {
        let mut changes = self.0.state.subscribe();
        loop {
            let until = changes.borrow_and_update().until();
            tokio::select! {
                // The sender is in this control.
                _ = changes.changed() => {}
                () = reached(until) => {
                    if let Some(level) = self.end() {
                        tell(level);
                    }
                }
            }
        }
    }

    /// Goes back to the level of the configuration, which it returns, unless another time was given
    /// meanwhile.
    fn end(&self) -> Option<LogLevel> {
        let is_over = |until: Instant| until <= Instant::now();
        let mut ended = false;
        self.change(|state| {
            ended = state.until().is_some_and(is_over);
            if ended {
                state.asked = None;
            }
        });
        let level = ended.then(|| self.level())?;
        tracing::info!(%level, "log level restored");
        Some(level)
    }

    /// Changes the state and puts its level in force, in one step for others.
    fn change(&self, change: impl FnOnce(&mut State)) {
        self.0.state.send_modify(|state| {
            let before = state.level();
            change(state);
            if state.level() != before {
                (self.0.apply)(state.level());
            }
        });
    }
}

impl fmt::Debug for LevelControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LevelControl").field(&*self.0.state.borrow()).finish()
    }
}

/// Waits for this moment, which may never come.
async fn reached(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::sleep;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A control at `info`, and the levels that it put in force.
    fn control() -> (LevelControl, Arc<Mutex<Vec<LogLevel>>>) {
        let applied = Arc::<Mutex<Vec<LogLevel>>>::default();
        let seen = Arc::clone(&applied);
        (LevelControl::new(LogLevel::Info, move |level| seen.lock().unwrap().push(level)), applied)
    }

    /// Runs the control for this time of a paused clock.
    async fn run(control: &LevelControl, time: Duration) {
        tokio::select! {
            never = control.follow(|_| {}) => match never {},
            () = sleep(time) => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_level_with_a_time_ends_with_it() {
        let (control, applied) = control();
        control.set(LogLevel::Debug, Some(10 * MINUTE));
        assert_eq!(control.level(), LogLevel::Debug);
        run(&control, 10 * MINUTE - Duration::from_secs(1)).await;
        assert_eq!((control.level(), control.left()), (LogLevel::Debug, Some(Duration::from_secs(1))));
        run(&control, Duration::from_secs(2)).await;
        assert_eq!((control.level(), control.left()), (LogLevel::Info, None));
        assert_eq!(*applied.lock().unwrap(), [LogLevel::Debug, LogLevel::Info]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_level_with_a_time_goes_on_in_the_next_process_and_ends_there() {
        let (before, _) = control();
        assert_eq!(before.snapshot(), None);
        before.set(LogLevel::Debug, Some(10 * MINUTE));
        run(&before, 4 * MINUTE).await;
        let (next, applied) = control();
        let json = serde_json::to_string(&before.snapshot()).unwrap();
        next.take_over(serde_json::from_str::<Option<AskedLevel>>(&json).unwrap().unwrap());
        assert_eq!((next.level(), next.left()), (LogLevel::Debug, Some(6 * MINUTE)));
        run(&next, 7 * MINUTE).await;
        assert_eq!(*applied.lock().unwrap(), [LogLevel::Debug, LogLevel::Info]);
        before.set(LogLevel::Trace, None);
        for left_ms in [None, Some(u64::MAX)] {
            next.take_over(AskedLevel { left_ms, ..before.snapshot().unwrap() });
            run(&next, 7 * MINUTE).await;
            assert_eq!(next.level(), LogLevel::Trace);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_time_replaces_the_first() {
        let (control, _) = control();
        control.set(LogLevel::Debug, Some(MINUTE));
        let (other, told) = (control.clone(), Mutex::new(Vec::new()));
        tokio::select! {
            never = control.follow(|level| told.lock().unwrap().push(level)) => match never {},
            () = async {
                sleep(MINUTE / 2).await;
                other.set(LogLevel::Trace, Some(MINUTE));
                sleep(MINUTE - Duration::from_secs(1)).await;
                assert_eq!(other.level(), LogLevel::Trace);
                sleep(Duration::from_secs(2)).await;
                assert_eq!(other.level(), LogLevel::Info);
            } => {}
        }
        assert_eq!(*told.lock().unwrap(), [LogLevel::Info]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_level_without_a_time_ends_with_the_next_reload() {
        let (control, applied) = control();
        for time in [None, Some(Duration::MAX)] {
            control.set(LogLevel::Trace, time);
            run(&control, 1000 * MINUTE).await;
            assert_eq!(control.level(), LogLevel::Trace);
            control.reloaded(LogLevel::Warn);
            assert_eq!(control.level(), LogLevel::Warn);
        }
        control.set(LogLevel::Off, Some(MINUTE));
        control.reloaded(LogLevel::Warn);
        run(&control, 2 * MINUTE).await;
        assert_eq!(applied.lock().unwrap()[4..], [LogLevel::Off, LogLevel::Warn]);
    }
}
