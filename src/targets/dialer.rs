//! What every listener shares to reach its targets.
//!
//! Owns the answers to lookups ([`Resolver`]), the addresses that failed lately, the targets that
//! are down, and what listens here. A caller takes the targets in the order of the mapping's pool,
//! asks for the candidates of each ([`Dialer::candidates`]), and reports what came of each address
//! and of each target. The relay of TCP reports what its connects say. The relay of UDP reports
//! refusals and answers.

use std::{fmt::Display, io, net::SocketAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};

use super::{
    ResolveError, Resolver,
    dead::{AddrsRecord, DeadAddrs},
    down::{Down, DownRecord, DownTargets, Leg, Sign},
    own::{Own, OwnListeners},
    race,
    resolve::NameAddrs,
    srv::NameServices,
};
use crate::{
    events::Events,
    handover::lenient,
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

/// What a dialer knows, as it is handed to the next process. Not what listens here: the next
/// process has listeners of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DialerRecord {
    #[serde(deserialize_with = "lenient::some")]
    addrs: Option<AddrsRecord>,
    #[serde(deserialize_with = "lenient::each")]
    down: Vec<DownRecord>,
    #[serde(deserialize_with = "lenient::each")]
    names: Vec<NameAddrs>,
    #[serde(deserialize_with = "lenient::each")]
    services: Vec<NameServices>,
}

impl Dialer {
    /// What is handed to the next process.
    pub(crate) fn snapshot(&self, now: Instant) -> DialerRecord {
        let Shared { resolver, dead, down, .. } = &*self.shared;
        DialerRecord {
            addrs: Some(dead.snapshot(now)),
            down: down.snapshot(now),
            names: resolver.snapshot(),
            services: resolver.services(),
        }
    }

    /// Takes over what an earlier process knew. What this one has learnt itself stays.
    pub(crate) fn take_over(&self, record: &DialerRecord, now: Instant) {
        let Shared { resolver, dead, down, .. } = &*self.shared;
        if let Some(addrs) = &record.addrs {
            dead.take_over(addrs, now);
        }
        down.take_over(&record.down, now);
        resolver.take_over(&record.names);
        resolver.take_over_services(&record.services);
    }

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

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU16, time::Duration};

    use super::*;
    use crate::{
        fixture::{LogCatcher, each_spoilt},
        mapping::MappingName,
    };

    fn leg(name: &str) -> Leg {
        let target = TargetAddr { host: Host::name(name).unwrap(), port: NonZeroU16::MIN };
        Leg { mapping: MappingName::new("web").unwrap(), protocol: Protocol::Tcp, target }
    }

    fn addr(n: u8) -> SocketAddr {
        ([192, 0, 2, n], 1).into()
    }

    fn known() -> Dialer {
        let dialer = Dialer::with(Resolver::default());
        dialer.shared.resolver.remembers(&"x".repeat(64).into(), &[[192, 0, 2, 7].into()]);
        dialer.shared.resolver.remembers(&"nas.lan".into(), &[[192, 0, 2, 8].into()]);
        dialer.failed(Protocol::Tcp, addr(1), &io::Error::from(io::ErrorKind::TimedOut));
        dialer.won(addr(3));
        dialer.target_failed(&leg("nas.lan"), Sign::Clear, &"no route");
        dialer.target_failed(&leg("other.lan"), Sign::Doubtful, &"reset");
        dialer
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_and_what_worked_is_known_in_the_next_process() {
        let before = known();
        tokio::time::advance(Duration::from_millis(300)).await;
        let json = serde_json::to_string(&before.snapshot(Instant::now())).unwrap();
        let log = LogCatcher::start();
        let next = Dialer::with(Resolver::default());
        let mut changes = next.target_changes();
        next.take_over(&serde_json::from_str(&json).unwrap(), Instant::now());
        assert!(changes.has_changed().unwrap(), "who closes listeners of such targets hears of it");
        changes.mark_unchanged();
        assert!(next.is_dead(Protocol::Tcp, addr(1)) && !next.is_dead(Protocol::Udp, addr(1)));
        assert_eq!(next.down(&leg("nas.lan")), before.down(&leg("nas.lan")));
        assert_eq!(next.down(&leg("other.lan")), None);
        next.target_failed(&leg("other.lan"), Sign::Doubtful, &"reset");
        assert!(next.down(&leg("other.lan")).is_some(), "the second failure in a row");
        next.target_failed(&leg("nas.lan"), Sign::Clear, &"no route");
        next.target_worked(|| leg("nas.lan"));
        let lines = log.lines();
        let said = |what| lines.iter().filter(|line| line.contains(what)).count();
        assert_eq!((said("target down"), said("target up")), (1, 1), "{lines:#?}");
        let mut addrs = [addr(2), addr(3)];
        next.shared.dead.winner_first(&mut addrs);
        assert_eq!(addrs, [addr(3), addr(2)]);
        // Half of the first second is over.
        tokio::time::advance(Duration::from_millis(700)).await;
        assert!(!next.is_dead(Protocol::Tcp, addr(1)));
        next.failed(Protocol::Tcp, addr(1), &io::Error::from(io::ErrorKind::TimedOut));
        tokio::time::advance(Duration::from_millis(1900)).await;
        assert!(next.is_dead(Protocol::Tcp, addr(1)), "the next hold is twice as long");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_does_not_resolve_at_this_moment_leads_where_it_led_before() {
        let dialer = Dialer::with(Resolver::default());
        let (asking, _answer) = Resolver::asking(&"nas.lan".into());
        let next = Dialer::with(asking);
        dialer.shared.resolver.remembers(&"nas.lan".into(), &[[192, 0, 2, 8].into()]);
        next.take_over(&dialer.snapshot(Instant::now()), Instant::now());
        let found = next.candidates(Protocol::Tcp, &leg("nas.lan").target, Duration::from_secs(9)).await;
        assert_eq!(found.unwrap(), [addr(8)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_spoilt_record_does_not_panic() {
        each_spoilt(&known().snapshot(Instant::now()), |spoilt| {
            let Ok(record) = serde_json::from_value::<DialerRecord>(spoilt) else { return };
            let next = Dialer::with(Resolver::default());
            next.take_over(&record, Instant::now());
            next.take_over(&record, Instant::now());
            next.target_failed(&leg("nas.lan"), Sign::Clear, &"no route");
            next.target_worked(|| leg("nas.lan"));
            next.failed(Protocol::Tcp, addr(1), &io::Error::from(io::ErrorKind::TimedOut));
            let _ = next.snapshot(Instant::now());
        });
    }
}
