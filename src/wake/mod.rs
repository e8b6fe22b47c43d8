//! Starting a target when a client comes, and stopping it when no client is left.

use std::{sync::Arc, time::Duration};

/// How a target is started and stopped; the key `wake`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WakeSpec {
    /// What starts it, and what stops it.
    pub start: Start,
    /// How long a client waits for it.
    pub wait: Duration,
    /// It is stopped after this long without a session; `None` lets it run.
    pub stop_after: Option<Duration>,
}

/// What starts a target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Start {
    /// A command, and one that stops it again. The first word is the program.
    Command {
        /// Starts it.
        start: Arc<[String]>,
        /// Stops it.
        stop: Option<Arc<[String]>>,
    },
    /// A unit of systemd.
    Unit(Arc<str>),
    /// A container of Docker or podman.
    Container(Arc<str>),
    /// A machine that a magic packet wakes. It is not stopped.
    Machine([u8; 6]),
}
