//! Where the daemon's own files may be: the directories, the best first, and which of them can be used.
//!
//! Owns the list and its order. Knows nothing of the files. A directory can be used when a file can be written in it: the
//! rights alone do not tell of a file system that is full or read-only. What is made is for its owner alone.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// Where the files are when systemd names no other place.
const DEFAULT_DIR: &str = "/var/lib/portway";
/// The place of a user, inside the directory for such things or else inside the home directory.
const OF_USER: &str = "portway";
const OF_HOME: &str = ".local/state/portway";

/// The directories that files may be in, the best first: the one that systemd names, the usual one, that of the user.
pub(crate) fn directories(env: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let path = |name| env(name).filter(|value| !value.is_empty());
    // Systemd separates several by colons.
    let named = path("STATE_DIRECTORY")
        .and_then(|named| named.to_string_lossy().split(':').find(|dir| !dir.is_empty()).map(PathBuf::from));
    // The XDG base directories: one that is not absolute is to be passed over.
    let absolute = |name| path(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let of_user = absolute("XDG_STATE_HOME").map(|state| state.join(OF_USER));
    let of_user = of_user.or_else(|| absolute("HOME").map(|home| home.join(OF_HOME)));
    let mut all: Vec<PathBuf> = Vec::new();
    for dir in [named, Some(PathBuf::from(DEFAULT_DIR)), of_user].into_iter().flatten() {
        if !all.contains(&dir) {
            all.push(dir);
        }
    }
    all
}

/// Makes the directory if it is not there, and writes and removes a file in it. It blocks.
///
/// # Errors
/// What the system said.
pub(crate) fn make(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let trial = dir.join(format!(".portway.{}", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(&trial).and_then(|mut file| file.write_all(b"portway\n"));
    let removed = fs::remove_file(&trial);
    written.and(removed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_directories_are_those_of_systemd_the_system_and_the_user() {
        let with = |set: &[(&str, &str)]| {
            let env = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into());
            directories(env)
        };
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        let service = [("STATE_DIRECTORY", "/a:/b"), ("HOME", "/h")];
        assert_eq!(with(&service), paths(&["/a", DEFAULT_DIR, "/h/.local/state/portway"]));
        assert_eq!(with(&[]), paths(&[DEFAULT_DIR]));
        assert_eq!(with(&[("STATE_DIRECTORY", DEFAULT_DIR)]), paths(&[DEFAULT_DIR]));
        let both = [("HOME", "/h"), ("XDG_STATE_HOME", "/s")];
        assert_eq!(with(&both), paths(&[DEFAULT_DIR, "/s/portway"]));
        let odd = [("STATE_DIRECTORY", ""), ("HOME", "/h"), ("XDG_STATE_HOME", "s")];
        assert_eq!(with(&odd), paths(&[DEFAULT_DIR, "/h/.local/state/portway"]));
    }

    #[test]
    fn a_directory_is_made_for_its_owner_and_left_empty() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("a/portway");
        make(&made).unwrap();
        make(&made).unwrap();
        assert_eq!(fs::metadata(&made).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&made).unwrap().count(), 0);
        // A directory cannot be made inside a file.
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(make(&dir.path().join("file/portway")).is_err());
    }
}
