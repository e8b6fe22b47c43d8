//! The outcome as JSON: every term of every listener, also where it is as by default.

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::{Listener, listeners, targets};
use crate::{
    config::{DaemonTerms, Loaded, Problem, Problems, Service, Spell, Term, terms},
    mapping::{ListenAddr, MappingName, Protocol},
    policy::GateInput,
    text::escaped_json,
};

#[derive(Serialize)]
struct Report<'r> {
    ok: bool,
    mappings: Vec<Line<'r>>,
    #[serde(flatten)]
    daemon: Option<DaemonTerms<'r>>,
    warnings: Vec<&'r Problem>,
    problems: Vec<&'r Problem>,
}

/// A listener.
#[derive(Serialize)]
struct Line<'r> {
    name: &'r MappingName,
    protocol: Protocol,
    listen: &'r ListenAddr,
    /// A decoy has neither targets nor terms.
    trap: bool,
    /// Each as one would write it.
    targets: Vec<Value>,
    #[serde(flatten)]
    terms: Terms<'r>,
}

/// The keys of a listener with their values.
struct Terms<'r>(Vec<Term<'r>>);

impl Serialize for Terms<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|term| (term.key, term.value.json())))
    }
}

/// The outcome as JSON, a listener an entry of `mappings`; ends with a line break.
pub fn json(result: &Result<Loaded, Problems>) -> String {
    let report = match result {
        Ok(loaded) => Report {
            ok: true,
            mappings: listeners(&loaded.plan).map(line).collect(),
            daemon: Some(daemon(loaded)),
            warnings: loaded.warnings.iter().collect(),
            problems: Vec::new(),
        },
        Err(problems) => Report {
            ok: false,
            mappings: Vec::new(),
            daemon: None,
            warnings: problems.warnings.iter().collect(),
            problems: problems.iter().collect(),
        },
    };
    let text = serde_json::to_string_pretty(&report).expect("strings, numbers and flags have a JSON form");
    escaped_json(&text) + "\n"
}

fn line<'r>(listener: Listener<'r>) -> Line<'r> {
    let Listener { key, plan, mapping } = listener;
    let terms = mapping.map(|mapping| terms(key, plan, mapping)).unwrap_or_default();
    Line {
        name: &plan.name,
        protocol: key.protocol,
        listen: &key.addr,
        trap: plan.service == Service::Trap,
        targets: targets(plan).map(Spell::json).collect(),
        terms: Terms(terms),
    }
}

fn daemon(loaded: &Loaded) -> DaemonTerms<'_> {
    let GateInput { spec, lists, .. } = &loaded.gate;
    DaemonTerms::of(&loaded.settings, spec, |name| lists.get(name).map(|set| set.len()))
}
