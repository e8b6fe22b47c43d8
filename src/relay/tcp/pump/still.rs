//! A pump that stands still, without its sockets: nothing of it is in a pipe or in a timer.
//!
//! It goes on in the same process with the same objects, or in another one from its record. There
//! its times are as long ago as they were at the moment of packing.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Limits, Side};
use crate::{
    handover::{Packer, Span, Unpacker, Unusable},
    mapping::Timeout,
    relay::tcp::{
        direction::{Direction, HalfRecord},
        flight::{Flights, FlightsRecord},
    },
};

/// A pump that stands still.
#[derive(Debug)]
pub(in crate::relay::tcp) struct Still {
    pub(super) limits: Limits,
    pub(super) inward: Direction<'static>,
    pub(super) outward: Direction<'static>,
    pub(super) first_end: Option<Side>,
    pub(super) last_byte: Instant,
    pub(super) last_thrown: Option<Box<Instant>>,
    pub(super) last_check: Option<Instant>,
    pub(super) is_reprieved: bool,
    pub(super) unanswered: Option<NonZeroU32>,
    pub(super) flights: Option<Box<Flights>>,
}

/// The same for another process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::relay::tcp) struct PumpRecord {
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_us: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    half_close_us: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unanswered_s: Option<NonZeroU32>,
    #[serde(skip_serializing_if = "is_default")]
    inward: HalfRecord,
    #[serde(skip_serializing_if = "is_default")]
    outward: HalfRecord,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_end: Option<Side>,
    /// When a byte was last delivered.
    quiet_us: Span,
    #[serde(skip_serializing_if = "Option::is_none")]
    thrown_us: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checked_us: Option<Span>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_reprieved: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    flights: Option<FlightsRecord>,
}

fn is_default(half: &HalfRecord) -> bool {
    *half == HalfRecord::default()
}

impl Still {
    /// Its record.
    pub(in crate::relay::tcp) fn pack(&self, packer: &mut Packer<'_>, now: Instant) -> PumpRecord {
        let limit = |limit: Timeout| limit.duration().map(Span::of);
        let since = |then: Instant| Span::since(then, now);
        PumpRecord {
            idle_us: limit(self.limits.idle),
            half_close_us: limit(self.limits.half_close),
            unanswered_s: self.unanswered,
            inward: self.inward.pack(packer, now),
            outward: self.outward.pack(packer, now),
            first_end: self.first_end,
            quiet_us: since(self.last_byte),
            thrown_us: self.last_thrown.as_deref().copied().map(since),
            checked_us: self.last_check.map(since),
            is_reprieved: self.is_reprieved,
            flights: self.flights.as_ref().map(|flights| flights.pack(now)),
        }
    }

    /// The pump of a record.
    ///
    /// # Errors
    /// A value has no meaning, or bytes are missing.
    pub(in crate::relay::tcp) fn unpack(
        record: &PumpRecord,
        unpacker: &Unpacker,
        now: Instant,
    ) -> Result<Self, Unusable> {
        let limit =
            |limit: Option<Span>| limit.map_or(Timeout::Never, |limit| Timeout::After(limit.duration()));
        Ok(Self {
            limits: Limits { idle: limit(record.idle_us), half_close: limit(record.half_close_us) },
            inward: Direction::unpack(&record.inward, unpacker, now)?,
            outward: Direction::unpack(&record.outward, unpacker, now)?,
            first_end: record.first_end,
            last_byte: record.quiet_us.before(now),
            last_thrown: record.thrown_us.map(|thrown| Box::new(thrown.before(now))),
            last_check: record.checked_us.map(|checked| checked.before(now)),
            is_reprieved: record.is_reprieved,
            unanswered: record.unanswered_s,
            flights: record.flights.as_ref().map(|flights| Box::new(Flights::unpack(flights, now))),
        })
    }
}
