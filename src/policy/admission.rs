//! A mapping's doorkeeper.

use std::{net::IpAddr, sync::Arc};

use tokio::time::Instant;

use super::{Gate, Policy, Refusal, Refuse};
use crate::mapping::Protocol;

/// Decides who enters a mapping, over all its listeners.
#[derive(Debug)]
pub struct Admission {}

impl Admission {
    /// A doorkeeper with nobody inside.
    pub fn new(_policy: &Arc<Policy>, _gate: &Arc<Gate>) -> Arc<Self> {
        Arc::new(Self {})
    }

    /// Takes changed terms. Those inside stay, and stay counted; [`Admission::recheck`] says who must leave.
    pub fn retune(&self, _policy: &Arc<Policy>) {}

    /// Lets a client in, or says why not; the refusal is counted. A refused TCP client has committed an offence.
    ///
    /// # Errors
    /// Why it may not enter.
    pub fn admit(
        self: &Arc<Self>,
        _client: IpAddr,
        _protocol: Protocol,
        _now: Instant,
    ) -> Result<Permit, Refusal> {
        Ok(Permit {})
    }

    /// How many of `datagrams` that a client inside has sent may pass; the others are counted as refused.
    pub fn datagrams(&self, _client: IpAddr, datagrams: u32, _now: Instant) -> u32 {
        datagrams
    }

    /// Whether there is a limit of datagrams at all; without one [`Admission::datagrams`] need not be asked.
    pub fn limits_datagrams(&self) -> bool {
        false
    }

    /// How often a client was refused for `reason`.
    pub fn refused(&self, _reason: Refusal) -> u64 {
        0
    }

    /// What was refused since the last summary, at most once a minute.
    pub fn summary(&self, _now: Instant) -> Option<Summary> {
        None
    }

    /// Whether a client inside may stay: bans, lists and countries, never rates.
    ///
    /// # Errors
    /// Why it may not.
    pub fn recheck(&self, _client: IpAddr, _now: Instant) -> Result<(), Refusal> {
        Ok(())
    }

    /// How a refused TCP client is told.
    pub fn refuse(&self) -> Refuse {
        Refuse::Close
    }
}

/// The right of one session to be. It gives its place back when it is dropped, once.
#[derive(Debug)]
#[must_use = "a permit that is dropped is given back"]
pub struct Permit {}

/// What was refused in a time.
#[derive(Debug)]
pub struct Summary {
    /// How many.
    pub total: u64,
}
