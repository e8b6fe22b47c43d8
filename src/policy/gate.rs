//! What all admissions share: the lists, the countries, the guard and the knocks.
//!
//! Owns the present content of the named lists and of the database of countries, the [`Guard`] and
//! the [`Knocks`].
//! Reads no file: the reader hands in the content. Each list is one place that all its users look
//! at. So new content counts at once, for every mapping and for `exempt`, whatever the order in
//! which a reload reaches them. A list that the configuration dropped keeps its content while a
//! user is left: a mapping whose policy changes a moment later must not refuse every client
//! meanwhile.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use ipnet::IpNet;
use tokio::sync::watch;

use super::{
    Countries, Country, Guard, GuardSpec, IpSet, KnockSpec, Knocks, ListName, Probes,
    access::{List, Side},
};
use crate::events::Events;

/// What the configuration says for all mappings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GateSpec {
    /// Where the named lists come from.
    pub lists: BTreeMap<ListName, ListSpec>,
    /// The database of countries (`[geoip] database`, in MaxMind's format).
    pub geoip: Option<PathBuf>,
    /// The guard's terms; without them no automatic ban is made or enforced.
    pub guard: Option<GuardSpec>,
    /// The terms of knocks; without them no client is let in by one.
    pub(crate) knock: Option<KnockSpec>,
}

/// Where a list comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListSpec {
    /// The configuration itself.
    Inline(Vec<IpNet>),
    /// A file, one entry a line.
    File(PathBuf),
}

/// A [`GateSpec`] with what its files held when they were read.
#[derive(Clone, Debug, Default)]
pub struct GateInput {
    /// What the configuration says.
    pub spec: GateSpec,
    /// The content of every list.
    pub lists: BTreeMap<ListName, Arc<IpSet>>,
    /// The database of countries.
    pub countries: Option<Arc<Countries>>,
}

/// The lists, the countries and the guard of the daemon.
#[derive(Debug)]
pub struct Gate {
    spec: ArcSwap<GateSpec>,
    lists: Mutex<BTreeMap<ListName, Arc<List>>>,
    countries: ArcSwapOption<Countries>,
    guard: Guard,
    knocks: Knocks,
    probes: Arc<Probes>,
    revision: watch::Sender<u64>,
}

impl Gate {
    /// A gate without lists and without bans. `dates` tells the date when a ban begins. Its bans
    /// are told to no window.
    pub fn new(dates: fn() -> SystemTime) -> Arc<Self> {
        Self::telling(dates, Events::default())
    }

    /// The same, but its bans are told to `events`.
    pub(crate) fn telling(dates: fn() -> SystemTime, events: Events) -> Arc<Self> {
        let revision = watch::Sender::new(0);
        Arc::new(Self {
            spec: ArcSwap::default(),
            lists: Mutex::default(),
            countries: ArcSwapOption::empty(),
            guard: Guard::new(revision.clone(), dates, events.clone()),
            knocks: Knocks::new(dates, events),
            probes: Arc::default(),
            revision,
        })
    }

    /// Takes what a configuration says, in place of what the one before said. Bans stay.
    pub fn apply(&self, input: &GateInput) {
        let mut changed = self.replace_lists(&input.lists);
        let countries = self.countries.swap(input.countries.clone());
        changed |= countries.as_ref().map(Arc::as_ptr) != input.countries.as_ref().map(Arc::as_ptr);
        let guard = input.spec.guard.as_ref();
        let exempt = guard.map(|guard| Side::new(&guard.exempt, |name| self.list(name))).unwrap_or_default();
        self.guard.retune(guard, exempt);
        self.knocks.retune(input.spec.knock.as_ref());
        let before = self.spec.swap(Arc::new(input.spec.clone()));
        // A client that is not exempt any more may be banned with its /64.
        changed |= before.guard != input.spec.guard;
        if changed {
            self.tell();
        }
    }

    /// What the configuration said last.
    pub fn spec(&self) -> Arc<GateSpec> {
        self.spec.load_full()
    }

    /// Replaces the content of one list: its file has changed. An unknown name is ignored.
    pub fn replace_list(&self, name: &ListName, set: Arc<IpSet>) {
        let Some(list) = self.lock().get(name).cloned() else { return };
        let changed = **list.load() != *set;
        list.store(set);
        if changed {
            self.tell();
        }
    }

    /// Replaces the database of countries: its file has changed.
    pub fn replace_countries(&self, countries: Arc<Countries>) {
        self.countries.store(Some(countries));
        self.tell();
    }

    /// The guard, with its bans.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The knocks, with their grants.
    pub(crate) fn knocks(&self) -> &Knocks {
        &self.knocks
    }

    /// The datagrams that prove a way from outside.
    pub(crate) fn probes(&self) -> &Arc<Probes> {
        &self.probes
    }

    /// A number that changes when a client may have lost its access: a list, the countries or a ban
    /// changed.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// The place of the list of that name. It is empty until the list is set.
    pub(super) fn list(&self, name: &ListName) -> Arc<List> {
        self.lock().entry(name.clone()).or_default().clone()
    }

    /// The country of `ip`; `None` without a database, and where it does not know the address.
    pub(crate) fn country(&self, ip: IpAddr) -> Option<Country> {
        self.countries.load().as_ref()?.country(ip)
    }

    /// The database of countries as it is now.
    pub(super) fn countries(&self) -> Option<Arc<Countries>> {
        self.countries.load_full()
    }

    /// Whether that changed any list.
    fn replace_lists(&self, contents: &BTreeMap<ListName, Arc<IpSet>>) -> bool {
        let mut lists = self.lock();
        lists.retain(|name, list| contents.contains_key(name) || Arc::strong_count(list) > 1);
        let mut changed = false;
        for (name, set) in contents {
            let before = lists.entry(name.clone()).or_default().swap(set.clone());
            changed |= *before != **set;
        }
        changed
    }

    fn tell(&self) {
        self.revision.send_modify(|revision| *revision = revision.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ListName, Arc<List>>> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixture::mmdb,
        policy::{Entries, access::entry::parse_net},
    };

    fn set(text: &str) -> Arc<IpSet> {
        Arc::new(IpSet::parse(text).unwrap())
    }

    fn office() -> ListName {
        ListName("office".into())
    }

    fn with_office(text: &str) -> GateInput {
        GateInput { lists: BTreeMap::from([(office(), set(text))]), ..GateInput::default() }
    }

    fn knows(list: &List, ip: &str) -> bool {
        list.load().longest(ip.parse().unwrap()).is_some()
    }

    #[test]
    fn a_list_is_one_place_in_whatever_order_its_users_and_its_content_come() {
        let gate = Gate::new(SystemTime::now);
        let early = gate.list(&office());
        assert!(!knows(&early, "10.0.0.1"));
        gate.apply(&with_office("10.0.0.0/8"));
        let late = gate.list(&office());
        assert!(Arc::ptr_eq(&early, &late) && knows(&early, "10.0.0.1"));
        gate.replace_list(&office(), set("192.0.2.0/24"));
        assert!(knows(&early, "192.0.2.1") && !knows(&early, "10.0.0.1"));

        gate.apply(&GateInput::default());
        assert!(knows(&early, "192.0.2.1"), "an earlier user finds what it had");
        gate.apply(&with_office("198.51.100.0/24"));
        assert!(knows(&early, "198.51.100.1"), "and what a later configuration says");
        drop((early, late));
        gate.apply(&GateInput::default());
        assert!(gate.lock().is_empty(), "a list without users is forgotten");
    }

    #[test]
    fn the_revision_tells_what_may_shut_somebody_out_and_nothing_else() {
        let gate = Gate::new(SystemTime::now);
        let mut revision = gate.revision();
        let mut told = |what: &str, expected: bool| {
            assert_eq!(revision.has_changed().unwrap(), expected, "{what}");
            revision.mark_unchanged();
        };
        gate.apply(&with_office("10.0.0.0/8"));
        told("a list came", true);
        gate.apply(&with_office("10.0.0.0/8"));
        told("a reload without a change", false);
        gate.replace_list(&office(), set("10.0.0.0/8\n10.1.0.0/16"));
        told("a list changed", true);
        gate.replace_list(&office(), set("10.1.0.0/16\n10.0.0.0/8"));
        told("a list was sorted", false);
        gate.replace_list(&ListName("other".into()), set("10.0.0.0/8"));
        told("this list is unknown", false);
        let bytes = mmdb::database(&[("192.0.2.0/24", "DE")]);
        gate.replace_countries(Arc::new(Countries::from_bytes(bytes).unwrap()));
        told("the countries changed", true);
        let now = tokio::time::Instant::now();
        gate.guard().ban("192.0.2.1".parse().unwrap(), None, now);
        told("a ban", true);
        gate.guard().unban("192.0.2.1".parse().unwrap());
        told("the end of a ban", false);
    }

    #[test]
    fn the_guard_sees_a_new_content_of_a_list_that_is_exempt() {
        let guard = GuardSpec {
            refusals: super::super::Rate {
                count: 1.try_into().unwrap(),
                per: std::time::Duration::from_secs(60),
                burst: 1.try_into().unwrap(),
            },
            ban: std::time::Duration::from_secs(60),
            exempt: Entries { nets: [parse_net("::1").unwrap()].into(), lists: [office()].into() },
            state: None,
        };
        let gate = Gate::new(SystemTime::now);
        let spec = GateSpec { guard: Some(guard), ..GateSpec::default() };
        gate.apply(&GateInput { spec, ..with_office("192.0.2.0/24") });
        let now = tokio::time::Instant::now();
        let trap = |ip: &str| gate.guard().trap(ip.parse().unwrap(), now).is_some();
        assert!(!trap("192.0.2.1") && !trap("::1"));
        gate.replace_list(&office(), set("198.51.100.0/24"));
        assert!(trap("192.0.2.1") && !trap("198.51.100.1"));
    }
}
