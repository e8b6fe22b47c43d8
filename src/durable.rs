//! Files that are replaced whole: after a crash there is the old content or the new, never half of it.
//!
//! Owns the way a small file of the daemon's own gets onto the disk, and nothing of what it holds.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Puts `bytes` in the place of the file at `path`, readable by its owner alone. Its directory has to be there. One caller
/// at a time may do this for a path. It blocks.
///
/// # Errors
/// What the system said; then the file is as it was.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
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

/// The directory of a file.
pub fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// The path with something added to its last name.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
