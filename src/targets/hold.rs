//! How long something that failed is left alone.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::handover::Span;

/// The first hold.
pub(super) const FIRST: Duration = Duration::from_secs(1);
/// The longest one.
pub(super) const LONGEST: Duration = Duration::from_secs(60);

/// A pause after failures: [`FIRST`], doubled by each failure after it, up to [`LONGEST`]. One
/// success ends it.
///
/// When it is over, one session tries ([`Hold::on_trial`]), and the others wait a little longer.
/// Otherwise each client that comes then could meet the same silence.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hold {
    until: Option<Instant>,
    length: Duration,
    on_trial: bool,
}

impl Hold {
    /// Notes a failure. One that comes during the hold was on its way before, and changes nothing.
    pub(super) fn failed(&mut self, now: Instant) {
        if self.is_on(now) && !self.on_trial {
            return;
        }
        self.length = (self.length * 2).clamp(FIRST, LONGEST);
        self.until = Some(now + self.length);
        self.on_trial = false;
    }

    /// Notes a success. Returns whether the last thing before it was a failure.
    pub(super) fn worked(&mut self) -> bool {
        std::mem::take(self).until.is_some()
    }

    /// Whether it is in force.
    pub(super) fn is_on(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Notes that a session tries now. Where the hold is over, the next session that may try comes
    /// as much later.
    pub(super) fn on_trial(&mut self, now: Instant) {
        if self.until.is_some() && !self.is_on(now) {
            self.until = Some(now + self.length);
            self.on_trial = true;
        }
    }
}

/// A hold as it is handed to the next process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HoldRecord {
    /// How long it lasts, where it is in force.
    left_us: Span,
    length_us: Span,
    #[serde(default)]
    on_trial: bool,
}

impl Hold {
    /// What it hands over; `None` where the last thing was no failure.
    pub(super) fn snapshot(&self, now: Instant) -> Option<HoldRecord> {
        let left_us = Span::until(self.until?, now);
        Some(HoldRecord { left_us, length_us: Span::of(self.length), on_trial: self.on_trial })
    }

    /// The hold that an earlier process handed over.
    pub(super) fn taken_over(record: HoldRecord, now: Instant) -> Self {
        let HoldRecord { left_us, length_us, on_trial } = record;
        let length = length_us.duration().clamp(FIRST, LONGEST);
        let until = left_us.after(now).min(now + LONGEST);
        Self { until: Some(until), length, on_trial }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_hold_doubles_from_a_second_to_a_minute_and_a_success_ends_it() {
        let mut hold = Hold::default();
        assert!(!hold.worked());
        for length in [1, 2, 4, 8, 16, 32, 60, 60] {
            let now = Instant::now();
            hold.failed(now);
            hold.failed(now);
            assert!(hold.is_on(now + length * SECOND - SECOND / 1000));
            assert!(!hold.is_on(now + length * SECOND), "{length} s");
            tokio::time::advance(length * SECOND).await;
        }
        assert!(hold.worked());
        hold.failed(Instant::now());
        assert!(!hold.is_on(Instant::now() + SECOND), "it begins with a second again");
    }

    #[tokio::test(start_paused = true)]
    async fn one_session_tries_when_a_hold_is_over() {
        let (mut hold, start) = (Hold::default(), Instant::now());
        hold.on_trial(start);
        assert!(!hold.is_on(start), "nothing has failed");
        hold.failed(start);
        let over = start + SECOND;
        assert!(!hold.is_on(over));
        hold.on_trial(over);
        assert!(hold.is_on(over), "the others wait for what comes of it");
        hold.failed(over + SECOND / 2);
        assert!(hold.is_on(over + 2 * SECOND), "the failure of a trial doubles the hold");
    }
}
