//! Where a mapping leads: the targets, and how one of them is reached.
//!
//! Owns [`Targets`] (what is asked for), the [`Pool`] (which of them a session goes to), the
//! [`Dialer`] (what all listeners share: answers to lookups, which addresses failed lately, which
//! targets are down, which destinations are listeners of ours) and [`dial`] (an open connection to
//! a target, or why not). Knows nothing of sessions or configuration.

mod dead;
pub(crate) mod dial;
mod dial_error;
mod dialer;
mod down;
mod health;
mod hold;
mod lookup;
mod own;
mod pool;
mod race;
mod resolve;
mod selection;
mod srv;

pub(crate) use dialer::{Dialer, DialerRecord};
pub(crate) use down::{CLEAR_SILENCE, Leg, Sign};
pub(crate) use health::{Probe, Probes, watch_over};
pub(crate) use pool::{Member, Place, Pool, PoolHandle, PoolRecord};
pub(crate) use resolve::{ResolveError, Resolver};
pub(crate) use selection::{Balance, Health, OnDown, Selection};

use std::{num::NonZeroU16, sync::Arc};

use crate::mapping::TargetAddr;

/// One of the targets of a mapping.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    /// Where it is.
    pub addr: TargetAddr,
    /// Its share of the sessions, against the weights of the others.
    pub weight: NonZeroU16,
    /// It takes sessions only while no other target works.
    pub backup: bool,
}

impl Target {
    /// The highest weight.
    pub(crate) const MAX_WEIGHT: u16 = 1000;
}

impl From<TargetAddr> for Target {
    /// A target of weight 1.
    fn from(addr: TargetAddr) -> Self {
        Self { addr, weight: NonZeroU16::MIN, backup: false }
    }
}

/// The targets of a mapping, in the order given: never empty.
///
/// A clone shares them, so that a range of listeners that lead to the same targets holds these
/// once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Targets {
    first: Target,
    rest: Arc<[Target]>,
}

impl Targets {
    /// One target.
    #[cfg(test)]
    pub(crate) fn one(target: TargetAddr) -> Self {
        Self { first: target.into(), rest: Arc::default() }
    }

    /// The targets in `all`, or `None` when there is none.
    pub(crate) fn new(all: impl IntoIterator<Item = Target>) -> Option<Self> {
        let mut all = all.into_iter();
        Some(Self { first: all.next()?, rest: all.collect() })
    }

    /// The address of the first target.
    pub(crate) fn first(&self) -> &TargetAddr {
        &self.first.addr
    }

    /// Whether there is but one.
    pub(crate) fn is_single(&self) -> bool {
        self.rest.is_empty()
    }

    /// All of them, in the order given.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Target> {
        std::iter::once(&self.first).chain(self.rest.iter())
    }

    /// Their addresses, in the order given.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &TargetAddr> {
        self.all().map(|target| &target.addr)
    }
}
