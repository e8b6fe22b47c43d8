//! One direction of a session: bytes from a source to a sink, and the end after them.
//!
//! Owns what is under way and nothing else: no limit, no timer, no idea which side is the client. A
//! direction without bytes under way owns no memory.
//!
//! Bytes are copied through the thread's scratch buffer, which is cheapest for the little that most
//! sessions say. When a source fills that buffer [`BULK`] times in a row, its bytes go through a
//! pipe instead (`splice`). The pipe goes back whenever the source runs dry, and is borrowed again
//! for what comes next, until little comes at a time. A throttled direction reads no more than its
//! throttle has room for, and never splices.

mod halted;

use std::{
    cell::RefCell,
    io,
    num::NonZeroU64,
    task::{Context, Poll},
};

pub(super) use halted::HalfRecord;
use serde::{Deserialize, Serialize};
use tokio::{io::Interest, net::TcpStream};

use super::{
    pipe::Pipes,
    splice::{Bulk, Filled},
};
use crate::{
    relay::throttle::Throttle,
    sock::{
        Received,
        errno::is_transient,
        receive,
        stream::{self, PollFlags, readiness},
    },
};

/// The buffer of a worker thread. 16 KiB stays in the processor's cache; 64 KiB costs more for each
/// byte.
const BUFFER: usize = 16 * 1024;
/// What one direction may move before others get their turn.
const TURN: usize = 16 * BUFFER;
/// Full reads in a row that make a flow bulk.
const BULK: u8 = 3;

thread_local! {
    // One for each worker thread: a session that moves nothing owns no buffer.
    static SCRATCH: RefCell<Box<[u8; BUFFER]>> = RefCell::new(Box::new([0; BUFFER]));
}

/// Which end of a direction failed.
pub(super) enum Broken {
    Source(io::Error),
    Sink(io::Error),
}

/// What a turn of the pump did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moved {
    /// Bytes reached the other side.
    pub(super) delivered: bool,
    /// Bytes for a side that is gone were thrown away.
    pub(super) thrown: bool,
}

/// The two sockets of a direction, and the pipes that bulk may take between them.
#[derive(Clone, Copy)]
pub(super) struct Link<'s, 'p> {
    pub(super) source: &'s TcpStream,
    pub(super) sink: &'s TcpStream,
    pub(super) pipes: &'p Pipes,
}

/// One direction of a session.
#[derive(Debug, Default)]
pub(super) struct Direction<'p> {
    state: State,
    /// What the sink would not take; `None` while it takes everything.
    pending: Option<Box<Pending>>,
    /// While this is bulk: the bytes go through a pipe.
    bulk: Option<Box<Bulk<'p>>>,
    /// Full reads in a row, up to [`BULK`]; 0 as soon as little comes at a time.
    full_reads: u8,
    /// Bytes may wait that tokio does not announce: the socket is read without asking for its
    /// readiness, until it is dry.
    unannounced: bool,
    /// The first read does not wait for tokio's word: a client speaks as soon as it is connected.
    speaks_first: bool,
    /// How fast it may go; `None` is without limit.
    throttle: Option<Box<Throttle>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// Bytes may come.
    #[default]
    Open,
    /// The source has ended; what is pending goes out first.
    Ending,
    /// The sink is gone: what still comes is thrown away.
    Discarding,
    /// The end was passed on.
    Shut,
    /// Only in a record: a state of another version.
    #[serde(other)]
    Unknown,
}

/// Bytes on their way, from `sent` on.
#[derive(Debug)]
pub(super) struct Pending {
    bytes: Vec<u8>,
    sent: usize,
    /// So many of the first bytes are our own, and are not counted.
    ours: usize,
    /// The sink was not tried yet.
    is_new: bool,
}

impl Pending {
    /// What a sink gets first. `ours` of the bytes are not the source's.
    pub(super) fn first(bytes: Vec<u8>, ours: usize) -> Self {
        Self { bytes, sent: 0, ours, is_new: true }
    }

    /// Bytes of the source.
    fn of(bytes: Vec<u8>) -> Self {
        Self { bytes, sent: 0, ours: 0, is_new: false }
    }
}

impl<'p> Direction<'p> {
    /// A direction that moves no more than `bandwidth` bytes a second, beside those that the sink
    /// gets first.
    pub(super) fn new(bandwidth: Option<NonZeroU64>, first: Option<Box<Pending>>) -> Self {
        let throttle = bandwidth.map(|rate| Box::new(Throttle::new(rate)));
        Self { throttle, pending: first, ..Self::default() }
    }

    /// The same for a source that speaks first, as a client does. It is read before tokio says that
    /// there is anything, unless some of its bytes came before.
    pub(super) fn of_client(bandwidth: Option<NonZeroU64>, first: Option<Box<Pending>>) -> Self {
        Self { speaks_first: first.is_none(), ..Self::new(bandwidth, first) }
    }

    /// Moves what can be moved now, notes that, and registers for what cannot be moved yet.
    pub(super) fn transfer(
        &mut self,
        cx: &mut Context<'_>,
        link: Link<'_, 'p>,
        is_last: bool,
        moved: &mut Moved,
        counted: impl Fn(usize),
    ) -> Result<(), Broken> {
        if let Some(bulk) = &mut self.bulk {
            bulk.begin_turn();
        }
        let mut work = 0;
        while work < TURN {
            let step = if self.pending.is_some() {
                self.flush(cx, link.sink).map_err(Broken::Sink)
            } else if self.bulk.is_some() {
                self.splice(cx, link)
            } else {
                match self.state {
                    State::Open | State::Discarding => match self.poll_allowance(cx) {
                        Poll::Ready(allowance) => self.pass(cx, link, allowance),
                        Poll::Pending => return Ok(()),
                    },
                    State::Ending => {
                        self.state = State::Shut;
                        if is_last { Ok(()) } else { stream::end(link.sink) }
                            .map(|()| Poll::Pending)
                            .map_err(Broken::Sink)
                    }
                    State::Shut | State::Unknown => Ok(Poll::Pending),
                }
            };
            let bytes = match step {
                Ok(Poll::Ready(bytes)) => bytes,
                Ok(Poll::Pending) => return Ok(()),
                Err(Broken::Sink(error)) if is_after_end(&error) => {
                    self.discard();
                    0
                }
                Err(broken) => return Err(broken),
            };
            // Even a step without bytes is work: no session may hold the thread.
            work += bytes.max(1024);
            if self.is_discarding() {
                moved.thrown |= bytes > 0;
            } else if bytes > 0 {
                moved.delivered = true;
                counted(bytes);
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// How much may be read now.
    fn poll_allowance(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        match &mut self.throttle {
            Some(throttle) if self.state == State::Open => throttle.poll_allowance(cx),
            _ => Poll::Ready(BUFFER),
        }
    }

    /// Reads once, up to `most` bytes, and writes on at once; what the sink does not take becomes
    /// pending. Ready with the bytes delivered, or thrown away.
    fn pass(&mut self, cx: &mut Context<'_>, link: Link<'_, 'p>, most: usize) -> Result<Poll<usize>, Broken> {
        let Link { source, sink, .. } = link;
        SCRATCH.with_borrow_mut(|buffer| {
            let bytes = match self.read(source, &mut buffer[..most.min(BUFFER)]) {
                Ok(0) => {
                    self.state = if self.is_discarding() { State::Shut } else { State::Ending };
                    return Ok(Poll::Ready(0));
                }
                Ok(n) => &buffer[..n],
                Err(error) if is_transient(&error) => return wait_readable(cx, source),
                Err(error) => return Err(Broken::Source(error)),
            };
            if self.is_discarding() {
                return Ok(Poll::Ready(bytes.len()));
            }
            if let Some(throttle) = &mut self.throttle {
                throttle.took(bytes.len());
            }
            let is_full = bytes.len() == BUFFER && self.throttle.is_none() && !self.unannounced;
            self.full_reads = if is_full { self.full_reads + 1 } else { 0 };
            if self.full_reads >= BULK {
                self.begin_bulk(link);
            }
            let sent = match write_first(sink, bytes) {
                Ok(sent) => sent,
                Err(error) if is_transient(&error) => 0,
                Err(error) => return Err(Broken::Sink(error)),
            };
            if sent < bytes.len() {
                self.pending = Some(Box::new(Pending::of(bytes[sent..].to_vec())));
            }
            Ok(Poll::Ready(sent))
        })
    }

    /// From now on the bytes go through a pipe, if one is to be had; else the next full read tries
    /// again.
    fn begin_bulk(&mut self, link: Link<'_, 'p>) {
        self.bulk = Bulk::begin(link.pipes, link.sink);
        self.full_reads = if self.bulk.is_some() { BULK } else { BULK - 1 };
    }

    /// From now on the bytes are copied.
    fn end_bulk(&mut self) {
        self.bulk = None;
        self.full_reads = 0;
    }

    /// Fills the pipe if it is empty, and empties it as far as the sink takes it. Ready with the
    /// bytes delivered.
    fn splice(&mut self, cx: &mut Context<'_>, link: Link<'_, '_>) -> Result<Poll<usize>, Broken> {
        let Link { source, sink, .. } = link;
        let Some(bulk) = &mut self.bulk else { return Ok(Poll::Ready(0)) };
        if bulk.laden() == 0 {
            match bulk.fill(source) {
                Ok(Filled::With(bytes)) => self.full_reads = if bytes < BUFFER { 0 } else { BULK },
                Ok(Filled::Dry) => {
                    // So little as came is cheaper to copy: when that goes on, the flow shows again
                    // that it is bulk.
                    if self.full_reads == 0 {
                        self.end_bulk();
                    }
                    return wait_readable(cx, source);
                }
                Ok(Filled::Read) => {
                    self.end_bulk();
                    self.unannounced = true;
                    return Ok(Poll::Ready(0));
                }
                Ok(Filled::NoPipe) => {
                    self.end_bulk();
                    return Ok(Poll::Ready(0));
                }
                Err(error) => return Err(Broken::Source(error)),
            }
        }
        match bulk.empty(sink) {
            Ok(sent) => Ok(Poll::Ready(sent)),
            Err(error) if is_transient(&error) => wait_writable(cx, sink).map_err(Broken::Sink),
            Err(error) => Err(Broken::Sink(error)),
        }
    }

    /// Reads what is there, by tokio's readiness or without it.
    fn read(&mut self, source: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.unannounced {
            let speaks_first = std::mem::take(&mut self.speaks_first);
            return if speaks_first { read_early(source, buffer) } else { read(source, buffer) };
        }
        let found = stream::read(source, buffer);
        self.unannounced = !found.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        found
    }

    /// Where pipes are scarce, takes the bytes that a slow sink leaves in one into memory, and
    /// gives it back.
    pub(super) fn make_way(&mut self) -> io::Result<()> {
        if self.bulk.as_ref().is_some_and(|bulk| bulk.is_wanted()) { self.unload() } else { Ok(()) }
    }

    fn unload(&mut self) -> io::Result<()> {
        let Some(bulk) = self.bulk.as_mut().filter(|bulk| bulk.laden() > 0) else { return Ok(()) };
        let bytes = bulk.unload()?;
        self.pending = Some(Box::new(Pending::of(bytes)));
        self.end_bulk();
        Ok(())
    }

    /// Writes once of what is pending. Ready with the bytes of the source that were delivered.
    fn flush(&mut self, cx: &mut Context<'_>, sink: &TcpStream) -> io::Result<Poll<usize>> {
        let Some(pending) = &mut self.pending else { return Ok(Poll::Ready(0)) };
        let write = if std::mem::take(&mut pending.is_new) { write_first } else { write };
        match write(sink, &pending.bytes[pending.sent..]) {
            Ok(sent) => {
                let ours = sent.min(pending.ours);
                pending.ours -= ours;
                pending.sent += sent;
                if pending.sent == pending.bytes.len() {
                    self.pending = None;
                }
                Ok(Poll::Ready(sent - ours))
            }
            Err(error) if is_transient(&error) => wait_writable(cx, sink),
            Err(error) => Err(error),
        }
    }

    /// From now on, throws away what the source sends: the sink is gone.
    pub(super) fn discard(&mut self) {
        self.pending = None;
        self.end_bulk();
        self.state = if self.has_ended() { State::Shut } else { State::Discarding };
    }

    /// Whether bytes under way wait for the sink.
    pub(super) fn is_stalled(&self) -> bool {
        self.pending.is_some() || self.bulk.as_ref().is_some_and(|bulk| bulk.laden() > 0)
    }

    /// Whether bytes or their end could move on, by the kernel's word.
    pub(super) fn could_move(&self, source: &TcpStream, sink: &TcpStream) -> bool {
        if self.is_stalled() {
            readiness(sink, PollFlags::OUT).intersects(PollFlags::OUT)
        } else {
            !self.has_ended() && readiness(source, PollFlags::IN).intersects(PollFlags::IN)
        }
    }

    /// Whether its source has to wait for the throttle.
    pub(super) fn is_held_back(&self) -> bool {
        self.state == State::Open && self.throttle.as_ref().is_some_and(|throttle| throttle.is_waiting())
    }

    pub(super) fn is_discarding(&self) -> bool {
        self.state == State::Discarding
    }

    /// Whether the source has said that no more will come.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, State::Ending | State::Shut)
    }

    /// Whether everything was passed on, the end included.
    pub(super) fn is_shut(&self) -> bool {
        self.state == State::Shut
    }
}

/// Registers for the next bytes. Ready, with none moved, when they are there already.
fn wait_readable(cx: &mut Context<'_>, source: &TcpStream) -> Result<Poll<usize>, Broken> {
    match source.poll_read_ready(cx) {
        Poll::Ready(Ok(())) => Ok(Poll::Ready(0)),
        Poll::Ready(Err(error)) => Err(Broken::Source(error)),
        Poll::Pending => Ok(Poll::Pending),
    }
}

/// Registers for room in the sink. Ready, with no bytes moved, when it is there already.
fn wait_writable(cx: &mut Context<'_>, sink: &TcpStream) -> io::Result<Poll<usize>> {
    match sink.poll_write_ready(cx) {
        Poll::Ready(ready) => ready.map(|()| Poll::Ready(0)),
        Poll::Pending => Ok(Poll::Pending),
    }
}

/// Reads what is there. A read after which the kernel says that nothing is left marks the socket as
/// empty, which saves the read that would say so. What comes later marks it as readable again. (A
/// short read alone may have stopped at an urgent mark.)
fn read(source: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    with_readiness(source, Interest::READABLE, || {
        let Received { bytes, is_all } = receive(source, buffer)?;
        Ok((bytes, bytes > 0 && is_all))
    })
}

/// The same before tokio has said that there is anything. Where nothing is there yet, tokio says
/// later what comes.
fn read_early(source: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    match read(source, buffer) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            receive(source, buffer).map(|Received { bytes, .. }| bytes)
        }
        read => read,
    }
}

/// Reads once, `most` bytes at most, into the thread's buffer. Returns how many there were; none at
/// the end of the stream.
///
/// # Errors
/// What the system says, also that nothing is there.
pub(super) fn read_once(source: &TcpStream, most: usize, took: impl FnOnce(&[u8])) -> io::Result<usize> {
    SCRATCH.with_borrow_mut(|buffer| {
        let bytes = read(source, &mut buffer[..most.min(BUFFER)])?;
        took(&buffer[..bytes]);
        Ok(bytes)
    })
}

/// Writes what the socket takes. A short write leaves it marked as full.
fn write(sink: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    with_readiness(sink, Interest::WRITABLE, || {
        let sent = stream::write(sink, bytes)?;
        Ok((sent, 0 < sent && sent < bytes.len()))
    })
}

/// Writes to a sink that nothing waits for. Tokio holds one that was connected a moment ago for
/// full, until it has asked the kernel: so this asks.
fn write_first(sink: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut asked = false;
    let written = with_readiness(sink, Interest::WRITABLE, || {
        asked = true;
        let sent = stream::write(sink, bytes)?;
        Ok((sent, 0 < sent && sent < bytes.len()))
    });
    match written {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock && !asked => stream::write(sink, bytes),
        written => written,
    }
}

/// One system call, if tokio holds the socket ready for it; `call` says whether that takes the
/// readiness away.
fn with_readiness(
    stream: &TcpStream,
    interest: Interest,
    call: impl FnOnce() -> io::Result<(usize, bool)>,
) -> io::Result<usize> {
    let mut last = None;
    let done = stream.try_io(interest, || match call()? {
        (n, true) => {
            last = Some(n);
            Err(io::ErrorKind::WouldBlock.into())
        }
        (n, false) => Ok(n),
    });
    last.map_or(done, Ok)
}

/// Whether a side was reset after its own end had been received: it is gone, but it had said
/// everything.
pub(super) fn is_after_end(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

#[cfg(test)]
mod tests;
