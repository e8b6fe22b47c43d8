//! Ends the wait of a stop early if only silent flows are left.
//!
//! UDP has no end: a client that has left looks like a silent one. While a TCP session is waited
//! for, silent flows cost nothing and may stay. If only flows are left and no datagram has passed
//! for [`LULL`], their clients have most likely left. `docker stop` gives ten seconds in all, and
//! the next program serves a client that comes back.
//!
//! A reload does not use this: it does not wait for the end of a removed mapping.

use std::time::Duration;

use tokio::time::sleep;

/// How long nothing may have passed.
const LULL: Duration = Duration::from_secs(5);
/// The time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The looks without news that end the wait. They are counted in place of time: a suspended daemon
/// does not look.
const SILENT_LOOKS: u128 = LULL.as_millis() / LOOK_EVERY.as_millis();

/// What is left of a daemon that stops.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Remaining {
    /// TCP sessions, which end by themselves.
    pub(super) sessions: usize,
    /// The flows in the order of their ids, with the bytes that have passed through each.
    pub(super) flows: Vec<(u64, u64)>,
}

impl Remaining {
    /// Whether no byte has passed through any flow since an earlier look. Flows that ended do not
    /// matter.
    fn is_silent_since(&self, before: &Self) -> bool {
        self.flows.iter().all(|flow| before.flows.binary_search(flow).is_ok())
    }
}

/// Waits until only flows are left and nothing has passed for a while. May be dropped at any time.
pub(super) async fn lull(look: impl Fn() -> Remaining) {
    let (mut before, mut silent) = (look(), 0);
    loop {
        sleep(LOOK_EVERY).await;
        let left = look();
        silent = if left.is_silent_since(&before) { silent + 1 } else { 0 };
        if left.sessions == 0 && silent >= SILENT_LOOKS {
            return;
        }
        before = left;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// How long it takes until the wait is over, where `left` says what there is after so many
    /// seconds.
    async fn waited(left: impl Fn(f64) -> Remaining) -> f64 {
        let start = Instant::now();
        let over = tokio::time::timeout(LULL * 100, lull(|| left(start.elapsed().as_secs_f64()))).await;
        if over.is_ok() { start.elapsed().as_secs_f64() } else { f64::INFINITY }
    }

    fn flows(flows: &[(u64, u64)]) -> Remaining {
        Remaining { sessions: 0, flows: flows.to_vec() }
    }

    #[tokio::test(start_paused = true)]
    async fn silent_flows_alone_are_waited_for_five_seconds() {
        let over = waited(|_| flows(&[(1, 700), (2, 0)])).await;
        assert!((5.0..6.0).contains(&over), "{over}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_keeps_silent_flows_too() {
        let left = |at| Remaining { sessions: usize::from(at < 20.0), flows: vec![(1, 700)] };
        let over = waited(left).await;
        assert!((20.0..21.0).contains(&over), "{over}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flow_that_talks_keeps_the_silent_ones() {
        let said = |at: f64| (at.min(30.0) / 4.0) as u64;
        let over = waited(|at| flows(&[(1, 700), (2, said(at))])).await;
        assert!((33.0..35.0).contains(&over), "{over}");
        let for_ever = waited(|at| flows(&[(1, 700), (2, (at / 4.0) as u64)])).await;
        assert_eq!(for_ever, f64::INFINITY);
    }

    #[tokio::test(start_paused = true)]
    async fn flows_that_end_one_by_one_do_not_make_the_wait_longer() {
        let left = |at: f64| Remaining { sessions: 0, flows: (at as u64..50).map(|id| (id, 9)).collect() };
        let over = waited(left).await;
        assert!((5.0..6.0).contains(&over), "{over}");
    }
}
