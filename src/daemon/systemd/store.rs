//! The store of the service manager: descriptors that it keeps for the next start of this service
//! (`FDSTORE=1` of sd_notify(3)).
//!
//! It keeps what a restart hands to the next process: a file with the snapshot, and the sockets.
//! They have two names. Names are short, because the next process gets all of them in one variable,
//! and the kernel takes no more than 128 KiB.
//!
//! All of this may block. It is said at the very start or by a thread that may wait.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pipe::{PipeFlags, pipe_with},
};
use sd_notify::NotifyState;

/// The name of the file with the snapshot.
pub(super) const SNAPSHOT: &str = "snapshot";
/// The name of each socket.
pub(super) const LIVE: &str = "live";
/// The most sockets: their names fit into a variable.
const MOST: usize = 16_000;
/// Descriptors of one message.
const AT_ONCE: usize = crate::handover::MOST_DESCRIPTORS;
/// How long the manager may take to hear everything.
const HEARD: Duration = Duration::from_secs(5);

/// How many descriptors the manager keeps; none where there is no manager. Before systemd 254 it
/// does not say how many, and the unit decides.
pub(in crate::daemon) fn room() -> usize {
    if !super::is_there() {
        return 0;
    }
    let said = std::env::var("FDSTORE").ok().and_then(|room| room.parse().ok());
    said.unwrap_or(MOST).min(MOST)
}

/// Puts everything into the store, and waits until it is there.
///
/// # Errors
/// What the system says, or that the manager does not answer.
pub(in crate::daemon) fn put(
    snapshot: BorrowedFd<'_>,
    sockets: impl Iterator<Item = impl AsFd>,
) -> io::Result<()> {
    let sockets: Vec<_> = sockets.collect();
    for part in sockets.chunks(AT_ONCE) {
        let part: Vec<_> = part.iter().map(AsFd::as_fd).collect();
        keep(LIVE, &part)?;
    }
    keep(SNAPSHOT, &[snapshot])?;
    wait_heard()
}

/// Takes everything out, and waits until it is out: what was used once must not be used again.
///
/// # Errors
/// What the system says, or that the manager does not answer.
pub(in crate::daemon) fn clear() -> io::Result<()> {
    for name in [SNAPSHOT, LIVE] {
        sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)])?;
    }
    wait_heard()
}

fn keep(name: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    // A connection that its peer ends stays in the store all the same.
    let unwatched = NotifyState::Custom("FDPOLL=0");
    sd_notify::notify_with_fds(&[NotifyState::FdStore, NotifyState::FdName(name), unwatched], descriptors)
}

/// Waits until the manager has read everything that was said: then it closes a pipe that it gets.
fn wait_heard() -> io::Result<()> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    sd_notify::notify_with_fds(&[NotifyState::Custom("BARRIER=1")], &[theirs.as_fd()])?;
    drop(theirs);
    let limit = Timespec { tv_sec: HEARD.as_secs().cast_signed(), tv_nsec: 0 };
    match poll(&mut [PollFd::new(&ours, PollFlags::empty())], Some(&limit))? {
        0 => Err(io::Error::new(io::ErrorKind::TimedOut, "the service manager does not answer")),
        _ => Ok(()),
    }
}
