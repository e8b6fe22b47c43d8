//! Reading a file that may be anything: bounded, and with an error that says what to do.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("{}", cause(.0))]
    Io(#[from] io::Error),
    #[error("it is a directory")]
    Directory,
    #[error("{0}")]
    Large(&'static str),
}

impl ReadError {
    /// What would be right.
    pub(super) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Io(e) if e.kind() == io::ErrorKind::NotFound => Some("check the path"),
            Self::Io(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                Some("the user that portway runs as must be able to read it")
            }
            Self::Directory | Self::Io(_) | Self::Large(_) => None,
        }
    }
}

/// The system's words for an error, without its number.
pub(super) fn cause(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = words.chars();
    chars.next().map(|c| c.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// Reads a file of at most `most` bytes: a device or a pipe may go on for ever. A larger one is refused with the words
/// `too_large`.
pub(super) fn read(path: &Path, most: u64, too_large: &'static str) -> Result<Vec<u8>, ReadError> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(ReadError::Directory);
    }
    if metadata.is_file() && metadata.len() > most {
        return Err(ReadError::Large(too_large));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(ReadError::Large(too_large)) } else { Ok(bytes) }
}

/// The path from the root on; links are kept.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
