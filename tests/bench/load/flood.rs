//! Datagrams as fast as the relay delivers them.
//!
//! The flood is a closed loop: never more datagrams are under way than the socket of a relay with default buffers can
//! hold, and each that the target takes lets another follow. So every relay has work at any time and none is made to
//! lose any; what is lost all the same is counted. Each datagram is one of its own (no segmentation offload in the
//! load), a flow sends [`BURST`] of them at a time, and flows take turns.

use std::{
    io::{IoSlice, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, MultiHeaders, recvmmsg, sendmmsg},
};

use super::{EventFlags, Work, World, ping::datagram_client, probe::Probe};
use crate::{clock, pattern::Pattern};

/// Datagrams that a flow sends in one go.
const BURST: usize = 8;
/// Datagrams that the target takes in one go.
const TAKE: usize = 64;
/// Flow and sequence number, four bytes each.
const HEADER: usize = 8;
/// The longest datagram of any case.
const LONGEST: usize = 2048;
/// When nothing arrives for so long, what is under way is lost.
const GONE: Duration = Duration::from_millis(20);

/// The flows.
pub(crate) struct Flood {
    flows: Vec<Flow>,
    size: usize,
    /// Datagrams that may be under way.
    window: u64,
    sent: u64,
    turn: usize,
    settled: u64,
    moved: Instant,
    headers: MultiHeaders<()>,
}

struct Flow {
    socket: UdpSocket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Flood {
    /// Opens the flows.
    pub(crate) fn open(relay: SocketAddr, flows: usize, size: usize) -> Result<Self> {
        ensure!((HEADER..=LONGEST).contains(&size), "datagrams of {size} bytes");
        let flow =
            |_| Ok(Flow { socket: datagram_client(relay)?, sequence: 0, buffer: vec![0; BURST * size] });
        Ok(Self {
            flows: (0..flows).map(flow).collect::<Result<_>>()?,
            size,
            window: window(size),
            sent: 0,
            turn: 0,
            settled: 0,
            moved: clock::now(),
            headers: MultiHeaders::preallocate(BURST, None),
        })
    }

    /// Sends one datagram on each flow and waits for it, so that all flows exist before the flood.
    pub(crate) fn greet(&mut self, world: &mut World, limit: Duration) -> Result<()> {
        world.target.sink()?.expect(self.flows.len());
        for index in 0..self.flows.len() {
            let target = index as u64 + 1;
            let deadline = clock::now() + limit;
            while world.target.sunk().map_or(0, |sink| sink.delivered) < target {
                ensure!(clock::now() < deadline, "flow {index} delivers nothing");
                self.burst(&world.pattern, index, 1)?;
                let slice = Duration::from_millis(100);
                let arrived = |_: &Probe, world: &World| {
                    world.target.sunk().is_some_and(|sink| sink.delivered >= target)
                };
                let _ = world.until(&mut Probe::nothing(), "a datagram", slice, arrived);
            }
        }
        let sink = world.target.sink()?;
        sink.write_off(self.flows.iter().map(|flow| flow.sequence));
        self.settled = sink.delivered + sink.lost;
        self.sent = self.settled;
        Ok(())
    }

    fn burst(&mut self, pattern: &Pattern, index: usize, count: usize) -> Result<()> {
        let flow = &mut self.flows[index];
        for datagram in flow.buffer.chunks_exact_mut(self.size).take(count) {
            datagram[..4].copy_from_slice(&u32::try_from(index)?.to_le_bytes());
            datagram[4..HEADER].copy_from_slice(&flow.sequence.to_le_bytes());
            let rest = pattern.slice(index as u64, u64::from(flow.sequence), self.size - HEADER);
            datagram[HEADER..].copy_from_slice(rest);
            flow.sequence += 1;
        }
        let mut begun = 0;
        while begun < count {
            let datagrams = flow.buffer[begun * self.size..count * self.size].chunks_exact(self.size);
            let slices: Vec<[IoSlice<'_>; 1]> = datagrams.map(|datagram| [IoSlice::new(datagram)]).collect();
            let none = vec![None; slices.len()];
            let raw = flow.socket.as_raw_fd();
            match sendmmsg(raw, &mut self.headers, &slices, none, [], MsgFlags::empty()) {
                Ok(sent) => begun += sent.count(),
                // What an earlier datagram met; it is counted where it does not arrive.
                Err(Errno::ECONNREFUSED) => {}
                Err(error) => bail!("send to the relay: {error}"),
            }
        }
        self.sent += count as u64;
        Ok(())
    }
}

impl Work for Flood {
    fn ready(&mut self, _: &mut World, _: usize, _: EventFlags) -> Result<()> {
        Ok(())
    }

    fn turn(&mut self, world: &mut World) -> Result<bool> {
        let sink = world.target.sink()?;
        let settled = sink.delivered + sink.lost;
        if settled != self.settled {
            (self.settled, self.moved) = (settled, clock::now());
        } else if self.moved.elapsed() > GONE {
            sink.write_off(self.flows.iter().map(|flow| flow.sequence));
            (self.settled, self.moved) = (sink.delivered + sink.lost, clock::now());
        }
        let before = self.sent;
        while self.sent + BURST as u64 <= self.settled + self.window {
            self.turn = (self.turn + 1) % self.flows.len();
            self.burst(&world.pattern, self.turn, BURST)?;
        }
        Ok(self.sent > before)
    }

    fn done(&self, world: &World) -> u64 {
        world.target.sunk().map_or(0, |sink| sink.delivered - sink.before.0)
    }

    fn restart(&mut self, world: &mut World) {
        if let Ok(sink) = world.target.sink() {
            sink.before = (sink.delivered, sink.lost);
        }
    }
}

/// Datagrams that a socket with the system's default buffer holds for sure: the kernel charges each with the memory
/// block that it lies in and with its own description of it, and gives back what a reader took only in portions of a
/// quarter of the buffer.
fn window(size: usize) -> u64 {
    let default = std::fs::read_to_string("/proc/sys/net/core/rmem_default").unwrap_or_default();
    let buffer: usize = default.trim().parse().unwrap_or(212_992);
    let block = if size <= 256 { 704 } else { (size + 400).next_power_of_two() };
    (buffer * 7 / 10 / (block + 256)).max(BURST) as u64
}

/// The target's end of a flood: it checks every byte, and the order within each flow.
#[derive(Default)]
pub(crate) struct Sink {
    /// The sequence number that each flow should send next.
    next: Vec<u32>,
    /// All that arrived.
    delivered: u64,
    /// All that did not arrive before a later one of its flow did.
    lost: u64,
    /// Both as they were when the measured time began.
    before: (u64, u64),
    buffer: Vec<u8>,
}

impl Sink {
    /// The share of all datagrams since the measured time began that did not arrive, in percent.
    pub(crate) fn loss(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "counts, shown with three digits")]
        let (delivered, lost) =
            ((self.delivered - self.before.0) as f64, self.lost.saturating_sub(self.before.1) as f64);
        100.0 * lost / (delivered + lost).max(1.0)
    }

    fn expect(&mut self, flows: usize) {
        self.next = vec![0; flows];
        self.buffer = vec![0; TAKE * LONGEST];
    }

    /// Whatever was sent and has not come is lost.
    fn write_off(&mut self, sent: impl Iterator<Item = u32>) {
        for (next, sent) in self.next.iter_mut().zip(sent) {
            self.lost += u64::from(sent.saturating_sub(*next));
            *next = sent;
        }
    }

    pub(super) fn receive(&mut self, socket: &UdpSocket, pattern: &Pattern) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut lengths = [0; TAKE];
        let taken = take(socket, &mut buffer, &mut lengths);
        let datagrams = buffer.chunks_exact(LONGEST).zip(lengths);
        let checked = taken.and_then(|count| {
            datagrams.take(count).try_for_each(|(datagram, length)| self.check(&datagram[..length], pattern))
        });
        self.buffer = buffer;
        checked
    }

    fn check(&mut self, datagram: &[u8], pattern: &Pattern) -> Result<()> {
        let (Some(flow), Some(sequence)) = (datagram.get(..4), datagram.get(4..HEADER)) else {
            // The echo case's probe may still be under way when the sink opens.
            return Ok(());
        };
        let flow = u32::from_le_bytes(flow.try_into()?);
        let sequence = u32::from_le_bytes(sequence.try_into()?);
        let Some(next) = self.next.get_mut(usize::try_from(flow)?) else { return Ok(()) };
        pattern.check(flow.into(), sequence.into(), &datagram[HEADER..])?;
        if sequence >= *next {
            self.lost += u64::from(sequence - *next);
            *next = sequence + 1;
        } else {
            // It comes after one that was sent later: written off before, unless it comes twice.
            self.lost = self.lost.checked_sub(1).context("a datagram came twice")?;
        }
        self.delivered += 1;
        Ok(())
    }
}

/// Receives what is there; the lengths of the datagrams, each in its own part of the buffer.
fn take(socket: &UdpSocket, buffer: &mut [u8], lengths: &mut [usize; TAKE]) -> Result<usize> {
    let mut headers = MultiHeaders::<()>::preallocate(TAKE, None);
    let mut parts = buffer.chunks_exact_mut(LONGEST);
    let mut slices: [[IoSliceMut<'_>; 1]; TAKE] =
        std::array::from_fn(|_| [IoSliceMut::new(parts.next().unwrap_or_default())]);
    match recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None) {
        Ok(received) => {
            let mut count = 0;
            for (message, length) in received.zip(lengths) {
                *length = message.bytes;
                count += 1;
            }
            Ok(count)
        }
        Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => Ok(0),
        Err(error) => bail!("receive at the target: {error}"),
    }
}
