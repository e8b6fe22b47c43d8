//! The pump: it moves the bytes of one session, both ways, until it ends.
//!
//! What decides its cost, and so its shape:
//! - An idle session owns no buffer. The pump waits for readiness, reads into the worker thread's
//!   one buffer, writes on at once, and allocates only for what the other side would not take.
//! - Each read says whether the socket is empty then: its readiness is cleared without a second
//!   system call.
//! - The clock is read, and a timer is kept, only while a limit applies.
//! - While bytes may be on their way to a peer, a timer looks after them a few times (`flight`). It
//!   costs the bytes nothing.
//! - The target's socket gets its keepalive when the session has lived for [`SETTLED`]. A short
//!   session does not pay for it.
//!
//! A limit that was reached ends a session only if the kernel holds no byte that could move. A
//! daemon that stood still (stopped, suspended) takes in first what came meanwhile.
//!
//! Direction-close: the end of one side is passed on after its bytes (a `shutdown` of the other's
//! write side); the survivor then has `half_close` to go on, renewed by every byte. A reset is
//! passed on as a reset. While a session is stalled or half-closed, one of its sockets is not read,
//! and a reset there would not be seen. So the pump asks for it once a second.
//!
//! One case needs care: a side that said all it had to say and closed, while the other still sends.
//! The kernel answers those bytes with a reset, which must not destroy what the first side said and
//! is still on its way: a web server that refuses an upload answers and closes, and the browser
//! wants to see the answer. So what the other still sends is thrown away until it stops
//! ([`QUIET`]), or for a while ([`LINGER`]). Linux tells this reset (`EPIPE`: an end was received
//! before) from one in the middle of things (`ECONNRESET`).
//!
//! Knows nothing of listeners, targets' names or policy. It ends with an [`Ending`], exactly once,
//! or stops where it is ([`Still`]) and goes on later.

mod still;

use std::{
    future::{Future, poll_fn},
    io,
    num::{NonZeroU32, NonZeroU64},
    os::fd::AsFd,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use serde::{Deserialize, Serialize};
pub(super) use still::{PumpRecord, Still};
use tokio::{
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

use super::{
    direction::{Broken, Direction, Link, Moved, Pending, is_after_end},
    flight::Flights,
    sessions::SessionSlot,
};
use crate::{
    mapping::Timeout,
    meter::{Asked, Ended, SessionMeter},
    sock::{
        may_wait, set_keepalive,
        stream::{PollFlags, readiness, reset_on_close},
        unanswered_limit,
    },
};

/// How often a stalled or half-closed session's sockets are asked for a reset.
const CHECK: Duration = Duration::from_secs(1);
/// One side has closed and got everything; the other has been quiet for this long: the session is
/// over.
const QUIET: Duration = Duration::from_secs(1);
/// How long the other may go on sending, although its peer is gone, before it gets a reset.
const LINGER: Duration = Duration::from_secs(30);

/// A session that has lived for this long may live on for long.
pub(super) const SETTLED: Duration = Duration::from_secs(2);

/// How long a limit that was reached waits for bytes that the kernel holds already.
const REPRIEVE: Duration = Duration::from_secs(1);

/// The client's side of a session.
#[derive(Debug)]
pub(super) struct ClientSide {
    pub(super) client: TcpStream,
    /// The session's account.
    pub(super) meter: SessionMeter,
    /// Its share of the budget, with the pipes that bulk may go through.
    pub(super) slot: SessionSlot,
}

/// The limits of one session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// No byte in either direction for this long.
    pub(super) idle: Timeout,
    /// After one side ended: the time for the other, renewed by every byte.
    pub(super) half_close: Timeout,
}

/// How a session ended.
#[derive(Debug)]
pub(super) struct Ending {
    /// The reason for the session line.
    pub(super) reason: Ended,
    /// What the system said, where the reason is an error.
    pub(super) error: Option<io::Error>,
}

impl From<Ended> for Ending {
    fn from(reason: Ended) -> Self {
        Self { reason, error: None }
    }
}

/// What a pump begins with.
#[derive(Debug)]
pub(super) enum Begin {
    /// A new session.
    New {
        /// Its limits.
        limits: Limits,
        /// The idle time before keepalive probes. The target's socket may not have it yet.
        keepalive: Timeout,
        /// Neither direction moves more than so many bytes a second.
        bandwidth: Option<NonZeroU64>,
        /// What the target gets before anything else.
        first: Option<Box<Pending>>,
    },
    /// One that stood still.
    Still(Box<Still>),
}

/// What came of a pump.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The session is over.
    Ended(Ending),
    /// It was asked to stop where it is.
    Stopped(Box<Still>),
}

/// Moves bytes between the client and `target`. It ends when both have ended, one of them failed,
/// a limit was reached, or the session was cut. Both sockets are left to be closed by the caller,
/// in the way the ending asks for.
pub(super) fn pump<'a>(
    near: &'a ClientSide,
    target: &'a TcpStream,
    begin: Begin,
) -> impl Future<Output = Outcome> + 'a {
    let mut pump = Pump::new(near, target, begin);
    poll_fn(move |cx| pump.poll(cx))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Side {
    Client,
    Target,
}

struct Pump<'a> {
    // One reference to three things, because every session keeps it.
    near: &'a ClientSide,
    target: &'a TcpStream,
    limits: Limits,
    /// Client to target.
    inward: Direction<'a>,
    /// Target to client.
    outward: Direction<'a>,
    /// The side that closed first.
    first_end: Option<Side>,
    /// Armed while a limit applies; it may be early, never late.
    timer: Option<Pin<Box<Sleep>>>,
    /// When a byte was last delivered; kept only while a limit applies.
    last_byte: Instant,
    /// When a byte was last thrown away. Boxed: few sessions come to that.
    last_thrown: Option<Box<Instant>>,
    /// When the sockets were last asked for a reset.
    last_check: Option<Instant>,
    /// A limit that was reached was put off since the last byte.
    is_reprieved: bool,
    /// The seconds for which a peer may leave bytes without an answer. An integer, because every
    /// session keeps it.
    unanswered: Option<NonZeroU32>,
    /// The seconds of the keepalive that the target's socket is still to get.
    keepalive: Option<NonZeroU32>,
    /// While something may be on its way to a side. Boxed: it lasts no longer than bytes do.
    flights: Option<Box<Flights>>,
}

impl<'a> Pump<'a> {
    fn new(near: &'a ClientSide, target: &'a TcpStream, begin: Begin) -> Self {
        let mut keepalive_due = None;
        let still = match begin {
            Begin::Still(still) => *still,
            Begin::New { limits, keepalive, bandwidth, first } => {
                keepalive_due = keepalive.duration().filter(|_| may_wait(keepalive)).and_then(seconds);
                Still {
                    limits,
                    inward: Direction::of_client(bandwidth, first),
                    outward: Direction::new(bandwidth, None),
                    first_end: None,
                    last_byte: Instant::now(),
                    last_thrown: None,
                    last_check: None,
                    is_reprieved: false,
                    unanswered: unanswered_limit(keepalive).and_then(seconds),
                    flights: None,
                }
            }
        };
        Self {
            near,
            target,
            limits: still.limits,
            inward: still.inward,
            outward: still.outward,
            first_end: still.first_end,
            timer: None,
            last_byte: still.last_byte,
            last_thrown: still.last_thrown,
            last_check: still.last_check,
            is_reprieved: still.is_reprieved,
            unanswered: still.unanswered,
            keepalive: keepalive_due,
            flights: still.flights,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        while let Poll::Ready(asked) = self.near.meter.live().poll_asked(cx) {
            if let Some(outcome) = self.answer(asked) {
                return Poll::Ready(outcome);
            }
        }
        self.step(cx).map(Outcome::Ended)
    }

    #[cold]
    fn answer(&mut self, asked: Asked) -> Option<Outcome> {
        match asked {
            Asked::End(reason) => Some(Outcome::Ended(reason.into())),
            Asked::Freeze => Some(self.stop()),
            Asked::Show => {
                let copy = |stream: &TcpStream| stream.as_fd().try_clone_to_owned().ok();
                let sockets = copy(&self.near.client).zip(copy(self.target));
                self.near.slot.sessions().show(sockets.map(Into::into));
                None
            }
        }
    }

    fn stop(&mut self) -> Outcome {
        self.set_keepalive();
        for side in [Side::Client, Side::Target] {
            if let Err(error) = self.direction(side).0.halt() {
                return Outcome::Ended(self.broke(side, error));
            }
        }
        Outcome::Stopped(Box::new(Still {
            limits: self.limits,
            inward: self.inward.take_halted(),
            outward: self.outward.take_halted(),
            first_end: self.first_end,
            last_byte: self.last_byte,
            last_thrown: self.last_thrown.take(),
            last_check: self.last_check,
            is_reprieved: self.is_reprieved,
            unanswered: self.unanswered,
            flights: self.flights.take(),
        }))
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        let was_half_closed = self.is_half_closed();
        let mut moved = Moved::default();
        for from in [Side::Client, Side::Target] {
            let meter = &self.near.meter;
            // When the other direction is over as well, the close that comes next says all that a
            // shutdown would.
            let is_last = self.direction(from.other()).0.is_shut();
            let (half, link) = self.direction(from);
            let step = half.transfer(cx, link, is_last, &mut moved, |bytes| match from {
                Side::Client => meter.add_in(bytes as u64),
                Side::Target => meter.add_out(bytes as u64),
            });
            match step {
                Ok(()) => self.note_end(from),
                Err(Broken::Source(error)) => return Poll::Ready(self.broke(from, error)),
                Err(Broken::Sink(error)) => return Poll::Ready(self.broke(from.other(), error)),
            }
        }
        if self.inward.is_shut() && self.outward.is_shut() {
            return Poll::Ready(self.closed().into());
        }
        // The time of the survivor starts when the first side ends.
        moved.delivered |= was_half_closed != self.is_half_closed();
        // Nor is a session idle that we hold back ourselves.
        moved.delivered |= self.inward.is_held_back() || self.outward.is_held_back();
        self.poll_limits(cx, moved)
    }

    fn direction(&mut self, from: Side) -> (&mut Direction<'a>, Link<'a, 'a>) {
        let (client, target, pipes) = (&self.near.client, self.target, self.near.slot.pipes());
        match from {
            Side::Client => (&mut self.inward, Link { source: client, sink: target, pipes }),
            Side::Target => (&mut self.outward, Link { source: target, sink: client, pipes }),
        }
    }

    /// Keeps the side that ended first: one whose end was read, or one that is known to be gone.
    fn note_end(&mut self, from: Side) {
        let half = self.direction(from).0;
        if half.has_ended() {
            self.first_end.get_or_insert(from);
        } else if half.is_discarding() {
            self.first_end.get_or_insert(from.other());
        }
    }

    /// The connection of `side` failed: the other side gets the same.
    fn broke(&self, side: Side, error: io::Error) -> Ending {
        let (half, other, clean, fault) = match side {
            Side::Client => (&self.inward, self.target, Ended::ClientClosed, Ended::ClientError),
            Side::Target => (&self.outward, &self.near.client, Ended::TargetClosed, Ended::TargetError),
        };
        reset_on_close(other);
        if half.has_ended() { clean.into() } else { Ending { reason: fault, error: Some(error) } }
    }

    /// The reason of a session whose both sides have ended.
    fn closed(&self) -> Ended {
        match self.first_end {
            Some(Side::Target) => Ended::TargetClosed,
            Some(Side::Client) | None => Ended::ClientClosed,
        }
    }

    fn is_half_closed(&self) -> bool {
        self.inward.has_ended() || self.outward.has_ended()
    }

    fn is_stalled(&self) -> bool {
        self.inward.is_stalled() || self.outward.is_stalled()
    }

    /// Ready when a limit was reached; else the timer is armed for the next one.
    fn poll_limits(&mut self, cx: &mut Context<'_>, moved: Moved) -> Poll<Ending> {
        let watched = self.is_half_closed() || self.is_stalled();
        let limited = watched || self.limits.idle != Timeout::Never;
        if !limited && !self.has_to_look(moved.delivered) {
            return Poll::Pending;
        }
        let mut now = Instant::now();
        if moved.delivered {
            self.last_byte = now;
            self.is_reprieved = false;
            if self.keepalive.is_none() {
                self.launch(now);
            }
        }
        if moved.thrown {
            self.last_thrown = Some(Box::new(now));
        }
        loop {
            let reached = self.deadlines().find(|(deadline, _)| *deadline <= now);
            if let Some((deadline, reason)) = reached
                && !self.reprieve(deadline, now)
            {
                return Poll::Ready(self.reached(reason, now).into());
            }
            if self.keepalive_due().is_some_and(|due| due <= now) {
                self.set_keepalive();
                if self.near.meter.live().has_moved() {
                    self.launch(now);
                }
            }
            if let Some(flights) = self.flights.as_mut().filter(|flights| flights.next_look() <= now)
                && !flights.look(now, [&self.near.client, self.target])
            {
                self.flights = None;
            }
            if watched && let Some((side, error)) = self.check(now) {
                match is_after_end(&error) {
                    true => self.direction(side.other()).0.discard(),
                    false => return Poll::Ready(self.broke(side, error)),
                }
                // What is thrown away has to be read first.
                cx.waker().wake_by_ref();
            }
            let Some(next) = self.next_deadline(watched) else {
                self.timer = None;
                return Poll::Pending;
            };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(next)));
            if timer.deadline() > next || timer.is_elapsed() {
                timer.as_mut().reset(next);
            }
            ready!(timer.as_mut().poll(cx));
            now = Instant::now();
        }
    }

    /// Looks after the bytes on their way from now on.
    fn launch(&mut self, now: Instant) {
        if let (None, Some(limit)) = (&self.flights, self.unanswered) {
            let limit = Duration::from_secs(limit.get().into());
            self.flights = Some(Box::new(Flights::launched(limit, now)));
        }
    }

    /// When the target's socket is to get its keepalive, if it has none yet.
    fn keepalive_due(&self) -> Option<Instant> {
        self.keepalive.map(|_| self.near.meter.live().started + SETTLED)
    }

    /// Gives the target's socket its keepalive, if it has none yet.
    fn set_keepalive(&mut self) {
        if let Some(idle) = self.keepalive.take() {
            // A socket that does not take it has failed, which shows elsewhere.
            let idle = Duration::from_secs(idle.get().into());
            let _ = set_keepalive(self.target, Timeout::After(idle));
        }
    }

    /// The limits that apply now, each with what it means to reach it.
    fn deadlines(&self) -> impl Iterator<Item = (Instant, Ended)> {
        // One side is gone and got everything; the other is heard out.
        let over = (self.inward.is_shut() && self.outward.is_discarding())
            || (self.outward.is_shut() && self.inward.is_discarding());
        let heard = self.last_thrown.as_ref().map_or(self.last_byte, |thrown| self.last_byte.max(**thrown));
        let quiet = over.then_some((heard, QUIET, self.closed()));
        let linger = over.then_some((self.last_byte, LINGER, self.closed()));
        let half_close = self.limits.half_close.duration().filter(|_| self.is_half_closed());
        let half_close = half_close.map(|limit| (self.last_byte, limit, Ended::HalfCloseTimeout));
        let idle = self.limits.idle.duration().map(|limit| (self.last_byte, limit, Ended::Idle));
        [quiet, linger, half_close, idle]
            .into_iter()
            .flatten()
            .filter_map(|(from, limit, reason)| Some((from.checked_add(limit)?, reason)))
    }

    /// Whether the bytes on their way, or a keepalive to set, are a reason to read the clock. While
    /// the timer runs, more bytes are not: the timer wakes the session by itself.
    fn has_to_look(&self, delivered: bool) -> bool {
        let waits = self.keepalive.is_some();
        match &self.timer {
            Some(timer) if waits || self.flights.is_some() => timer.is_elapsed() || !delivered,
            _ => waits || delivered && self.unanswered.is_some(),
        }
    }

    /// Puts a limit off that was reached at `deadline`: bytes could move, and tokio has not said so
    /// yet. The kernel is asked once for each time without a byte. Whether it was put off.
    fn reprieve(&mut self, deadline: Instant, now: Instant) -> bool {
        let could_move = || {
            self.inward.could_move(&self.near.client, self.target)
                || self.outward.could_move(self.target, &self.near.client)
        };
        if self.is_reprieved || !could_move() {
            return false;
        }
        self.is_reprieved = true;
        // As if the last byte had come later.
        self.last_byte += now + REPRIEVE - deadline;
        true
    }

    /// A limit was reached. A side that still sends, although its peer is gone, gets a reset.
    fn reached(&self, reason: Ended, now: Instant) -> Ended {
        if self.last_thrown.as_ref().is_some_and(|thrown| now < **thrown + QUIET) {
            reset_on_close(if self.inward.is_discarding() { &self.near.client } else { self.target });
        }
        reason
    }

    fn next_deadline(&self, watched: bool) -> Option<Instant> {
        let check = self.last_check.filter(|_| watched).map(|last| last + CHECK);
        let look = self.flights.as_ref().map(|flights| flights.next_look());
        let keepalive = self.keepalive_due();
        self.deadlines().map(|(deadline, _)| deadline).chain(check).chain(look).chain(keepalive).min()
    }

    /// Asks both sockets, at most once every [`CHECK`], whether they were reset. What a slow side
    /// has not taken by then may have to make way for others.
    fn check(&mut self, now: Instant) -> Option<(Side, io::Error)> {
        // The time runs on while nothing is stalled: a flow that stalls often is not asked more
        // often.
        let last = *self.last_check.get_or_insert(now);
        if now < last + CHECK {
            return None;
        }
        self.last_check = Some(now);
        for side in [Side::Client, Side::Target] {
            if let Err(error) = self.direction(side).0.make_way() {
                return Some((side, error));
            }
        }
        [(Side::Client, &self.near.client), (Side::Target, self.target)]
            .into_iter()
            .find_map(|(side, stream)| Some((side, failure(stream)?)))
    }
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Target,
            Self::Target => Self::Client,
        }
    }
}

/// Whole seconds, in the room that a session has for them.
fn seconds(time: Duration) -> Option<NonZeroU32> {
    u32::try_from(time.as_secs()).ok().and_then(NonZeroU32::new)
}

/// The error that waits on `stream`, if one does.
fn failure(stream: &TcpStream) -> Option<io::Error> {
    let failed = readiness(stream, PollFlags::empty()).contains(PollFlags::ERR);
    if failed { stream.take_error().ok()? } else { None }
}
