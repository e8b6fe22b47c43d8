//! The limit of open descriptors, and how it is shared out.

use rustix::{
    io::fcntl_dupfd_cloexec,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use crate::{
    relay::{
        tcp::{WAITING_ROOM, limit_pipes},
        udp::allow_joins,
    },
    supervisor::Budgets,
};

/// Descriptors that are neither listener, session nor flow: the runtime, logs, files that are read.
const CONTROL: u64 = 16;
/// Those of the thread that follows the router: its runtime, its state, and up to eight questions side by side.
const ROUTER: u64 = 16;
/// Clients that listeners have accepted and found no room for, a few each; when more wait than this, accepting fails for
/// a moment, which listeners survive.
const MOST_WAITING: u64 = 64;
/// One of so many descriptors may go to clients that are dropped in silence; more than [`MOST_SILENT`] bring nothing.
const SILENT_SHARE: u64 = 32;
const MOST_SILENT: u64 = 256;
/// One of so many descriptors may go to the pipes of bulk sessions, two for each pipe. Beyond [`MOST_PIPES`] more pipes
/// bring nothing, because so many flows do not fill them at once; and a pipe whose reader is slow holds 256 KiB, of which
/// the kernel lets a user have 64 MiB in all.
const PIPES_SHARE: u64 = 32;
const MOST_PIPES: u64 = 128;

/// Descriptors that the kernel's table has room for from the start, 8 bytes each.
const READY_DESCRIPTORS: u64 = 16 * 1024;

const FAST_PATHS: &str = "PORTWAY_FAST_PATHS";

/// Raises the soft limit of open descriptors to the hard one, and returns what it is then.
pub(super) fn raise_descriptors() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(error = %error, "the descriptor limit could not be raised");
    }
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    make_room(descriptors);
    descriptors
}

/// Lets the kernel make its table of our descriptors large at once. It doubles the table when that is full, and the
/// thread that needs the descriptor then waits for every processor, 3 to 15 ms with all that it serves. A thread that
/// has nothing else to do waits here, and the start goes on meanwhile.
fn make_room(descriptors: u64) {
    let highest = descriptors.min(READY_DESCRIPTORS).saturating_sub(1);
    let Ok(highest) = i32::try_from(highest) else { return };
    // Where any of this fails (no standard error, no thread), the table grows as it would.
    let grow = move || drop(fcntl_dupfd_cloexec(std::io::stderr(), highest));
    drop(std::thread::Builder::new().name("portway-room".into()).spawn(grow));
}

/// How many descriptors go where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shares {
    pipes: usize,
    silent: usize,
    sessions: usize,
    flows: usize,
}

impl Shares {
    /// TCP sessions, two descriptors each, may take all that listeners, pipes and control leave. UDP flows, one each, may
    /// take half of it: the other half is a reserve, so that forged UDP clients cannot keep TCP clients out.
    fn of(descriptors: u64, listeners: usize, with_router: bool) -> Self {
        let pipes = (descriptors / PIPES_SHARE / 2).min(MOST_PIPES);
        let silent = (descriptors / SILENT_SHARE).min(MOST_SILENT);
        let listeners = listeners as u64;
        let waiting = (listeners * WAITING_ROOM as u64).min(MOST_WAITING);
        let router = if with_router { ROUTER } else { 0 };
        let taken = CONTROL + router + listeners + waiting + silent + 2 * pipes;
        let rest = descriptors.saturating_sub(taken);
        let most = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).max(1);
        Self { pipes: most(pipes), silent: most(silent), sessions: most(rest / 2), flows: most(rest / 2) }
    }
}

/// Shares `descriptors` out between sessions, flows and pipes; with a share for the router, where it is asked for anything.
pub(super) fn share_out(descriptors: u64, listeners: usize, with_router: bool) -> Budgets {
    let Shares { pipes, silent, sessions, flows } = Shares::of(descriptors, listeners, with_router);
    let fast = !fast_paths_are_off();
    limit_pipes(if fast { pipes } else { 0 });
    allow_joins(fast);
    Budgets::new(sessions, flows, silent)
}

/// `PORTWAY_FAST_PATHS=off` leaves every byte to plain reads and writes: no splice, no GRO, no GSO. For the suspicion that
/// a kernel or a network driver gets one of these wrong.
fn fast_paths_are_off() -> bool {
    let off = std::env::var_os(FAST_PATHS).is_some_and(|value| value == "off");
    if off {
        tracing::info!("fast paths are off ({FAST_PATHS}=off)");
    }
    off
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_out_fits_into_the_limit() {
        for (descriptors, listeners) in [(128, 1), (1024, 10), (20_000, 10_000), (1_048_576, 3)] {
            for (router, with_router) in [(0, false), (ROUTER, true)] {
                let Shares { pipes, silent, sessions, .. } = Shares::of(descriptors, listeners, with_router);
                let waiting = (4 * listeners).min(64);
                let used = CONTROL + router + (listeners + waiting + silent + 2 * (pipes + sessions)) as u64;
                assert!(used <= descriptors && sessions > 10, "{used} of {descriptors}");
            }
        }
    }

    #[test]
    fn tcp_keeps_half_of_the_descriptors() {
        let Shares { sessions, flows, .. } = Shares::of(1024, 2, true);
        assert!(flows <= sessions);
    }

    #[test]
    fn a_tiny_limit_still_forwards_one_of_each() {
        assert_eq!(Shares::of(16, 2, true), Shares { pipes: 1, silent: 1, sessions: 1, flows: 1 });
    }
}
