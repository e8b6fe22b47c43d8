//! Bulk without copying: bytes go from socket to socket through a pipe, inside the kernel
//! (splice(2), Linux).
//!
//! A direction is [`Bulk`] while much comes at a time. It borrows a pipe when there is something to
//! move, and gives it back, empty, as soon as the source is dry. A pipe that still holds bytes is
//! part of the stream: it is never given back (a stranger would get the bytes) and its bytes are
//! counted only when they reach the sink.
//!
//! TCP's urgent data (RFC 9293, 3.8.5) is where splice(2) ends: it does not move the byte that is
//! marked urgent nor what comes after it, and says of these bytes `EAGAIN`, or even that the stream
//! has ended. So neither is believed: what splice does not move is looked for with recv(2), which
//! has the last word.

use std::{io, sync::atomic::Ordering::Relaxed};

use rustix::{
    io::Errno,
    net::sockopt::tcp_congestion,
    pipe::{SpliceFlags, splice},
};
use tokio::{io::Interest, net::TcpStream};

use super::pipe::{self, Pipe, Pipes};
use crate::sock::{errno::is_transient, stream::holds_bytes};

/// What is to be under way in all pipes together, or it leaves the caches before it is read.
const UNDER_WAY: usize = 1024 * 1024;

/// What came of an attempt to fill the pipe.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// So many bytes are in it, at least one.
    With(usize),
    /// Nothing is there to be moved. The pipe went back.
    Dry,
    /// The stream has ended, or goes on with what cannot be spliced, whether tokio holds it for
    /// readable or not: it is to be read. The pipe went back.
    Read,
    /// No pipe is to be had, or this system does not splice.
    NoPipe,
}

/// A direction that is bulk, with the pipe that it has on loan and the bytes that are in it.
#[derive(Debug)]
pub(super) struct Bulk<'a> {
    pipes: &'a Pipes,
    pipe: Option<Pipe>,
    laden: usize,
    /// The kernel sends to the sink by the clock.
    paced: bool,
    /// Nothing was moved in this turn yet.
    is_new_turn: bool,
    /// The number of the last turn that moved something.
    last_turn: u32,
    /// How many turns others had before the last two of its own.
    others: [u32; 2],
}

impl<'a> Bulk<'a> {
    /// Of a direction to `sink`, if a pipe is to be had.
    pub(super) fn begin(pipes: &'a Pipes, sink: &TcpStream) -> Option<Box<Self>> {
        let pipe = Some(pipes.lend()?);
        let paced = tcp_congestion(sink).is_ok_and(|name| name.starts_with("bbr"));
        let last_turn = pipes.turns.load(Relaxed);
        Some(Box::new(Self { pipes, pipe, laden: 0, paced, is_new_turn: true, last_turn, others: [0; 2] }))
    }

    /// The bytes in the pipe.
    pub(super) fn laden(&self) -> usize {
        self.laden
    }

    /// Whether others wait for a pipe.
    pub(super) fn is_wanted(&self) -> bool {
        self.pipes.are_scarce()
    }

    /// Whether it has a pipe on loan.
    #[cfg(test)]
    pub(super) fn has_pipe(&self) -> bool {
        self.pipe.is_some()
    }

    /// Its direction's turn begins.
    pub(super) fn begin_turn(&mut self) {
        self.is_new_turn = true;
    }

    /// Fills the empty pipe from `source`.
    ///
    /// # Errors
    /// What the source failed with.
    pub(super) fn fill(&mut self, source: &TcpStream) -> io::Result<Filled> {
        debug_assert_eq!(self.laden, 0, "EAGAIN of a laden pipe may mean that the pipe is full");
        if self.pipe.is_none() {
            self.pipe = self.pipes.lend();
        }
        let Some(pipe) = &self.pipe else { return Ok(Filled::NoPipe) };
        let mut asked = false;
        let filled = source.try_io(Interest::READABLE, || {
            asked = true;
            self.move_in(source, pipe)
        });
        let filled = match filled {
            // The readiness is gone now; what splice leaves behind would wait for the next byte.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && asked && holds_bytes(source) => {
                // Or bytes came a moment ago.
                self.move_in(source, pipe).or(Ok(0))
            }
            filled => filled,
        };
        let outcome = match filled {
            Ok(0) => Filled::Read,
            Ok(bytes) => {
                self.took(bytes);
                return Ok(Filled::With(bytes));
            }
            Err(error) if is_transient(&error) => Filled::Dry,
            Err(error) if self.is_unavailable(&error) => {
                self.pipes.forbid();
                Filled::NoPipe
            }
            Err(error) => return Err(error),
        };
        self.give_back();
        Ok(outcome)
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

    /// Takes the bytes out of the pipe, and gives that back: others have more use for it.
    pub(super) fn unload(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.laden];
        if let Some(pipe) = &self.pipe {
            let mut at = 0;
            while at < bytes.len() {
                match rustix::io::read(&pipe.read, &mut bytes[at..])? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    n => at += n,
                }
            }
        }
        self.laden = 0;
        self.give_back();
        Ok(bytes)
    }

    fn move_in(&self, source: &TcpStream, pipe: &Pipe) -> io::Result<usize> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        Ok(splice(source, None, &pipe.write, None, self.piece(), flags)?)
    }

    fn took(&mut self, bytes: usize) {
        self.laden = bytes;
        if self.is_new_turn {
            self.is_new_turn = false;
            let before = self.pipes.turns.fetch_add(1, Relaxed);
            self.others = [before.wrapping_sub(self.last_turn), self.others[0]];
            self.last_turn = before.wrapping_add(1);
        }
        // Read first: all threads share it, and it is written once.
        if !self.pipes.works.load(Relaxed) {
            self.pipes.works.store(true, Relaxed);
        }
    }

    /// How much a call should move. Each has a price of its own, so more is better, as long as it
    /// is read while it is still in the caches: the fewer flows, the more.
    ///
    /// BBR sends by the clock, and what comes to it in large pieces leaves in bursts, from which it
    /// learns the wrong speed as soon as streams share a line: 64 of them moved 10 Gbit/s by 64 KiB
    /// and 4 by 256; one moved 10 and 15.
    fn piece(&self) -> usize {
        match self.others[0].max(self.others[1]) {
            0 => pipe::CAPACITY,
            _ if self.paced => pipe::LEAST,
            others => (UNDER_WAY / (others as usize + 1)).clamp(pipe::LEAST, pipe::CAPACITY),
        }
    }

    /// Gives an empty pipe back; one with bytes in it is closed with them.
    fn give_back(&mut self) {
        if let Some(pipe) = self.pipe.take() {
            self.pipes.give_back(pipe, self.laden == 0);
        }
    }

    /// Whether an error says that this system does not splice (a sandbox that forbids it): nothing
    /// was moved, and copying always works. A socket's own errors are none of these, but for
    /// `EPERM`, which must not undo what works.
    fn is_unavailable(&self, error: &io::Error) -> bool {
        match Errno::from_io_error(error) {
            Some(Errno::INVAL | Errno::NOSYS) => true,
            Some(Errno::PERM) => !self.pipes.works.load(Relaxed),
            _ => false,
        }
    }
}

impl Drop for Bulk<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}
