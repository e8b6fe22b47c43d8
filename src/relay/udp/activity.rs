//! What has passed through a flow, and what follows from it: its timeout, and whether it can end
//! early.
//!
//! Many UDP services answer one question (DNS, NTP, a server list), and each question comes from a
//! new port. With the whole idle timeout, such flows would fill every cap. So a flow has a state,
//! as in the connection tracking of Linux (`nf_conntrack_udp_timeout`,
//! `nf_conntrack_udp_timeout_stream`):
//!
//! - *answered once*: one question, and an answer. Its timeout is a sixth of the idle timeout (10 s
//!   of 60 s).
//! - *brief*: all datagrams passed within [`BRIEF`]. Its timeout is half of the idle timeout (30 s
//!   of 60 s).
//! - *assured*: a datagram passed later than that. Its timeout is the idle timeout.
//!
//! A short idle timeout is not shortened. A brief flow without an open question is *settled*: it
//! ends early where a new flow needs its place.
//!
//! The activity also knows when the target has fallen silent: [`SILENCE_DATAGRAMS`] had no answer
//! over [`SILENCE`]. Pure: `now` is an argument.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    handover::Span,
    mapping::{ClientKey, Timeout},
};

/// So many datagrams without an answer ...
const SILENCE_DATAGRAMS: u32 = 3;
/// ... over so long mean that the target is silent.
const SILENCE: Duration = Duration::from_secs(3);
/// A flow whose traffic goes on for longer than this is assured.
const BRIEF: Duration = Duration::from_secs(2);
/// The part of the idle timeout, and the time that is always granted, of a flow that was asked and
/// answered once.
const ANSWERED_ONCE: Linger = Linger { part: 6, least: Duration::from_secs(10) };
/// The same for a flow that was brief.
const WAS_BRIEF: Linger = Linger { part: 2, least: Duration::from_secs(30) };

struct Linger {
    part: u32,
    least: Duration,
}

/// The traffic of one open flow.
#[derive(Clone, Debug)]
pub(super) struct Activity {
    opened: Instant,
    asked: u32,
    answered: u32,
    assured: bool,
    /// Datagrams since the last answer, and when the first of them was sent.
    unanswered: u32,
    unanswered_since: Instant,
}

/// The traffic of a flow, as it is handed to the next process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ActivityRecord {
    opened_us: Span,
    asked: u32,
    answered: u32,
    assured: bool,
    unanswered: u32,
    unanswered_since_us: Span,
}

impl Activity {
    /// What is handed to the next process.
    pub(super) fn record(&self, now: Instant) -> ActivityRecord {
        let ago = |at| Span::of(now.saturating_duration_since(at));
        ActivityRecord {
            opened_us: ago(self.opened),
            asked: self.asked,
            answered: self.answered,
            assured: self.assured,
            unanswered: self.unanswered,
            unanswered_since_us: ago(self.unanswered_since),
        }
    }

    /// The traffic that another process handed over.
    pub(super) fn taken_over(record: &ActivityRecord, now: Instant) -> Self {
        let before = |span: Span| now.checked_sub(span.duration()).unwrap_or(now);
        let ActivityRecord { asked, answered, assured, unanswered, .. } = *record;
        let (opened, unanswered_since) = (before(record.opened_us), before(record.unanswered_since_us));
        Self { opened, asked, answered, assured, unanswered, unanswered_since }
    }

    /// A flow that was opened at `now`, with so many datagrams of the client already sent.
    pub(super) fn new(asked: u32, now: Instant) -> Self {
        Self { opened: now, asked, answered: 0, assured: false, unanswered: asked, unanswered_since: now }
    }

    /// Notes datagrams of the client. Whether the target is silent: at most once in [`SILENCE`].
    pub(super) fn ask(&mut self, datagrams: u32, now: Instant) -> bool {
        self.asked = self.asked.saturating_add(datagrams);
        self.pass(now);
        if self.unanswered == 0 {
            self.unanswered_since = now;
        }
        self.unanswered = self.unanswered.saturating_add(datagrams);
        let is_silent = self.unanswered >= SILENCE_DATAGRAMS
            && now.saturating_duration_since(self.unanswered_since) >= SILENCE;
        if is_silent {
            self.unanswered = 0;
        }
        is_silent
    }

    /// Notes datagrams of the target.
    pub(super) fn answer(&mut self, datagrams: u32, now: Instant) {
        self.answered = self.answered.saturating_add(datagrams);
        self.unanswered = 0;
        self.pass(now);
    }

    fn pass(&mut self, now: Instant) {
        self.assured |= now.saturating_duration_since(self.opened) > BRIEF;
    }

    /// How long the flow may be silent from now on.
    pub(super) fn linger(&self, idle: Timeout) -> Option<Duration> {
        let idle = idle.duration()?;
        let Linger { part, least } = match self {
            Self { assured: true, .. } => return Some(idle),
            Self { asked: 1, answered: 1.., .. } => ANSWERED_ONCE,
            _ => WAS_BRIEF,
        };
        Some((idle / part).max(idle.min(least)))
    }

    /// Whether the flow goes on for longer than a brief one.
    pub(super) fn is_assured(&self) -> bool {
        self.assured
    }

    /// Whether the flow is brief and every question has an answer. It can end early.
    pub(super) fn is_settled(&self) -> bool {
        !self.assured && self.answered > 0 && self.answered >= self.asked
    }
}

/// Flows of a listener that may be settled, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Settled {
    of_all: BTreeSet<(u64, usize)>,
    by_client: BTreeSet<(ClientKey, u64, usize)>,
}

impl Settled {
    /// Enters a flow, by its client, its serial number and its slot.
    pub(super) fn insert(&mut self, client: ClientKey, serial: u64, slot: usize) {
        self.of_all.insert((serial, slot));
        self.by_client.insert((client, serial, slot));
    }

    /// Removes it.
    pub(super) fn remove(&mut self, client: ClientKey, serial: u64, slot: usize) {
        self.of_all.remove(&(serial, slot));
        self.by_client.remove(&(client, serial, slot));
    }

    /// The slot of the client's oldest one.
    pub(super) fn oldest_of(&self, client: ClientKey) -> Option<usize> {
        let mut own = self.by_client.range((client, 0, 0)..);
        own.next().filter(|(of, ..)| *of == client).map(|(.., slot)| *slot)
    }

    /// The slot of the oldest one.
    pub(super) fn oldest(&self) -> Option<usize> {
        self.of_all.first().map(|(_, slot)| *slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Settled {
        /// How many there are.
        pub(in crate::relay::udp) fn len(&self) -> usize {
            assert_eq!(self.of_all.len(), self.by_client.len());
            self.of_all.len()
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn lingers(idle: Duration, activity: impl Fn(&mut Activity, Instant)) -> Duration {
        let now = tokio::time::Instant::now().into_std();
        let mut flow = Activity::new(1, now);
        activity(&mut flow, now);
        flow.linger(Timeout::After(idle)).unwrap()
    }

    #[test]
    fn a_flow_lingers_by_what_has_passed_through_it() {
        let silent = |_: &mut Activity, _| {};
        let once = |flow: &mut Activity, now| flow.answer(1, now);
        let twice = |flow: &mut Activity, now| {
            flow.ask(1, now + SECOND);
            flow.answer(2, now + SECOND);
        };
        let long = |flow: &mut Activity, now| {
            flow.ask(1, now + BRIEF + Duration::from_millis(1));
        };
        let later = |flow: &mut Activity, now| flow.answer(1, now + BRIEF + Duration::from_millis(1));
        let all = |idle| {
            [
                lingers(idle, silent),
                lingers(idle, once),
                lingers(idle, twice),
                lingers(idle, long),
                lingers(idle, later),
            ]
        };
        assert_eq!(all(60 * SECOND), [30, 10, 30, 60, 60].map(|s| s * SECOND));
        assert_eq!(all(3600 * SECOND), [1800, 600, 1800, 3600, 3600].map(|s| s * SECOND));
        assert_eq!(all(20 * SECOND), [20, 10, 20, 20, 20].map(|s| s * SECOND));
        assert_eq!(all(3 * SECOND), [3; 5].map(|s| s * SECOND));
    }

    #[test]
    fn a_flow_without_an_idle_timeout_never_expires() {
        let mut flow = Activity::new(1, tokio::time::Instant::now().into_std());
        flow.answer(1, flow.opened);
        assert_eq!(flow.linger(Timeout::Never), None);
    }

    #[test]
    fn a_target_is_silent_after_several_datagrams_over_some_seconds() {
        let start = tokio::time::Instant::now().into_std();
        let mut flow = Activity::new(1, start);
        let silent: Vec<u32> = (1..=12).filter(|half| flow.ask(1, start + *half * SECOND / 2)).collect();
        assert_eq!(silent, [6], "after 3 s, and then not before 3 s after the next one");
        flow.answer(1, start + 6 * SECOND);
        assert!(!flow.ask(1, start + 60 * SECOND));
        assert!(!flow.ask(1, start + 64 * SECOND), "two datagrams are not enough");
        assert!(flow.ask(1, start + 65 * SECOND));
    }

    #[test]
    fn only_a_brief_flow_whose_questions_are_answered_is_settled() {
        let now = tokio::time::Instant::now().into_std();
        let mut flow = Activity::new(2, now);
        assert!(!flow.is_settled());
        flow.answer(1, now);
        assert!(!flow.is_settled(), "one question is open");
        flow.answer(1, now);
        assert!(flow.is_settled());
        flow.ask(1, now);
        assert!(!flow.is_settled());
        flow.answer(1, now + BRIEF * 2);
        assert!(!flow.is_settled(), "it has gone on for a while");
    }
}
