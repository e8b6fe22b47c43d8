//! Why a target was not started, or not stopped.

use std::{sync::Arc, time::Duration};

/// Why a target was not started, or not stopped. A clone is cheap: every client that waited gets
/// one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StartError {
    /// What starts it says so.
    #[error("{what}: {why}")]
    Failed {
        /// What starts it: `command start.sh`, `unit minecraft.service`.
        what: Arc<str>,
        /// The cause, with a cure where there is one.
        why: Arc<str>,
    },
    /// What starts or stops it does not come to an end.
    #[error("{what}: not done within {} s", .limit.as_secs())]
    TimedOut {
        /// What starts it.
        what: Arc<str>,
        /// How long it had.
        limit: Duration,
    },
    /// It was started, and no client could reach it.
    #[error("{what}: the target takes no client {} s after its start; raise `wait` if it needs longer", .limit.as_secs())]
    NotReached {
        /// What started it.
        what: Arc<str>,
        /// How long it had.
        limit: Duration,
    },
    /// It is being stopped, and that takes longer than a client waits.
    #[error("{what}: the target is still being stopped")]
    Stopping {
        /// What stops it.
        what: Arc<str>,
    },
}

impl StartError {
    /// What starts `what` says `why`.
    pub(super) fn failed(what: &Arc<str>, why: impl AsRef<str>) -> Self {
        Self::Failed { what: Arc::clone(what), why: why.as_ref().into() }
    }
}
