//! Waiting: the only place of the tests where time passes.
//!
//! A test waits for a condition ([`eventually`]). Two things need time itself, and say so by their name: traffic with a
//! rate ([`paced`]) and a measurement over a span ([`pass`]). Neither may stand for "it will have happened by now".

use std::time::Duration;

use tokio::time::Instant;

/// How long a condition may take before the test fails: far more than it needs on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

#[expect(clippy::disallowed_methods, reason = "the one pause between two looks at a condition")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Looks until `probe` finds something, and fails with `what` after [`DEADLINE`].
#[track_caller]
pub(crate) fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    eventually_within(DEADLINE, what, probe)
}

/// The same with a deadline that is part of the claim.
#[track_caller]
pub(crate) fn eventually_within<T>(
    deadline: Duration,
    what: &str,
    mut probe: impl FnMut() -> Option<T>,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(started.elapsed() < deadline, "not within {deadline:?}: {what}");
        pause(Duration::from_millis(5));
    }
}

/// Does `step` once every interval, so many times: traffic with a rate.
pub(crate) fn paced(every: Duration, times: usize, mut step: impl FnMut(usize)) {
    for nth in 0..times {
        step(nth);
        pause(every);
    }
}

/// Lets a span of time go by, over which something is measured.
pub(crate) fn pass(span: Duration) {
    pause(span);
}
