//! The outcome as JSON: every term of every listener, also where it is as by default.

use std::{borrow::Cow, num::NonZeroU32, path::Path};

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::{Listener, listeners, targets};
use crate::{
    config::{LimitSettings, Loaded, Problem, Problems, Spell as _, Term, terms},
    gateway::{OnConflict, RouterProtocol, RouterSettings},
    mapping::{ListenAddr, MappingName, Protocol, TargetAddr},
    policy::{GateInput, GuardSpec, ListSpec},
    text::escaped_json,
};

#[derive(Serialize)]
struct Report<'r> {
    ok: bool,
    mappings: Vec<Line<'r>>,
    #[serde(flatten)]
    daemon: Option<Daemon<'r>>,
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
    targets: Vec<&'r TargetAddr>,
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

/// What holds for all mappings.
#[derive(Serialize)]
struct Daemon<'r> {
    lists: Vec<List<'r>>,
    geoip: Option<Cow<'r, str>>,
    guard: Option<Guard<'r>>,
    limits: Limits,
    router: Router<'r>,
}

#[derive(Serialize)]
struct List<'r> {
    name: &'r str,
    entries: usize,
    file: Option<Cow<'r, str>>,
}

#[derive(Serialize)]
struct Guard<'r> {
    refusals: String,
    ban: String,
    exempt: Value,
    state: Option<Cow<'r, str>>,
}

#[derive(Serialize)]
struct Limits {
    sessions: Value,
    flows: Value,
}

#[derive(Serialize)]
struct Router<'r> {
    protocols: &'r [RouterProtocol],
    gateway: String,
    interface: &'r str,
    lease: String,
    on_conflict: OnConflict,
    check_every: String,
}

const AUTO: &str = "auto";

/// The outcome as JSON, a listener an entry of `mappings`; ends with a line break.
pub fn json(result: &Result<Loaded, Problems>) -> String {
    let report = match result {
        Ok(loaded) => Report {
            ok: true,
            mappings: listeners(&loaded.plan).map(line).collect(),
            daemon: Some(Daemon::of(loaded)),
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

/// A path in JSON, which is Unicode: a path need not be.
fn text(path: &Path) -> Cow<'_, str> {
    path.to_string_lossy()
}

fn line<'r>(listener: Listener<'r>) -> Line<'r> {
    let Listener { key, plan, mapping } = listener;
    let terms = mapping.map(|mapping| terms(key, plan, mapping)).unwrap_or_default();
    Line {
        name: &plan.name,
        protocol: key.protocol,
        listen: &key.addr,
        trap: mapping.is_none(),
        targets: targets(plan).collect(),
        terms: Terms(terms),
    }
}

impl<'r> Daemon<'r> {
    fn of(loaded: &'r Loaded) -> Self {
        let GateInput { spec, lists, .. } = &loaded.gate;
        let LimitSettings { sessions, flows } = loaded.settings.limits;
        let count = |n: Option<NonZeroU32>| n.map_or(AUTO.into(), |n| n.json());
        Self {
            lists: lists
                .iter()
                .map(|(name, set)| List {
                    name: &name.0,
                    entries: set.len(),
                    file: spec.lists.get(name).and_then(|list| match list {
                        ListSpec::File(path) => Some(text(path)),
                        ListSpec::Inline(_) => None,
                    }),
                })
                .collect(),
            geoip: spec.geoip.as_deref().map(text),
            guard: spec.guard.as_ref().map(Guard::of),
            limits: Limits { sessions: count(sessions), flows: count(flows) },
            router: Router::of(&loaded.settings.router),
        }
    }
}

impl<'r> Guard<'r> {
    fn of(spec: &'r GuardSpec) -> Self {
        Self {
            refusals: spec.refusals.brief(),
            ban: spec.ban.brief(),
            exempt: spec.exempt.json(),
            state: spec.state.as_deref().map(text),
        }
    }
}

impl<'r> Router<'r> {
    fn of(settings: &'r RouterSettings) -> Self {
        let gateway = match settings.gateway {
            None => AUTO.to_owned(),
            Some((ip, None)) => ip.to_string(),
            Some((ip, Some(port))) => std::net::SocketAddr::new(ip, port.get()).to_string(),
        };
        Self {
            protocols: &settings.protocols,
            gateway,
            interface: settings.interface.as_deref().unwrap_or(AUTO),
            lease: settings.lease.brief(),
            on_conflict: settings.on_conflict,
            check_every: settings.check_every.brief(),
        }
    }
}
