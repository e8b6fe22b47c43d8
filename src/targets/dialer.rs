//! What every listener shares to reach its targets.
//!
//! Owns the answers to lookups ([`Resolver`]), the addresses that failed lately, the targets that
//! are down, and what listens here. A caller takes the targets in the order of the mapping's pool,
//! asks for the candidates of each ([`Dialer::candidates`]), and reports what came of each address
//! and of each target. The relay of TCP reports what its connects say. The relay of UDP reports
//! refusals and answers.

use std::{fmt::Display, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    ResolveError, Resolver,
    dead::DeadAddrs,
    down::{Down, DownTargets, Leg, Sign},
    own::{Own, OwnListeners},
    race,
};
use crate::{
    events::Events,
    mapping::{Host, ListenAddr, Protocol, TargetAddr},
};

/// Reaches targets. Clones share one memory.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    resolver: Resolver,
    dead: DeadAddrs,
    down: DownTargets,
    own: OwnListeners,
}

impl Dialer {
    /// A dialer that knows nothing yet. It tells `events` which targets go down and come back.
    pub(crate) fn new(events: Events) -> Self {
        Self::of(Resolver::default(), events)
    }

    fn of(resolver: Resolver, events: Events) -> Self {
        let (dead, own) = (DeadAddrs::default(), OwnListeners::default());
        Self { shared: Arc::new(Shared { resolver, dead, down: DownTargets::new(events), own }) }
    }

    /// Notes what listens now. Sessions that lead there are refused: they would loop.
    pub(crate) fn listens_on<'a>(&self, all: impl Iterator<Item = (Protocol, &'a ListenAddr)>) {
        self.shared.own.are(all);
    }

    /// Notes where the API listens, or will. Sessions that lead there are refused: they would
    /// publish it.
    pub(crate) fn api_listens_on<'a>(&self, all: impl Iterator<Item = &'a ListenAddr>) {
        self.shared.own.services_are(all);
    }

    /// The addresses of `target` in the order in which they are tried: those that failed lately
    /// come last, and the families of the others alternate, from the one that lately won a race.
    /// There is at least one. Those that would lead back here, or to the API, are left out. A name
    /// is looked up for `patience` at most.
    ///
    /// # Errors
    /// [`ResolveError`] when the name has no address in time and has never had one, or when all
    /// lead back here or to the API.
    pub(crate) async fn candidates(
        &self,
        protocol: Protocol,
        target: &TargetAddr,
        patience: Duration,
    ) -> Result<Vec<SocketAddr>, ResolveError> {
        let mut addrs = self.shared.resolver.resolve(target, patience).await?;
        let mut own = None;
        addrs.retain(|addr| {
            let taker = self.shared.own.taker(protocol, *addr);
            own = taker.map(|taker| (taker, *addr)).or(own);
            taker.is_none()
        });
        match own {
            Some((Own::Listener, addr)) if addrs.is_empty() => {
                Err(ResolveError::Loop { target: target.clone(), addr })
            }
            Some((Own::Api, addr)) if addrs.is_empty() => {
                Err(ResolveError::Api { target: target.clone(), addr })
            }
            _ => {
                let alive = self.shared.dead.order(protocol, &mut addrs);
                // The order of SRV records is meant.
                if let Host::Srv(_) = target.host {
                    return Ok(addrs);
                }
                race::alternate(&mut addrs[..alive]);
                if protocol == Protocol::Tcp {
                    self.shared.dead.winner_first(&mut addrs[..alive]);
                }
                Ok(addrs)
            }
        }
    }

    /// Whether `addr` failed lately. This is one atomic load while no address is dead.
    pub(crate) fn is_dead(&self, protocol: Protocol, addr: SocketAddr) -> bool {
        self.shared.dead.is_dead(protocol, addr)
    }

    /// Puts the addresses that failed lately last, the latest failure at the very end. For
    /// candidates of several targets.
    pub(crate) fn order(&self, protocol: Protocol, addrs: &mut [SocketAddr]) {
        self.shared.dead.order(protocol, addrs);
    }

    /// Notes that `addr`, a candidate of a target, did not work. An error that says that this
    /// machine has run out of something is ignored.
    pub(crate) fn failed(&self, protocol: Protocol, addr: SocketAddr, error: &io::Error) {
        self.shared.dead.failed(protocol, addr, error);
    }

    /// Notes that `addr` answered where one that was tried before it did not.
    pub(crate) fn won(&self, addr: SocketAddr) {
        self.shared.dead.won(addr);
    }

    /// Notes that `addr` works. This is one atomic load while no address is dead.
    pub(crate) fn worked(&self, protocol: Protocol, addr: SocketAddr) {
        self.shared.dead.worked(protocol, addr);
    }

    /// Notes that a session, or a flow, could not use any address of the target. Writes
    /// `target down` when that is news.
    pub(crate) fn target_failed(&self, leg: &Leg, sign: Sign, error: &dyn Display) {
        self.shared.down.failed(leg, sign, error);
    }

    /// What is wrong with a target; `None` where it is not down.
    pub(crate) fn down(&self, leg: &Leg) -> Option<Down> {
        self.shared.down.get(leg)
    }

    /// Changes when a target goes down or comes back.
    pub(crate) fn target_changes(&self) -> watch::Receiver<()> {
        self.shared.down.changes()
    }

    /// Notes that a session reached the target, or that a flow had an answer from it. Writes
    /// `target up` when that is news. This is one atomic load while no target fails.
    pub(crate) fn target_worked(&self, leg: impl FnOnce() -> Leg) {
        self.shared.down.worked(leg);
    }
}

#[cfg(test)]
impl Dialer {
    /// A dialer with a resolver of a test.
    pub(super) fn with(resolver: Resolver) -> Self {
        Self::of(resolver, Events::default())
    }
}
