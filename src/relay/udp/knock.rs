//! The port of knocks, and a UDP port of the sequence: datagrams come, and none ever goes.
//!
//! It knows no session. What a datagram means is decided by [`Knocks`]. False ones are summed up in
//! the log once a minute, by their reasons. A datagram longer than a knock is cut off by the system
//! and is false by its length.
//!
//! While it is held, datagrams wait in the kernel. It ends when `closing` closes, or when the
//! socket is dead.

use std::{fmt::Write as _, io, sync::Arc, time::Duration};

use tokio::{
    net::UdpSocket,
    time::{Instant, sleep_until},
};

use crate::{
    mapping::Protocol,
    meter::ListenerMeter,
    policy::{Gate, Knocks},
    relay::{DrainWatch, Hold},
};

/// Datagrams that are read before other tasks have a turn.
const AT_ONCE: usize = 64;
/// More bytes than a knock has.
const LONGEST: usize = 256;
/// The time between two summaries.
const INTERVAL: Duration = Duration::from_secs(60);

/// What the port works with.
#[derive(Debug)]
pub(crate) struct KnockService {
    /// It has the knocks.
    pub gate: Arc<Gate>,
    /// Its name and address. It has no session.
    pub meter: Arc<ListenerMeter>,
    /// A port of the sequence, and not the port of knocks.
    pub is_step: bool,
    /// Stops it, and lets it go on.
    pub hold: Arc<Hold>,
}

/// What the log says of false knocks.
#[derive(Debug, Default)]
struct Summary {
    /// What was told of each reason.
    told: Vec<u64>,
    last: Option<Instant>,
    /// When the next one is due.
    due: Option<Instant>,
}

impl KnockService {
    /// Receives on `socket` until `closing` closes, which drops the socket.
    ///
    /// # Errors
    /// When the socket turned out to be dead.
    pub(crate) async fn serve(self, socket: Arc<UdpSocket>, closing: DrainWatch) -> io::Result<()> {
        let held = self.hold.begin();
        let asked = self.hold.asked();
        tokio::pin!(asked);
        let closing = closing.closing();
        tokio::pin!(closing);
        let mut summary = Summary::new(self.gate.knocks());
        loop {
            let due = summary.due;
            tokio::select! {
                biased;
                () = &mut closing => return Ok(()),
                () = &mut asked => {
                    tokio::select! {
                        () = &mut closing => return Ok(()),
                        () = held.stand_still() => {}
                    }
                    asked.set(self.hold.asked());
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    summary.say(self.gate.knocks(), Instant::now());
                }
                ready = socket.readable() => {
                    ready?;
                    let mut buffer = [0; LONGEST];
                    for _ in 0..AT_ONCE {
                        match socket.try_recv_from(&mut buffer) {
                            Ok((len, source)) => self.take(&buffer[..len], source.ip(), &mut summary),
                            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                            Err(error) => return Err(error),
                        }
                    }
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    fn take(&self, datagram: &[u8], source: std::net::IpAddr, summary: &mut Summary) {
        let (knocks, now) = (self.gate.knocks(), Instant::now());
        if self.is_step {
            knocks.touch((Protocol::Udp, self.meter.listen().port.get()), source, now);
        } else if let Err(why) = knocks.knock(datagram, source, now) {
            tracing::debug!(client.addr = %source, reason = why.as_str(), "knock refused");
            summary.wants(now);
        }
    }
}

impl Summary {
    /// Nothing is to be told of what was before.
    fn new(knocks: &Knocks) -> Self {
        Self { told: knocks.falses().map(|(_, count)| count).collect(), ..Self::default() }
    }

    /// There is something to tell.
    fn wants(&mut self, now: Instant) {
        let soonest = self.last.map_or(now, |last| now.max(last + INTERVAL));
        self.due.get_or_insert(soonest);
    }

    /// Tells what has come since the last summary.
    fn say(&mut self, knocks: &Knocks, now: Instant) {
        (self.last, self.due) = (Some(now), None);
        let (mut reasons, mut all) = (String::new(), 0);
        for ((why, count), told) in knocks.falses().zip(&mut self.told) {
            let more = count - std::mem::replace(told, count);
            if more > 0 {
                all += more;
                let comma = if reasons.is_empty() { "" } else { ", " };
                // A string takes everything.
                let _ = write!(reasons, "{comma}{} {more}", why.as_str());
            }
        }
        tracing::info!(count = all, reasons, "knocks refused");
    }
}
