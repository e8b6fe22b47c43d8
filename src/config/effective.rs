//! The configuration as it holds, for programs: every key with its value, also where that is as by
//! default. Secrets are left out.
//!
//! `portway check --json` and `GET /v1/config` show the same of the daemon. The API shows each
//! mapping once, with its place, and closed ones, too.

use std::{borrow::Cow, num::NonZeroU32, path::Path};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    config::{
        LimitSettings, Plan, Sandbox, Settings,
        lower::api::{ApiSettings, OFF, Role},
        text::Spell,
    },
    gateway::{OnConflict, RouterProtocol, RouterSettings},
    mapping::{ListenAddr, MappingOrigin, Protocol},
    policy::{GateSpec, GuardSpec, KnockSpec, ListName, ListSpec},
};

const AUTO: &str = "auto";

/// The whole configuration as JSON, without secrets.
pub(crate) fn effective(plan: &Plan, settings: &Settings, gate: &GateSpec) -> Value {
    let mappings = plan.about.iter().map(|(id, about)| Mapping {
        name: id.name.as_str(),
        origin: about.origin,
        place: &about.place,
        enabled: about.enabled,
        paused: about.paused,
        until: about.until.map(|until| humantime::format_rfc3339_seconds(until).to_string()),
        listeners: about.listeners.iter().map(|key| Listener(key.protocol, &key.addr)).collect(),
        targets: about.leads.iter().map(Spell::json).collect(),
        options: about.options(),
    });
    let all = Effective { mappings: mappings.collect(), daemon: DaemonTerms::of(settings, gate, |_| None) };
    serde_json::to_value(&all).unwrap_or_default()
}

#[derive(Serialize)]
struct Effective<'r> {
    mappings: Vec<Mapping<'r>>,
    #[serde(flatten)]
    daemon: DaemonTerms<'r>,
}

#[derive(Serialize)]
struct Mapping<'r> {
    name: &'r str,
    origin: MappingOrigin,
    place: &'r str,
    enabled: bool,
    paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    listeners: Vec<Listener<'r>>,
    targets: Vec<Value>,
    #[serde(flatten)]
    options: Map<String, Value>,
}

/// A listener of a mapping.
struct Listener<'r>(Protocol, &'r ListenAddr);

impl Serialize for Listener<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([("protocol", self.0.to_string()), ("listen", self.1.to_string())])
    }
}

/// What holds for all mappings.
#[derive(Serialize)]
pub(crate) struct DaemonTerms<'r> {
    lists: Vec<List<'r>>,
    geoip: Option<Cow<'r, str>>,
    guard: Option<Guard<'r>>,
    knock: Option<Knock<'r>>,
    limits: Limits,
    router: Router<'r>,
    api: Api<'r>,
    metrics: Metrics<'r>,
    probe: Option<Probe>,
    docker: Option<Docker<'r>>,
    log: Log,
    daemon: Process,
    shutdown: Shutdown,
}

#[derive(Serialize)]
struct List<'r> {
    name: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<usize>,
    file: Option<Cow<'r, str>>,
}

#[derive(Serialize)]
struct Guard<'r> {
    refusals: String,
    ban: String,
    exempt: Value,
    state: Option<Cow<'r, str>>,
}

/// The terms of knocks, without a key.
#[derive(Serialize)]
struct Knock<'r> {
    listen: Option<&'r str>,
    keys: Vec<&'r str>,
    sequence: Vec<String>,
    open_for: String,
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

#[derive(Serialize)]
struct Api<'r> {
    socket: Cow<'r, str>,
    listen: Option<&'r ListenAddr>,
    tokens: Vec<Token>,
    hosts: &'r [String],
    managed: Option<Cow<'r, str>>,
}

/// A token, without itself.
#[derive(Serialize)]
struct Token {
    role: Role,
}

#[derive(Serialize)]
struct Metrics<'r> {
    listen: Option<&'r ListenAddr>,
}

/// The terms of proof from outside, without the token.
#[derive(Serialize)]
struct Probe {
    from: Option<String>,
    proxies: Vec<String>,
}

#[derive(Serialize)]
struct Docker<'r> {
    socket: String,
    label_prefix: &'r str,
    network: &'r str,
    allow_router: bool,
}

#[derive(Serialize)]
struct Log {
    level: String,
    format: String,
    target: String,
}

#[derive(Serialize)]
struct Process {
    user: Option<String>,
    sandbox: &'static str,
}

#[derive(Serialize)]
struct Shutdown {
    grace: String,
}

impl<'r> DaemonTerms<'r> {
    /// The terms of these settings. `count` says how many entries a list has.
    pub(crate) fn of(
        settings: &'r Settings,
        gate: &'r GateSpec,
        count: impl Fn(&ListName) -> Option<usize>,
    ) -> Self {
        let LimitSettings { sessions, flows } = settings.limits;
        let limit = |n: Option<NonZeroU32>| n.map_or(AUTO.into(), |n| n.json());
        Self {
            lists: gate
                .lists
                .iter()
                .map(|(name, list)| List {
                    name: &name.0,
                    entries: count(name),
                    file: match list {
                        ListSpec::File(path) => Some(text(path)),
                        ListSpec::Inline(_) => None,
                    },
                })
                .collect(),
            geoip: gate.geoip.as_deref().map(text),
            guard: gate.guard.as_ref().map(Guard::of),
            knock: gate.knock.as_ref().map(Knock::of),
            limits: Limits { sessions: limit(sessions), flows: limit(flows) },
            router: Router::of(&settings.router),
            api: Api::of(&settings.api),
            metrics: Metrics { listen: settings.metrics.listen.as_ref() },
            probe: settings.api.probe.as_ref().map(|probe| Probe {
                from: probe.from.as_ref().map(ToString::to_string),
                proxies: probe.proxies.iter().map(ToString::to_string).collect(),
            }),
            docker: settings.docker.as_ref().map(|docker| Docker {
                socket: docker.engine.to_string(),
                label_prefix: &docker.label_prefix,
                network: docker.network.as_deref().unwrap_or(AUTO),
                allow_router: docker.allow_router,
            }),
            log: Log {
                level: settings.log.level.to_string(),
                format: settings.log.format.as_str().to_owned(),
                target: settings.log.target.to_string(),
            },
            daemon: Process {
                user: settings.daemon.user.as_ref().map(ToString::to_string),
                sandbox: settings.daemon.sandbox.unwrap_or(Sandbox::Auto).as_str(),
            },
            shutdown: Shutdown { grace: settings.grace.to_string() },
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

impl<'r> Knock<'r> {
    fn of(spec: &'r KnockSpec) -> Self {
        Self {
            listen: spec.listen.as_deref(),
            keys: spec.keys.iter().map(|key| &*key.name).collect(),
            sequence: spec.sequence.iter().map(|(protocol, port)| format!("{port}/{protocol}")).collect(),
            open_for: spec.open_for.brief(),
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

impl<'r> Api<'r> {
    fn of(settings: &'r ApiSettings) -> Self {
        Self {
            socket: settings.socket.path().map_or(OFF.into(), text),
            listen: settings.listen.as_ref(),
            tokens: settings.tokens.iter().map(|token| Token { role: token.role }).collect(),
            hosts: &settings.hosts,
            managed: settings.managed.as_deref().map(text),
        }
    }
}

/// A path in JSON, which is Unicode: a path need not be.
fn text(path: &Path) -> Cow<'_, str> {
    path.to_string_lossy()
}
