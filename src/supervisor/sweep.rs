//! Decides when the live sessions are checked again, after a change that can revoke access.
//!
//! Changes that come close together are one sweep. There is at most one every [`INTERVAL`]. With
//! very many sessions, sweeps take at most a tenth of the time, so a flood of bans does not become
//! a flood of sweeps. One more sweep follows [`LATE`] after the last change: a client that was
//! admitted just before it may have entered the table just after the first sweep.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::policy::Gate;

/// The least time between two sweeps.
const INTERVAL: Duration = Duration::from_millis(100);
/// The least time between two sweeps, as a multiple of the time that the first one took.
const SHARE: u32 = 10;
/// How long after a change the last sweep runs.
const LATE: Duration = Duration::from_secs(1);

/// When to sweep.
#[derive(Debug)]
pub(super) struct Sweep {
    /// Changes without a plan: bans, lists, countries.
    revision: watch::Receiver<u64>,
    next: Option<Instant>,
    late: Option<Instant>,
    /// No sweep before this moment.
    rest_until: Option<Instant>,
}

impl Sweep {
    /// Sweeps for every later change of `gate`.
    pub(super) fn of(gate: &Arc<Gate>) -> Self {
        Self { revision: gate.revision(), next: None, late: None, rest_until: None }
    }

    /// Asks for a sweep as soon as possible.
    pub(super) fn request(&mut self) {
        let now = Instant::now();
        let soonest = self.rest_until.map_or(now, |rest_until| now.max(rest_until));
        self.next.get_or_insert(soonest);
        self.late = Some(soonest.max(now + LATE));
    }

    /// Waits until it is time to sweep. May be dropped at any time.
    pub(super) async fn due(&mut self) {
        loop {
            let next = self.next.into_iter().chain(self.late).min();
            tokio::select! {
                Ok(()) = self.revision.changed() => self.request(),
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => return,
                // The gate is gone, and nothing is left to do.
                else => std::future::pending().await,
            }
        }
    }

    /// Sweeps. What changes from here on asks for another one.
    pub(super) fn run(&mut self, sweep: impl FnOnce()) {
        let begun = Instant::now();
        self.next = None;
        self.late = self.late.filter(|late| *late > begun);
        sweep();
        self.rest(begun, Instant::now());
    }

    /// Notes how long a sweep took.
    fn rest(&mut self, begun: Instant, ended: Instant) {
        let until = begun + INTERVAL.max((ended - begun) * SHARE);
        self.rest_until = Some(until);
        self.late = self.late.map(|late| late.max(until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many sweeps there are in `time`.
    async fn sweeps(sweep: &mut Sweep, time: Duration) -> usize {
        let (end, mut count) = (Instant::now() + time, 0);
        loop {
            tokio::select! {
                () = sweep.due() => sweep.run(|| count += 1),
                () = sleep_until(end) => return count,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_swept_at_once_and_a_second_later_and_then_there_is_rest() {
        let mut sweep = Sweep::of(&Gate::new(std::time::SystemTime::now));
        assert_eq!(sweeps(&mut sweep, LATE * 10).await, 0);
        sweep.request();
        assert_eq!(sweeps(&mut sweep, INTERVAL / 2).await, 1);
        assert_eq!(sweeps(&mut sweep, LATE * 10).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn sweeps_that_take_long_take_a_tenth_of_the_time() {
        let mut sweep = Sweep::of(&Gate::new(std::time::SystemTime::now));
        let took = Duration::from_millis(300);
        let (start, mut count) = (Instant::now(), 0_u32);
        while start.elapsed() < Duration::from_secs(30) {
            sweep.request();
            tokio::select! {
                () = sweep.due() => {
                    let begun = Instant::now();
                    sweep.run(|| count += 1);
                    tokio::time::advance(took).await;
                    sweep.rest(begun, Instant::now());
                }
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
            }
        }
        assert!((9..=11).contains(&count), "{count} sweeps of {took:?} in {:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_changes_is_at_most_one_sweep_an_interval() {
        let mut sweep = Sweep::of(&Gate::new(std::time::SystemTime::now));
        let (start, mut count) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_secs(1) {
            sweep.request();
            count += sweeps(&mut sweep, Duration::from_millis(1)).await;
        }
        assert!((9..=11).contains(&count), "{count} sweeps in a second");
        let rest = sweeps(&mut sweep, LATE * 2).await;
        assert!(
            (1..=2).contains(&rest),
            "a late look, and the last change where it was not seen yet: {rest}"
        );
    }
}
