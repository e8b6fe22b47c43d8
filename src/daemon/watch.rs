//! `--watch`: reload when a file of the configuration changes.
//!
//! The files are looked at once in [`INTERVAL`], by name (see [`FileWatch`] for why). A change is
//! taken once it has been quiet for [`SETTLE`], so that a half-written file is not read.

use std::{
    collections::HashMap,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use tokio::time::sleep;

use crate::{
    config::ReadSet,
    job,
    state::watch::{FileStamp, FileWatch},
    supervisor::{Handle, ReloadError},
};

const INTERVAL: Duration = Duration::from_millis(500);
const SETTLE: Duration = Duration::from_millis(200);
/// When the log says that a file does not answer.
const PATIENT: Duration = Duration::from_secs(30);

/// The stamp of each file, or that there is none.
type Stamps = HashMap<PathBuf, Option<FileStamp>>;

/// Reloads on every change until the supervisor has stopped. The configuration that runs was read
/// after `read_from`.
pub(super) async fn follow(handle: Handle, mut read_from: SystemTime) {
    let read_set = handle.read_set();
    let current = || stamps(read_set.borrow().clone());
    loop {
        let seen = current().await;
        let looked = SystemTime::now();
        // The reload may have read the file before or after it was written. So it counts as
        // changed.
        let is_taken = !seen.values().flatten().any(|stamp| stamp.changed_within(read_from, looked));
        let mut watch = FileWatch::new(seen, is_taken);
        while !watch.has_settled(2) {
            sleep(if watch.has_changed() { SETTLE } else { INTERVAL }).await;
            watch.note(current().await);
        }
        tracing::info!("configuration changed; reloading");
        read_from = SystemTime::now();
        if handle.reload().await.is_err_and(|error| matches!(*error, ReloadError::Stopping)) {
            return;
        }
    }
}

/// Stamps of every file that was read or that a pattern would take in now.
async fn stamps(set: ReadSet) -> Stamps {
    let tell =
        || tracing::warn!("a file of the configuration does not answer: changes are not seen meanwhile");
    loop {
        let set = set.clone();
        if let Ok(stamps) = job::run_or_tell(PATIENT, "portway-look", move || look(&set), tell).await {
            return stamps;
        }
        // The system made no thread. That is not a change of a file.
        sleep(INTERVAL).await;
    }
}

fn look(set: &ReadSet) -> Stamps {
    let matched = set.patterns.iter().filter_map(|pattern| glob::glob(pattern).ok()).flatten().flatten();
    let files = set.files.iter().cloned().chain(matched);
    files
        .map(|path| {
            let stamp = FileStamp::of(&path);
            (path, stamp)
        })
        .collect()
}
