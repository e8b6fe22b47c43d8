//! What all listeners of a mapping share while they run: its doorkeeper and the budget of its session lines. There is one
//! of each for a mapping, whatever number of listeners it has, and the same one over every reload.
//!
//! Within a plan a mapping is known by its policy, which its listeners share, and nobody else: an unnamed mapping has a
//! default name for each of its ports. Over reloads it is known by the name of its first listener; mappings of which that
//! is the same (`8080/tcp`, on several addresses) are told apart by their order in the plan. That is also the name under
//! which its refusals and the session lines that were left out are told.

use std::{
    collections::{BTreeMap, HashMap, HashSet, btree_map::Entry},
    sync::Arc,
};

use tokio::sync::Notify;

use crate::{
    config::{ListenerPlan, Plan, Service},
    mapping::MappingName,
    meter::SessionLog,
    policy::{Admission, Gate, Policy},
};

/// Every mapping's doorkeeper, for those who look at its counters.
pub(crate) type Admissions = Vec<(MappingName, Arc<Admission>)>;

/// Every mapping's budget of session lines.
pub(super) type SessionLogs = Vec<(MappingName, Arc<SessionLog>)>;

/// A mapping over reloads: the name of its first listener, and which of those with this name.
type Which = (MappingName, usize);
/// A mapping within a plan: where its policy lies. Its listeners share the policy itself, not an equal one.
type Here = usize;

/// The doorkeepers of a plan.
#[derive(Debug)]
pub(super) struct Keepers {
    gate: Arc<Gate>,
    /// Told when something is to be summed up.
    bell: Arc<Notify>,
    all: BTreeMap<Which, Keeper>,
    /// Those of the present plan. The policies are kept in `all`, so that no other can lie in the same place.
    present: HashMap<Here, Which>,
}

#[derive(Debug)]
struct Keeper {
    admission: Arc<Admission>,
    log: Arc<SessionLog>,
    policy: Arc<Policy>,
    /// Of the present plan; else only sessions of a listener on its way out know it.
    is_planned: bool,
}

impl Keepers {
    pub(super) fn new(gate: Arc<Gate>, bell: Arc<Notify>) -> Self {
        Self { gate, bell, all: BTreeMap::new(), present: HashMap::new() }
    }

    /// Takes the policies of a plan; whether one of those that were there has changed.
    pub(super) fn apply(&mut self, plan: &Plan) -> bool {
        for keeper in self.all.values_mut() {
            keeper.is_planned = false;
        }
        self.present.clear();
        let mut changed = false;
        for (which, listener) in mappings(plan) {
            let policy = &listener.policy;
            self.present.insert(here(policy), which.clone());
            match self.all.entry(which) {
                Entry::Occupied(mut known) => {
                    let known = known.get_mut();
                    if known.policy != *policy {
                        known.admission.retune(policy);
                        changed = true;
                    }
                    known.log.retune(listener.log);
                    known.policy = Arc::clone(policy);
                    known.is_planned = true;
                }
                Entry::Vacant(place) => {
                    let admission = Admission::new(policy, &self.gate);
                    let log = SessionLog::new(listener.log, Arc::clone(&self.bell));
                    place.insert(Keeper { admission, log, policy: Arc::clone(policy), is_planned: true });
                }
            }
        }
        // A mapping that comes back while its last sessions drain finds them counted. One with something to sum up stays
        // until that is said.
        self.all.retain(|_, keeper| {
            keeper.is_planned || Arc::strong_count(&keeper.admission) > 1 || keeper.log.unsaid()
        });
        changed
    }

    /// The doorkeeper of a listener of the plan, and the budget of its session lines; a decoy has neither.
    pub(super) fn of(&self, listener: &ListenerPlan) -> Option<(Arc<Admission>, Arc<SessionLog>)> {
        let which = self.present.get(&here(&listener.policy))?;
        let keeper = self.all.get(which)?;
        Some((Arc::clone(&keeper.admission), Arc::clone(&keeper.log)))
    }

    /// The budgets of session lines, also of mappings whose last sessions drain.
    pub(super) fn session_logs(&self) -> SessionLogs {
        self.all.iter().map(|((name, _), keeper)| (name.clone(), Arc::clone(&keeper.log))).collect()
    }

    /// Those of the plan, with the names of their mappings.
    pub(super) fn admissions(&self) -> Admissions {
        let planned = self.all.iter().filter(|(_, keeper)| keeper.is_planned);
        planned.map(|((name, _), keeper)| (name.clone(), Arc::clone(&keeper.admission))).collect()
    }
}

/// The mappings of a plan, each with its first listener; decoys are none.
fn mappings(plan: &Plan) -> Vec<(Which, &ListenerPlan)> {
    let (mut seen, mut of_that_name) = (HashSet::new(), HashMap::new());
    let mut found = Vec::new();
    for listener in plan.values().filter(|listener| !matches!(listener.service, Service::Trap)) {
        let ListenerPlan { mapping, policy, .. } = listener;
        if seen.insert(here(policy)) {
            let count = of_that_name.entry(mapping).or_insert(0);
            found.push(((mapping.clone(), *count), listener));
            *count += 1;
        }
    }
    found
}

fn here(policy: &Arc<Policy>) -> Here {
    Arc::as_ptr(policy).addr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mapping::{ListenerKey, publish::Publish},
        meter::SessionLines,
        policy::{Caps, Limit, Policy},
        relay::tcp::{TcpOptions, TcpSpec},
        targets::Targets,
    };

    fn policy(sessions: u32) -> Arc<Policy> {
        let sessions = Limit::AtMost(sessions.try_into().unwrap());
        Arc::new(Policy { caps: Caps { sessions, ..Caps::default() }, ..Policy::default() })
    }

    /// TCP listeners under a name, each with a policy.
    fn plan(listeners: &[(&str, &str, &Arc<Policy>)]) -> Plan {
        let listener = |(spec, name, policy): &(&str, &str, &Arc<Policy>)| {
            let publish = Publish::parse(spec, &|_, _| None).unwrap();
            let (protocol, addr, target) = publish.expand().next().unwrap();
            let spec = TcpSpec { targets: Targets::one(target), options: TcpOptions::default() };
            let mapping = MappingName::new(name).unwrap();
            let service = Service::Tcp(spec);
            let policy = Arc::clone(policy);
            let plan = ListenerPlan { mapping, service, policy, log: SessionLines::All, exposure: None };
            (ListenerKey { protocol, addr }, plan)
        };
        listeners.iter().map(listener).collect()
    }

    fn keepers_of(keepers: &Keepers, plan: &Plan) -> Vec<Arc<Admission>> {
        plan.values().map(|listener| keepers.of(listener).unwrap().0).collect()
    }

    #[test]
    fn the_listeners_of_a_mapping_share_a_doorkeeper_and_it_stays_over_reloads() {
        let mut keepers = Keepers::new(Gate::new(), Arc::default());
        let one = policy(5);
        let first = plan(&[("80:1", "web", &one), ("81:1", "web", &one), ("82:1", "other", &policy(5))]);
        assert!(!keepers.apply(&first));
        let before = keepers_of(&keepers, &first);
        assert!(Arc::ptr_eq(&before[0], &before[1]) && !Arc::ptr_eq(&before[0], &before[2]));
        assert_eq!(keepers.admissions().len(), 2);

        let same = policy(5);
        let second = plan(&[("80:1", "web", &same), ("90:1", "web", &same)]);
        assert!(!keepers.apply(&second), "an equal policy is no change");
        let after = keepers_of(&keepers, &second);
        assert!(Arc::ptr_eq(&before[0], &after[0]) && Arc::ptr_eq(&before[0], &after[1]));
        assert!(keepers.apply(&plan(&[("80:1", "web", &policy(6))])), "another one is");
    }

    #[test]
    fn a_mapping_without_a_name_has_one_doorkeeper_for_all_its_ports() {
        let mut keepers = Keepers::new(Gate::new(), Arc::default());
        let (one, other) = (policy(5), policy(5));
        let listeners = [("80:1", "80/tcp", &one), ("81:1", "81/tcp", &one), ("82:1", "82/tcp", &other)];
        let first = plan(&listeners);
        keepers.apply(&first);
        let before = keepers_of(&keepers, &first);
        assert!(Arc::ptr_eq(&before[0], &before[1]) && !Arc::ptr_eq(&before[0], &before[2]));
        let names: Vec<_> = keepers.admissions().iter().map(|(name, _)| name.to_string()).collect();
        assert_eq!(names, ["80/tcp", "82/tcp"]);

        let (same, added) = (policy(5), ("83:1", "83/tcp", &other));
        let second = plan(&[("80:1", "80/tcp", &same), ("81:1", "81/tcp", &same), listeners[2], added]);
        assert!(!keepers.apply(&second));
        let after = keepers_of(&keepers, &second);
        assert!(before.iter().zip(&after).all(|(before, after)| Arc::ptr_eq(before, after)));
        assert!(Arc::ptr_eq(&after[2], &after[3]));
    }

    #[test]
    fn mappings_that_share_a_default_name_have_a_doorkeeper_each() {
        let mut keepers = Keepers::new(Gate::new(), Arc::default());
        let listeners = ["127.0.0.1:80:1", "127.0.0.2:80:1", "127.0.0.3:80:1"];
        let policies = [policy(1), policy(1), policy(2)];
        let named: Vec<_> = listeners.iter().zip(&policies).map(|(spec, p)| (*spec, "80/tcp", p)).collect();
        let plan = plan(&named);
        keepers.apply(&plan);
        let all = keepers_of(&keepers, &plan);
        assert!(!Arc::ptr_eq(&all[0], &all[1]) && !Arc::ptr_eq(&all[1], &all[2]));
    }

    #[test]
    fn a_mapping_that_comes_back_while_somebody_is_inside_is_the_same() {
        let mut keepers = Keepers::new(Gate::new(), Arc::default());
        let with = plan(&[("80:1", "web", &policy(5))]);
        keepers.apply(&with);
        let inside = keepers_of(&keepers, &with);
        keepers.apply(&Plan::new());
        assert!(keepers.admissions().is_empty());
        keepers.apply(&with);
        assert!(Arc::ptr_eq(&inside[0], &keepers_of(&keepers, &with)[0]));
        drop(inside);
        keepers.apply(&Plan::new());
        assert!(keepers.all.is_empty(), "nobody knows it any more");
    }
}
