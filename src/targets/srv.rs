//! SRV names: on which machines and ports a service is (RFC 2782).
//!
//! Owns the records of each name. They are asked for by a resolver of our own, because the system's
//! gives only addresses. The addresses of the machines come from the system's resolver, as those of
//! all other names do. An answer is used for as long as its TTL says, from [`SHORTEST`] to
//! [`LONGEST`]; later the last good answer is used where no other one comes. A target of `.` says
//! that there is no such service, which ends the use of an earlier answer.

use std::{
    collections::HashMap,
    num::NonZeroU16,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;

use crate::mapping::Host;

/// The least time that an answer is used.
const SHORTEST: Duration = Duration::from_secs(5);
/// The longest.
const LONGEST: Duration = Duration::from_secs(300);
/// A lookup that takes longer has failed.
const GIVE_UP: Duration = Duration::from_secs(30);
/// How long a session waits at the most for a lookup when it could use an older answer instead.
const PATIENCE_WITH_FALLBACK: Duration = Duration::from_secs(1);
/// The most records of a name that are used.
const MOST: usize = 32;
/// The most names that are taken over from another process.
const MOST_HANDED_OVER: usize = 1024;

/// A machine and port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SrvRecord {
    /// Those with the lowest number are tried first.
    pub priority: u16,
    /// Its share of those with the same priority.
    pub weight: u16,
    /// The port.
    pub port: NonZeroU16,
    /// The name of the machine.
    pub name: Arc<str>,
}

/// What a lookup found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// The service is there, so long.
    Records(Arc<[SrvRecord]>, Duration),
    /// It is not there, as its domain says.
    NoService,
    /// Nothing is known.
    Failed(Arc<str>),
}

/// The records of all names. Clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Services {
    names: Arc<Mutex<HashMap<Arc<str>, Entry>>>,
    client: Arc<client::Client>,
}

/// What is known of one name.
#[derive(Debug, Default)]
struct Entry {
    last_good: Option<Arc<[SrvRecord]>>,
    /// Until when the last answer holds.
    until: Option<Instant>,
    /// The latest lookup, running or finished.
    latest: Option<watch::Receiver<Option<Answer>>>,
    /// Why the last lookup failed, if it did: the same reason is logged once.
    failing: Option<Arc<str>>,
}

impl Services {
    /// The records of `name`, those that are tried first in front; an error after `patience` at the
    /// most.
    pub(super) async fn records(
        &self,
        name: &Arc<str>,
        patience: Duration,
        tasks: &TaskTracker,
    ) -> Result<Vec<SrvRecord>, Arc<str>> {
        let (last_good, mut latest) = self.latest(name, tasks);
        let limit = if last_good.is_some() { PATIENCE_WITH_FALLBACK.min(patience / 4) } else { patience };
        let waited = timeout(limit, latest.wait_for(Option::is_some)).await;
        let answer = waited.ok().and_then(Result::ok).and_then(|answer| answer.clone());
        let records = match (answer, last_good) {
            (Some(Answer::Records(records, _)), _) => records,
            (Some(Answer::NoService), _) => {
                return Err("its SRV record says that there is no such service".into());
            }
            (_, Some(records)) => records,
            (Some(Answer::Failed(reason)), None) => return Err(reason),
            (None, None) => {
                return Err(format!("the lookup took longer than {} ms", limit.as_millis()).into());
            }
        };
        Ok(in_order(&records, |below| fastrand::u32(..below)))
    }

    /// The last good answer for `name`, and its latest lookup: one is started where the last answer
    /// no longer holds.
    fn latest(
        &self,
        name: &Arc<str>,
        tasks: &TaskTracker,
    ) -> (Option<Arc<[SrvRecord]>>, watch::Receiver<Option<Answer>>) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = names.entry(Arc::clone(name)).or_default();
        if let Some(latest) = &entry.latest {
            let running = latest.borrow().is_none() && latest.has_changed().is_ok();
            if running || entry.until.is_some_and(|until| Instant::now() < until) {
                return (entry.last_good.clone(), latest.clone());
            }
        }
        let (done, latest) = watch::channel(None);
        entry.latest = Some(latest.clone());
        let last_good = entry.last_good.clone();
        let (services, name) = (self.clone(), Arc::clone(name));
        tasks.spawn(async move {
            let asked = timeout(GIVE_UP, services.client.ask(&name)).await;
            let answer = asked.unwrap_or_else(|_| {
                Answer::Failed(format!("no answer within {} s", GIVE_UP.as_secs()).into())
            });
            services.note(&name, &answer);
            done.send_replace(Some(answer));
        });
        (last_good, latest)
    }

    fn note(&self, name: &Arc<str>, answer: &Answer) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = names.entry(Arc::clone(name)).or_default();
        let held = if let Answer::Records(_, ttl) = answer { *ttl } else { SHORTEST };
        entry.until = Some(Instant::now() + held.clamp(SHORTEST, LONGEST));
        let failing = match answer {
            Answer::Records(records, _) => {
                if entry.last_good.as_ref() != Some(records) {
                    tracing::debug!(name = %name, records = ?records, "SRV name resolved");
                }
                entry.last_good = Some(Arc::clone(records));
                None
            }
            Answer::NoService => {
                entry.last_good = None;
                Some("its SRV record says that there is no such service".into())
            }
            Answer::Failed(reason) => Some(Arc::clone(reason)),
        };
        if failing != entry.failing
            && let Some(reason) = &failing
        {
            let is_kept = entry.last_good.is_some();
            tracing::warn!(name = %name, error = %reason, last_answer_kept = is_kept, "SRV name does not resolve");
        }
        entry.failing = failing;
    }
}

/// A name and the priority, weight, port and machine of each of its records.
pub(super) type NameServices = (Arc<str>, Vec<(u16, u16, NonZeroU16, Arc<str>)>);

impl Services {
    /// The last good answer for each name, for the next process.
    pub(super) fn snapshot(&self) -> Vec<NameServices> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names.iter().filter_map(|(name, entry)| Some((name, entry.last_good.as_ref()?)));
        let plain =
            |record: &SrvRecord| (record.priority, record.weight, record.port, Arc::clone(&record.name));
        known.map(|(name, records)| (Arc::clone(name), records.iter().map(plain).collect())).collect()
    }

    /// Takes over the last good answers.
    pub(super) fn take_over(&self, known: &[NameServices]) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, records) in known.iter().take(MOST_HANDED_OVER) {
            let records = records.iter().filter(|(.., machine)| Host::name(machine).is_some()).take(MOST);
            let records: Arc<[SrvRecord]> = records
                .map(|(priority, weight, port, machine)| SrvRecord {
                    priority: *priority,
                    weight: *weight,
                    port: *port,
                    name: Arc::clone(machine),
                })
                .collect();
            if Host::srv(name).is_some() && !records.is_empty() {
                names.entry(Arc::clone(name)).or_default().last_good.get_or_insert(records);
            }
        }
    }
}

/// The records in the order in which they are tried: by priority, and by chance, as their weights
/// say, within one. `chance` gives a number below the one that it gets.
fn in_order(records: &[SrvRecord], mut chance: impl FnMut(u32) -> u32) -> Vec<SrvRecord> {
    let mut left: Vec<&SrvRecord> = records.iter().collect();
    // A weight of 0 comes in front, so that it has a small chance, too.
    left.sort_by_key(|record| (record.priority, record.weight));
    let mut order = Vec::with_capacity(left.len());
    while let Some(first) = left.first() {
        let equal = left.iter().take_while(|record| record.priority == first.priority).count();
        let sum: u32 = left[..equal].iter().map(|record| u32::from(record.weight)).sum();
        let mut chosen = chance(sum + 1);
        let at = left[..equal].iter().position(|record| {
            let is_here = chosen <= u32::from(record.weight);
            chosen = chosen.saturating_sub(u32::from(record.weight));
            is_here
        });
        order.push(left.remove(at.unwrap_or(0)).clone());
    }
    order
}

#[cfg(feature = "srv")]
mod client {
    //! The resolver that asks for SRV records, with the name servers of `/etc/resolv.conf`.

    use std::{fs, num::NonZeroU16, sync::Mutex, sync::PoisonError, time::Duration, time::SystemTime};

    use hickory_resolver::{Resolver, TokioResolver, proto::rr::RData};

    use super::{Answer, MOST, SrvRecord};

    const RESOLV_CONF: &str = "/etc/resolv.conf";

    /// What tells one state of the file from the next.
    type Stamp = Option<(SystemTime, u64)>;

    /// The resolver of the file as it is. A changed file makes another one.
    #[derive(Debug, Default)]
    pub(super) struct Client(Mutex<Option<(Stamp, TokioResolver)>>);

    impl Client {
        fn resolver(&self) -> Result<TokioResolver, String> {
            let stamp =
                fs::metadata(RESOLV_CONF).ok().and_then(|file| Some((file.modified().ok()?, file.len())));
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((of, resolver)) = &*known
                && *of == stamp
            {
                return Ok(resolver.clone());
            }
            let mut builder =
                Resolver::builder_tokio().map_err(|error| format!("read {RESOLV_CONF}: {error}"))?;
            // How long an answer is used is decided here.
            builder.options_mut().cache_size = 0;
            let resolver = builder.build().map_err(|error| error.to_string())?;
            *known = Some((stamp, resolver.clone()));
            Ok(resolver)
        }

        pub(super) async fn ask(&self, name: &str) -> Answer {
            let resolver = match self.resolver() {
                Ok(resolver) => resolver,
                Err(error) => return Answer::Failed(error.into()),
            };
            // With the dot, no domain of the machine is tried behind it.
            let whole = format!("{}.", name.trim_end_matches('.'));
            let found = match resolver.srv_lookup(whole).await {
                Ok(found) => found,
                Err(error) if error.is_no_records_found() => {
                    return Answer::Failed("the name has no SRV record".into());
                }
                Err(error) => return Answer::Failed(error.to_string().into()),
            };
            let mut ttl = u32::MAX;
            let (mut records, mut denies) = (Vec::new(), false);
            for answer in found.answers() {
                let RData::SRV(srv) = &answer.data else { continue };
                ttl = ttl.min(answer.ttl);
                denies |= srv.target.is_root();
                if let Some(port) = NonZeroU16::new(srv.port)
                    && !srv.target.is_root()
                    && records.len() < MOST
                {
                    let name = srv.target.to_ascii().trim_end_matches('.').into();
                    records.push(SrvRecord { priority: srv.priority, weight: srv.weight, port, name });
                }
            }
            match records.is_empty() {
                true if denies => Answer::NoService,
                true => Answer::Failed("the name has no usable SRV record".into()),
                false => Answer::Records(records.into(), Duration::from_secs(ttl.into())),
            }
        }
    }
}

#[cfg(not(feature = "srv"))]
mod client {
    //! Instead of the resolver, in a build without it.

    use super::Answer;

    /// It knows nothing.
    #[derive(Debug, Default)]
    pub(super) struct Client;

    impl Client {
        #[expect(clippy::unused_async, reason = "the other one waits")]
        pub(super) async fn ask(&self, _: &str) -> Answer {
            Answer::Failed("this build of portway looks up no SRV names".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(priority: u16, weight: u16, name: &str) -> SrvRecord {
        SrvRecord { priority, weight, port: NonZeroU16::MIN, name: name.into() }
    }

    fn names(order: &[SrvRecord]) -> Vec<&str> {
        order.iter().map(|record| &*record.name).collect()
    }

    #[test]
    fn the_lowest_priority_is_tried_first_and_every_record_in_the_end() {
        let all = [record(20, 5, "c"), record(10, 0, "a"), record(10, 0, "b"), record(30, 1, "d")];
        for _ in 0..100 {
            let order = in_order(&all, |below| fastrand::u32(..below));
            let order = names(&order);
            assert_eq!(order.len(), 4);
            assert_eq!(order[2..], ["c", "d"], "{order:?}");
        }
    }

    #[test]
    fn within_a_priority_the_weights_are_shares() {
        let all =
            [record(1, 60, "heavy"), record(1, 30, "half"), record(1, 10, "light"), record(1, 0, "none")];
        let mut rng = fastrand::Rng::with_seed(7);
        let mut first = HashMap::<String, u32>::new();
        for _ in 0..10_000 {
            let order = in_order(&all, |below| rng.u32(..below));
            *first.entry(order[0].name.to_string()).or_default() += 1;
        }
        for (name, share) in [("heavy", 6000_u32), ("half", 3000), ("light", 1000)] {
            assert!(first[name].abs_diff(share) < 300, "{first:?}");
        }
        assert!(first["none"] > 0, "a weight of 0 has a small chance");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_good_answer_is_kept_until_the_domain_says_no() {
        let (services, tasks) = (Services::default(), TaskTracker::new());
        let name = Arc::<str>::from("_x._tcp.example.org");
        let records: Arc<[SrvRecord]> = [record(1, 1, "a")].into();
        services.note(&name, &Answer::Records(records, Duration::from_secs(1)));
        services.note(&name, &Answer::Failed("no answer".into()));
        let running = |services: &Services| {
            let (done, latest) = watch::channel(None);
            services.names.lock().unwrap().get_mut(&name).unwrap().latest = Some(latest);
            done
        };
        let _never = running(&services);
        let found = services.records(&name, Duration::from_secs(8), &tasks).await.unwrap();
        assert_eq!(names(&found), ["a"]);
        let done = running(&services);
        services.note(&name, &Answer::NoService);
        done.send_replace(Some(Answer::NoService));
        let said = services.records(&name, Duration::from_secs(8), &tasks).await.unwrap_err();
        assert!(said.contains("no such service"), "{said}");
    }
}
