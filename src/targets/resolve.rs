//! Names to addresses, through the system resolver.
//!
//! The system resolver (`getaddrinfo`) is used, so that `/etc/hosts`, mDNS and Docker's names work
//! as in other programs. It blocks, so a lookup runs on a thread of its own (`lookup`), never on
//! the way of a byte. For each name there is at most one lookup every [`REFRESH`]; sessions that
//! come in between take its answer, good or bad. When a lookup fails, the last good addresses are
//! kept: a resolver that is down for a minute ends nothing. Each caller says how long it can wait.
//! A lookup that takes longer goes on for the next callers.
//!
//! An answer may mean "nowhere" (0.0.0.0 or `::`, from a resolver that blocks names), which the
//! kernel takes for this machine. Such an address is never passed on. An answer that is loopback,
//! to another name than `localhost`, is passed on with one warning: it leads strangers to what
//! listens on this machine only.
//!
//! The table holds one entry for each name of the configuration, so strangers cannot make it grow.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;

use super::{
    lookup::{LookupResult, Lookups, Past},
    srv::{NameServices, Services},
};
use crate::{
    mapping::{Host, TargetAddr, is_loopback, is_nowhere},
    sock::scoped,
};

/// The least time between two lookups of one name.
const REFRESH: Duration = Duration::from_secs(5);
/// How long a session waits at the most for a lookup when it could use an older answer instead.
const PATIENCE_WITH_FALLBACK: Duration = Duration::from_secs(1);
/// One of so many parts of its time is what a session spends on that.
const FALLBACK_PART: u32 = 4;

/// The names that are handed to the next process, and the addresses of each that are taken over.
const MOST_HANDED_OVER: usize = 4096;
const MOST_ADDRESSES: usize = 256;

/// A name and its addresses.
pub(super) type NameAddrs = (Arc<str>, Vec<IpAddr>);

/// Why a target has no address.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    /// The system resolver said no.
    #[error("resolve {name}: {reason}")]
    Failed {
        /// The name asked for.
        name: Arc<str>,
        /// The resolver's words.
        reason: Arc<str>,
    },
    /// The system resolver did not answer in time.
    #[error("resolve {name}: the lookup took longer than {} ms; is the name server there?", limit.as_millis())]
    TimedOut {
        /// The name asked for.
        name: Arc<str>,
        /// How long it was waited for.
        limit: Duration,
    },
    /// Every address is one that portway itself listens on.
    #[error("loop: {target} leads to {addr}, where portway itself listens")]
    Loop {
        /// The target.
        target: TargetAddr,
        /// The last of its addresses.
        addr: SocketAddr,
    },
    /// Every address is one where portway's own API answers.
    #[error("{target} leads to {addr}, where portway's own API listens: a mapping must not publish it")]
    Api {
        /// The target.
        target: TargetAddr,
        /// The last of its addresses.
        addr: SocketAddr,
    },
    /// The interface of a link-local address is not there.
    #[error("interface {zone} of {target}: {reason}")]
    NoInterface {
        /// The target.
        target: TargetAddr,
        /// The interface's name.
        zone: String,
        /// What the system said.
        reason: Arc<str>,
    },
}

/// Resolves the names of targets. Clones share one table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resolver {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    names: Mutex<HashMap<Arc<str>, NameRecord>>,
    services: Services,
    lookups: Lookups,
    tasks: TaskTracker,
}

/// What is known of one name.
#[derive(Debug, Default)]
struct NameRecord {
    last_good: Option<Arc<[IpAddr]>>,
    /// The latest lookup, running or finished, and when it was started.
    latest: Option<(Instant, watch::Receiver<Option<LookupResult>>)>,
    past: Past,
    /// Why the last lookup failed, if it did: the same reason is logged once.
    failing: Option<Arc<str>>,
    /// The warning about loopback was written.
    warned: bool,
}

impl Resolver {
    /// The addresses of `target`: at least one, in the resolver's order of preference, after
    /// `patience` at the most. A literal address costs nothing.
    ///
    /// # Errors
    /// [`ResolveError`] when the name has no address in time and has never had one.
    pub(crate) async fn resolve(
        &self,
        target: &TargetAddr,
        patience: Duration,
    ) -> Result<Vec<SocketAddr>, ResolveError> {
        let port = target.port.get();
        match &target.host {
            Host::Ip(ip, None) => Ok(vec![SocketAddr::new(*ip, port)]),
            Host::Ip(ip, Some(zone)) => match scoped(*ip, zone, port) {
                Ok(addr) => Ok(vec![addr]),
                Err(error) => Err(ResolveError::NoInterface {
                    target: target.clone(),
                    zone: zone.as_str().to_owned(),
                    reason: error.to_string().into(),
                }),
            },
            // Boxed, as above.
            Host::Srv(name) => Box::pin(self.service(name, patience)).await,
            // Boxed: a session's task is as large as its largest state, and most sessions never
            // come here.
            Host::Name(name) => {
                let ips = Box::pin(self.lookup(name, patience)).await?;
                Ok(ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect())
            }
        }
    }

    /// The addresses of the machines that have a service, in the order of its records. One machine
    /// without an address does not matter.
    async fn service(&self, name: &Arc<str>, patience: Duration) -> Result<Vec<SocketAddr>, ResolveError> {
        let deadline = Instant::now() + patience;
        let shared = &self.shared;
        let records = shared.services.records(name, patience, &shared.tasks).await;
        let records = records.map_err(|reason| ResolveError::Failed { name: Arc::clone(name), reason })?;
        // All at once: none waits for the ones before it.
        records.iter().for_each(|record| drop(self.latest(&record.name)));
        let (mut addrs, mut missed) = (Vec::new(), None);
        for record in &records {
            match self.lookup(&record.name, deadline.saturating_duration_since(Instant::now())).await {
                Ok(ips) => addrs.extend(ips.iter().map(|ip| SocketAddr::new(*ip, record.port.get()))),
                Err(error) => missed = Some(error),
            }
        }
        match missed {
            Some(error) if addrs.is_empty() => Err(error),
            _ => Ok(addrs),
        }
    }

    async fn lookup(&self, name: &Arc<str>, patience: Duration) -> Result<Arc<[IpAddr]>, ResolveError> {
        let (last_good, mut latest) = self.latest(name);
        let limit = match last_good {
            Some(_) => PATIENCE_WITH_FALLBACK.min(patience / FALLBACK_PART),
            None => patience,
        };
        // It is late, or its task was lost with the runtime, where the answer is missing.
        let waited = timeout(limit, latest.wait_for(Option::is_some)).await;
        let answer = waited.ok().and_then(Result::ok).and_then(|answer| answer.clone());
        match (answer, last_good) {
            (Some(Ok(ips)), _) | (_, Some(ips)) => Ok(ips),
            (Some(Err(reason)), None) => Err(ResolveError::Failed { name: Arc::clone(name), reason }),
            (None, None) => Err(ResolveError::TimedOut { name: Arc::clone(name), limit }),
        }
    }

    /// The last good addresses of `name`, and its latest lookup: one is started where the last is
    /// older than [`REFRESH`].
    fn latest(&self, name: &Arc<str>) -> (Option<Arc<[IpAddr]>>, watch::Receiver<Option<LookupResult>>) {
        let now = Instant::now();
        let mut names = self.shared.names.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = names.entry(Arc::clone(name)).or_default();
        if let Some((started, latest)) = &entry.latest {
            let running = latest.borrow().is_none() && latest.has_changed().is_ok();
            if running || now.duration_since(*started) < REFRESH {
                return (entry.last_good.clone(), latest.clone());
            }
        }
        let (done, latest) = watch::channel(None);
        entry.latest = Some((now, latest.clone()));
        let (last_good, past) = (entry.last_good.clone(), entry.past.clone());
        let (shared, name) = (Arc::clone(&self.shared), Arc::clone(name));
        self.shared.tasks.spawn(async move {
            let (answer, was_slow) = shared.lookups.ask(&name, past).await;
            let answer = answer.and_then(|ips| somewhere(&ips));
            shared.note(&name, &answer, was_slow);
            done.send_replace(Some(answer));
        });
        (last_good, latest)
    }
}

impl Resolver {
    /// The last good addresses of each name, for the next process.
    pub(super) fn snapshot(&self) -> Vec<NameAddrs> {
        let names = self.shared.names.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names.iter().filter_map(|(name, entry)| Some((name, entry.last_good.as_ref()?)));
        known.map(|(name, ips)| (Arc::clone(name), ips.to_vec())).take(MOST_HANDED_OVER).collect()
    }

    /// The same for the names of services.
    pub(super) fn services(&self) -> Vec<NameServices> {
        self.shared.services.snapshot()
    }

    /// Takes over the last good answers about services.
    pub(super) fn take_over_services(&self, known: &[NameServices]) {
        self.shared.services.take_over(known);
    }

    /// Takes over the last good addresses: a resolver that is down at this moment ends nothing, and
    /// one that is slow delays nothing. Only names of the configuration are ever asked for.
    pub(super) fn take_over(&self, known: &[NameAddrs]) {
        let mut names = self.shared.names.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, ips) in known.iter().take(MOST_HANDED_OVER) {
            if let Host::Name(name) = Host::name(name).unwrap_or(Host::LOOPBACK)
                && let Ok(ips) = somewhere(&ips.iter().copied().take(MOST_ADDRESSES).collect())
            {
                names.entry(name).or_default().last_good.get_or_insert(ips);
            }
        }
    }
}

impl Shared {
    fn note(&self, name: &Arc<str>, answer: &LookupResult, was_slow: bool) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = names.entry(Arc::clone(name)).or_default();
        entry.past.was_slow = was_slow;
        match answer {
            Ok(ips) => {
                if entry.last_good.as_ref() != Some(ips) {
                    tracing::debug!(name = %name, addresses = ?ips, "name resolved");
                }
                if let Some(ip) = ips.iter().find(|ip| is_loopback(**ip))
                    && !is_localhost(name)
                    && !std::mem::replace(&mut entry.warned, true)
                {
                    tracing::warn!(name = %name, address = %ip, "name resolves to loopback; if this machine is meant, use 127.0.0.1 or localhost");
                }
                entry.failing = None;
                entry.last_good = Some(Arc::clone(ips));
            }
            Err(reason) if entry.failing.as_ref() == Some(reason) => {
                tracing::debug!(name = %name, error = %reason, "name does not resolve");
            }
            Err(reason) => {
                entry.failing = Some(Arc::clone(reason));
                if entry.last_good.is_some() {
                    tracing::warn!(name = %name, error = %reason, "name does not resolve; its last address is kept");
                } else {
                    tracing::warn!(name = %name, error = %reason, "name does not resolve");
                }
            }
        }
    }
}

/// The addresses of an answer that may be targets, or why there is none.
fn somewhere(ips: &Arc<[IpAddr]>) -> LookupResult {
    let good: Arc<[IpAddr]> = match ips.iter().find(|ip| is_nowhere(**ip)) {
        None => Arc::clone(ips),
        Some(_) => ips.iter().copied().filter(|ip| !is_nowhere(*ip)).collect(),
    };
    match ips.first() {
        None => Err("the name has no address".into()),
        Some(ip) if good.is_empty() => {
            Err(format!("its address {ip} stands for no machine; does the name server block the name?")
                .into())
        }
        Some(_) => Ok(good),
    }
}

/// Whether a name means this machine (RFC 6761, section 6.3).
fn is_localhost(name: &str) -> bool {
    let last = name.trim_end_matches('.').rsplit('.').next();
    last.is_some_and(|label| label.eq_ignore_ascii_case("localhost"))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    impl Resolver {
        /// A resolver in the middle of a lookup of `name`, which ends with the addresses that the
        /// function is called with.
        pub(in crate::targets) fn asking(name: &Arc<str>) -> (Self, impl Fn(&[IpAddr]) + use<>) {
            let resolver = Self::default();
            let (done, latest) = watch::channel(None);
            let entry = NameRecord { latest: Some((Instant::now(), latest)), ..NameRecord::default() };
            resolver.shared.names.lock().unwrap().insert(Arc::clone(name), entry);
            let (asked, name) = (resolver.clone(), Arc::clone(name));
            let answer = move |ips: &[IpAddr]| {
                asked.remembers(&name, ips);
                done.send_replace(Some(Ok(ips.into())));
            };
            (resolver, answer)
        }

        /// Knows `ips` from an earlier lookup of `name`.
        pub(in crate::targets) fn remembers(&self, name: &Arc<str>, ips: &[IpAddr]) {
            self.shared.note(name, &Ok(ips.into()), false);
        }
    }

    const PATIENCE: Duration = Duration::from_secs(10);

    fn target(host: Host) -> TargetAddr {
        TargetAddr { host, port: NonZeroU16::new(80).expect("not 0") }
    }

    #[tokio::test]
    async fn a_literal_address_is_its_own_answer() {
        let answer = Resolver::default().resolve(&target(Host::LOOPBACK), PATIENCE).await.unwrap();
        assert_eq!(answer, ["127.0.0.1:80".parse().unwrap()]);
    }

    #[tokio::test]
    async fn localhost_resolves_through_the_system() {
        let answer =
            Resolver::default().resolve(&target(Host::name("localhost").unwrap()), PATIENCE).await.unwrap();
        assert!(answer.iter().all(|a| a.ip().is_loopback() && a.port() == 80), "{answer:?}");
    }

    #[tokio::test]
    async fn a_failed_lookup_is_not_repeated_within_five_seconds() {
        let resolver = Resolver::default();
        let name: Arc<str> = "x".repeat(64).into(); // A label that no resolver can send.
        let nowhere = target(Host::Name(Arc::clone(&name)));
        resolver.resolve(&nowhere, PATIENCE).await.unwrap_err();
        let started = |r: &Resolver| r.shared.names.lock().unwrap()[&name].latest.as_ref().unwrap().0;
        // Not before: a paused clock does not wait for the thread of a lookup.
        tokio::time::pause();
        let first = started(&resolver);
        resolver.resolve(&nowhere, PATIENCE).await.unwrap_err();
        assert_eq!(started(&resolver), first);
        tokio::time::advance(REFRESH).await;
        resolver.resolve(&nowhere, PATIENCE).await.unwrap_err();
        assert!(started(&resolver) > first);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_good_address_outlives_a_failing_resolver() {
        let resolver = Resolver::default();
        let name: Arc<str> = "x".repeat(64).into(); // A label that no resolver can send.
        resolver.remembers(&name, &[[192, 0, 2, 7].into()]);
        let answer = resolver.resolve(&target(Host::Name(name)), PATIENCE).await.unwrap();
        assert_eq!(answer, ["192.0.2.7:80".parse().unwrap()]);
    }

    #[test]
    fn an_answer_that_stands_for_no_machine_is_not_passed_on() {
        let answer = |ips: &[&str]| somewhere(&ips.iter().map(|ip| ip.parse().unwrap()).collect());
        assert_eq!(*answer(&["::", "10.0.0.1", "0.0.0.0"]).unwrap(), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert!(answer(&["0.0.0.0", "::"]).unwrap_err().contains("0.0.0.0 stands for no machine"));
        assert!(answer(&[]).is_err());
    }

    #[test]
    fn localhost_is_a_name_of_this_machine() {
        assert!(["localhost", "LocalHost.", "db.localhost"].into_iter().all(is_localhost));
        assert!(!["localhost.example.org", "mylocalhost", "x"].into_iter().any(is_localhost));
    }
}
