//! The doorkeepers: one for each mapping, whatever number of listeners it has, and the same one over every reload.
//!
//! A mapping is known by its name. Mappings that were given none may share a default name (`8080/tcp`, on several
//! addresses): each is one all the same, and they are told apart by their order in the plan.

use std::{
    collections::{BTreeMap, HashMap, HashSet, btree_map::Entry},
    sync::Arc,
};

use crate::{
    config::{ListenerPlan, Plan, Service},
    mapping::MappingName,
    policy::{Admission, Gate, Policy},
};

/// Every mapping's doorkeeper, for those who look at its counters.
pub type Admissions = Vec<(MappingName, Arc<Admission>)>;

/// A mapping over reloads: its name, and which of those with this name.
type Which = (MappingName, usize);
/// A mapping within a plan: its name, and where its policy lies. Its listeners share the policy itself, not an equal one.
type Here = (MappingName, usize);

/// The doorkeepers of a plan.
#[derive(Debug)]
pub(super) struct Keepers {
    gate: Arc<Gate>,
    all: BTreeMap<Which, Keeper>,
    /// Those of the present plan. The policies are kept in `all`, so that no other can lie in the same place.
    present: HashMap<Here, Which>,
}

#[derive(Debug)]
struct Keeper {
    admission: Arc<Admission>,
    policy: Arc<Policy>,
    /// Of the present plan; else only sessions of a listener on its way out know it.
    is_planned: bool,
}

impl Keepers {
    pub(super) fn new(gate: Arc<Gate>) -> Self {
        Self { gate, all: BTreeMap::new(), present: HashMap::new() }
    }

    /// Takes the policies of a plan; whether one of those that were there has changed.
    pub(super) fn apply(&mut self, plan: &Plan) -> bool {
        for keeper in self.all.values_mut() {
            keeper.is_planned = false;
        }
        self.present.clear();
        let mut changed = false;
        for (which, policy) in mappings(plan) {
            self.present.insert(here(&which.0, policy), which.clone());
            match self.all.entry(which) {
                Entry::Occupied(mut known) => {
                    let known = known.get_mut();
                    if known.policy != *policy {
                        known.admission.retune(policy);
                        changed = true;
                    }
                    known.policy = Arc::clone(policy);
                    known.is_planned = true;
                }
                Entry::Vacant(place) => {
                    let admission = Admission::new(policy, &self.gate);
                    place.insert(Keeper { admission, policy: Arc::clone(policy), is_planned: true });
                }
            }
        }
        // A mapping that comes back while its last sessions drain finds them counted.
        self.all.retain(|_, keeper| keeper.is_planned || Arc::strong_count(&keeper.admission) > 1);
        changed
    }

    /// The doorkeeper of a listener of the plan; a decoy has none.
    pub(super) fn of(&self, listener: &ListenerPlan) -> Option<Arc<Admission>> {
        let which = self.present.get(&here(&listener.mapping, &listener.policy))?;
        self.all.get(which).map(|keeper| Arc::clone(&keeper.admission))
    }

    /// Those of the plan, with the names of their mappings.
    pub(super) fn admissions(&self) -> Admissions {
        let planned = self.all.iter().filter(|(_, keeper)| keeper.is_planned);
        planned.map(|((name, _), keeper)| (name.clone(), Arc::clone(&keeper.admission))).collect()
    }
}

/// The mappings of a plan, each with its policy; decoys are none.
fn mappings(plan: &Plan) -> Vec<(Which, &Arc<Policy>)> {
    let (mut seen, mut of_that_name) = (HashSet::new(), HashMap::new());
    let mut found = Vec::new();
    for listener in plan.values().filter(|listener| !matches!(listener.service, Service::Trap)) {
        let ListenerPlan { mapping, policy, .. } = listener;
        if seen.insert(here(mapping, policy)) {
            let count = of_that_name.entry(mapping).or_insert(0);
            found.push(((mapping.clone(), *count), policy));
            *count += 1;
        }
    }
    found
}

fn here(name: &MappingName, policy: &Arc<Policy>) -> Here {
    (name.clone(), Arc::as_ptr(policy).addr())
}
