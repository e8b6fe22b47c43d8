//! Where the log goes: a sink takes pieces of bytes, and says which form they have.
//!
//! Owns what is open for a target, and its return after the other side was away: a journal or a
//! syslog that restarts, a server that is down. Knows nothing of the buffer and the thread
//! (`lines`), which decide what waits and what is lost.
//!
//! Invariant: [`Sink::send`] does not wait for the other side, except for the start of a TCP
//! connection, a name lookup, and a disk. The thread waits by [`Sink::wait`], in slices.

mod local;
mod server;
mod stream;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    time::Duration,
};

use local::Local;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use server::{Tcp, Udp};
pub(super) use stream::warn_on_stderr;
use stream::{LogFile, Stderr};

use super::{entry, journal, json, record::Record, syslog, text};
use crate::{
    config::{LogFormat, LogTarget},
    mapping::Protocol,
};

/// The socket of the journal, and that of syslog.
const JOURNAL: &str = "/run/systemd/journal/socket";
const SYSLOG: &str = "/dev/log";

/// What came of a piece.
#[derive(Debug)]
pub(super) enum Sent {
    /// So many bytes were taken.
    Bytes(usize),
    /// The other side takes nothing now.
    Busy,
    /// The connection has ended. What was begun has to be sent again, from the start of a record.
    Restarted,
    /// The other side is not there, and will be tried again.
    Away(io::Error),
    /// The piece cannot be sent.
    Failed(io::Error),
}

/// A sink.
#[derive(Debug)]
pub(crate) struct Sink {
    target: LogTarget,
    format: LogFormat,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Stderr(Stderr),
    File(LogFile),
    Journal(Local),
    Syslog(Local),
    Udp(Udp),
    Tcp(Tcp),
    #[cfg(test)]
    Test(tests::Out),
}

impl Sink {
    /// Standard error.
    pub(super) fn stderr(format: LogFormat) -> Self {
        Self { target: LogTarget::Stderr, format, way: Way::Stderr(Stderr::new()) }
    }

    /// Opens a target.
    ///
    /// # Errors
    /// A file that cannot be opened. A peer that is absent is not an error: it may start later.
    pub(crate) fn open(target: &LogTarget, format: LogFormat) -> io::Result<Self> {
        let way = match target {
            LogTarget::Stderr => return Ok(Self::stderr(format)),
            LogTarget::File(path) => Way::File(LogFile::open(path)?),
            LogTarget::Journald => Way::Journal(Local::at(Path::new(JOURNAL))),
            LogTarget::Syslog => Way::Syslog(Local::at(Path::new(SYSLOG))),
            LogTarget::Server(server) => match server.protocol {
                Protocol::Udp => Way::Udp(Udp::to(server.address.clone())),
                Protocol::Tcp => Way::Tcp(Tcp::to(server.address.clone())),
            },
        };
        Ok(Self { target: target.clone(), format, way })
    }

    /// The target that is open.
    pub(super) fn target(&self) -> &LogTarget {
        &self.target
    }

    /// The form of a line, where the sink has lines.
    pub(super) fn set_format(&mut self, format: LogFormat) {
        self.format = format;
    }

    /// Makes sure that the other side is there.
    ///
    /// # Errors
    /// When it is not.
    pub(super) fn reach(&mut self) -> io::Result<()> {
        match &mut self.way {
            Way::Stderr(_) | Way::File(_) => Ok(()),
            Way::Journal(local) | Way::Syslog(local) => local.reach(),
            Way::Udp(udp) => udp.reach(),
            Way::Tcp(tcp) => tcp.reach(),
            #[cfg(test)]
            Way::Test(_) => Ok(()),
        }
    }

    /// Opens the file again, under its name, and says whether there is one: other sinks have none.
    ///
    /// # Errors
    /// When it cannot be opened: the old one stays.
    pub(super) fn reopen(&mut self) -> io::Result<bool> {
        let (Way::File(file), LogTarget::File(path)) = (&mut self.way, &self.target) else {
            return Ok(false);
        };
        *file = LogFile::open(path)?;
        Ok(true)
    }

    /// Appends a record in the form that the other side wants.
    pub(super) fn shape(&self, out: &mut Vec<u8>, record: Record<'_>) {
        let line = |out: &mut Vec<u8>, stamp| match self.format {
            LogFormat::Text => text::line(out, record, stamp),
            LogFormat::Json => {
                if stamp == text::Stamp::Priority {
                    out.extend_from_slice(journal::prefix(record.level).as_bytes());
                }
                json::line(out, record);
            }
        };
        match &self.way {
            Way::Stderr(stderr) => line(out, stderr.stamp()),
            Way::File(_) => line(out, text::Stamp::Plain),
            Way::Journal(_) => entry::entry(out, record),
            Way::Syslog(_) => syslog::local(out, record, self.format),
            Way::Udp(udp) => syslog::remote(out, record, udp.host()),
            Way::Tcp(tcp) => syslog::framed(out, record, tcp.host()),
            #[cfg(test)]
            Way::Test(_) => out.extend([record.message().as_bytes(), b"\n"].concat()),
        }
    }

    /// How many bytes are sent at once. A record that is longer is a piece of its own; with 0, each
    /// is.
    pub(super) fn room(&self) -> usize {
        match &self.way {
            Way::Stderr(_) => stream::AT_ONCE,
            #[cfg(test)]
            Way::Test(_) => stream::AT_ONCE,
            Way::File(_) | Way::Tcp(_) => 16 << 10,
            Way::Journal(_) | Way::Syslog(_) | Way::Udp(_) => 0,
        }
    }

    /// What ends the rest of a record that could not be written as a whole.
    pub(super) fn mend(&self) -> &'static [u8] {
        if matches!(self.way, Way::Stderr(_) | Way::File(_)) { b"\n" } else { b"" }
    }

    /// Sends a piece, or a part of it.
    pub(super) fn send(&mut self, piece: &[u8]) -> Sent {
        match &mut self.way {
            Way::Stderr(stderr) => of_write(stderr.write(piece)),
            Way::File(file) => of_write(file.write(piece)),
            Way::Journal(local) => local.send(piece, true),
            Way::Syslog(local) => local.send(piece, false),
            Way::Udp(udp) => udp.send(piece),
            Way::Tcp(tcp) => tcp.send(piece),
            #[cfg(test)]
            Way::Test(out) => of_write(out.0.write(piece)),
        }
    }

    /// How many records were lost after they seemed to be sent, since the last call.
    pub(super) fn missed(&mut self) -> u64 {
        match &mut self.way {
            Way::Udp(udp) => udp.missed(),
            _ => 0,
        }
    }

    /// Waits until the other side may take something, but no longer than `most`.
    pub(super) fn wait(&self, most: Duration) {
        match &self.way {
            Way::Stderr(stderr) => wait_for(Some(stderr.as_fd()), most),
            Way::File(file) => wait_for(Some(file.as_fd()), most),
            Way::Journal(local) | Way::Syslog(local) => wait_for(local.as_fd(), most),
            Way::Udp(udp) => wait_for(udp.as_fd(), most),
            Way::Tcp(tcp) => wait_for(tcp.as_fd(), most),
            #[cfg(test)]
            Way::Test(_) => {}
        }
    }
}

/// What came of a write to a stream.
fn of_write(written: io::Result<usize>) -> Sent {
    match written {
        Ok(0) => Sent::Failed(io::ErrorKind::WriteZero.into()),
        Ok(bytes) => Sent::Bytes(bytes),
        Err(error) if is_full(&error) => Sent::Busy,
        Err(error) => Sent::Failed(error),
    }
}

/// Whether an operation may do better a moment later.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Waits until something may be written, or for the whole time where nothing is open.
fn wait_for(file: Option<BorrowedFd<'_>>, most: Duration) {
    let most = Timespec::try_from(most).unwrap_or_default();
    // A signal only ends the wait early.
    match file {
        Some(file) => drop(poll(&mut [PollFd::from_borrowed_fd(file, PollFlags::OUT)], Some(&most))),
        None => drop(poll(&mut [], Some(&most))),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What the sink of a test takes at once.
    pub(in super::super) const AT_ONCE: usize = stream::AT_ONCE;

    /// A test in the place of the other side.
    pub(super) struct Out(pub(super) Box<dyn io::Write + Send>);

    impl std::fmt::Debug for Out {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Out")
        }
    }

    /// A sink that takes messages alone, each on a line.
    pub(in super::super) fn sink(out: Box<dyn io::Write + Send>) -> Sink {
        Sink { target: LogTarget::Stderr, format: LogFormat::Text, way: Way::Test(Out(out)) }
    }
}
