//! Bytes on their way to the peers of a session, and how long they may stay without an answer.
//!
//! The kernel ends a connection whose peer leaves bytes unanswered for the limit of its keepalive.
//! It also ends one whose peer has no room for more, however often that peer answers: a paused
//! download, a program in a debugger. So a session that delivered bytes looks at them [`LOOKS`]
//! times within the limit. While such a peer answers, the session raises the limit of its socket.
//! The limit falls back when nothing is on its way: the kernel's count goes on while the peer takes
//! a little at a time. A peer that vanishes right after it had no room is found late, but within
//! the time that it had none and twice the limit.
//!
//! Owns the limit of both sockets after they were opened, and the time of the next look. It moves
//! no byte. It stops to look when nothing is on its way.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::{net::TcpStream, time::Instant};

use crate::{
    handover::Span,
    sock::{Flight, set_unanswered_limit},
};

/// How often the bytes are looked at within the limit.
const LOOKS: u32 = 2;

/// What is on its way to the client and to the target.
#[derive(Debug)]
pub(super) struct Flights {
    limit: Duration,
    next_look: Instant,
    /// Since when each side has no room, where its limit is raised for that.
    raised: [Option<Instant>; 2],
}

impl Flights {
    /// Bytes that were handed to the kernel at `now`, of a session with this limit.
    pub(super) fn launched(limit: Duration, now: Instant) -> Self {
        Self { limit, next_look: now + limit / LOOKS, raised: [None; 2] }
    }

    /// When to look.
    pub(super) fn next_look(&self) -> Instant {
        self.next_look
    }

    /// Looks at both sides. Whether to look again: something is on its way.
    pub(super) fn look(&mut self, now: Instant, sides: [&TcpStream; 2]) -> bool {
        let (limit, between) = (self.limit, self.limit / LOOKS);
        self.next_look = now + between;
        let mut on_its_way = false;
        for (side, raised) in sides.into_iter().zip(&mut self.raised) {
            // A socket without an answer to this has failed, which shows elsewhere.
            let Ok(flight) = Flight::of(side, between) else { continue };
            on_its_way |= flight != Flight::Nothing;
            match flight {
                // The kernel may count from the last time without room until nothing is on its way.
                Flight::NoRoom { answers: true } => raise(side, raised, limit, now),
                Flight::Unacknowledged { answers: true } if raised.is_some() => {
                    raise(side, raised, limit, now);
                }
                Flight::Nothing if raised.take().is_some() => {
                    let _ = set_unanswered_limit(side, Some(limit));
                }
                Flight::NoRoom { .. } | Flight::Unacknowledged { .. } | Flight::Nothing => {}
            }
        }
        on_its_way
    }
}

/// The same for another process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct FlightsRecord {
    limit_us: Span,
    /// Until the next look.
    look_us: Span,
    client_raised_us: Option<Span>,
    target_raised_us: Option<Span>,
}

impl Flights {
    /// Its record.
    pub(super) fn pack(&self, now: Instant) -> FlightsRecord {
        let [client, target] = self.raised.map(|raised| raised.map(|since| Span::since(since, now)));
        FlightsRecord {
            limit_us: Span::of(self.limit),
            look_us: Span::since(now, self.next_look),
            client_raised_us: client,
            target_raised_us: target,
        }
    }

    /// What a record was made of.
    pub(super) fn unpack(record: &FlightsRecord, now: Instant) -> Self {
        let raised = [record.client_raised_us, record.target_raised_us];
        Self {
            limit: record.limit_us.duration(),
            next_look: now + record.look_us.duration(),
            raised: raised.map(|raised| raised.map(|since| since.before(now))),
        }
    }
}

/// Raises the limit of a side that answers, until two looks after the next one.
fn raise(side: &TcpStream, raised: &mut Option<Instant>, limit: Duration, now: Instant) {
    // The kernel counts from the start, which was a look before the first raise at the most.
    let since = *raised.get_or_insert(now);
    let limit = now.saturating_duration_since(since).saturating_add(2 * limit);
    let _ = set_unanswered_limit(side, Some(limit));
}
