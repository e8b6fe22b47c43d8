//! Standard error and files: lines after each other.

use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::Path,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
};

use crate::daemon::logging::{journal, text::Stamp};

/// What a pipe takes as a whole or not at all (`PIPE_BUF`, pipe(7)).
pub(super) const AT_ONCE: usize = 4096;
/// The rights of a new file: others do not read who connects.
const MODE: u32 = 0o640;

/// Standard error without the lock that the rest of the program would wait for.
#[derive(Debug)]
pub(super) struct Stderr {
    stderr: io::Stderr,
    stamp: Stamp,
}

impl Stderr {
    pub(super) fn new() -> Self {
        let stamp = if journal::is_stderr() {
            Stamp::Priority
        } else if colour() {
            Stamp::Coloured
        } else {
            Stamp::Plain
        };
        Self { stderr: io::stderr(), stamp }
    }

    /// What its lines begin with.
    pub(super) fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Writes if there is room: a reload can then leave a reader that has stopped. The stream may
    /// be shared with other programs, so its flags stay as they are.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        if !has_room(self.stderr.as_fd()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(rustix::io::write(&self.stderr, bytes)?)
    }
}

impl AsFd for Stderr {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stderr.as_fd()
    }
}

/// Whether a stream takes something now, or has an error to tell.
fn has_room(stream: BorrowedFd<'_>) -> bool {
    let now = Timespec::default();
    // What cannot be asked is written to.
    poll(&mut [PollFd::from_borrowed_fd(stream, PollFlags::OUT)], Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Says something on standard error beside the log, if there is room for it.
pub(in super::super) fn warn_on_stderr(text: &str) {
    let text = journal::for_stderr(text) + "\n";
    let _ = Stderr { stderr: io::stderr(), stamp: Stamp::Plain }.write(text.as_bytes());
}

/// Colour only on a terminal, and never with `NO_COLOR` (no-color.org: any value but an empty one).
fn colour() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// A file, at whose end lines are written.
#[derive(Debug)]
pub(super) struct LogFile(File);

impl LogFile {
    /// Opens it, or makes it. A pipe without a reader is an error, and does not wait for one.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // The flags of open(2) fit.
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(MODE).custom_flags(flags).open(path).map(Self)
    }

    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(&self.0, bytes)?)
    }
}

impl AsFd for LogFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
