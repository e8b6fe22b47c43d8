//! Bytes on their way to the peers of a session, and how long they may stay without an answer.
//!
//! The kernel ends a connection whose peer leaves bytes unanswered for [`unanswered_limit`]. It also ends one whose peer has
//! no room for more, however often that peer answers: a paused download, a program in a debugger. So a session that
//! delivered bytes looks at them [`LOOKS`] times within the limit. While such a peer answers, the session raises the limit
//! of its socket; the limit falls back when bytes are on their way again. A peer that vanishes meanwhile is found within
//! about twice the limit.
//!
//! Owns the limit of both sockets after they were opened, and the time of the next look. It moves no byte. It stops to
//! look when nothing is on its way.

use std::time::Duration;

use socket2::SockRef;
use tokio::{net::TcpStream, time::Instant};

use crate::{
    mapping::Timeout,
    target::{Flight, set_unanswered_limit, unanswered_limit},
};

/// How often the bytes are looked at within the limit.
const LOOKS: u32 = 2;

/// What is on its way to the client and to the target.
#[derive(Debug)]
pub(super) struct Flights {
    limit: Option<Duration>,
    next: Option<Instant>,
    /// Since when each side has no room, where its limit is raised for that.
    raised: [Option<Instant>; 2],
}

impl Flights {
    /// Of a session whose sockets have this keepalive.
    pub(super) fn new(keepalive: Timeout) -> Self {
        Self { limit: unanswered_limit(keepalive), next: None, raised: [None; 2] }
    }

    /// Whether a limit applies.
    pub(super) fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// Whether a look is due at some time.
    pub(super) fn is_watched(&self) -> bool {
        self.next.is_some()
    }

    /// Notes that bytes were handed to the kernel.
    pub(super) fn launch(&mut self, now: Instant) {
        if let (None, Some(limit)) = (self.next, self.limit) {
            self.next = now.checked_add(limit / LOOKS);
        }
    }

    /// When to look.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.next
    }

    /// Looks at both sides, if it is time.
    pub(super) fn look(&mut self, now: Instant, sides: [&TcpStream; 2]) {
        let Some(limit) = self.limit.filter(|_| self.next.is_some_and(|next| next <= now)) else { return };
        self.next = None;
        for (side, raised) in sides.into_iter().zip(&mut self.raised) {
            // A socket without an answer to this has failed, which shows elsewhere.
            let Ok(flight) = Flight::of(side, limit / LOOKS) else { continue };
            if flight != Flight::Nothing {
                self.next = now.checked_add(limit / LOOKS);
            }
            match flight {
                Flight::NoRoom { answers: true } => {
                    // The kernel counts from the start, which was a look ago at the most; the next look is as far away.
                    let since = *raised.get_or_insert(now);
                    let limit = now.saturating_duration_since(since).saturating_add(2 * limit);
                    let _ = set_unanswered_limit(&SockRef::from(side), Some(limit));
                }
                Flight::NoRoom { answers: false } => {}
                Flight::Unacknowledged | Flight::Nothing => {
                    if raised.take().is_some() {
                        let _ = set_unanswered_limit(&SockRef::from(side), Some(limit));
                    }
                }
            }
        }
    }
}
