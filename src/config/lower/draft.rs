//! A plan in the making: mappings are numbered until all listeners are known, and then get their
//! ids.

use std::collections::{BTreeMap, HashMap};

use crate::{
    config::plan::{ListenerPlan, MappingPlan, Plan, Service},
    mapping::{Exposure, ListenerKey, MappingId, MappingName},
};

/// A mapping without its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MappingNumber(usize);

/// The mappings and listeners that were lowered so far.
#[derive(Default)]
pub(crate) struct Draft {
    mappings: Vec<(Option<MappingName>, MappingPlan)>,
    listeners: BTreeMap<ListenerKey, (Option<MappingNumber>, ListenerPlan)>,
}

impl Draft {
    /// Adds a mapping, with its name if it was given one.
    pub(crate) fn mapping(&mut self, name: Option<MappingName>, plan: MappingPlan) -> MappingNumber {
        self.mappings.push((name, plan));
        MappingNumber(self.mappings.len() - 1)
    }

    /// Adds a listener of a mapping; `default` is its name where the mapping has none.
    pub(crate) fn listener(
        &mut self,
        mapping: MappingNumber,
        key: ListenerKey,
        default: MappingName,
        service: Service,
        exposure: Option<Exposure>,
    ) {
        let name = self.mappings[mapping.0].0.clone().unwrap_or(default);
        self.listeners.insert(key, (Some(mapping), ListenerPlan { mapping: None, name, service, exposure }));
    }

    /// Adds a decoy.
    pub(crate) fn trap(&mut self, key: ListenerKey, name: MappingName) {
        let plan = ListenerPlan { mapping: None, name, service: Service::Trap, exposure: None };
        self.listeners.insert(key, (None, plan));
    }

    /// The plan. The ids follow the order of the listeners, not of the text: a text that is only
    /// rearranged is the same plan.
    pub(crate) fn finish(self) -> Plan {
        let mut ids: Vec<Option<MappingId>> = vec![None; self.mappings.len()];
        let mut named: HashMap<MappingName, u32> = HashMap::new();
        let mut plan = Plan::default();
        for (key, (number, mut listener)) in self.listeners {
            if let Some(MappingNumber(number)) = number {
                let id = ids[number].get_or_insert_with(|| {
                    let count = named.entry(listener.name.clone()).or_default();
                    *count += 1;
                    MappingId { name: listener.name.clone(), nth: *count - 1 }
                });
                plan.mappings.entry(id.clone()).or_insert_with(|| self.mappings[number].1.clone());
                listener.mapping = Some(id.clone());
            }
            plan.listeners.insert(key, listener);
        }
        plan
    }
}
