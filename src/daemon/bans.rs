//! Bans on disk: restored before the first listener opens, saved when they change and at the end.
//!
//! Where they are kept is the configuration's (`[guard] state`), what a file holds the guard's. Files are read and
//! written on a thread that may block. A ban is saved at the latest [`SETTLE`] and a write after it was made, many at once
//! in one go. No trouble with the file ends anything: it is said, and bans are kept in memory.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

use crate::{
    policy::{Gate, GateSpec},
    relay::Quiet,
    supervisor::Handle,
};

/// What comes within this time after a change is saved with it.
const SETTLE: Duration = Duration::from_millis(500);

static NOT_SAVED: Quiet = Quiet::new(Duration::from_secs(60));

/// Where a configuration keeps bans.
fn state(spec: &GateSpec) -> Option<PathBuf> {
    spec.guard.as_ref()?.state.clone()
}

/// Puts the bans in force that were saved for this configuration.
pub(super) async fn restore(gate: &Arc<Gate>, spec: &GateSpec) {
    let Some(path) = state(spec) else { return };
    let reader = Arc::clone(gate);
    let read = spawn_blocking(move || reader.guard().load(&path, Instant::now()));
    match read.await {
        Ok(Ok(restored)) if restored.bans > 0 => {
            tracing::info!(bans = restored.bans, expired = restored.expired, "bans restored");
        }
        Ok(Ok(_)) | Err(_) => {}
        Ok(Err(error)) => tracing::warn!(%error, "bans not restored"),
    }
}

/// Saves bans whenever they change, until the supervisor has stopped.
pub(super) async fn follow(handle: Handle) {
    let gate = Arc::clone(handle.gate());
    let (mut changes, mut plans) = (gate.guard().changes(), handle.admissions());
    drop(handle);
    let mut place = state(&gate.spec());
    loop {
        tokio::select! {
            Ok(()) = changes.changed() => {}
            plan = plans.changed() => {
                if plan.is_err() {
                    return;
                }
                let now = state(&gate.spec());
                if now == place {
                    continue;
                }
                // A reload has moved the bans: what was kept there counts, too.
                restore(&gate, &gate.spec()).await;
                place = now;
            }
        }
        sleep(SETTLE).await;
        changes.mark_unchanged();
        save(&gate).await;
    }
}

/// Saves the bans, where the configuration has a place for them.
pub(super) async fn save(gate: &Arc<Gate>) {
    let Some(path) = state(&gate.spec()) else { return };
    let writer = Arc::clone(gate);
    let written = spawn_blocking(move || {
        writer.guard().expire(Instant::now());
        write(&writer, &path);
    });
    let _ = written.await;
}

fn write(gate: &Gate, path: &Path) {
    if let Err(error) = gate.guard().save(path)
        && let Some(left_out) = NOT_SAVED.may_speak()
    {
        tracing::warn!(%error, failures = left_out + 1, "bans not saved");
    }
}
