//! The unix socket of the API.
//!
//! Owns the socket file: its directory, its mode, and the question whether another daemon serves
//! it. The file's mode says which users may connect. They are administrators.
//!
//! A file that no process listens on is replaced. One that a process listens on is refused, and the
//! error names the process. Two daemons that start at once do not replace each other's file: the
//! directory is locked meanwhile. The file is removed at the end, unless another one is in its
//! place by then.
//!
//! Everything here blocks: see [`job`](crate::job).

use std::{
    fmt,
    fs::{self, DirBuilder, File, Metadata},
    io,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::{config::ApiSocket, sock::unix};

/// Its owner and its group may connect.
const MODE: u32 = 0o660;

/// Why the socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// The directory is missing, and cannot be created.
    #[error(
        "create the directory {directory}: {error}; create it, or set `[api] socket` to a path that {user} may write"
    )]
    Directory {
        /// Its path.
        directory: String,
        /// The user of this process.
        user: User,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// Another daemon serves it.
    #[error("another process{} listens on it; stop it, or set `[api] socket` to another path", of(*.0))]
    Live(Option<i32>),
    /// Whether a process listens cannot be found out.
    #[error(
        "user {owner} owns it, and {user} may not connect to it ({error}); remove it, or set `[api] socket` to another path"
    )]
    Foreign {
        /// The user that owns the file.
        owner: u32,
        /// The user of this process.
        user: User,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// Something else has its name.
    #[error("a file that is not a socket has this name; remove it, or set `[api] socket` to another path")]
    Occupied,
    /// The file of an earlier run cannot be removed.
    #[error("remove the file of an earlier run, which user {0} owns: {1}")]
    Stale(u32, #[source] io::Error),
    /// The system refuses.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// The user that this process runs as.
#[derive(Clone, Copy, Debug)]
pub(crate) struct User(u32);

impl User {
    fn own() -> Self {
        Self(rustix::process::geteuid().as_raw())
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}", self.0)
    }
}

fn of(process: Option<i32>) -> String {
    process.map(|id| format!(" ({id})")).unwrap_or_default()
}

/// A socket file that is served. Dropped, it is removed.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Its device and number.
    identity: (u64, u64),
    /// Another process serves it, or still does.
    is_foreign: bool,
}

impl SocketFile {
    /// The file of a socket that another process made and hands over; `None` where `path` is not
    /// its file any more. It is that process's until it is served here.
    pub(super) fn of(path: &Path, listener: &UnixListener) -> Option<Self> {
        let addr = listener.local_addr().ok()?;
        let found = fs::symlink_metadata(path).ok()?;
        let is_it = addr.as_pathname() == Some(path) && found.file_type().is_socket();
        is_it.then(|| Self { path: path.to_owned(), identity: identity(&found), is_foreign: true })
    }

    /// Notes that this process serves it.
    pub(super) fn is_served(&mut self) {
        self.is_foreign = false;
    }

    /// Leaves the file where it is, for the process that serves it from now on.
    pub(super) fn leave(mut self) {
        self.is_foreign = true;
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let found = fs::symlink_metadata(&self.path);
        if !self.is_foreign && found.is_ok_and(|found| identity(&found) == self.identity) {
            // Where it cannot be removed, the next start finds it without a listener.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Makes the socket at `path`.
///
/// # Errors
/// [`SocketError`]; what was there is still there.
pub(super) fn open(path: &Path) -> Result<(UnixListener, SocketFile), SocketError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let made = DirBuilder::new().recursive(true).mode(ApiSocket::DIRECTORY_MODE).create(directory);
    made.map_err(|error| SocketError::Directory {
        directory: directory.display().to_string(),
        user: User::own(),
        error,
    })?;
    // Where the directory cannot be locked, only two starts at the same moment could interfere.
    let lock = File::open(directory);
    let _ = lock.as_ref().map(|lock| flock(lock, FlockOperation::LockExclusive));
    make_way(path)?;
    let listener = unix::listen(path, MODE)?;
    let identity = identity(&fs::symlink_metadata(path)?);
    Ok((listener, SocketFile { path: path.to_owned(), identity, is_foreign: false }))
}

/// Removes a socket file that no process listens on.
fn make_way(path: &Path) -> Result<(), SocketError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !found.file_type().is_socket() {
        return Err(SocketError::Occupied);
    }
    match unix::knock(path) {
        Ok(peer) => Err(SocketError::Live(unix::peer_process(&peer))),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock => Err(SocketError::Live(None)),
            io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(|error| SocketError::Stale(found.uid(), error))
            }
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(SocketError::Foreign { owner: found.uid(), user: User::own(), error }),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_socket_is_for_its_owner_and_group_and_is_removed_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/portway.sock");
        let (listener, file) = open(&path).unwrap();
        assert_eq!(mode(&path), 0o660);
        drop((listener, file));
        assert!(!path.exists());
    }

    #[test]
    fn a_file_without_a_listener_is_replaced_and_one_with_a_listener_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("portway.sock");
        drop(UnixListener::bind(&path).unwrap());
        let (listener, file) = open(&path).unwrap();
        let refused = open(&path).unwrap_err();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(matches!(refused, SocketError::Live(Some(process)) if process == own), "{refused:?}");
        assert!(path.exists(), "a refusal leaves it");
        drop((listener, file));
        fs::write(&path, "").unwrap();
        assert!(matches!(open(&path), Err(SocketError::Occupied)));
    }

    #[test]
    fn the_file_of_another_daemon_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("portway.sock");
        let (_listener, file) = open(&path).unwrap();
        fs::rename(&path, dir.path().join("aside")).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(file);
        assert!(path.exists());
    }
}
