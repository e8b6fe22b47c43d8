//! What every listener shares to reach its targets.
//!
//! Owns the answers to lookups ([`Resolver`]), the addresses that failed lately and the targets that are down. A caller
//! asks for [`Dialer::candidates`], tries them in order, and reports what came of each address and of each target. The
//! relay of TCP reports what its connects say. The relay of UDP reports refusals and answers.

use std::{fmt::Display, io, net::SocketAddr, sync::Arc, time::Duration};

use super::{
    ResolveError, Resolver,
    dead::DeadAddrs,
    down::{DownTargets, Leg, Sign},
};
use crate::mapping::{Protocol, TargetAddr};

/// Reaches targets. Clones share one memory.
#[derive(Clone, Debug, Default)]
pub struct Dialer {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    resolver: Resolver,
    dead: DeadAddrs,
    down: DownTargets,
}

impl Dialer {
    /// A dialer that knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The addresses of `target` in the order in which they are tried: those that failed lately come last. There is at
    /// least one, and none is left out. A name is looked up for `patience` at most.
    ///
    /// # Errors
    /// [`ResolveError`] when the name has no address in time and has never had one.
    pub async fn candidates(
        &self,
        protocol: Protocol,
        target: &TargetAddr,
        patience: Duration,
    ) -> Result<Vec<SocketAddr>, ResolveError> {
        let mut addrs = self.shared.resolver.resolve(target, patience).await?;
        self.order(protocol, &mut addrs);
        Ok(addrs)
    }

    /// Puts the addresses that failed lately last. Nothing else changes.
    pub fn order(&self, protocol: Protocol, addrs: &mut [SocketAddr]) {
        self.shared.dead.order(protocol, addrs);
    }

    /// Notes that `addr`, a candidate of a target, did not work. An error that says that this machine has run out of
    /// something is ignored.
    pub fn failed(&self, protocol: Protocol, addr: SocketAddr, error: &io::Error) {
        self.shared.dead.failed(protocol, addr, error);
    }

    /// Notes that `addr` works. This is one atomic load while no address is dead.
    pub fn worked(&self, protocol: Protocol, addr: SocketAddr) {
        self.shared.dead.worked(protocol, addr);
    }

    /// Notes that a session, or a flow, could not use any address of the target. Writes `target down` when that is news.
    pub fn target_failed(&self, leg: &Leg, sign: Sign, error: &dyn Display) {
        self.shared.down.failed(leg, sign, error);
    }

    /// Notes that a session reached the target, or that a flow had an answer from it. Writes `target up` when that is
    /// news. This is one atomic load while no target fails.
    pub fn target_worked(&self, leg: impl FnOnce() -> Leg) {
        self.shared.down.worked(leg);
    }
}

#[cfg(test)]
impl Dialer {
    /// A dialer with a resolver of a test.
    pub(super) fn with(resolver: Resolver) -> Self {
        Self { shared: Arc::new(Shared { resolver, ..Shared::default() }) }
    }
}
