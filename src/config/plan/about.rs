//! What is known of each mapping beside what runs: where it stands, and what it would be.
//!
//! Also closed mappings (disabled or paused ones) are here, which have no part in the rest of a
//! plan. The difference of two plans does not look at any of this.

use std::{collections::HashSet, time::SystemTime};

use foldhash::fast::RandomState;
use serde_json::{Map, Value, json};

use crate::{
    config::{
        lower::overrides::terms,
        plan::{ListenerPlan, MappingPlan},
    },
    mapping::{ListenerKey, MappingOrigin, TargetAddr},
    targets::{Target, Targets},
};

/// The most targets, and the most listeners of a closed mapping, that are remembered.
const MOST: usize = 1000;

/// What is known of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct About {
    /// The kind of place where it is declared.
    pub origin: MappingOrigin,
    /// The place: `file:line:column`, or the spec.
    pub place: String,
    /// False where its file says `enabled = false`.
    pub enabled: bool,
    /// It is paused: its listeners are closed until it is resumed.
    pub paused: bool,
    /// When it ends by itself.
    pub until: Option<SystemTime>,
    /// Its listeners, or, while it is closed, the first thousand of those that it would have.
    pub listeners: Vec<ListenerKey>,
    /// The first thousand of its targets, those of its host names too, each once.
    pub targets: Vec<TargetAddr>,
    /// The first thousand of those that need no host name, each once.
    pub leads: Vec<Target>,
    plan: MappingPlan,
    /// The first listener of each protocol.
    samples: Vec<(ListenerKey, ListenerPlan)>,
}

impl About {
    /// What is known of a mapping with this plan, less its place and its listeners.
    pub(crate) fn new(plan: MappingPlan, state: State) -> Self {
        let State { enabled, paused, until } = state;
        Self {
            origin: MappingOrigin::default(),
            place: String::new(),
            enabled,
            paused,
            until,
            listeners: Vec::new(),
            targets: Vec::new(),
            leads: Vec::new(),
            plan,
            samples: Vec::new(),
        }
    }

    /// Takes in its listeners, in their order.
    pub(crate) fn with<'l>(mut self, all: impl Iterator<Item = (&'l ListenerKey, &'l ListenerPlan)>) -> Self {
        // Most mappings have one of each, and there may be many mappings.
        self.listeners.reserve_exact(1);
        self.samples.reserve_exact(1);
        self.leads.reserve_exact(1);
        self.targets.reserve_exact(1);
        let mut known: HashSet<&TargetAddr, RandomState> = HashSet::default();
        let mut leading: HashSet<&TargetAddr, RandomState> = HashSet::default();
        for (key, listener) in all {
            if self.is_open() || self.listeners.len() < MOST {
                self.listeners.push(key.clone());
            }
            if !self.samples.iter().any(|(sample, _)| sample.protocol == key.protocol) {
                self.samples.push((key.clone(), listener.clone()));
            }
            for target in listener.service.targets().into_iter().flat_map(Targets::all) {
                if leading.len() < MOST && leading.insert(&target.addr) {
                    self.leads.push(target.clone());
                }
            }
            for target in listener.service.all_targets() {
                if known.len() < MOST && known.insert(target) {
                    self.targets.push(target.clone());
                }
            }
        }
        self
    }

    /// Whether it has listeners.
    pub(crate) fn is_open(&self) -> bool {
        self.enabled && !self.paused
    }

    /// Its keys with their values, as `portway check --json` shows those of a listener. A key whose
    /// values differ by protocol has a table of both.
    pub(crate) fn options(&self) -> Map<String, Value> {
        let mut options = Map::new();
        for (key, listener) in &self.samples {
            for term in terms(key, listener, &self.plan) {
                let value = term.value.json();
                let other = options.get(term.key).filter(|other| **other != value).cloned();
                let shown = match (other, self.samples.first()) {
                    (Some(other), Some((first, _))) => {
                        json!({ first.protocol.as_str(): other, key.protocol.as_str(): value })
                    }
                    _ => value,
                };
                options.insert(term.key.to_owned(), shown);
            }
        }
        options
    }
}

/// Whether a mapping is open, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct State {
    /// Its file does not say `enabled = false`.
    pub enabled: bool,
    /// It is paused.
    pub paused: bool,
    /// When it ends by itself.
    pub until: Option<SystemTime>,
}

impl State {
    /// Whether the mapping has listeners.
    pub(crate) fn is_open(&self) -> bool {
        self.enabled && !self.paused
    }
}
