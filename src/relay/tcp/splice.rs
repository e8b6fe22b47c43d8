//! Bulk without copying: bytes go from socket to socket through a pipe, inside the kernel (splice(2), Linux).
//!
//! A direction is [`Bulk`] while much comes at a time. It borrows a pipe when there is something to move, and gives it
//! back, empty, as soon as the source is dry. The pool is bounded: when no pipe is to be had, the direction goes on to
//! copy. A pipe that still holds bytes is part of the stream: it is never given back (a stranger would get the bytes)
//! and its bytes are counted only when they reach the sink.

use std::{
    cell::RefCell,
    io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use rustix::{
    io::Errno,
    net::sockopt::tcp_congestion,
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};
use tokio::{io::Interest, net::TcpStream};

/// What a pipe holds, where the system allows it; 64 KiB is its default.
const CAPACITY: usize = 256 * 1024;
/// The least that a call may move.
const PIECE: usize = 64 * 1024;
/// What is to be under way in all pipes together, or it leaves the caches before it is read.
const UNDER_WAY: usize = 1024 * 1024;
/// Empty pipes that a thread keeps at hand.
const IDLE_PER_THREAD: usize = 8;

/// How many pipes there may be; see [`limit_pipes`].
static ALLOWED: AtomicUsize = AtomicUsize::new(64);
/// How many pipes there are.
static OPEN: AtomicUsize = AtomicUsize::new(0);
/// How many directions are bulk.
static FLOWS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static IDLE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// Bounds the number of pipes, each of two descriptors; 0 turns splicing off.
pub fn limit_pipes(pipes: usize) {
    ALLOWED.store(pipes, Relaxed);
}

/// Whether an error to fill says that this system does not splice (a sandbox that forbids it): nothing was moved, and
/// copying always works.
pub(super) fn is_unavailable(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::ACCESS))
}

/// An empty pipe, counted for as long as it exists.
#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    /// One that is at hand, or a new one, if there may be one more.
    fn borrow() -> Option<Self> {
        IDLE.with_borrow_mut(Vec::pop).or_else(Self::open)
    }

    /// Keeps the empty pipe for another direction.
    fn give_back(self) {
        // A thread that is ending has no pool any more; then the pipe is closed.
        let _ = IDLE.try_with(|idle| {
            let mut idle = idle.borrow_mut();
            if idle.len() < IDLE_PER_THREAD && OPEN.load(Relaxed) <= ALLOWED.load(Relaxed) {
                idle.push(self);
            }
        });
    }

    fn open() -> Option<Self> {
        let counted = OPEN.fetch_update(Relaxed, Relaxed, |n| (n < ALLOWED.load(Relaxed)).then_some(n + 1));
        counted.ok()?;
        match pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC) {
            Ok((read, write)) => {
                // A user may have so many large pipes and no more; one that stays small moves less at a time.
                let _ = fcntl_setpipe_size(&write, CAPACITY);
                Some(Self { read, write })
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

/// A direction that is bulk, with the pipe that it has on loan and the bytes that are in it.
#[derive(Debug)]
pub(super) struct Bulk {
    pipe: Option<Pipe>,
    laden: usize,
    /// The kernel sends to the sink by the clock.
    paced: bool,
}

impl Bulk {
    /// Of a direction to `sink`, if a pipe is to be had.
    pub(super) fn begin(sink: &TcpStream) -> Option<Box<Self>> {
        let pipe = Some(Pipe::borrow()?);
        FLOWS.fetch_add(1, Relaxed);
        let paced = tcp_congestion(sink).is_ok_and(|name| name.starts_with("bbr"));
        Some(Box::new(Self { pipe, laden: 0, paced }))
    }

    /// The bytes in the pipe.
    pub(super) fn laden(&self) -> usize {
        self.laden
    }

    /// Whether it has a pipe on loan.
    #[cfg(test)]
    pub(super) fn has_pipe(&self) -> bool {
        self.pipe.is_some()
    }

    /// Fills the empty pipe from `source`; 0 is its end. `None` is that no pipe is to be had. From a dry source, the pipe
    /// goes back.
    pub(super) fn fill(&mut self, source: &TcpStream) -> io::Result<Option<usize>> {
        debug_assert_eq!(self.laden, 0, "EAGAIN of a laden pipe may mean that the pipe is full");
        if self.pipe.is_none() {
            self.pipe = Pipe::borrow();
        }
        let Some(pipe) = &self.pipe else { return Ok(None) };
        let filled = source.try_io(Interest::READABLE, || {
            Ok(splice(
                source,
                None,
                &pipe.write,
                None,
                self.piece(),
                SpliceFlags::NONBLOCK | SpliceFlags::MOVE,
            )?)
        });
        match filled {
            Ok(bytes) => self.laden = bytes,
            Err(_) => self.give_back(),
        }
        filled.map(Some)
    }

    /// Empties the pipe into `sink`, as far as that takes it.
    pub(super) fn empty(&mut self, sink: &TcpStream) -> io::Result<usize> {
        let Some(pipe) = &self.pipe else { return Ok(0) };
        let bytes = sink.try_io(Interest::WRITABLE, || {
            Ok(splice(&pipe.read, None, sink, None, self.laden, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
        })?;
        self.laden -= bytes;
        Ok(bytes)
    }

    /// How much a call should move. Each has a price of its own, so more is better, as long as it is read while it is
    /// still in the caches.
    ///
    /// BBR sends by the clock, and what comes to it in large pieces leaves in bursts, from which it learns the wrong
    /// speed as soon as streams share a line: 64 of them moved 10 Gbit/s by 64 KiB and 4 by 256; one moved 10 and 15.
    fn piece(&self) -> usize {
        match FLOWS.load(Relaxed) {
            ..=1 => CAPACITY,
            _ if self.paced => PIECE,
            all => (UNDER_WAY / all).clamp(PIECE, CAPACITY),
        }
    }

    /// Gives an empty pipe back; one with bytes in it is closed with them.
    fn give_back(&mut self) {
        if let Some(pipe) = self.pipe.take().filter(|_| self.laden == 0) {
            pipe.give_back();
        }
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        self.give_back();
        FLOWS.fetch_sub(1, Relaxed);
    }
}
