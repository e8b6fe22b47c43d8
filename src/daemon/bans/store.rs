//! The files that hold bans.
//!
//! Owns which file that is, its format, and what the log says of it. The file is the one that the
//! configuration names (`[guard] state`). If that is in one of the directories for state and cannot
//! be written, the same file in the next directory takes its place. A file that another process
//! uses has no such substitute: these bans stay in memory. Every call blocks.

use std::path::{Path, PathBuf};

use tokio::time::Instant;

use super::REMIND;
use crate::{
    policy::{Guard, GuardSnapshot, Restored},
    state::{Directories, Format, Opened, StateError, StateFile},
};

/// A file with as many entries as there can be has a third of this size.
const FORMAT: Format = Format { version: 1, largest: 64 << 20 };

/// The file of the bans, and how saving goes.
#[derive(Debug)]
pub(super) struct Store {
    directories: Directories,
    /// What the configuration names.
    path: Option<PathBuf>,
    /// The file there; `None` until it is opened, and while another process uses it.
    file: Option<StateFile>,
    /// The file in the next directory, while that one cannot be written.
    instead: Option<StateFile>,
    /// Saves that failed since the last one that did not.
    failures: u64,
    said: Option<Instant>,
}

impl Store {
    /// A store without a file, which may use these directories.
    pub(super) fn new(directories: Directories) -> Self {
        Self { directories, path: None, file: None, instead: None, failures: 0, said: None }
    }

    /// Uses the file at `path` from now on. If that is another than before, its bans are added to
    /// the guard's.
    pub(super) fn move_to(&mut self, path: Option<PathBuf>, guard: &Guard) {
        if path == self.path {
            return;
        }
        *self = Self { path: path.clone(), ..Self::new(self.directories.clone()) };
        let Some(path) = path else { return };
        let mut all = Restored::default();
        // Bans of the time when the file could not be written count as long as that lasts.
        let fallbacks = self.directories.after(&path);
        if !fallbacks.is_empty() && path.parent().is_some_and(|dir| !Directories::is_usable(dir)) {
            for path in fallbacks.into_iter().rev() {
                match StateFile::open(path, FORMAT) {
                    Ok(opened) => drop(take(opened, guard, &mut all)),
                    Err(error) => warn(&error),
                }
            }
        }
        match StateFile::open(path, FORMAT) {
            Ok(opened) => self.file = Some(take(opened, guard, &mut all)),
            Err(error) => warn(&error),
        }
        say_restored(all);
    }

    /// Uses no file any more.
    pub(super) fn close(&mut self) {
        *self = Self::new(self.directories.clone());
    }

    /// Uses the file at `path` from now on, whose bans another process has handed over.
    pub(super) fn go_on_with(&mut self, path: Option<PathBuf>) {
        *self = Self { path: path.clone(), ..Self::new(self.directories.clone()) };
        match path.map(|path| StateFile::open::<GuardSnapshot>(path, FORMAT)) {
            // A ban that the operator has ended may still be in there.
            Some(Ok(opened)) => self.file = Some(opened.file),
            Some(Err(error)) => warn(&error),
            None => {}
        }
    }

    /// Saves the bans of the guard; `false` where that failed. Without a path there is nothing to
    /// do.
    pub(super) fn save(&mut self, guard: &Guard, is_last: bool) -> bool {
        let Some(path) = self.path.clone() else { return true };
        let now = Instant::now();
        guard.expire(now);
        let saved = self.save_somewhere(&path, guard, now);
        match &saved {
            Ok(()) => {
                let failures = std::mem::take(&mut self.failures);
                self.said = None;
                if failures > 0 {
                    tracing::info!(file = %path.display(), failures, "bans saved again");
                }
            }
            Err(error) => {
                self.failures += 1;
                if is_last || self.said.is_none_or(|said| now >= said + REMIND) {
                    self.said = Some(now);
                    let error = format_args!("{error}; bans are kept in memory only");
                    tracing::warn!(%error, failures = self.failures, "bans not saved");
                }
            }
        }
        saved.is_ok()
    }

    fn save_somewhere(&mut self, path: &Path, guard: &Guard, now: Instant) -> Result<(), StateError> {
        let file = match &mut self.file {
            Some(file) => file,
            // Another process used it before. If that has ended, its bans count.
            none => {
                let mut all = Restored::default();
                let file = take(StateFile::open(path.to_owned(), FORMAT)?, guard, &mut all);
                say_restored(all);
                none.insert(file)
            }
        };
        let snapshot = guard.snapshot(now);
        let error = match file.save(&snapshot) {
            Ok(()) => {
                self.instead = None;
                return Ok(());
            }
            Err(error) => error,
        };
        if matches!(error, StateError::InUse(_)) {
            return Err(error);
        }
        if self.instead.as_mut().is_some_and(|instead| instead.save(&snapshot).is_ok()) {
            return Ok(());
        }
        // Its lock is released before the search takes it again.
        self.instead = None;
        self.instead =
            self.directories.after(path).into_iter().find_map(|path| save_in(path, &snapshot, &error));
        if self.instead.is_some() { Ok(()) } else { Err(error) }
    }
}

/// Adds the bans of a file to the guard's, and counts them.
fn take(opened: Opened<GuardSnapshot>, guard: &Guard, all: &mut Restored) -> StateFile {
    match opened.content {
        Ok(snapshot) => {
            let Restored { bans, expired } = guard.restore(snapshot.unwrap_or_default(), Instant::now());
            all.bans += bans;
            all.expired += expired;
        }
        Err(error) => warn(&error),
    }
    opened.file
}

/// Saves bans in a directory that takes the place of another. What an earlier time left there does
/// not count any more.
fn save_in(path: PathBuf, snapshot: &GuardSnapshot, why: &StateError) -> Option<StateFile> {
    path.parent().filter(|dir| Directories::is_usable(dir))?;
    let mut file = StateFile::open::<GuardSnapshot>(path, FORMAT).ok()?.file;
    file.save(snapshot).ok()?;
    tracing::warn!(error = %why, file = %file.path().display(), "bans saved in the next directory");
    Some(file)
}

fn warn(error: &StateError) {
    tracing::warn!(%error, "bans not restored");
}

fn say_restored(all: Restored) {
    if all.bans > 0 {
        tracing::info!(bans = all.bans, expired = all.expired, "bans restored");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{fixture::LogCatcher, policy::Gate};

    impl Store {
        /// Saves that failed since the last one that did not.
        pub(in crate::daemon::bans) fn failures(&self) -> u64 {
            self.failures
        }

        /// When the log said last that bans are not saved.
        pub(in crate::daemon::bans) fn said(&self) -> Option<Instant> {
            self.said
        }
    }

    /// As a portway of an earlier version wrote it.
    const OLD: &str = r#"{"version":1,"bans":[
        {"client":"192.0.2.7","since":"2025-01-01T00:00:00Z","until":null,"reason":"operator","repeats":0},
        {"client":"2001:db8:1:2::/64","since":"2025-01-01T00:00:00Z","until":null,"reason":"trap","repeats":1}],
        "past":[{"client":"2001:db8:1:2::/64","bans":2,"until":"2099-01-01T00:00:00Z"}]}"#;

    struct World {
        dir: tempfile::TempDir,
        store: Store,
        gate: std::sync::Arc<Gate>,
        log: LogCatcher,
    }

    impl World {
        /// A file that holds `text`.
        fn new(text: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::new(Directories::from(vec![dir.path().to_owned(), dir.path().join("next")]));
            let gate = Gate::new(std::time::SystemTime::now);
            let world = Self { dir, store, gate, log: LogCatcher::start() };
            fs::write(world.path(), text).unwrap();
            world
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("bans.json")
        }

        fn open(&mut self) {
            let path = self.path();
            self.store.move_to(Some(path), self.gate.guard());
        }

        fn save(&mut self) -> bool {
            self.store.save(self.gate.guard(), false)
        }

        /// How many bans are in force or wait for `[guard]`.
        fn bans(&self) -> usize {
            self.gate.guard().snapshot(Instant::now()).len()
        }

        fn said(&self, what: &str) -> bool {
            self.log.lines().iter().any(|line| line.contains(what))
        }
    }

    #[test]
    fn an_old_file_is_read_and_saved_in_the_same_form() {
        let mut world = World::new(OLD);
        world.open();
        assert_eq!(world.bans(), 2);
        assert!(world.said("bans restored bans=2 expired=0"));
        assert!(world.save());
        let text = fs::read_to_string(world.path()).unwrap();
        assert!(text.contains(r#"{"version":1,"bans":[{"client":""#), "{text}");
        assert!(text.contains(r#""client":"192.0.2.7","since":"2025-01-01T00:00:00Z","until":null,"reason":"operator","repeats":0"#));
        assert_eq!(text.lines().count(), 1, "a file of many bans is compact");
    }

    #[test]
    fn a_broken_file_is_set_aside_and_said() {
        let mut world = World::new(r#"{"bans": ["#);
        world.open();
        assert_eq!(world.bans(), 0);
        assert!(world.said("bans.json.broken"));
        assert!(world.save() && world.path().exists());
        assert!(world.dir.path().join("bans.json.broken").exists());
    }

    #[test]
    fn a_file_that_another_process_uses_is_left_until_that_has_ended() {
        let mut world = World::new(OLD);
        let theirs = StateFile::open::<GuardSnapshot>(world.path(), FORMAT).unwrap();
        world.open();
        assert!(world.said("in use by another portway"));
        world.gate.guard().ban([198, 51, 100, 1].into(), None, Instant::now());
        assert!(!world.save());
        assert!(world.said("bans not saved"));
        assert_eq!(fs::read_to_string(world.path()).unwrap(), OLD);
        assert!(!world.dir.path().join("next").exists(), "nor does a second file take its place");
        drop(theirs);
        assert!(world.save());
        assert_eq!(world.bans(), 3, "what was saved there in the meantime counts");
        assert!(world.said("bans saved again"));
    }

    #[test]
    fn bans_move_to_the_next_directory_and_back() {
        let mut world = World::new(OLD);
        world.open();
        // A directory in the place of the new file: not even root can write it.
        let blocked = world.dir.path().join("bans.json.new");
        fs::create_dir(&blocked).unwrap();
        assert!(world.save() && world.save());
        let next = world.dir.path().join("next/bans.json");
        let said = world.log.lines().iter().filter(|line| line.contains("saved in the next")).count();
        assert_eq!(said, 1);
        assert!(next.exists());
        fs::remove_dir(&blocked).unwrap();
        world.gate.guard().unban([192, 0, 2, 7].into());
        assert!(world.save());
        assert!(!fs::read_to_string(world.path()).unwrap().contains("192.0.2.7"));
    }

    #[test]
    fn a_file_of_as_many_bans_as_there_can_be_is_read_back() {
        let mut world = World::new(r#"{"version":1,"bans":[],"past":[]}"#);
        world.open();
        for n in 0..70_000_u64 {
            let client = std::net::Ipv6Addr::from(u128::from(0x2001_0db8_0000_0000 + n) << 64);
            world.gate.guard().ban(client.into(), None, Instant::now());
        }
        assert!(world.save());
        assert!(fs::metadata(world.path()).unwrap().len() < FORMAT.largest / 2);
        let bans = world.bans();
        world.store = Store::new(world.store.directories.clone());
        world.gate = Gate::new(std::time::SystemTime::now);
        world.open();
        assert_eq!(world.bans(), bans);
    }
}
