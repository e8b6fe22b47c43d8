//! Files that are replaced whole: after a crash there is the old content or the new, never half of it. And files that
//! are opened whatever they are, without a wait for what may not come.
//!
//! Owns the way a small file of the daemon's own gets onto the disk, and nothing of what it holds.

use std::{
    ffi::OsString,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

/// Puts `bytes` in the place of the file at `path`, readable by its owner alone. Its directory has to be there. One caller
/// at a time may do this for a path. It blocks.
///
/// # Errors
/// What the system said; then the file is as it was.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = with_suffix(path, ".new");
    // One that was left behind by a crash may belong to anyone.
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
        // What is not whole is of no use; that it cannot be removed is told by the next try.
        let _ = fs::remove_file(&beside);
    })
}

/// Opens a file for reading, and says what it is: without waiting for the other end of a pipe, and without
/// taking a terminal for the daemon's own.
///
/// # Errors
/// What the system said.
pub(crate) fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    Ok((file, metadata))
}

/// Reads a file without waiting for what may not come: at most `most` bytes, and one more to tell that there are more.
///
/// # Errors
/// What the system said, and where it is not a regular file.
pub(crate) fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let not_regular = |metadata: &Metadata| {
        io::Error::other(if metadata.is_dir() { "it is a directory" } else { "it is not a file" })
    };
    let (file, metadata) = open(path).map_err(|error| match fs::metadata(path) {
        // A socket cannot even be opened.
        Ok(metadata) if !metadata.is_file() => not_regular(&metadata),
        _ => error,
    })?;
    if !metadata.is_file() {
        return Err(not_regular(&metadata));
    }
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The same as text, and a longer file is an error.
///
/// # Errors
/// Those of [`read`], and where it is too long or not UTF-8.
pub(crate) fn read_text(path: &Path, most: u64) -> io::Result<String> {
    let bytes = read(path, most)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("it is longer than {most} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8 text"))
}

/// The directory of a file.
pub(crate) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// The path with something added to its last name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
