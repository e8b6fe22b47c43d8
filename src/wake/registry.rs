//! Every thing that can be started, found again by what it is.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::{
    Start, State, WakeSpec, Waker,
    engine::Engine,
    ledger::LedgerRecord,
    starter::{Call, Starter},
};
use crate::{
    events::Events,
    handover::lenient,
    mapping::{MappingName, TargetAddr},
};

/// Every thing that can be started. It lives as long as the daemon, so that a reload forgets
/// nothing. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Wakers(Arc<Registry>);

#[derive(Debug)]
struct Registry {
    engines: Mutex<HashMap<Key, Arc<Engine>>>,
    tasks: TaskTracker,
    events: Events,
}

/// Where a session that needs a target comes from. A command gets it as `PORTWAY_MAPPING`,
/// `PORTWAY_HOST` and `PORTWAY_TARGET`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// Its mapping.
    pub mapping: &'a MappingName,
    /// The name of the table that matched, where the mapping routes by names: not what a stranger
    /// said, as each name is a thing of its own.
    pub host: Option<&'a str>,
    /// The first of its targets.
    pub target: &'a TargetAddr,
}

/// What windows show of one thing that can be started.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    /// The mapping whose session came first.
    pub mapping: MappingName,
    /// What starts it: `unit minecraft.service`.
    pub what: Arc<str>,
    /// How it is with it.
    pub state: State,
    /// Sessions that keep it awake.
    pub sessions: usize,
}

/// What is known of the things that can be started, as it is handed to the next process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct WakeRecord(#[serde(deserialize_with = "lenient::each")] Vec<ThingRecord>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ThingRecord {
    start: Start,
    mapping: MappingName,
    #[serde(default)]
    host: Option<Arc<str>>,
    target: Arc<str>,
    ledger: LedgerRecord,
}

/// What makes two sessions need the same thing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    start: Start,
    /// A command is told whom it is for, so it is another one for each mapping and host name.
    owner: Option<Owner>,
}

/// Whom a command is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Owner {
    /// The name of the mapping, without the protocol that a default name has: TCP and UDP of one
    /// mapping lead to the same thing.
    mapping: Box<str>,
    host: Option<Box<str>>,
}

impl Wakers {
    /// Knows of nothing yet. `events` hears of starts and stops.
    pub(crate) fn new(events: Events) -> Self {
        Self(Arc::new(Registry { engines: Mutex::default(), tasks: TaskTracker::new(), events }))
    }

    /// The way to the target of a session at `place`.
    pub(crate) fn of(&self, spec: &Arc<WakeSpec>, place: Place<'_>) -> Waker {
        let key = Key::new(spec, place.mapping, place.host);
        let mut engines = self.engines();
        let engine = engines.entry(key).or_insert_with(|| {
            let call = Call {
                mapping: place.mapping.clone(),
                host: place.host.map(Into::into),
                target: place.target.to_string().into(),
            };
            let (tasks, events) = (self.0.tasks.clone(), self.0.events.clone());
            Arc::new(Engine::new(Starter::of(&spec.start, &tasks), call, tasks, events))
        });
        Waker { engine: Arc::clone(engine), spec: Arc::clone(spec) }
    }

    /// Keeps what a new plan still starts: these specs of these mappings. Anything else is left as
    /// it is, running or not, and is forgotten with its last session.
    pub(crate) fn keep<'a>(&self, planned: impl IntoIterator<Item = (&'a MappingName, &'a WakeSpec)>) {
        let mut engines = self.engines();
        if engines.is_empty() {
            return;
        }
        let planned: Vec<(&MappingName, &WakeSpec)> = planned.into_iter().collect();
        engines.retain(|key, engine| {
            let is_planned = planned.iter().any(|(mapping, spec)| key.is_of(mapping, &spec.start));
            engine.plan(is_planned);
            // One handle is the registry's own.
            is_planned || Arc::strong_count(engine) > 1
        });
    }

    /// Everything that a session needed since the start of the daemon, and that the plan knows.
    pub(crate) fn shown(&self) -> Vec<Shown> {
        let engines = self.engines();
        let shown = |engine: &Arc<Engine>| Shown {
            mapping: engine.call().mapping.clone(),
            what: Arc::clone(engine.what()),
            state: engine.look(|ledger| ledger.state().clone()),
            sessions: engine.look(super::ledger::Ledger::sessions),
        };
        let mut shown: Vec<Shown> = engines.values().map(shown).collect();
        shown.sort_by(|a, b| (&a.mapping, &a.what).cmp(&(&b.mapping, &b.what)));
        shown
    }

    /// What is known of each thing, for the next process.
    pub(crate) fn snapshot(&self, now: Instant) -> WakeRecord {
        let engines = self.engines();
        let record = |(key, engine): (&Key, &Arc<Engine>)| {
            let Call { mapping, host, target } = engine.call().clone();
            let ledger = engine.look(|ledger| ledger.snapshot(now))?;
            Some(ThingRecord { start: key.start.clone(), mapping, host, target, ledger })
        };
        WakeRecord(engines.iter().filter_map(record).collect())
    }

    /// Goes on with what another process started, as far as this plan has it, too: `planned` as
    /// for [`Wakers::keep`]. It comes before the first session. Nothing runs that only the record
    /// names.
    pub(crate) fn take_over<'a>(
        &self,
        record: WakeRecord,
        planned: impl IntoIterator<Item = (&'a MappingName, &'a WakeSpec)>,
    ) {
        if record.0.is_empty() {
            return;
        }
        let planned: Vec<_> = planned.into_iter().collect();
        for ThingRecord { start, mapping, host, target, ledger } in record.0 {
            let known = planned.iter().find(|(of, spec)| {
                let key = Key::new(spec, &mapping, host.as_deref());
                spec.start == start && key.is_of(of, &start)
            });
            let (Some((_, spec)), Ok(target)) = (known, target.parse()) else {
                tracing::debug!(%mapping, "the plan does not start what was handed over");
                continue;
            };
            let place = Place { mapping: &mapping, host: host.as_deref(), target: &target };
            let waker = self.of(&Arc::new((*spec).clone()), place);
            waker.engine.take_over(ledger, spec.wait);
        }
    }

    fn engines(&self) -> MutexGuard<'_, HashMap<Key, Arc<Engine>>> {
        self.0.engines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Key {
    fn new(spec: &WakeSpec, mapping: &MappingName, host: Option<&str>) -> Self {
        let is_told = matches!(spec.start, Start::Command { .. });
        let owner = || Owner { mapping: Owner::mapping(mapping).into(), host: host.map(Into::into) };
        let owner = is_told.then(owner);
        Self { start: spec.start.clone(), owner }
    }

    /// Whether `mapping` starts this by `start`.
    fn is_of(&self, mapping: &MappingName, start: &Start) -> bool {
        self.start == *start
            && self.owner.as_ref().is_none_or(|owner| *owner.mapping == *Owner::mapping(mapping))
    }
}

impl Owner {
    fn mapping(name: &MappingName) -> &str {
        name.as_str().rsplit_once('/').map_or(name.as_str(), |(ports, _)| ports)
    }
}
