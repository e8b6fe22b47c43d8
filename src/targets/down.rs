//! Targets that are down: one line when a target goes down, one when it is back.
//!
//! Owns the run of failures of each target that failed last time, by mapping and protocol. Which
//! target is tried next does not depend on it: see the pool.
//!
//! What counts:
//! - A [`Sign::Refused`] or [`Sign::Clear`] failure (unreachable, a name without an address,
//!   silence for [`CLEAR_SILENCE`]) means *down* at once. A [`Sign::Doubtful`] one (a reset, a
//!   short silence) needs a second one, with no success between.
//! - One success means *up*.
//! - A failure that is this machine's own ([`Sign::Own`]) says nothing.
//!
//! Each target may say "down" [`BURST`] times, then once a [`REFILL`]. All targets together have
//! [`ALL_BURST`] and one an [`ALL_REFILL`], so that a scan over a range of dead ports does not fill
//! a disk. A target whose "down" was not logged does not log "up" either. [`MOST`] bounds the
//! targets that are remembered. While no target fails, each call is one atomic load.

use std::{
    fmt::Display,
    io,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};

use crate::{
    events::{Draft, EventKind, Events},
    handover::Span,
    log_limiter::LogLimiter,
    mapping::{MappingName, Protocol, TargetAddr},
    sock::errno::is_own_shortage,
    text::clean_start,
};

/// A silence of this length is clear: more than one attempt of the kernel had no answer.
pub(crate) const CLEAR_SILENCE: Duration = Duration::from_secs(2);
/// Failures in a row that mean "down" where each is doubtful.
const DOUBTFUL_FAILURES: u64 = 2;
/// The targets that are remembered.
const MOST: usize = 4096;
/// How often one target may say that it went down, in a row.
const BURST: u32 = 5;
/// How often after that.
const REFILL: Duration = Duration::from_secs(60);
/// The same for all targets together.
const ALL_BURST: u32 = 50;
const ALL_REFILL: Duration = Duration::from_secs(6);
/// The longest error that is taken over, in characters.
const LONGEST_ERROR: usize = 400;

/// A target as one mapping uses it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Leg {
    /// The mapping.
    pub mapping: MappingName,
    /// The protocol of the session.
    pub protocol: Protocol,
    /// The target, as the configuration names it.
    pub target: TargetAddr,
}

/// What a failure says about the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It refuses: nothing listens there.
    Refused,
    /// It cannot be reached.
    Clear,
    /// It may be a moment's trouble.
    Doubtful,
    /// The cause is on this machine.
    Own,
}

impl Sign {
    /// What an error of the system says about the target.
    pub(crate) fn of(error: &io::Error) -> Self {
        match error.kind() {
            _ if is_own_shortage(error) => Self::Own,
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::Interrupted
            // The address of `source` is not there now, or the source ports are taken.
            | io::ErrorKind::AddrNotAvailable => Self::Doubtful,
            _ => Self::Clear,
        }
    }
}

/// A target that is down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Down {
    /// When its failures began.
    pub since: Instant,
    /// When that made it "down".
    pub at: Instant,
    /// What the failure said that made it "down".
    pub error: String,
}

/// The targets that failed last time.
#[derive(Debug)]
pub(super) struct DownTargets {
    state: Mutex<State>,
    /// How many entries say that their target fails, for a look without the lock.
    failing: AtomicUsize,
    events: Events,
    /// Marked when a target goes down or comes back.
    changes: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    known: IndexMap<Leg, Run>,
    /// The lines of all targets together.
    all: LogLimiter,
    /// Targets that went down without a line since the last line.
    left_out: u64,
}

/// The present run of failures of a target, and the lines it may write.
#[derive(Debug)]
struct Run {
    /// Sessions that failed since the last success; none where the target is up.
    failed: u64,
    since: Instant,
    /// When it went down.
    down_at: Instant,
    down: bool,
    told: bool,
    /// What the last failure that made it "down" said.
    error: String,
    lines: LogLimiter,
}

impl DownTargets {
    /// Every target is up. A change is told to `events`.
    pub(super) fn new(events: Events) -> Self {
        let state =
            State { known: IndexMap::new(), all: LogLimiter::new(ALL_BURST, ALL_REFILL), left_out: 0 };
        let changes = watch::Sender::default();
        Self { state: Mutex::new(state), failing: AtomicUsize::new(0), events, changes }
    }

    /// Notes that a session, or a flow, could not use the target.
    pub(super) fn failed(&self, leg: &Leg, sign: Sign, error: &dyn Display) {
        if sign == Sign::Own {
            return;
        }
        let now = Instant::now();
        let mut guard = self.state();
        let state = &mut *guard;
        if state.known.len() >= MOST && !state.known.contains_key(leg) {
            self.forget_one(state);
        }
        let run = state.known.entry(leg.clone()).or_insert_with(|| Run::new(now));
        if run.failed == 0 {
            run.since = now;
            self.failing.fetch_add(1, Relaxed);
        }
        run.failed += 1;
        if run.down || (sign == Sign::Doubtful && run.failed < DOUBTFUL_FAILURES) {
            return;
        }
        run.down = true;
        run.down_at = now;
        self.changes.send_replace(());
        run.error = error.to_string();
        run.told = run.lines.take(now).and_then(|_| state.all.take(now)).is_some();
        if !run.told {
            state.left_out += 1;
            return;
        }
        let (failed, left_out) = (run.failed, std::mem::take(&mut state.left_out));
        drop(guard);
        tracing::warn!(
            mapping = %leg.mapping,
            protocol = leg.protocol.as_str(),
            target.addr = %leg.target,
            sessions.failed = failed,
            lines.left_out = (left_out > 0).then_some(left_out),
            error = %error,
            "target down"
        );
        self.events.emit(EventKind::TargetDown, || {
            let message = format_args!("target {}/{} is down: {error}", leg.target, leg.protocol);
            Draft::new(message).mapping(leg.mapping.clone())
        });
    }

    /// Notes that a session reached the target, or that a flow had an answer from it.
    pub(super) fn worked(&self, leg: impl FnOnce() -> Leg) {
        if self.failing.load(Relaxed) == 0 {
            return;
        }
        let leg = leg();
        let mut guard = self.state();
        let Some(run) = guard.known.get_mut(&leg) else { return };
        let failed = std::mem::take(&mut run.failed);
        if failed == 0 {
            return;
        }
        self.failing.fetch_sub(1, Relaxed);
        let (was_down, told, since) = (run.down, run.told, run.since);
        (run.down, run.told) = (false, false);
        drop(guard);
        if was_down {
            self.changes.send_replace(());
        }
        if was_down && told {
            tracing::info!(
                mapping = %leg.mapping,
                protocol = leg.protocol.as_str(),
                target.addr = %leg.target,
                sessions.failed = failed,
                down_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
                "target up"
            );
            self.events.emit(EventKind::TargetUp, || {
                let message = format_args!("target {}/{} is up again", leg.target, leg.protocol);
                Draft::new(message).mapping(leg.mapping.clone())
            });
        }
    }

    /// What is wrong with a target; `None` where it is not down.
    pub(super) fn get(&self, leg: &Leg) -> Option<Down> {
        if self.failing.load(Relaxed) == 0 {
            return None;
        }
        let state = self.state();
        let run = state.known.get(leg).filter(|run| run.failed > 0 && run.down)?;
        Some(Down { since: run.since, at: run.down_at, error: run.error.clone() })
    }

    /// Changes when a target goes down or comes back.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// The targets that fail, for the next process.
    pub(super) fn snapshot(&self, now: Instant) -> Vec<DownRecord> {
        let state = self.state();
        let failing = state.known.iter().filter(|(_, run)| run.failed > 0);
        let record = |(leg, run): (&Leg, &Run)| DownRecord {
            leg: leg.clone(),
            failed: run.failed,
            since_us: Span::since(run.since, now),
            down_us: run.down.then(|| Span::since(run.down_at, now)),
            told: run.told,
            error: run.error.clone(),
        };
        failing.map(record).collect()
    }

    /// Takes over the targets that fail, without a line: it was written. Where this process has met
    /// a failure itself, that stays.
    pub(super) fn take_over(&self, records: &[DownRecord], now: Instant) {
        let mut state = self.state();
        for record in records {
            if state.known.len() >= MOST || record.failed == 0 || state.known.contains_key(&record.leg) {
                continue;
            }
            let run = Run {
                failed: record.failed.min(u64::from(u32::MAX)),
                since: record.since_us.before(now),
                down_at: record.down_us.unwrap_or_default().before(now),
                down: record.down_us.is_some(),
                told: record.told,
                error: clean_start(&record.error, LONGEST_ERROR),
                lines: LogLimiter::new(BURST, REFILL),
            };
            state.known.insert(record.leg.clone(), run);
            self.failing.fetch_add(1, Relaxed);
        }
        drop(state);
        self.changes.send_replace(());
    }

    /// Makes room: first go the targets that are up, then any one.
    fn forget_one(&self, state: &mut State) {
        state.known.retain(|_, run| run.failed > 0);
        if state.known.len() >= MOST && state.known.swap_remove_index(0).is_some() {
            self.failing.fetch_sub(1, Relaxed);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    fn new(now: Instant) -> Self {
        Self {
            failed: 0,
            since: now,
            down_at: now,
            down: false,
            told: false,
            error: String::new(),
            lines: LogLimiter::new(BURST, REFILL),
        }
    }
}

/// A target that fails, as it is handed to the next process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DownRecord {
    #[serde(flatten)]
    leg: Leg,
    failed: u64,
    since_us: Span,
    /// How long it has been down; a target that is not may be in doubt.
    #[serde(default)]
    down_us: Option<Span>,
    /// The log has said so.
    #[serde(default)]
    told: bool,
    #[serde(default)]
    error: String,
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;
    use crate::mapping::Host;

    fn leg(port: u16) -> Leg {
        Leg {
            mapping: MappingName::new("web").unwrap(),
            protocol: Protocol::Tcp,
            target: TargetAddr { host: Host::LOOPBACK, port: NonZeroU16::new(port).unwrap() },
        }
    }

    /// Whether the target counts as down, and whether a line said so.
    fn state(targets: &DownTargets, port: u16) -> (bool, bool) {
        targets.state().known.get(&leg(port)).map_or((false, false), |run| (run.down, run.told))
    }

    #[tokio::test(start_paused = true)]
    async fn a_clear_failure_is_enough_and_a_doubtful_one_needs_another() {
        let targets = DownTargets::new(Events::default());
        targets.failed(&leg(1), Sign::Clear, &"refused");
        assert_eq!(state(&targets, 1), (true, true));
        targets.failed(&leg(2), Sign::Doubtful, &"reset");
        assert_eq!(state(&targets, 2), (false, false));
        targets.worked(|| leg(2));
        targets.failed(&leg(2), Sign::Doubtful, &"reset");
        assert_eq!(state(&targets, 2), (false, false), "there was a success between");
        targets.failed(&leg(2), Sign::Doubtful, &"reset");
        assert_eq!(state(&targets, 2), (true, true));
        targets.failed(&leg(3), Sign::Own, &"no descriptor");
        assert_eq!(state(&targets, 3), (false, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_comes_and_goes_says_so_five_times_and_then_once_a_minute() {
        let targets = DownTargets::new(Events::default());
        let mut told = 0;
        for _ in 0..600 {
            targets.failed(&leg(1), Sign::Clear, &"refused");
            told += u32::from(state(&targets, 1).1);
            tokio::time::advance(Duration::from_secs(1)).await;
            targets.worked(|| leg(1));
        }
        assert_eq!(told, BURST + 9);
        assert_eq!(targets.failing.load(Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_scan_over_dead_targets_writes_few_lines_and_keeps_few_of_them() {
        let targets = DownTargets::new(Events::default());
        let mut told = 0;
        for port in 1..=10_000 {
            targets.failed(&leg(port), Sign::Clear, &"refused");
            told += u32::from(state(&targets, port).1);
        }
        assert_eq!(told, ALL_BURST);
        assert_eq!(targets.state().known.len(), MOST);
        assert_eq!(targets.failing.load(Relaxed), MOST);
    }
}
