//! One target of a mapping while it runs: how many sessions it has, and whether it takes more.

use std::{
    fmt::Display,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::rank::seed;
use crate::{
    handover::Span,
    mapping::TargetAddr,
    targets::{
        Dialer, Health, Leg, Sign,
        hold::{Hold, HoldRecord},
    },
};

/// A target of one mapping and one protocol.
#[derive(Debug)]
pub(crate) struct Member {
    addr: TargetAddr,
    /// What its address is to the choice by client.
    pub(super) seed: u64,
    /// The sessions that it has, and those on their way to it.
    sessions: AtomicU32,
    standing: Mutex<Standing>,
}

/// What decides whether it takes sessions.
#[derive(Debug, Default)]
struct Standing {
    hold: Hold,
    /// What its probes say.
    probes: Probes,
    is_paused: bool,
    /// When it came back.
    back: Option<Instant>,
}

/// What the probes of a target say, if it has any: at first that it is up.
#[derive(Debug, Default)]
struct Probes {
    is_down: bool,
    /// The last ones in a row that said otherwise.
    against: u32,
}

/// A target as it is handed to the next process. Whether it is paused the pool hands over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct MemberRecord {
    hold: Option<HoldRecord>,
    is_down: bool,
    against: u32,
    /// How long ago it came back.
    back_us: Option<Span>,
}

/// What a choice has to know of a member.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    /// It is skipped while another is left.
    pub(super) is_held: bool,
    /// It takes nothing.
    pub(super) is_paused: bool,
    /// When it came back, if it did.
    pub(super) back: Option<Instant>,
}

impl Member {
    pub(super) fn new(addr: TargetAddr, is_paused: bool) -> Self {
        let standing = Standing { is_paused, ..Standing::default() };
        Self { seed: seed(&addr), addr, sessions: AtomicU32::new(0), standing: Mutex::new(standing) }
    }

    /// Where it is.
    pub(crate) fn addr(&self) -> &TargetAddr {
        &self.addr
    }

    /// The sessions that it has, and those on their way to it.
    pub(crate) fn sessions(&self) -> u32 {
        self.sessions.load(Relaxed)
    }

    /// Notes that a session could not reach it.
    pub(crate) fn failed(&self, sign: Sign) {
        if sign != Sign::Own {
            self.standing().hold.failed(Instant::now());
        }
    }

    /// Notes that a session reached it. Returns whether it is up: probes that failed count for
    /// more.
    pub(crate) fn worked(&self) -> bool {
        let mut standing = self.standing();
        let is_down = standing.probes.is_down;
        if standing.hold.worked() && !is_down {
            standing.back = Some(Instant::now());
        }
        !is_down
    }

    /// Notes how a probe came out. Returns whether the target is up, where that is news.
    pub(crate) fn probed(&self, passed: bool, health: &Health) -> Option<bool> {
        let mut guard = self.standing();
        let standing = &mut *guard;
        let was_held = passed && standing.hold.worked();
        let probes = &mut standing.probes;
        if passed != probes.is_down {
            probes.against = 0;
            if was_held && !probes.is_down {
                standing.back = Some(Instant::now());
            }
            return None;
        }
        probes.against += 1;
        if probes.against < if passed { health.rise } else { health.fall }.get() {
            return None;
        }
        *probes = Probes { is_down: !passed, against: 0 };
        if passed {
            standing.back = Some(Instant::now());
        }
        Some(passed)
    }

    /// Whether probes say that it is down.
    pub(crate) fn is_down(&self) -> bool {
        self.standing().probes.is_down
    }

    /// Forgets what probes said: there are none any more.
    pub(super) fn is_not_probed(&self) {
        self.standing().probes = Probes::default();
    }

    pub(super) fn pause(&self, is_paused: bool) {
        self.standing().is_paused = is_paused;
    }

    /// Notes that a session goes there.
    pub(super) fn tried(&self, now: Instant) {
        self.standing().hold.on_trial(now);
    }

    pub(super) fn state(&self, now: Instant) -> State {
        let standing = self.standing();
        let is_held = standing.probes.is_down || standing.hold.is_on(now);
        State { is_held, is_paused: standing.is_paused, back: standing.back }
    }

    /// What is handed to the next process; `None` where it is as at first.
    pub(super) fn snapshot(&self, now: Instant) -> Option<MemberRecord> {
        let Standing { hold, probes, back, .. } = &*self.standing();
        let record = MemberRecord {
            hold: hold.snapshot(now),
            is_down: probes.is_down,
            against: probes.against,
            back_us: back.map(|back| Span::since(back, now)),
        };
        (record != MemberRecord::default()).then_some(record)
    }

    /// Takes over what an earlier process knew of it.
    pub(super) fn take_over(&self, record: MemberRecord, now: Instant) {
        let MemberRecord { hold, is_down, against, back_us } = record;
        let mut standing = self.standing();
        if let Some(hold) = hold {
            standing.hold = Hold::taken_over(hold, now);
        }
        // One more probe that says otherwise may decide, and no number overflows.
        standing.probes = Probes { is_down, against: against.min(u32::MAX / 2) };
        standing.back = back_us.map(|ago| ago.before(now));
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What of its weight, in thousandths, a target has that came back, where it takes `slow_start`
    /// to have all of it.
    pub(super) fn share(&self, slow_start: Option<Duration>, now: Instant) -> i64 {
        let Some((back, slow_start)) = self.back.zip(slow_start) else { return 1000 };
        let since = now.saturating_duration_since(back).as_millis();
        let share = since.saturating_mul(1000) / slow_start.as_millis().max(1);
        i64::try_from(share).unwrap_or(i64::MAX).clamp(1, 1000)
    }
}

/// The place of a session at a target, from before the dial to the end of the session.
#[derive(Debug, Default)]
#[must_use = "the target is free of the session when this is dropped"]
pub(crate) struct Place(Option<Arc<Member>>);

impl Place {
    pub(super) fn at(member: &Arc<Member>) -> Self {
        member.sessions.fetch_add(1, Relaxed);
        Self(Some(Arc::clone(member)))
    }

    /// The target; `None` where the mapping has but one, and nothing to choose.
    pub(crate) fn member(&self) -> Option<&Arc<Member>> {
        self.0.as_ref()
    }

    /// Notes that the session could not reach the target, for the next ones, and for the log.
    pub(crate) fn failed(&self, dialer: &Dialer, leg: &Leg, sign: Sign, error: &dyn Display) {
        if let Some(member) = &self.0 {
            member.failed(sign);
        }
        dialer.target_failed(leg, sign, error);
    }

    /// Notes that the session reached the target.
    pub(crate) fn worked(&self, dialer: &Dialer, leg: impl FnOnce() -> Leg) {
        if self.0.as_ref().is_none_or(|member| member.worked()) {
            dialer.target_worked(leg);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(member) = &self.0 {
            member.sessions.fetch_sub(1, Relaxed);
        }
    }
}
