//! When a flow is led to another address.
//!
//! A flow keeps its target as long as that answers. Some troubles say that it does not
//! ([`Trouble`]). [`FailoverJudge`] decides which of them is a reason to look for another address,
//! and how often. It is pure: `now` is an argument.
//!
//! - A flow without an answer so far looks at once. One that had an answer looks when the trouble
//!   lasts for [`LASTING`] with no answer in between: a service that restarts is back by then.
//! - After each look there is a pause: 1 s, doubled up to 5 s, until an answer comes. Lookups of a
//!   name are repeated every 5 s, so a longer pause would find nothing new. A look for a silence is
//!   followed by no pause: it is rare by itself, and must not delay the look for a refusal that
//!   comes just after.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::handover::Span;

/// How long a target that answered has to be in trouble.
const LASTING: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What is wrong with the address that a flow leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Trouble {
    /// Several datagrams over some seconds had no answer.
    Silent = 1,
    /// The target's machine refuses, or a router knows no way: an ICMP error.
    Refused,
    /// This machine has no way to it with the flow's own address.
    NoWay,
}

impl Trouble {
    /// The trouble as a number above 0, for an atomic cell. The greater one tells more.
    pub(super) const fn code(self) -> u8 {
        self as u8
    }

    /// The trouble that [`Trouble::code`] gave.
    pub(super) const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Silent),
            2 => Some(Self::Refused),
            3 => Some(Self::NoWay),
            _ => None,
        }
    }
}

/// Decides for one flow.
#[derive(Debug)]
pub(super) struct FailoverJudge {
    has_answered: bool,
    /// When a target that had answered was first in trouble.
    in_trouble: Option<Instant>,
    not_before: Option<Instant>,
    pause: Duration,
}

/// What the judge of a flow knows, as it is handed to the next process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct JudgeRecord {
    pub(super) has_answered: bool,
    in_trouble_us: Option<Span>,
    not_before_us: Option<Span>,
    pause_us: Span,
}

impl FailoverJudge {
    /// What is handed to the next process.
    pub(super) fn record(&self, now: Instant) -> JudgeRecord {
        JudgeRecord {
            has_answered: self.has_answered,
            in_trouble_us: self.in_trouble.map(|at| Span::of(now.saturating_duration_since(at))),
            not_before_us: self.not_before.map(|at| Span::of(at.saturating_duration_since(now))),
            pause_us: Span::of(self.pause),
        }
    }

    /// The judge that another process handed over.
    pub(super) fn taken_over(record: &JudgeRecord, now: Instant) -> Self {
        let not_before = record.not_before_us.map(|left| now + left.duration().min(LONGEST_PAUSE));
        Self {
            has_answered: record.has_answered,
            in_trouble: record.in_trouble_us.map(|ago| now.checked_sub(ago.duration()).unwrap_or(now)),
            not_before,
            pause: record.pause_us.duration().clamp(FIRST_PAUSE, LONGEST_PAUSE),
        }
    }
}

impl Default for FailoverJudge {
    fn default() -> Self {
        Self { has_answered: false, in_trouble: None, not_before: None, pause: FIRST_PAUSE }
    }
}

impl FailoverJudge {
    /// Notes an answer. Whether it is the first since the flow was led here, or since the last
    /// trouble.
    pub(super) fn answered(&mut self) -> bool {
        let is_news = !self.has_answered || self.in_trouble.is_some();
        *self = Self { has_answered: true, ..Self::default() };
        is_news
    }

    /// Whether the flow looks for another address now.
    pub(super) fn looks(&mut self, trouble: Trouble, now: Instant) -> bool {
        if self.not_before.is_some_and(|at| now < at) {
            return false;
        }
        if self.has_answered && trouble == Trouble::Refused {
            let since = *self.in_trouble.get_or_insert(now);
            if now.saturating_duration_since(since) < LASTING {
                return false;
            }
        }
        if trouble == Trouble::Silent {
            return true;
        }
        self.not_before = now.checked_add(self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }

    /// Notes that the flow has another target now.
    pub(super) fn failed_over(&mut self) {
        (self.has_answered, self.in_trouble) = (false, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[test]
    fn a_flow_without_an_answer_looks_at_once_and_then_once_a_pause() {
        let (mut judge, start) = (FailoverJudge::default(), now());
        let looks: Vec<u32> =
            (0..20_000).step_by(100).filter(|ms| judge.looks(Trouble::Refused, start + *ms * MS)).collect();
        assert_eq!(looks, [0, 1000, 3000, 7000, 12_000, 17_000]);
    }

    #[test]
    fn a_flow_that_had_an_answer_looks_when_the_trouble_lasts() {
        let (mut judge, start) = (FailoverJudge::default(), now());
        assert!(judge.answered());
        assert!(!judge.looks(Trouble::Refused, start));
        assert!(judge.answered(), "the end of a trouble is news");
        assert!(!judge.answered());
        assert!(!judge.looks(Trouble::Refused, start + 1500 * MS), "there was an answer meanwhile");
        assert!(judge.looks(Trouble::Refused, start + 2500 * MS));
        judge.failed_over();
        assert!(judge.looks(Trouble::Refused, start + 3500 * MS), "the next address has not answered");
    }

    #[test]
    fn a_silence_does_not_delay_the_look_for_a_refusal() {
        let (mut judge, start) = (FailoverJudge::default(), now());
        for second in (0..60_000).step_by(6000) {
            assert!(judge.looks(Trouble::Silent, start + second * MS));
            assert!(judge.looks(Trouble::Refused, start + (second + 100) * MS));
        }
    }

    #[test]
    fn a_lost_way_and_a_long_silence_need_no_second_sign() {
        for trouble in [Trouble::Silent, Trouble::NoWay] {
            let mut judge = FailoverJudge::default();
            judge.answered();
            assert!(judge.looks(trouble, now()));
            assert_eq!(Trouble::from_code(trouble.code()), Some(trouble));
        }
    }
}
