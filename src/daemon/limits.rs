//! The limit of open descriptors, and the fast paths. The supervisor
//! divides the descriptors.

use std::io;

use rustix::{
    io::{Errno, fcntl_dupfd_cloexec},
    pipe::pipe,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use crate::{config::environment, job};

/// So many have to be free at the start: the runtime takes six, the API as many, reading files, a
/// listener and a session the rest.
const LEAST: u64 = if cfg!(feature = "api") { 18 } else { 12 };
/// Descriptors that the kernel's table has room for from the start, 8 bytes each.
const READY_DESCRIPTORS: u64 = 16 * 1024;

const FAST_PATHS: &str = "PORTWAY_FAST_PATHS";

/// The limit of open descriptors, and why it could not be raised, for the log that there is not
/// yet.
#[derive(Debug)]
pub(super) struct Descriptors {
    limit: u64,
    trouble: Option<Errno>,
}

impl Descriptors {
    /// The limit; trouble with it is logged.
    pub(super) fn told(self) -> u64 {
        if let Some(error) = self.trouble {
            tracing::warn!(%error, limit = self.limit, "the descriptor limit could not be raised");
        }
        make_room(self.limit);
        self.limit
    }
}

/// Raises the soft limit of open descriptors to the hard one.
///
/// # Errors
/// Where there are too few even for the start.
pub(super) fn raise_descriptors() -> io::Result<Descriptors> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = if current == maximum {
        Ok(())
    } else {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    };
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // The runtime panics where it finds none.
    let held: Result<Vec<_>, Errno> = (0..LEAST / 2).map(|_| pipe()).collect();
    held.map_err(|error| {
        io::Error::other(format!(
            "too few descriptors ({error}): the limit is {limit}, and portway needs {LEAST} besides those that it was \
             started with; raise LimitNOFILE= in the unit, or `ulimit -n`"
        ))
    })?;
    Ok(Descriptors { limit, trouble: raised.err() })
}

/// Lets the kernel make its table of our descriptors large at once. It doubles the table when that
/// is full, and the thread that needs the descriptor then waits for every processor, 3 to 15 ms
/// with all that it serves. A thread that has nothing else to do waits here, and the start goes on
/// meanwhile.
fn make_room(descriptors: u64) {
    let highest = descriptors.min(READY_DESCRIPTORS).saturating_sub(1);
    let Ok(highest) = i32::try_from(highest) else { return };
    // Where any of this fails (no standard error, no thread), the table grows as it would.
    let grow = move || drop(fcntl_dupfd_cloexec(std::io::stderr(), highest));
    drop(job::thread("portway-room", grow));
}

/// `PORTWAY_FAST_PATHS=off`, or another word for it, leaves every byte to plain reads and writes:
/// no splice, no GRO, no GSO. For the suspicion that a kernel or a network driver gets one of these
/// wrong.
pub(super) fn fast_paths_are_off() -> bool {
    // The command line has refused what is neither on nor off.
    let off = std::env::var(FAST_PATHS).is_ok_and(|word| environment::switch(&word) == Some(false));
    if off {
        tracing::info!("fast paths are off ({FAST_PATHS}=off)");
    }
    off
}
