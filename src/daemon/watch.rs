//! `--watch`: reload when a file of the configuration changes.
//!
//! The files are looked at once in [`INTERVAL`], by name, following links. That is dull, and it misses nothing: an
//! editor that saves by rename or by truncation, a link that is swapped (as Kubernetes does it), a bind mount or a
//! network file system, where change notifications do not arrive. A change is taken once it has been quiet for
//! [`SETTLE`], so that a half-written file is not read.

use std::{collections::HashMap, fs, os::unix::fs::MetadataExt, path::PathBuf, time::Duration};

use tokio::time::sleep;

use crate::{config::ReadSet, supervisor::Handle};

const INTERVAL: Duration = Duration::from_millis(500);
const SETTLE: Duration = Duration::from_millis(200);

/// What tells one content of a file from another: device, inode, size and times; `None` for a file that is not there.
type Stamp = Option<(u64, u64, u64, i64, i64, i64, i64)>;

/// Reloads on every change until the supervisor has stopped.
pub(super) async fn follow(handle: Handle) {
    let read_set = handle.read_set();
    let current = || stamps(read_set.borrow().clone());
    let mut seen = current().await;
    loop {
        sleep(INTERVAL).await;
        let mut now = current().await;
        if now == seen {
            continue;
        }
        loop {
            sleep(SETTLE).await;
            let then = std::mem::replace(&mut now, current().await);
            if now == then {
                break;
            }
        }
        tracing::info!("configuration changed; reloading");
        if let Err(crate::supervisor::ReloadError::Stopping) = handle.reload().await {
            return;
        }
        // The reload may look at other files than before; those it shares with the old set keep their old stamps, so
        // that a change during the reload is not lost.
        let mut after = current().await;
        for (path, stamp) in &mut after {
            if let Some(before) = now.get(path) {
                *stamp = *before;
            }
        }
        seen = after;
    }
}

/// Stamps of every file that was read or that a pattern would take in now.
async fn stamps(set: ReadSet) -> HashMap<PathBuf, Stamp> {
    let look = move || {
        let matched = set.patterns.iter().filter_map(|pattern| glob::glob(pattern).ok()).flatten().flatten();
        let files = set.files.iter().cloned().chain(matched);
        files
            .map(|path| {
                let stamp = stamp(&path);
                (path, stamp)
            })
            .collect()
    };
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
}

fn stamp(path: &PathBuf) -> Stamp {
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
