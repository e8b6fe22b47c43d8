//! The hand-over from this process to the next: the steps, and their limits.
//!
//! *Old* is the process that serves, *new* the one that takes over.
//!
//! ```text
//! old                                                   new
//! starts the installed program (child) ───────────────► says Hello
//!                                                       reads the configuration: Ready, or Refused
//! sends its listening sockets, and Listen ────────────► binds what is missing: Staged, or Refused
//! sends what it knows: State ─────────────────────────► takes it over
//! stops to accept, freezes every session
//! sends the sessions: State, Snapshot ────────────────► makes them its own: Receipt
//! MAINPID to systemd; Go ─────────────────────────────► Serving, and then the first byte; Moved
//! lets go, releases its files: Released ──────────────► opens them; READY to systemd
//! drains what new could not take, and ends with 0
//! ```
//!
//! Before `Go`, any failure means: kill new, wait for its end, thaw (give). After the receipt, new
//! serves if it reads `Go` or if old is gone (take). So one of the two serves at any time. Old
//! thaws after `Go` only where new has ended without `Serving`.
//!
//! As process 1 the program is executed in place (`in_place`): the kernel would end everything with
//! the first process. A child checks the configuration first.
//!
//! Over a restart of the service, the store of the service manager keeps everything (`store`).
//!
//! The messages ([`messages`]) are frames of [`crate::handover`]. Everything that waits for the
//! other process has a limit, and waits on a thread of its own.

mod child;
mod desk;
mod give;
mod in_place;
mod messages;
mod notify;
mod program;
mod state;
mod store;
mod take;

use std::time::Duration;

pub(super) use desk::{Desk, Done};
pub(super) use give::Left;
pub(super) use program::Program;
pub(super) use state::{Known, Learnt};
pub(super) use store::{put_aside, successor as stored_successor};
pub(crate) use take::TakeError;
pub(super) use take::{Successor, Taken, successor};
use tokio::time::Instant;

use crate::{
    handover::{Wire, WireError},
    job::{self, JobError},
};

/// Says to a program that standard input is the connection to the process that hands over.
pub(crate) const VARIABLE: &str = "PORTWAY_HANDOVER";
/// Its value for a hand-over, and for a check that comes before one.
const FOR_GOOD: &str = "1";
const FOR_A_CHECK: &str = "check";

/// How long new may take until it says hello.
const HELLO: Duration = Duration::from_secs(10);
/// How long it may take for the configuration: more than reading has.
const READY: Duration = Duration::from_secs(65);
/// How long it may take to bind what is missing.
const STAGED: Duration = Duration::from_secs(20);
/// How long new may take to make the sessions its own: they stand still meanwhile.
const RECEIPT: Duration = Duration::from_secs(5);
/// How long it may take to serve after `Go`.
const SERVING: Duration = Duration::from_secs(5);
/// How long old may take for its files, and new for the last words.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// How long new waits for old where old waits for something else: its own limits are shorter.
const PATIENCE: Duration = Duration::from_secs(120);

/// One end of the connection, for a part that must not block.
#[derive(Debug)]
struct Line(Option<Wire>);

/// Why a line failed.
#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Job(#[from] JobError),
}

impl Line {
    fn new(wire: Wire) -> Self {
        Self(Some(wire))
    }

    /// Works with the connection on a thread of its own, until `limit` from now.
    async fn with<T: Send + 'static>(
        &mut self,
        limit: Duration,
        work: impl FnOnce(&mut Wire, Instant) -> Result<T, WireError> + Send + 'static,
    ) -> Result<T, LineError> {
        let mut wire = self.0.take().ok_or(WireError::Closed)?;
        let until = Instant::now() + limit;
        let work = job::start("portway-hand", move || {
            let done = work(&mut wire, until);
            (wire, done)
        })?;
        let (wire, done) = work.await?;
        self.0 = Some(wire);
        Ok(done?)
    }
}
