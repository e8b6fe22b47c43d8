//! Directories for state files: which there are, in order of preference, and which of them can be
//! used.
//!
//! Knows nothing of the files. A directory is usable when a file can be written in it: its mode
//! says nothing of a full or read-only file system. A directory that portway creates is for its
//! owner alone.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access};

/// The directory of a service when systemd names none.
const DEFAULT_DIR: &str = "/var/lib/portway";
/// The directory of a user: inside `$XDG_STATE_HOME`, or else inside the home directory.
const OF_USER: &str = "portway";
const OF_HOME: &str = ".local/state/portway";

/// The directories for state files, the preferred one first.
#[derive(Clone, Debug)]
pub(crate) struct Directories(Vec<PathBuf>);

impl Directories {
    /// The directory that systemd names, the usual one, that of the user.
    pub(crate) fn new(env: impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name| env(name).filter(|value| !value.is_empty());
        // The XDG base directory specification ignores a path that is not absolute.
        let absolute = |name| path(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let of_user = absolute("XDG_STATE_HOME").map(|state| state.join(OF_USER));
        let of_user = of_user.or_else(|| absolute("HOME").map(|home| home.join(OF_HOME)));
        let mut all: Vec<PathBuf> = Vec::new();
        for dir in [Self::of_service(&env), Some(PathBuf::from(DEFAULT_DIR)), of_user].into_iter().flatten() {
            if !all.contains(&dir) {
                all.push(dir);
            }
        }
        Self(all)
    }

    /// The directory that systemd gives to the service (`StateDirectory=` of systemd.exec(5)): the
    /// first, where there are several.
    pub(crate) fn of_service(env: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
        let all = env("STATE_DIRECTORY")?;
        let first = all.as_bytes().split(|byte| *byte == b':').find(|dir| !dir.is_empty())?;
        Some(OsStr::from_bytes(first).into())
    }

    /// The first one that exists and may be written to. Nothing is changed.
    pub(crate) fn existing(&self) -> Option<&Path> {
        let usable = |dir: &Path| dir.is_dir() && access(dir, Access::WRITE_OK).is_ok();
        self.0.iter().map(PathBuf::as_path).find(|dir| usable(dir))
    }

    /// The first one that exists and may be written to; otherwise, the first that could be created.
    /// Nothing is changed.
    pub(crate) fn likely(&self) -> Option<&Path> {
        let could_be_created = |dir: &Path| {
            let above = dir.ancestors().skip(1).find(|above| above.exists());
            let is_writable = |above: &Path| above.is_dir() && access(above, Access::WRITE_OK).is_ok();
            !dir.exists() && above.is_some_and(is_writable)
        };
        self.existing().or_else(|| self.0.iter().map(PathBuf::as_path).find(|dir| could_be_created(dir)))
    }

    /// The first one that can be written to, created if it is missing. Those that cannot be used
    /// are logged.
    pub(crate) fn prepared(&self) -> Option<&Path> {
        let say = |dir: &Path, error: &io::Error| {
            tracing::info!(dir = %dir.display(), %error, "state directory not usable");
        };
        let usable = |dir: &Path| prepare(dir).inspect_err(|error| say(dir, error)).is_ok();
        self.0.iter().map(PathBuf::as_path).find(|dir| usable(dir))
    }

    /// Whether a file in this directory could be written; the directory is created if it is
    /// missing.
    pub(crate) fn is_usable(dir: &Path) -> bool {
        prepare(dir).is_ok()
    }

    /// Every one of them.
    #[cfg(feature = "sandbox")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(PathBuf::as_path)
    }

    /// Where else the file at `path` may be: in the directories that come after its own, if its own
    /// is one of these.
    pub(crate) fn after(&self, path: &Path) -> Vec<PathBuf> {
        let (Some(dir), Some(file)) = (path.parent(), path.file_name()) else { return Vec::new() };
        let after = self.0.iter().skip_while(|own| own.as_path() != dir).skip(1);
        after.map(|dir| dir.join(file)).collect()
    }
}

/// Creates the directory if it is missing, and writes and removes a file in it. It blocks.
///
/// # Errors
/// What the system said.
fn prepare(dir: &Path) -> io::Result<()> {
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

    impl From<Vec<PathBuf>> for Directories {
        fn from(all: Vec<PathBuf>) -> Self {
            Self(all)
        }
    }

    #[test]
    fn the_directories_are_those_of_systemd_the_system_and_the_user() {
        let with = |set: &[(&str, &str)]| {
            let env = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into());
            Directories::new(env).0
        };
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        let service = [("STATE_DIRECTORY", ":/a:/b"), ("HOME", "/h")];
        assert_eq!(with(&service), paths(&["/a", DEFAULT_DIR, "/h/.local/state/portway"]));
        assert_eq!(with(&[]), paths(&[DEFAULT_DIR]));
        assert_eq!(with(&[("STATE_DIRECTORY", DEFAULT_DIR)]), paths(&[DEFAULT_DIR]));
        let bytes = Directories::of_service(|_| Some(OsStr::from_bytes(b"/\xff:/b").into()));
        assert_eq!(bytes.unwrap().as_os_str().as_bytes(), b"/\xff");
        let both = [("HOME", "/h"), ("XDG_STATE_HOME", "/s")];
        assert_eq!(with(&both), paths(&[DEFAULT_DIR, "/s/portway"]));
        let odd = [("STATE_DIRECTORY", ""), ("HOME", "/h"), ("XDG_STATE_HOME", "s")];
        assert_eq!(with(&odd), paths(&[DEFAULT_DIR, "/h/.local/state/portway"]));
    }

    #[test]
    fn a_directory_is_made_for_its_owner_and_left_empty() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("a/portway");
        prepare(&made).unwrap();
        prepare(&made).unwrap();
        assert_eq!(fs::metadata(&made).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&made).unwrap().count(), 0);
        // A directory cannot be made inside a file.
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(prepare(&dir.path().join("file/portway")).is_err());
    }

    #[test]
    fn the_first_usable_directory_is_chosen_and_made_where_none_exists() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let [in_file, made, other] = ["file/portway", "a/portway", "b"].map(|name| dir.path().join(name));
        let all = Directories(vec![in_file.clone(), made.clone(), other]);
        assert_eq!((all.existing(), all.likely()), (None, Some(made.as_path())));
        assert_eq!(all.prepared(), Some(made.as_path()));
        let mode = fs::metadata(&made).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!((all.existing(), all.prepared()), (Some(made.as_path()), Some(made.as_path())));
        assert_eq!(all.likely(), Some(made.as_path()));
        let none = Directories(vec![in_file]);
        assert_eq!((none.likely(), none.prepared()), (None, None));
    }

    #[test]
    fn a_file_moves_on_only_from_one_of_the_directories() {
        let all = Directories(vec!["/a".into(), "/b".into(), "/c".into()]);
        assert_eq!(all.after(Path::new("/a/x")), [PathBuf::from("/b/x"), "/c/x".into()]);
        assert!(all.after(Path::new("/c/x")).is_empty() && all.after(Path::new("/d/x")).is_empty());
    }
}
