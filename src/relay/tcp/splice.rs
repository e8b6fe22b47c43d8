//! Bulk without copying: bytes go from socket to socket through a pipe, inside the kernel (splice(2), Linux).
//!
//! A direction borrows a [`Pipe`] while its source keeps filling the read buffer, and gives it back, empty, as soon as
//! the source is dry. The pool is bounded: when no pipe is to be had, the direction goes on to copy. A pipe that still
//! holds bytes is part of the stream: it is never given back (a stranger would get the bytes) and its bytes are
//! counted only when they reach the sink.

use std::{
    cell::RefCell,
    io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use rustix::{
    io::Errno,
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};
use tokio::{io::Interest, net::TcpStream};

/// The most that one call moves.
const PIECE: usize = 1 << 20;
/// What a pipe holds, where the system allows it; 64 KiB is its default. Each call has a price of its own: with 64 KiB a
/// byte costs a tenth more with one stream and a quarter more with 64; with 512 KiB no less.
const CAPACITY: usize = 256 * 1024;
/// Empty pipes that a thread keeps at hand.
const IDLE_PER_THREAD: usize = 8;

/// How many pipes there may be; see [`limit_pipes`].
static ALLOWED: AtomicUsize = AtomicUsize::new(64);
/// How many pipes there are.
static OPEN: AtomicUsize = AtomicUsize::new(0);

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

/// A pipe on loan to one direction, with the bytes that are in it.
#[derive(Debug)]
pub(super) struct Loan {
    /// `None` only while it is being dropped.
    pipe: Option<Pipe>,
    laden: usize,
}

impl Loan {
    /// Borrows a pipe, where one is to be had.
    pub(super) fn take() -> Option<Box<Self>> {
        let pipe = IDLE.with_borrow_mut(Vec::pop).or_else(Pipe::open)?;
        Some(Box::new(Self { pipe: Some(pipe), laden: 0 }))
    }

    /// The bytes in it.
    pub(super) fn laden(&self) -> usize {
        self.laden
    }

    /// Fills the empty pipe from `source`; 0 is its end.
    pub(super) fn fill(&mut self, source: &TcpStream) -> io::Result<usize> {
        debug_assert_eq!(self.laden, 0, "EAGAIN of a laden pipe may mean that the pipe is full");
        let Some(pipe) = &self.pipe else { return Ok(0) };
        let bytes = source.try_io(Interest::READABLE, || {
            Ok(splice(source, None, &pipe.write, None, PIECE, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
        })?;
        self.laden = bytes;
        Ok(bytes)
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
}

impl Drop for Loan {
    /// Gives an empty pipe back; one with bytes in it is closed with them.
    fn drop(&mut self) {
        let Some(pipe) = self.pipe.take() else { return };
        if self.laden == 0 {
            // A thread that is ending has no pool any more; then the pipe is closed.
            let _ = IDLE.try_with(|idle| {
                let mut idle = idle.borrow_mut();
                if idle.len() < IDLE_PER_THREAD && OPEN.load(Relaxed) <= ALLOWED.load(Relaxed) {
                    idle.push(pipe);
                }
            });
        }
    }
}
