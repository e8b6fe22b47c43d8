//! The limit of open descriptors, and what of it may go to UDP flows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are neither listener, session nor flow: the runtime, logs, files that are read.
const CONTROL: u64 = 32;

/// Raises the soft limit of open descriptors to the hard one, and returns what it is then.
pub(super) fn raise_descriptors() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(error = %error, "the descriptor limit could not be raised");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many UDP flows there may be, each with one descriptor: half of what listeners and control leave. The other half
/// is a reserve for TCP, so that forged UDP clients cannot keep TCP clients out.
pub(super) fn flows(descriptors: u64, listeners: usize) -> usize {
    let rest = descriptors.saturating_sub(CONTROL).saturating_sub(listeners as u64);
    usize::try_from(rest / 2).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_keeps_half_of_the_descriptors() {
        assert_eq!(flows(1024, 2), 495);
        assert_eq!(flows(16, 2), 1, "a tiny limit still forwards one flow");
    }
}
