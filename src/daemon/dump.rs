//! The dump that `SIGQUIT` asks for: a file in the state directory.
//!
//! Owns where it goes. It goes to a file and not to the log: a service manager cuts long lines. The
//! file is for its owner alone, and has placeholders for addresses. [`MOST`] of them stay.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::windows::Windows;
use crate::{events::Events, job, state::Directories};

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(60);
/// As many dumps stay in the directory; the oldest makes room.
const MOST: usize = 5;
/// What their names begin with.
const PREFIX: &str = "dump-";

/// Writes a dump, beside everything else that goes on.
pub(super) fn write(windows: &Windows, events: &Events) {
    let Some(make) = windows.dump(events) else {
        tracing::warn!("no dump: this portway was built without the feature `api`");
        return;
    };
    let work = async move {
        let job = move || {
            let directories = Directories::new(|name| std::env::var_os(name));
            let dir =
                directories.prepared().ok_or_else(|| io::Error::other("no state directory is usable"))?;
            save(dir, &make(), SystemTime::now())
        };
        match job::run_within(LIMIT, "portway-dump", job).await {
            Ok(Ok(file)) => tracing::info!(file = %file.display(), "dump written"),
            Ok(Err(error)) => tracing::warn!(%error, "dump not written; try `portway dump`"),
            Err(error) => tracing::warn!(%error, "dump not written; try `portway dump`"),
        }
    };
    windows.spawn(work);
}

/// Writes a dump into the directory, and removes old ones.
fn save(dir: &Path, dump: &str, now: SystemTime) -> io::Result<PathBuf> {
    let time = humantime::format_rfc3339_millis(now).to_string().replace(':', "");
    let path = dir.join(format!("{PREFIX}{time}.json"));
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(dump.as_bytes())?;
    let is_dump = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(PREFIX) && name.ends_with(".json")
    };
    let mut dumps: Vec<_> =
        fs::read_dir(dir)?.filter_map(|entry| Some(entry.ok()?.path())).filter(is_dump).collect();
    // Their names have the order of their times.
    dumps.sort();
    for old in dumps.iter().take(dumps.len().saturating_sub(MOST)) {
        fs::remove_file(old)?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_last_dumps_stay_and_are_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("bans.json"), "{}").unwrap();
        let paths: Vec<_> = (0..8)
            .map(|n| save(dir.path(), "{}", SystemTime::UNIX_EPOCH + Duration::from_secs(n)).unwrap())
            .collect();
        let stay: Vec<_> = paths.iter().map(|path| path.exists()).collect();
        assert_eq!(stay, [false, false, false, true, true, true, true, true]);
        assert_eq!(fs::metadata(&paths[7]).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(dir.path().join("bans.json").exists());
    }
}
