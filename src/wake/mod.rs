//! Starting a target when a client comes, and stopping it when no client is left.
//!
//! Owns what was started, by one engine for each thing that can be started, and its state. A
//! session asks for a [`Waker`], and knows nothing else of it:
//!
//! ```text
//! let waker = wakers.of(&spec, place);
//! let awake = waker.enter();                            // counts while it lives
//! let stream = waker.reach(now, || dial(…)).await?;          // dials, starts, dials again
//! ```
//!
//! Knows no session, no target and no configuration: what it starts is in the [`WakeSpec`], and a
//! dial is a closure.
//!
//! - **One start** for any number of clients. A start that fails is repeated 1 s to 60 s later at
//!   the soonest, and until then everyone gets its error.
//! - **A stop** comes only after a time without a session, and only for what carried a session or
//!   what was started here. No session lives then, and a client that comes during the stop waits
//!   for its end.
//! - The end of the daemon and a reload that removes the mapping stop nothing: what runs is left
//!   running. An operator who takes a mapping away has not asked for the end of a server.
//! - Another process can go on with all of it ([`Wakers::snapshot`]): what this one started is
//!   stopped by that one when its time comes.
//! - Clients of several mappings that start the same unit, container or machine share its state,
//!   as TCP and UDP of one game server do. A command belongs to its mapping and host name, as it is
//!   told these.

mod engine;
mod error;
mod ledger;
mod registry;
mod starter;
mod waker;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

pub(crate) use error::StartError;
pub(crate) use ledger::State;
pub(crate) use registry::{Place, Shown, WakeRecord, Wakers};
pub(crate) use waker::{Awake, Waker};

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
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

/// Whether this build can start anything: the feature `wake`.
pub(crate) const fn is_built_in() -> bool {
    cfg!(feature = "wake")
}
