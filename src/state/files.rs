//! Files that are read without a wait, and files that are replaced whole.
//!
//! Reading never waits for the other end of a pipe, and takes no more bytes than the caller allows.
//! After a crash during [`replace`] there is the old content or the new, never half of it. Knows
//! nothing of what a file holds.

use std::{
    ffi::OsString,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, OFlags, access};

/// Replaces the file at `path` by `bytes`, readable by its owner alone. Its directory must exist.
/// One caller at a time may do this for a path. It blocks.
///
/// # Errors
/// What the system said; then the file is as it was.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = with_suffix(path, ".new");
    // A crash may have left one, with another owner.
    match fs::remove_file(&beside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        File::open(directory(path))?.sync_all()
    };
    write().inspect_err(|_| {
        // Half a file is useless. If it cannot be removed, the next try says so.
        let _ = fs::remove_file(&beside);
    })
}

/// Opens a file for reading, with its metadata. Does not wait for the other end of a pipe, and does
/// not make a terminal the daemon's own.
///
/// # Errors
/// What the system said.
pub(crate) fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    Ok((file, metadata))
}

/// Whether a file cannot be read although its owner and its mode let this user read it: a sandbox
/// or a security module closes it.
pub(crate) fn is_closed(path: &Path) -> bool {
    let is_refused = open(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    is_refused && access(path, Access::READ_OK).is_ok()
}

/// Reads at most `most` bytes of a regular file, and one more where there are more.
///
/// # Errors
/// What the system said, and where it is not a regular file.
pub(crate) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let (file, metadata) = open(path).map_err(|error| {
        // A socket cannot even be opened.
        refuse_special(path).err().unwrap_or(error)
    })?;
    refuse_kind(&metadata)?;
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a regular file of text.
///
/// # Errors
/// Those of [`read`], and where it is longer than `most` bytes or not UTF-8.
pub(crate) fn read_text(path: &Path, most: u64) -> io::Result<String> {
    let bytes = read(path, most)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("it is longer than {most} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8 text"))
}

/// Refuses what exists at `path` and is not a regular file: a directory, a pipe, a device such as
/// `/dev/null`.
///
/// # Errors
/// What it is.
pub(super) fn refuse_special(path: &Path) -> io::Result<()> {
    fs::metadata(path).map_or(Ok(()), |metadata| refuse_kind(&metadata))
}

fn refuse_kind(metadata: &Metadata) -> io::Result<()> {
    match metadata.file_type() {
        kind if kind.is_dir() => Err(io::Error::other("it is a directory")),
        kind if !kind.is_file() => Err(io::Error::other("it is not a file")),
        _ => Ok(()),
    }
}

/// The directory of a file.
pub(crate) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// The path with `suffix` added to its last name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
