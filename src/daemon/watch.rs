//! `--watch`: reload when a file of the configuration changes.
//!
//! The files are looked at once in [`INTERVAL`], by name, following links. That is dull, and it misses nothing: an
//! editor that saves by rename or by truncation, a link that is swapped (as Kubernetes does it), a bind mount or a
//! network file system, where change notifications do not arrive. A change is taken once it has been quiet for
//! [`SETTLE`], so that a half-written file is not read.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::sleep;

use crate::{
    config::ReadSet,
    job,
    supervisor::{Handle, ReloadError},
};

const INTERVAL: Duration = Duration::from_millis(500);
const SETTLE: Duration = Duration::from_millis(200);
/// When it is said that a file does not answer.
const PATIENT: Duration = Duration::from_secs(30);
/// The kernel stamps files by a clock that may be a tick behind.
const CLOCK_TICK: Duration = Duration::from_millis(10);

/// What tells one content of a file from another: device, inode, size and times; `None` for a file that is not there.
pub(super) type Stamp = Option<Written>;
pub(super) type Written = (u64, u64, u64, i64, i64, i64, i64);

/// Reloads on every change until the supervisor has stopped. The configuration that runs was read after `read_from`.
pub(super) async fn follow(handle: Handle, mut read_from: SystemTime) {
    let read_set = handle.read_set();
    let current = || stamps(read_set.borrow().clone());
    loop {
        let mut seen = current().await;
        let looked = SystemTime::now();
        // What was written while the configuration was read may be in it or not: it counts as a change.
        seen.retain(|_, stamp| !stamp.is_some_and(|s| written_within(s, read_from, looked)));
        let mut now = current().await;
        while now == seen {
            sleep(INTERVAL).await;
            now = current().await;
        }
        loop {
            sleep(SETTLE).await;
            let then = std::mem::replace(&mut now, current().await);
            if now == then {
                break;
            }
        }
        tracing::info!("configuration changed; reloading");
        read_from = SystemTime::now();
        if handle.reload().await.is_err_and(|error| matches!(*error, ReloadError::Stopping)) {
            return;
        }
    }
}

/// Whether a file was last written, or put in its place, between two times. A time of the future (of another
/// machine's clock) is not between them, or it would be news for ever.
pub(super) fn written_within(stamp: Written, from: SystemTime, to: SystemTime) -> bool {
    let changed = UNIX_EPOCH + Duration::new(stamp.5.unsigned_abs(), u32::try_from(stamp.6).unwrap_or(0));
    changed + CLOCK_TICK >= from && changed <= to
}

/// Stamps of every file that was read or that a pattern would take in now.
async fn stamps(set: ReadSet) -> HashMap<PathBuf, Stamp> {
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

fn look(set: &ReadSet) -> HashMap<PathBuf, Stamp> {
    let matched = set.patterns.iter().filter_map(|pattern| glob::glob(pattern).ok()).flatten().flatten();
    let files = set.files.iter().cloned().chain(matched);
    files
        .map(|path| {
            let stamp = stamp(&path);
            (path, stamp)
        })
        .collect()
}

pub(super) fn stamp(path: &Path) -> Stamp {
    let data = fs::metadata(path).ok()?;
    Some((
        data.dev(),
        data.ino(),
        data.len(),
        data.mtime(),
        data.mtime_nsec(),
        data.ctime(),
        data.ctime_nsec(),
    ))
}
