//! A direction that stands still: nothing of it is in a pipe.

use std::{io, num::NonZeroU64};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Direction, Pending, State};
use crate::{
    handover::{Held, Packer, Span, Unpacker, Unusable},
    relay::throttle::Throttle,
};

/// The most that a sink can have left of one direction: what the largest pipe of a user holds, with
/// room to spare. A greeting is shorter.
const MOST_HELD: usize = 4 * 1024 * 1024;

/// A direction, for another process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::relay::tcp) struct HalfRecord {
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    /// What the sink has not taken yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<Held>,
    /// So many of these bytes are our own.
    #[serde(skip_serializing_if = "is_zero")]
    ours: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    bandwidth: Option<NonZeroU64>,
    /// What of the bandwidth is saved up, as time at the full rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    saved_us: Option<Span>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Direction<'_> {
    /// Stops: what a pipe holds is taken into memory.
    ///
    /// # Errors
    /// The pipe did not give its bytes back; they are lost.
    pub(in crate::relay::tcp) fn halt(&mut self) -> io::Result<()> {
        self.unload()?;
        self.end_bulk();
        Ok(())
    }

    /// Takes a direction out that was halted.
    pub(in crate::relay::tcp) fn take_halted(&mut self) -> Direction<'static> {
        debug_assert!(self.bulk.is_none());
        Direction {
            state: self.state,
            pending: self.pending.take(),
            bulk: None,
            full_reads: 0,
            unannounced: self.unannounced,
            speaks_first: false,
            throttle: self.throttle.take(),
        }
    }

    /// The record of a direction that was halted.
    pub(in crate::relay::tcp) fn pack(&self, packer: &mut Packer<'_>, now: Instant) -> HalfRecord {
        let throttle = self.throttle.as_ref();
        HalfRecord {
            state: (self.state != State::Open).then_some(self.state),
            held: self.pending.as_ref().map(|pending| packer.bytes(&pending.bytes[pending.sent..])),
            ours: self.pending.as_ref().map_or(0, |pending| pending.ours),
            bandwidth: throttle.map(|throttle| throttle.rate()),
            saved_us: throttle.map(|throttle| Span::of(throttle.saved(now))),
        }
    }

    /// The direction of a record. Whether bytes wait at its source, a newly registered socket says.
    ///
    /// # Errors
    /// A value has no meaning, or bytes are missing.
    pub(in crate::relay::tcp) fn unpack(
        record: &HalfRecord,
        unpacker: &Unpacker,
        now: Instant,
    ) -> Result<Self, Unusable> {
        let state = record.state.unwrap_or_default();
        let held = record.held.map(|held| unpacker.bytes(held)).transpose()?.unwrap_or_default();
        if state == State::Unknown {
            return Err(Unusable::Value("a direction in an unknown state"));
        }
        let may_hold = matches!(state, State::Open | State::Ending);
        if held.len() > MOST_HELD || record.ours > held.len() || !(may_hold || held.is_empty()) {
            return Err(Unusable::Value("a direction that holds what it cannot"));
        }
        let pending = Pending::first(held.to_vec(), record.ours);
        let saved = record.saved_us.unwrap_or_default().duration();
        let throttle = record.bandwidth.map(|rate| Box::new(Throttle::resumed(rate, saved, now)));
        Ok(Self {
            state,
            pending: (!held.is_empty()).then(|| Box::new(pending)),
            throttle,
            ..Self::default()
        })
    }
}
