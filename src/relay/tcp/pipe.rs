//! The pipes that bulk goes through: a bounded number, lent to one direction at a time.
//!
//! Owns the count, the empty pipes at hand, and what all bulk directions have to know of each
//! other. Knows nothing of sockets. Invariant: a pipe is counted until it is closed, and what is at
//! hand is empty.

use std::{
    os::fd::OwnedFd,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
};

use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

/// What a pipe holds, where the system allows it; [`LEAST`] is its default.
pub(super) const CAPACITY: usize = 256 * 1024;
/// What a pipe holds at least. The kernel gives smaller ones to a user with very many pipes, and
/// copying costs less then.
pub(super) const LEAST: usize = 64 * 1024;
/// Empty pipes that are kept at hand.
const AT_HAND: usize = 16;

/// The pipes of the daemon.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    /// How many there may be.
    allowed: AtomicUsize,
    /// How many there are.
    open: AtomicUsize,
    /// The empty pipes at hand. The lock is taken when a flow becomes active or runs dry, for a
    /// push or a pop.
    idle: Mutex<Vec<Pipe>>,
    /// A session wanted a pipe since the last one came back, and got none.
    scarce: AtomicBool,
    /// The turns of all bulk directions, counted.
    pub(super) turns: AtomicU32,
    /// Bytes were spliced on this system.
    pub(super) works: AtomicBool,
}

/// A pipe. [`Pipes::give_back`] takes it back; one that is dropped stays counted.
#[derive(Debug)]
#[must_use = "a pipe that is dropped stays counted"]
pub(super) struct Pipe {
    pub(super) read: OwnedFd,
    pub(super) write: OwnedFd,
}

impl Pipes {
    /// Up to `allowed` pipes, each of two descriptors; 0 turns splicing off.
    pub(super) fn new(allowed: usize) -> Self {
        Self { allowed: allowed.into(), ..Self::default() }
    }

    /// Turns splicing off.
    pub(super) fn forbid(&self) {
        self.allowed.store(0, Relaxed);
    }

    /// Whether others wait for a pipe.
    pub(super) fn are_scarce(&self) -> bool {
        self.scarce.load(Relaxed)
    }

    /// Lends an empty pipe: one that is at hand, or a new one, if there may be one more.
    pub(super) fn lend(&self) -> Option<Pipe> {
        // The guard must be gone before a new pipe is opened.
        let at_hand = self.idle().pop();
        let pipe = at_hand.or_else(|| self.open());
        if pipe.is_none() && self.allowed.load(Relaxed) > 0 {
            self.scarce.store(true, Relaxed);
        }
        pipe
    }

    /// Takes a pipe back, and keeps it for another direction if it is empty.
    pub(super) fn give_back(&self, pipe: Pipe, is_empty: bool) {
        if is_empty {
            if self.are_scarce() {
                self.scarce.store(false, Relaxed);
            }
            let mut idle = self.idle();
            if idle.len() < AT_HAND && self.open.load(Relaxed) <= self.allowed.load(Relaxed) {
                idle.push(pipe);
                return;
            }
        }
        // Closed without the lock.
        drop(pipe);
        self.open.fetch_sub(1, Relaxed);
    }

    fn open(&self) -> Option<Pipe> {
        let more = |open| (open < self.allowed.load(Relaxed)).then_some(open + 1);
        self.open.fetch_update(Relaxed, Relaxed, more).ok()?;
        let pipe = Pipe::open();
        if pipe.is_none() {
            self.open.fetch_sub(1, Relaxed);
        }
        pipe
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Pipe>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pipe {
    fn open() -> Option<Self> {
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
        // A user may have so many large pipes and no more.
        let is_large = fcntl_setpipe_size(&write, CAPACITY).is_ok();
        let suffices = is_large || fcntl_getpipe_size(&write).is_ok_and(|size| size >= LEAST);
        suffices.then_some(Self { read, write })
    }
}
