//! When grants begin and end, for what follows from it: the ports on the router.

use std::sync::Arc;

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::policy::Gate;

/// Waits for the next change.
#[derive(Debug)]
pub(super) struct KnockTurns {
    gate: Arc<Gate>,
    changes: watch::Receiver<u64>,
    /// When the next grant ends.
    next: Option<Instant>,
}

impl KnockTurns {
    /// Follows the grants of `gate`. The first turn is now.
    pub(super) fn of(gate: &Arc<Gate>) -> Self {
        let changes = gate.knocks().changes();
        Self { gate: Arc::clone(gate), changes, next: Some(Instant::now()) }
    }

    /// Waits until grants have changed, and removes those that have ended. Returns whether there is
    /// any. Where it is dropped before, nothing is lost.
    pub(super) async fn due(&mut self) -> bool {
        let next = self.next;
        tokio::select! {
            // The gate has the sender, so this does not fail.
            _ = self.changes.changed() => {}
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
        self.next = self.gate.knocks().expire(Instant::now());
        self.gate.knocks().any()
    }
}
