//! What runs for a mapping: one [`MappingRuntime`], whatever number of listeners it has.
//!
//! A mapping keeps its runtime over reloads by its id, with its counters and the state of its
//! limits. A mapping that a reload removes keeps it until its last session has ended, so that it is
//! complete if the mapping comes back.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use foldhash::fast::RandomState;
use tokio::sync::Notify;

use crate::{
    config::{ListenerPlan, MappingPlan, Plan, Service},
    mapping::{MappingId, MappingName, Protocol},
    meter::{MappingTotals, SessionLog},
    policy::{Admission, Gate, Policy},
    relay::tcp::{Route, TcpSpec},
    targets::{Pool, Targets},
};

/// The admission of every mapping, for the readers of its counters, in the order of the mappings.
pub(crate) type Admissions = Vec<(MappingId, Arc<Admission>)>;

/// The totals of every mapping of the plan, in the order of the mappings.
pub(crate) type AllTotals = Vec<(MappingId, Arc<MappingTotals>)>;

/// The pool of every mapping of the plan, in the order of the mappings.
pub(crate) type AllPools = Vec<(MappingId, Arc<Pool>)>;

/// The budget of session lines of every mapping.
pub(super) type SessionLogs = Vec<(MappingName, Arc<SessionLog>)>;

/// What the listeners of a mapping share while they run.
#[derive(Debug)]
pub(super) struct MappingRuntime {
    /// Decides on clients, and counts them.
    pub(super) admission: Arc<Admission>,
    /// The budget of session lines.
    pub(super) log: Arc<SessionLog>,
    /// What its sessions did, for as long as it is in the plan.
    pub(super) totals: Arc<MappingTotals>,
    /// Chooses among its targets.
    pub(super) pool: Arc<Pool>,
    policy: Arc<Policy>,
    /// False if only sessions of closing listeners use it, or nothing.
    is_planned: bool,
    /// Whether the plan knows it, also while it is disabled or paused.
    is_known: bool,
}

/// The mappings of a plan, and those of earlier plans that still have sessions.
#[derive(Debug)]
pub(super) struct Mappings {
    gate: Arc<Gate>,
    /// Notified when something is to be summed up.
    bell: Arc<Notify>,
    all: BTreeMap<MappingId, MappingRuntime>,
}

impl Mappings {
    pub(super) fn new(gate: Arc<Gate>, bell: Arc<Notify>) -> Self {
        Self { gate, bell, all: BTreeMap::new() }
    }

    /// Takes the mappings of a plan. Returns whether the policy of one that was there has changed.
    pub(super) fn apply(&mut self, plan: &Plan) -> bool {
        for mapping in self.all.values_mut() {
            mapping.is_planned = false;
        }
        let (mut changed, mut new) = (false, Vec::new());
        let mut lists = lists(plan);
        // Both maps are walked at once: that costs less than a search for each mapping.
        let mut known = self.all.iter_mut().peekable();
        for (id, plan) in &plan.mappings {
            while known.next_if(|(known, _)| *known < id).is_some() {}
            let lists = lists.remove(id).unwrap_or_default();
            match known.next_if(|(known, _)| *known == id) {
                Some((_, mapping)) => changed |= mapping.retune(plan, &lists),
                None => {
                    let mut mapping = MappingRuntime::new(plan, &self.gate, &self.bell);
                    mapping.retune(plan, &lists);
                    new.push((id.clone(), mapping));
                }
            }
        }
        match self.all.is_empty() {
            true => self.all = new.into_iter().collect(),
            false => self.all.extend(new),
        }
        for (id, mapping) in &mut self.all {
            mapping.is_known = mapping.is_planned || plan.about.contains_key(id);
        }
        self.all.retain(|_, mapping| mapping.is_known || mapping.is_in_use());
        changed
    }

    /// The mapping of a listener of the plan; `None` for a decoy.
    pub(super) fn of(&self, listener: &ListenerPlan) -> Option<&MappingRuntime> {
        self.all.get(listener.mapping.as_ref()?)
    }

    /// The budgets of session lines, also of mappings whose last sessions drain.
    pub(super) fn session_logs(&self) -> SessionLogs {
        self.all.iter().map(|(id, mapping)| (id.name.clone(), Arc::clone(&mapping.log))).collect()
    }

    /// The totals of the plan's mappings, also of those that are closed.
    pub(super) fn totals(&self) -> AllTotals {
        let known = self.all.iter().filter(|(_, mapping)| mapping.is_known);
        known.map(|(id, mapping)| (id.clone(), Arc::clone(&mapping.totals))).collect()
    }

    /// The pools of the plan's mappings, also of those that are closed.
    pub(super) fn pools(&self) -> AllPools {
        let known = self.all.iter().filter(|(_, mapping)| mapping.is_known);
        known.map(|(id, mapping)| (id.clone(), Arc::clone(&mapping.pool))).collect()
    }

    /// The admissions of the plan, also of mappings that are closed.
    pub(super) fn admissions(&self) -> Admissions {
        let known = self.all.iter().filter(|(_, mapping)| mapping.is_known);
        known.map(|(id, mapping)| (id.clone(), Arc::clone(&mapping.admission))).collect()
    }
}

impl MappingRuntime {
    fn new(plan: &MappingPlan, gate: &Arc<Gate>, bell: &Arc<Notify>) -> Self {
        Self {
            admission: Admission::new(&plan.policy, gate),
            log: SessionLog::new(plan.log, Arc::clone(bell)),
            totals: Arc::default(),
            pool: Arc::new(Pool::new(&plan.selection)),
            policy: Arc::clone(&plan.policy),
            is_planned: true,
            is_known: true,
        }
    }

    /// Takes a changed plan. Returns whether the policy is another one.
    fn retune(&mut self, plan: &MappingPlan, lists: &Lists<'_>) -> bool {
        let changed = self.policy != plan.policy;
        if changed {
            self.admission.retune(&plan.policy);
        }
        self.log.retune(plan.log);
        self.pool.retune(&plan.selection, &lists.all, lists.are_named);
        self.policy = Arc::clone(&plan.policy);
        self.is_planned = true;
        changed
    }

    /// Whether a session still counts against it, or a summary of its lines is due.
    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.admission) > 1 || self.log.unsaid()
    }
}

/// The lists of targets of a mapping.
#[derive(Default)]
struct Lists<'p> {
    all: Vec<(Protocol, &'p Targets)>,
    /// Names lead to some of them.
    are_named: bool,
}

/// The lists of targets of each mapping.
fn lists(plan: &Plan) -> HashMap<&MappingId, Lists<'_>, RandomState> {
    let mut lists: HashMap<_, Lists<'_>, _> = HashMap::default();
    for (key, listener) in &plan.listeners {
        if let Some(id) = &listener.mapping {
            let of_listener = listener.service.target_lists().map(|targets| (key.protocol, targets));
            let of_mapping = lists.entry(id).or_default();
            of_mapping.all.extend(of_listener);
            of_mapping.are_named |=
                matches!(&listener.service, Service::Tcp(TcpSpec { route: Route::Names(_), .. }));
        }
    }
    lists
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Caps, Limit};

    fn policy(sessions: u32) -> Arc<Policy> {
        let sessions = Limit::AtMost(sessions.try_into().unwrap());
        Arc::new(Policy { caps: Caps { sessions, ..Caps::default() }, ..Policy::default() })
    }

    fn id(name: &str, nth: u32) -> MappingId {
        MappingId { name: MappingName::new(name).unwrap(), nth }
    }

    fn plan(mappings: &[(&MappingId, u32)]) -> Plan {
        let mapping = |(id, sessions): &(&MappingId, u32)| {
            ((*id).clone(), MappingPlan { policy: policy(*sessions), ..MappingPlan::default() })
        };
        Plan { mappings: mappings.iter().map(mapping).collect(), ..Plan::default() }
    }

    fn mappings() -> Mappings {
        Mappings::new(Gate::new(std::time::SystemTime::now), Arc::default())
    }

    #[test]
    fn a_mapping_keeps_its_admission_over_reloads_and_a_changed_policy_is_reported() {
        let mut mappings = mappings();
        let (web, other) = (id("web", 0), id("other", 0));
        assert!(!mappings.apply(&plan(&[(&web, 5), (&other, 5)])));
        let before = Arc::clone(&mappings.all[&web].admission);
        assert!(!Arc::ptr_eq(&before, &mappings.all[&other].admission));
        assert_eq!(mappings.admissions().len(), 2);
        assert!(!mappings.apply(&plan(&[(&web, 5)])), "an equal policy is not a change");
        assert!(Arc::ptr_eq(&before, &mappings.all[&web].admission));
        assert!(mappings.apply(&plan(&[(&web, 6)])), "another one is");
        assert!(Arc::ptr_eq(&before, &mappings.all[&web].admission));
    }

    #[test]
    fn mappings_that_share_a_default_name_have_an_admission_each() {
        let mut mappings = mappings();
        let (one, other) = (id("80/tcp", 0), id("80/tcp", 1));
        mappings.apply(&plan(&[(&one, 1), (&other, 1)]));
        assert!(!Arc::ptr_eq(&mappings.all[&one].admission, &mappings.all[&other].admission));
    }

    #[test]
    fn a_mapping_that_comes_back_while_a_session_uses_it_is_the_same() {
        let mut mappings = mappings();
        let web = id("web", 0);
        mappings.apply(&plan(&[(&web, 5)]));
        let session = Arc::clone(&mappings.all[&web].admission);
        mappings.apply(&Plan::default());
        assert!(mappings.admissions().is_empty());
        mappings.apply(&plan(&[(&web, 5)]));
        assert!(Arc::ptr_eq(&session, &mappings.all[&web].admission));
        drop(session);
        mappings.apply(&Plan::default());
        assert!(mappings.all.is_empty(), "nothing uses it any more");
    }
}
