//! Reading a file that may be anything: bounded, never waiting for what may not come, and with an
//! error that says what to do.
//!
//! Only the file that a person names may be something else than a regular file: a pipe or a
//! terminal, as in `-c <(generate)` or `-c /dev/stdin`. It is read to its end. A named pipe without
//! a writer is refused, because it would block the program.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use rustix::event::{PollFd, PollFlags, poll};

use crate::state::files;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// What the system said.
    #[error("{}", cause(.0))]
    Io(#[from] io::Error),
    /// Its own rights let this user read it, and something else does not.
    #[error("{}", cause(.0))]
    Closed(io::Error),
    /// A directory in the place of a file.
    #[error("it is a directory")]
    Directory,
    /// A pipe, a device or a socket.
    #[error("it is not a regular file")]
    NotRegular,
    /// Nothing wrote into the pipe.
    #[error("it is a pipe, and nothing came out of it")]
    Dry,
    /// It has more bytes than the caller allows.
    #[error("{0}")]
    Large(&'static str),
}

/// What helps where the sandbox of the process has closed a file, or something alike.
pub(crate) const CLOSED: &str = "its own rights let this user read it: restart portway, whose sandbox knows the \
                                 directories of its start; or look at the rules of SELinux or AppArmor";

impl ReadError {
    /// What would be right.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Io(e) if e.kind() == io::ErrorKind::NotFound => Some("check the path"),
            Self::Io(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                Some("the user that portway runs as must be able to read it")
            }
            Self::Closed(_) => Some(CLOSED),
            Self::NotRegular => Some("name a file; only the file of --config may be a pipe"),
            Self::Dry => Some("start what writes into it first, and mind that it can be read only once"),
            Self::Directory | Self::Io(_) | Self::Large(_) => None,
        }
    }
}

/// The system's words for an error, without its number.
pub(crate) fn cause(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = words.chars();
    chars.next().map(|c| c.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// Reads a regular file of at most `most` bytes. A larger one is refused with the words
/// `too_large`.
pub(crate) fn read(path: &Path, most: u64, too_large: &'static str) -> Result<Vec<u8>, ReadError> {
    let (file, metadata) = open(path)?;
    if !metadata.is_file() {
        return Err(ReadError::NotRegular);
    }
    if metadata.len() > most {
        return Err(ReadError::Large(too_large));
    }
    bounded(file, most, too_large)
}

/// Reads a file of any kind, of at most `most` bytes: a device or a pipe may have no end.
pub(crate) fn read_any(path: &Path, most: u64, too_large: &'static str) -> Result<Vec<u8>, ReadError> {
    let (file, metadata) = open(path)?;
    if metadata.is_file() && metadata.len() > most {
        return Err(ReadError::Large(too_large));
    }
    let bytes = bounded(Waiting(file), most, too_large)?;
    let is_dry = bytes.is_empty() && metadata.file_type().is_fifo();
    if is_dry { Err(ReadError::Dry) } else { Ok(bytes) }
}

/// Reads standard input to its end, at most `most` bytes. An empty one is not an error: what wrote
/// into it may have had nothing to write.
pub(crate) fn read_stdin(most: u64, too_large: &'static str) -> Result<Vec<u8>, ReadError> {
    let input = rustix::io::dup(io::stdin()).map_err(io::Error::from)?;
    bounded(Waiting(File::from(input)), most, too_large)
}

fn open(path: &Path) -> Result<(File, Metadata), ReadError> {
    let closed = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied if files::is_closed(path) => ReadError::Closed(error),
        _ => error.into(),
    };
    let (file, metadata) = files::open(path).map_err(closed)?;
    if metadata.is_dir() { Err(ReadError::Directory) } else { Ok((file, metadata)) }
}

fn bounded(from: impl Read, most: u64, too_large: &'static str) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    from.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(ReadError::Large(too_large)) } else { Ok(bytes) }
}

/// A file that was opened without blocking, and is read with it: a pipe without a writer is at its
/// end, and one with a writer that is busy is waited for.
struct Waiting(File);

impl Read for Waiting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    // Interrupted or not, the next read tells.
                    let _ = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None);
                }
                done => return done,
            }
        }
    }
}

/// The path from the root on; links are kept.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
