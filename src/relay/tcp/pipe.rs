//! The pipes that bulk goes through: a bounded number, lent to one direction at a time.
//!
//! Owns the count and the empty pipes at hand. Knows nothing of sockets. Invariant: a pipe is
//! counted for as long as it exists, and what is at hand is empty.

use std::{
    os::fd::OwnedFd,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
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

/// How many pipes there may be; see [`limit_pipes`].
static ALLOWED: AtomicUsize = AtomicUsize::new(64);
/// How many pipes there are.
static OPEN: AtomicUsize = AtomicUsize::new(0);
/// The empty pipes at hand. The lock is taken when a flow becomes active or runs dry, for a push or
/// a pop.
static IDLE: Mutex<Vec<Pipe>> = Mutex::new(Vec::new());
/// A session wanted a pipe since the last one came back, and got none.
static SCARCE: AtomicBool = AtomicBool::new(false);

/// Bounds the number of pipes, each of two descriptors; 0 turns splicing off.
pub(crate) fn limit_pipes(pipes: usize) {
    ALLOWED.store(pipes, Relaxed);
}

/// Whether others wait for a pipe.
pub(super) fn are_scarce() -> bool {
    SCARCE.load(Relaxed)
}

/// An empty pipe, counted for as long as it exists.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) read: OwnedFd,
    pub(super) write: OwnedFd,
}

impl Pipe {
    /// One that is at hand, or a new one, if there may be one more.
    pub(super) fn borrow() -> Option<Self> {
        // The guard must be gone before a new pipe is opened.
        let at_hand = idle().pop();
        let pipe = at_hand.or_else(Self::open);
        if pipe.is_none() && ALLOWED.load(Relaxed) > 0 {
            SCARCE.store(true, Relaxed);
        }
        pipe
    }

    /// Keeps the empty pipe for another direction.
    pub(super) fn give_back(self) {
        if are_scarce() {
            SCARCE.store(false, Relaxed);
        }
        let mut idle = idle();
        if idle.len() < AT_HAND && OPEN.load(Relaxed) <= ALLOWED.load(Relaxed) {
            idle.push(self);
        } else {
            drop(idle);
            // What is closed is closed without the lock.
            drop(self);
        }
    }

    fn open() -> Option<Self> {
        let counted = OPEN.fetch_update(Relaxed, Relaxed, |n| (n < ALLOWED.load(Relaxed)).then_some(n + 1));
        counted.ok()?;
        match pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC) {
            Ok((read, write)) => {
                let pipe = Self { read, write };
                // A user may have so many large pipes and no more.
                let is_large = fcntl_setpipe_size(&pipe.write, CAPACITY).is_ok();
                (is_large || fcntl_getpipe_size(&pipe.write).is_ok_and(|size| size >= LEAST)).then_some(pipe)
            }
            Err(_) => {
                OPEN.fetch_sub(1, Relaxed);
                None
            }
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Relaxed);
    }
}

fn idle() -> MutexGuard<'static, Vec<Pipe>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}
