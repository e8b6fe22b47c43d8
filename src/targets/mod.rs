//! Where a mapping leads: the targets, and how one of them is reached.
//!
//! Owns [`Targets`] (what is asked for), the [`Dialer`] (what all listeners share: answers to
//! lookups, which addresses failed lately, which targets are down, which destinations are listeners
//! of ours) and [`dial`] (an open connection to a target, or why not). Knows nothing of sessions or
//! configuration.

mod dead;
pub(crate) mod dial;
mod dial_error;
mod dialer;
mod down;
mod lookup;
mod own;
mod race;
mod resolve;

pub(crate) use dialer::Dialer;
pub(crate) use down::{CLEAR_SILENCE, Leg, Sign};
pub(crate) use resolve::{ResolveError, Resolver};

use std::sync::Arc;

use crate::mapping::TargetAddr;

/// The targets of a mapping, in the order given: never empty.
///
/// A clone shares them, so that a range of listeners that lead to the same targets holds these
/// once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Targets {
    first: TargetAddr,
    rest: Arc<[TargetAddr]>,
}

impl Targets {
    /// One target.
    #[cfg(test)]
    pub(crate) fn one(target: TargetAddr) -> Self {
        Self { first: target, rest: Arc::default() }
    }

    /// The targets in `all`, or `None` when there is none.
    pub(crate) fn new(all: impl IntoIterator<Item = TargetAddr>) -> Option<Self> {
        let mut all = all.into_iter();
        Some(Self { first: all.next()?, rest: all.collect() })
    }

    /// The first target: the one that takes the sessions while it can be reached.
    pub(crate) fn first(&self) -> &TargetAddr {
        &self.first
    }

    /// Whether there is but one.
    pub(crate) fn is_single(&self) -> bool {
        self.rest.is_empty()
    }

    /// All of them, in the order given.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &TargetAddr> {
        std::iter::once(&self.first).chain(self.rest.iter())
    }
}
