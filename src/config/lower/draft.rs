//! A plan in the making: mappings are numbered until all listeners are known, and then get their
//! ids.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    config::{
        plan::{
            ListenerPlan, MappingPlan, Plan, Service,
            about::{About, State},
        },
        text::Span,
    },
    mapping::{Exposure, ListenerKey, MappingId, MappingName},
};

/// What is known of each mapping, with its place.
pub(crate) type Abouts = BTreeMap<MappingId, (Span, About)>;

/// A mapping without its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MappingNumber(usize);

/// The mappings and listeners that were lowered so far.
#[derive(Default)]
pub(crate) struct Draft {
    mappings: Vec<Drafted>,
    /// Each socket once: ports are claimed before.
    listeners: Vec<(ListenerKey, Option<MappingNumber>, ListenerPlan)>,
}

/// A mapping that was lowered.
struct Drafted {
    name: Option<MappingName>,
    span: Span,
    plan: MappingPlan,
    state: State,
    /// The listeners of a closed mapping.
    closed: BTreeMap<ListenerKey, ListenerPlan>,
}

impl Draft {
    /// Adds a mapping, with its name if it was given one.
    pub(crate) fn mapping(
        &mut self,
        name: Option<MappingName>,
        span: Span,
        plan: MappingPlan,
        state: State,
    ) -> MappingNumber {
        self.mappings.push(Drafted { name, span, plan, state, closed: BTreeMap::new() });
        MappingNumber(self.mappings.len() - 1)
    }

    /// Adds a listener of a mapping; `default` is its name where the mapping has none. That of a
    /// closed mapping is only remembered.
    pub(crate) fn listener(
        &mut self,
        mapping: MappingNumber,
        key: ListenerKey,
        default: MappingName,
        service: Service,
        exposure: Option<Exposure>,
    ) {
        let drafted = &mut self.mappings[mapping.0];
        let name = drafted.name.clone().unwrap_or(default);
        let listener = ListenerPlan { mapping: None, name, service, exposure };
        if drafted.state.is_open() {
            self.listeners.push((key, Some(mapping), listener));
        } else {
            drafted.closed.insert(key, listener);
        }
    }

    /// Adds a listener that belongs to no mapping, such as a decoy.
    pub(crate) fn alone(&mut self, key: ListenerKey, name: MappingName, service: Service) {
        let plan = ListenerPlan { mapping: None, name, service, exposure: None };
        self.listeners.push((key, None, plan));
    }

    /// The plan, and what is known of its mappings and of the closed ones. The ids follow the order
    /// of the listeners, not of the text: a text that is only rearranged is the same plan.
    pub(crate) fn finish(mut self) -> (Plan, Abouts) {
        // Maps that are made of sorted lists have full nodes, and cost no search for each entry.
        self.listeners.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        let mut ids: Vec<Option<MappingId>> = vec![None; self.mappings.len()];
        let mut named: HashMap<MappingName, u32> = HashMap::new();
        let mut id_of = |name: &MappingName| {
            let count = named.entry(name.clone()).or_default();
            *count += 1;
            MappingId { name: name.clone(), nth: *count - 1 }
        };
        let mut keys: Vec<Vec<ListenerKey>> = vec![Vec::new(); self.mappings.len()];
        let (mut mappings, mut listeners) = (Vec::new(), Vec::with_capacity(self.listeners.len()));
        for (key, number, mut listener) in self.listeners {
            if let Some(MappingNumber(number)) = number {
                let id = ids[number].get_or_insert_with(|| {
                    let id = id_of(&listener.name);
                    mappings.push((id.clone(), self.mappings[number].plan.clone()));
                    id
                });
                listener.mapping = Some(id.clone());
                let of_mapping = &mut keys[number];
                if of_mapping.is_empty() {
                    of_mapping.reserve_exact(1);
                }
                of_mapping.push(key.clone());
            }
            listeners.push((key, listener));
        }
        let plan = Plan {
            mappings: mappings.into_iter().collect(),
            listeners: listeners.into_iter().collect(),
            about: Arc::default(),
        };
        let mut abouts = Vec::with_capacity(self.mappings.len());
        for ((drafted, id), keys) in self.mappings.into_iter().zip(ids).zip(keys) {
            let first = drafted.closed.values().next().map(|listener| &listener.name);
            // A mapping without any listener is not shown: nothing names it.
            let Some(id) = id.or_else(|| first.map(&mut id_of)) else { continue };
            let open = keys.iter().filter_map(|key| plan.listeners.get_key_value(key));
            let about = About::new(drafted.plan, drafted.state).with(open.chain(&drafted.closed));
            abouts.push((id, (drafted.span, about)));
        }
        (plan, abouts.into_iter().collect())
    }
}
