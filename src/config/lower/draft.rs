//! A plan in the making: mappings are numbered until all listeners are known, and then get their
//! ids.

use std::collections::{BTreeMap, HashMap};

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
    listeners: BTreeMap<ListenerKey, (Option<MappingNumber>, ListenerPlan)>,
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
            self.listeners.insert(key, (Some(mapping), listener));
        } else {
            drafted.closed.insert(key, listener);
        }
    }

    /// Adds a listener that belongs to no mapping, such as a decoy.
    pub(crate) fn alone(&mut self, key: ListenerKey, name: MappingName, service: Service) {
        let plan = ListenerPlan { mapping: None, name, service, exposure: None };
        self.listeners.insert(key, (None, plan));
    }

    /// The plan, and what is known of its mappings and of the closed ones. The ids follow the order
    /// of the listeners, not of the text: a text that is only rearranged is the same plan.
    pub(crate) fn finish(self) -> (Plan, Abouts) {
        let mut ids: Vec<Option<MappingId>> = vec![None; self.mappings.len()];
        let mut named: HashMap<MappingName, u32> = HashMap::new();
        let mut id_of = |name: &MappingName| {
            let count = named.entry(name.clone()).or_default();
            *count += 1;
            MappingId { name: name.clone(), nth: *count - 1 }
        };
        let mut keys: Vec<Vec<ListenerKey>> = vec![Vec::new(); self.mappings.len()];
        let mut plan = Plan::default();
        for (key, (number, mut listener)) in self.listeners {
            if let Some(MappingNumber(number)) = number {
                let id = ids[number].get_or_insert_with(|| id_of(&listener.name));
                plan.mappings.entry(id.clone()).or_insert_with(|| self.mappings[number].plan.clone());
                listener.mapping = Some(id.clone());
                keys[number].push(key.clone());
            }
            plan.listeners.insert(key, listener);
        }
        let mut abouts = Abouts::new();
        for ((drafted, id), keys) in self.mappings.into_iter().zip(ids).zip(keys) {
            let first = drafted.closed.values().next().map(|listener| &listener.name);
            // A mapping without any listener is not shown: nothing names it.
            let Some(id) = id.or_else(|| first.map(&mut id_of)) else { continue };
            let open = keys.iter().filter_map(|key| plan.listeners.get_key_value(key));
            let about = About::new(drafted.plan, drafted.state).with(open.chain(&drafted.closed));
            abouts.insert(id, (drafted.span, about));
        }
        (plan, abouts)
    }
}
