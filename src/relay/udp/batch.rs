//! Many datagrams for one system call, in both directions.
//!
//! Owns the buffers that datagrams are received into ([`receive`]) and the way a run of them is
//! sent ([`push`]). The buffers belong to the worker thread, not to a listener or a flow: they are
//! borrowed from the read to the last send of one turn, which never waits, so an idle flow has
//! none, and what is forwarded is not copied.
//!
//! The kernel hands over several datagrams of one sender as one buffer (GRO) and takes several of
//! one size as one send (GSO). A [`Run`] is that unit: datagrams of one flow, back to back, all of
//! one size but a shorter last one. Neighbours that arrived in buffers of their own are moved
//! together where that makes a run.
//!
//! Invariants: the datagrams of a run leave in its order, each once, whole; an empty datagram is a
//! run of its own. A joined send is all or nothing, so where the kernel refuses one (the device
//! cannot, the datagrams have to be fragmented), each datagram is sent by itself, and joining is
//! not tried again at that size.

use std::{
    cell::RefCell,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU16, Ordering::Relaxed},
};

use quinn_udp::{RecvMeta, UdpSocketState};
use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};
use tokio::{io::Interest, net::UdpSocket};

/// One buffer: more than any datagram (65,507 bytes) and any run of the kernel's, which is one IP
/// packet to it.
const BUFFER: usize = 64 * 1024;
/// The most buffers for one system call of a listener.
const LISTENER_BATCH: usize = quinn_udp::BATCH_SIZE;
/// The fewest buffers for one system call of a listener: with one alone, a full batch would say
/// nothing about what is left.
const LEAST_BATCH: usize = 2;
/// Buffers for one system call of a flow: there is one sender, whose bursts the kernel joins.
pub(super) const FLOW_BATCH: usize = 8;
/// The datagrams of one joined send: the least `UDP_MAX_SEGMENTS` of any kernel.
const JOINED_DATAGRAMS: usize = 64;
/// The bytes of one joined send. It must fit into one IP packet, whose header may be longer on the
/// way out.
const JOINED_BYTES: usize = 65_000;
/// Larger datagrams are not moved together: the copy would cost what the system call saves.
const MOVED_DATAGRAM: usize = 2048;

thread_local! {
    // One set for each worker thread: a listener or a flow without a datagram owns no buffer.
    static BUFFERS: RefCell<Buffers> = RefCell::new(Buffers::new());
}

/// The receive buffers of a worker thread. Memory that no datagram ever filled is never touched,
/// and costs nothing.
struct Buffers {
    bytes: Box<[u8]>,
    meta: [RecvMeta; LISTENER_BATCH],
}

impl Buffers {
    fn new() -> Self {
        Self {
            bytes: vec![0; BUFFER * LISTENER_BATCH].into_boxed_slice(),
            meta: [RecvMeta::default(); LISTENER_BATCH],
        }
    }
}

/// Datagrams of one flow: back to back, all `segment` bytes long but the last, which may be
/// shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run<'a> {
    bytes: &'a [u8],
    /// At least 1; an empty run is one empty datagram.
    segment: usize,
}

impl<'a> Run<'a> {
    /// The datagrams in `bytes`, `segment` bytes each.
    pub(super) fn new(bytes: &'a [u8], segment: usize) -> Self {
        Self { bytes, segment: segment.max(1) }
    }

    /// A single datagram.
    pub(super) fn single(bytes: &'a [u8]) -> Self {
        Self::new(bytes, bytes.len())
    }

    /// The datagrams in their order.
    pub(super) fn datagrams(self) -> impl Iterator<Item = &'a [u8]> {
        let empty = self.bytes.is_empty().then_some(self.bytes);
        empty.into_iter().chain(self.bytes.chunks(self.segment))
    }

    /// The first datagram, and those after it.
    pub(super) fn split_first(self) -> (&'a [u8], Option<Self>) {
        let (first, rest) = self.bytes.split_at(self.segment.min(self.bytes.len()));
        (first, (!rest.is_empty()).then_some(Self { bytes: rest, ..self }))
    }

    /// The first `count` datagrams, of which there are as many at least; nothing for none.
    pub(super) fn first(self, count: usize) -> Option<Self> {
        let bytes = &self.bytes[..self.bytes.len().min(count.saturating_mul(self.segment))];
        (count > 0).then_some(Self { bytes, ..self })
    }

    /// How many datagrams there are; at least 1.
    pub(super) fn count(self) -> usize {
        self.bytes.len().div_ceil(self.segment).max(1)
    }

    /// All bytes of it.
    pub(super) fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The size of its datagrams but the last.
    pub(super) fn segment(self) -> usize {
        self.segment
    }
}

/// The end of a turn's reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// The socket is empty: wait until it is readable.
    Empty,
    /// There may be more.
    More,
}

/// How many buffers the next system call of a listener gets. Each costs something even when it
/// stays empty, so there are as many as came last time, and room for one more.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchSize(usize);

impl BatchSize {
    /// For a listener that has received nothing.
    pub(super) const LEAST: Self = Self(LEAST_BATCH);

    /// So many buffers.
    pub(super) fn get(self) -> usize {
        self.0
    }

    /// Learns how many buffers were filled.
    pub(super) fn filled(&mut self, count: usize) {
        self.0 = if count == self.0 { 4 * count } else { (count + 1).next_power_of_two() }
            .clamp(LEAST_BATCH, LISTENER_BATCH);
    }
}

/// Receives up to `batch` buffers and hands on what they hold, run by run: its sender, the address
/// it was sent to, and the run. Returns also how many were filled.
///
/// # Errors
/// The socket's own error; nothing was received then.
pub(super) fn receive(
    socket: &UdpSocket,
    offload: &UdpSocketState,
    batch: usize,
    each: impl FnMut(SocketAddr, Option<IpAddr>, Run<'_>),
) -> io::Result<(Read, usize)> {
    BUFFERS.with_borrow_mut(|buffers| {
        let mut received = 0;
        let outcome = socket.try_io(Interest::READABLE, || {
            let (socket, bytes, meta) = (socket.into(), &mut buffers.bytes, &mut buffers.meta);
            // To name all buffers costs more than a datagram or two.
            received = match batch {
                ..=LEAST_BATCH => offload.recv(socket, &mut slices::<LEAST_BATCH>(bytes)[..batch], meta),
                _ => offload.recv(socket, &mut slices::<LISTENER_BATCH>(bytes)[..batch], meta),
            }?;
            // A short batch means that the kernel found the queue empty. Saying so spares the read
            // that would find it out; what comes in after the read makes the socket readable again.
            if received < batch { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match outcome {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => each_run(&mut buffers.bytes, BUFFER, &buffers.meta[..received], each),
        }
        Ok((if received < batch { Read::Empty } else { Read::More }, received))
    })
}

/// The first buffers.
fn slices<const COUNT: usize>(bytes: &mut [u8]) -> [IoSliceMut<'_>; COUNT] {
    let mut chunks = bytes.chunks_exact_mut(BUFFER);
    std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()))
}

/// Receives up to `most` datagrams of a connected socket one by one, and hands them on: for the one
/// datagram that is there as a rule this costs half of what a batch does, even with the call that
/// finds the socket empty.
///
/// # Errors
/// The socket's own error; datagrams may have been received before it.
pub(super) fn receive_singly(
    socket: &UdpSocket,
    most: usize,
    mut each: impl FnMut(Run<'_>),
) -> io::Result<Read> {
    BUFFERS.with_borrow_mut(|buffers| {
        let buffer = &mut buffers.bytes[..BUFFER];
        for _ in 0..most {
            let received =
                socket.try_io(Interest::READABLE, || Ok(recv(socket, &mut *buffer, RecvFlags::empty())?.0));
            match received {
                Ok(len) => each(Run::single(&buffer[..len])),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Read::Empty),
                Err(error) => return Err(error),
            }
        }
        Ok(Read::More)
    })
}

/// Hands on the runs that lie in buffers of `size` bytes, moving neighbours together.
fn each_run(
    bytes: &mut [u8],
    size: usize,
    meta: &[RecvMeta],
    mut each: impl FnMut(SocketAddr, Option<IpAddr>, Run<'_>),
) {
    let mut index = 0;
    while let Some(first) = meta.get(index) {
        let start = index * size;
        let mut len = first.len;
        index += 1;
        while let Some(next) = meta.get(index).filter(|next| joins(first, len, next)) {
            let from = index * size;
            bytes.copy_within(from..from + next.len, start + len);
            len += next.len;
            index += 1;
        }
        each(first.addr, first.dst_ip, Run::new(&bytes[start..start + len], first.stride));
    }
}

/// Whether the datagrams of `next` continue the run that began with `first` and has `len` bytes by
/// now.
fn joins(first: &RecvMeta, len: usize, next: &RecvMeta) -> bool {
    let segment = first.stride;
    let (same_flow, total) = (first.addr == next.addr && first.dst_ip == next.dst_ip, len + next.len);
    let fits = segment > 0 && len.is_multiple_of(segment) && next.stride <= segment && next.len > 0;
    // A shorter datagram ends a run; several shorter ones are a run of their own.
    let continues = next.stride == segment || next.len == next.stride;
    same_flow
        && fits
        && continues
        && segment <= MOVED_DATAGRAM
        && total <= JOINED_BYTES
        && total.div_ceil(segment) <= JOINED_DATAGRAMS
}

/// The largest datagrams that may be sent joined on one path; learned from refusals.
#[derive(Debug)]
pub(super) struct JoinLimit(AtomicU16);

impl JoinLimit {
    /// Joins whatever the kernel takes, or nothing.
    pub(super) const fn new(kernel_joins: bool) -> Self {
        Self(AtomicU16::new(if kernel_joins { u16::MAX } else { 0 }))
    }

    fn allows(&self, segment: usize) -> bool {
        segment <= usize::from(self.0.load(Relaxed))
    }

    /// Learns from the error of a joined send.
    fn refused(&self, segment: usize, error: &io::Error) {
        match Errno::from_io_error(error) {
            // The device cannot do it at any size.
            Some(Errno::IO) => self.0.store(0, Relaxed),
            // They do not fit the path's MTU, so that each has to be fragmented by itself.
            Some(Errno::MSGSIZE | Errno::INVAL) => {
                let below = u16::try_from(segment.saturating_sub(1)).unwrap_or(u16::MAX);
                self.0.fetch_min(below, Relaxed);
            }
            // The fate of this one send, an earlier ICMP error for instance.
            _ => {}
        }
    }
}

/// What [`push`] did with a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pushed<'a> {
    /// Payload bytes that the kernel took.
    pub(super) bytes: u64,
    /// In so many datagrams.
    pub(super) datagrams: u64,
    /// Datagrams that it refused.
    pub(super) refused: u64,
    /// What is left because the socket takes no more at the moment.
    pub(super) rest: Option<Run<'a>>,
}

/// Sends a run by `send`, which is given a datagram, or several and their size. It may be called
/// again for a datagram that was part of a refused send, never for one that was sent.
pub(super) fn push<'a>(
    run: Run<'a>,
    limit: &JoinLimit,
    mut send: impl FnMut(&[u8], Option<usize>) -> io::Result<()>,
) -> Pushed<'a> {
    let mut pushed = Pushed::default();
    let mut at = 0;
    loop {
        let left = &run.bytes[at..];
        let joined =
            left.len().min(JOINED_BYTES / run.segment * run.segment).min(JOINED_DATAGRAMS * run.segment);
        if joined > run.segment && limit.allows(run.segment) {
            match send(&left[..joined], Some(run.segment)) {
                Ok(()) => {
                    pushed.bytes += joined as u64;
                    pushed.datagrams += joined.div_ceil(run.segment) as u64;
                    at += joined;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    pushed.rest = Some(Run { bytes: left, ..run });
                    return pushed;
                }
                Err(error) => {
                    limit.refused(run.segment, &error);
                    push_singly(&run, &mut at, joined, &mut pushed, &mut send);
                }
            }
        } else {
            let all = left.len();
            push_singly(&run, &mut at, all, &mut pushed, &mut send);
        }
        if at == run.bytes.len() || pushed.rest.is_some() {
            return pushed;
        }
    }
}

/// Sends the datagrams in the next `span` bytes one by one.
fn push_singly<'a>(
    run: &Run<'a>,
    at: &mut usize,
    span: usize,
    pushed: &mut Pushed<'a>,
    send: &mut impl FnMut(&[u8], Option<usize>) -> io::Result<()>,
) {
    let part = Run { bytes: &run.bytes[*at..*at + span], ..*run };
    for datagram in part.datagrams() {
        match send(datagram, None) {
            Ok(()) => {
                pushed.bytes += datagram.len() as u64;
                pushed.datagrams += 1;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                pushed.rest = Some(Run { bytes: &run.bytes[*at..], ..*run });
                return;
            }
            Err(_) => pushed.refused += 1,
        }
        *at += datagram.len();
    }
}

#[cfg(test)]
mod tests;
