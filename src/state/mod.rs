//! What survives a restart: small files that belong to the daemon.
//!
//! Owns how such a file is chosen, locked, read, replaced and set aside. Also owns how any file is
//! read without a wait ([`files`]) and how a change on disk is noticed ([`watch`]). Knows nothing
//! of what a file holds. Everything here blocks, so callers use a thread that may.
//!
//! A state file is JSON with a `version`. Rules that hold for each of them:
//!
//! - One process at a time uses a file. It locks `<name>.lock` beside the file, and the kernel
//!   releases the lock when the process ends. A file that is in use is neither read nor written.
//! - A write replaces the whole file, readable by its owner alone. After a crash there is the old
//!   content or the new.
//! - A file that cannot be read is renamed to `<file>.unreadable`, one that cannot be understood to
//!   `<file>.broken`. So no content is overwritten unread, and no content keeps the daemon from
//!   starting.
//! - A directory, a pipe or a device in the place of the file is left alone.

mod directories;
pub(crate) mod files;
pub(crate) mod watch;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

pub(crate) use directories::Directories;
use rustix::fs::{FlockOperation, OFlags, flock};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::text::clean;

/// What every file of one kind has in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    /// The version that is written, and the only one that is read. A file without a version has the
    /// first one.
    pub version: u32,
    /// A larger file is broken, in bytes.
    pub largest: u64,
}

/// A file that this process uses alone.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    format: Format,
    /// `None` where the lock could not be made: [`StateFile::save`] tries again.
    lock: Option<File>,
}

/// What [`StateFile::open`] found.
#[derive(Debug)]
pub(crate) struct Opened<T> {
    /// The file, also where its content is lost.
    pub file: StateFile,
    /// What it holds; `None` before the first save.
    pub content: Result<Option<T>, StateError>,
}

/// Why state was not read or not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// Another process has the lock.
    #[error("{} is in use by another portway; give each its own state directory", .0.display())]
    InUse(PathBuf),
    /// The system did not let it be read.
    #[error("read {}: {source}; the file {}", path.display(), kept_as(aside.as_deref()))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
        /// Its new name, unless it kept its own.
        aside: Option<PathBuf>,
    },
    /// The content is damaged, or of another program.
    #[error("{} is broken ({why}); the file {}", path.display(), kept_as(aside.as_deref()))]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with the content.
        why: String,
        /// Its new name, unless it kept its own.
        aside: Option<PathBuf>,
    },
    /// The system did not let it be written.
    #[error("write {}: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn kept_as(aside: Option<&Path>) -> String {
    aside.map_or_else(|| "stays where it is".to_owned(), |aside| format!("is kept as {}", aside.display()))
}

/// The part of a file that says how to read the rest.
#[derive(Deserialize)]
struct Header {
    #[serde(default = "first_version")]
    version: u32,
}

fn first_version() -> u32 {
    1
}

/// A whole file.
#[derive(Serialize)]
struct Document<'a, T> {
    version: u32,
    #[serde(flatten)]
    content: &'a T,
}

impl StateFile {
    /// Locks the file at `path` and reads it. Only the lock is created. A content that is lost was
    /// set aside.
    ///
    /// # Errors
    /// [`StateError::InUse`]; then nothing was read.
    pub(crate) fn open<T: DeserializeOwned>(path: PathBuf, format: Format) -> Result<Opened<T>, StateError> {
        // A directory that is missing or read-only holds no lock, but it may hold a file to read.
        let lock = match files::refuse_special(&path).and_then(|()| lock(&path)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(StateError::InUse(path)),
            lock => lock.ok(),
        };
        let file = Self { path, format, lock };
        let content = file.read();
        Ok(Opened { file, content })
    }

    /// What the file at `path` holds; `None` where that cannot be told. Nothing is locked or
    /// changed.
    pub(crate) fn peek<T: DeserializeOwned>(path: &Path, format: Format) -> Option<T> {
        let bytes = files::read(path, format.largest).ok()?;
        parse(&bytes, format).ok()
    }

    /// The path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the content of the file. The directory is created if only that is missing.
    ///
    /// # Errors
    /// [`StateError::InUse`] and [`StateError::Unwritable`]; then the file is as it was.
    pub(crate) fn save<T: Serialize>(&mut self, content: &T) -> Result<(), StateError> {
        self.replace(content).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => StateError::InUse(self.path.clone()),
            _ => StateError::Unwritable { path: self.path.clone(), source },
        })
    }

    fn read<T: DeserializeOwned>(&self) -> Result<Option<T>, StateError> {
        let path = &self.path;
        let bytes = match files::read(path, self.format.largest) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                let aside = set_aside(path, ".unreadable");
                return Err(StateError::Unreadable { path: path.clone(), source, aside });
            }
        };
        parse(&bytes, self.format).map(Some).map_err(|why| {
            let aside = set_aside(path, ".broken");
            StateError::Broken { path: path.clone(), why, aside }
        })
    }

    fn replace<T: Serialize>(&mut self, content: &T) -> io::Result<()> {
        files::refuse_special(&self.path)?;
        match fs::DirBuilder::new().mode(0o700).create(files::directory(&self.path)) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        if self.lock.is_none() {
            self.lock = Some(lock(&self.path)?);
        }
        let mut text = serde_json::to_vec(&Document { version: self.format.version, content })?;
        text.push(b'\n');
        files::replace(&self.path, &text)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8], format: Format) -> Result<T, String> {
    if bytes.len() as u64 > format.largest {
        return Err(format!("it is larger than {} MiB", format.largest >> 20));
    }
    let explain = |error: serde_json::Error| clean(&error.to_string());
    let Header { version } = serde_json::from_slice(bytes).map_err(explain)?;
    if version != format.version {
        return Err(format!("it has version {version}, and this portway reads version {}", format.version));
    }
    serde_json::from_slice(bytes).map_err(explain)
}

/// Locks what stands beside the file for this purpose.
fn lock(path: &Path) -> io::Result<File> {
    let beside = path.with_extension("lock");
    let beside = if beside == path { files::with_suffix(path, ".lock") } else { beside };
    // A pipe in its place is refused, in place of a wait for its other end.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut options = File::options();
    options.create(true).truncate(false).write(true).mode(0o600).custom_flags(flags);
    let file = options.open(beside)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// Renames a file; its new name, or `None` where it keeps its own.
fn set_aside(path: &Path, suffix: &str) -> Option<PathBuf> {
    files::refuse_special(path).ok()?;
    let aside = files::with_suffix(path, suffix);
    fs::rename(path, &aside).is_ok().then_some(aside)
}

#[cfg(test)]
mod tests;
