//! The outcome as JSON: every term of every listener, also where it is as by default.

use std::{net::IpAddr, num::NonZeroU32, path::Path};

use serde::Serialize;

use super::{Listener, listeners, options::external_port, spelling, targets};
use crate::{
    config::{LimitSettings, Loaded, MappingPlan, Problem, Problems, Service},
    gateway::{OnConflict, RouterProtocol, RouterSettings},
    mapping::{ListenAddr, MappingName, Protocol, TargetAddr, Timeout},
    meter::SessionLines,
    policy::{Entries, GateInput, GuardSpec, Limit, ListSpec, Policy, Rate},
    relay::{tcp::TcpOptions, udp::UdpOptions},
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
    options: Option<Options>,
    #[serde(flatten)]
    terms: Option<Terms<'r>>,
}

/// How sessions are treated, by protocol.
#[derive(Serialize)]
#[serde(untagged)]
enum Options {
    Tcp {
        connect_timeout: String,
        idle_timeout: String,
        half_close_timeout: String,
        keepalive: String,
        source: Option<IpAddr>,
        bandwidth_per_session: String,
    },
    Udp {
        idle_timeout: String,
        source: Option<IpAddr>,
        bandwidth_per_session: String,
    },
}

/// Who may enter, how often, how many at once; and whether from the internet.
#[derive(Serialize)]
struct Terms<'r> {
    allow: Option<Vec<String>>,
    deny: Vec<String>,
    allow_countries: Option<Vec<&'r str>>,
    deny_countries: Vec<&'r str>,
    max_sessions: Count,
    max_sessions_per_client: Count,
    new_sessions: String,
    burst: Option<NonZeroU32>,
    new_sessions_per_client: String,
    burst_per_client: Option<NonZeroU32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    datagrams_per_client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refuse: Option<&'static str>,
    log: SessionLines,
    router: Option<Opening>,
}

/// A number, or the word for none.
#[derive(Serialize)]
#[serde(untagged)]
enum Count {
    Number(NonZeroU32),
    Word(&'static str),
}

#[derive(Serialize)]
struct Opening {
    external_port: u16,
    ipv6: bool,
}

/// What holds for all mappings.
#[derive(Serialize)]
struct Daemon<'r> {
    lists: Vec<List<'r>>,
    geoip: Option<&'r Path>,
    guard: Option<Guard<'r>>,
    limits: Limits,
    router: Router<'r>,
}

#[derive(Serialize)]
struct List<'r> {
    name: &'r str,
    entries: usize,
    file: Option<&'r Path>,
}

#[derive(Serialize)]
struct Guard<'r> {
    refusals: String,
    ban: String,
    exempt: Vec<String>,
    state: Option<&'r Path>,
}

#[derive(Serialize)]
struct Limits {
    sessions: Count,
    flows: Count,
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

fn line<'r>(listener: Listener<'r>) -> Line<'r> {
    let Listener { key, plan, mapping } = listener;
    let options = match &plan.service {
        Service::Tcp(spec) => Some(Options::of_tcp(&spec.options)),
        Service::Udp(spec) => Some(Options::of_udp(&spec.options)),
        Service::Trap => None,
    };
    Line {
        name: &plan.name,
        protocol: key.protocol,
        listen: &key.addr,
        trap: options.is_none(),
        targets: targets(plan).collect(),
        terms: mapping.map(|mapping| Terms::of(listener, mapping)),
        options,
    }
}

impl Options {
    fn of_tcp(options: &TcpOptions) -> Self {
        Self::Tcp {
            connect_timeout: Timeout::After(options.connect_timeout).to_string(),
            idle_timeout: options.idle_timeout.to_string(),
            half_close_timeout: options.half_close_timeout.to_string(),
            keepalive: options.keepalive.to_string(),
            source: options.source,
            bandwidth_per_session: spelling::size(options.bandwidth),
        }
    }

    fn of_udp(options: &UdpOptions) -> Self {
        Self::Udp {
            idle_timeout: options.idle_timeout.to_string(),
            source: options.source,
            bandwidth_per_session: spelling::size(options.bandwidth),
        }
    }
}

impl<'r> Terms<'r> {
    fn of(listener: Listener<'r>, mapping: &'r MappingPlan) -> Self {
        let Policy { access, rates, caps, refuse } = &*mapping.policy;
        let is_udp = listener.key.protocol == Protocol::Udp;
        let burst = |rate: Option<Rate>| rate.map(|rate| rate.burst);
        let datagrams = rates.datagrams_per_client.filter(|_| is_udp);
        Self {
            allow: access.allow.as_ref().map(spelled),
            deny: spelled(&access.deny),
            allow_countries: access.allow_countries.as_ref().map(|c| c.iter().map(|c| c.as_str()).collect()),
            deny_countries: access.deny_countries.iter().map(|c| c.as_str()).collect(),
            max_sessions: caps.sessions.into(),
            max_sessions_per_client: caps.sessions_per_client.into(),
            new_sessions: spelling::rate(rates.new_sessions),
            burst: burst(rates.new_sessions),
            new_sessions_per_client: spelling::rate(rates.new_sessions_per_client),
            burst_per_client: burst(rates.new_sessions_per_client).or(burst(datagrams)),
            datagrams_per_client: is_udp.then(|| spelling::rate(datagrams)),
            refuse: (!is_udp).then_some(spelling::refuse(*refuse)),
            log: mapping.log,
            router: external_port(listener)
                .zip(listener.plan.exposure)
                .map(|(external_port, exposure)| Opening { external_port, ipv6: exposure.ipv6 }),
        }
    }
}

fn spelled(entries: &Entries) -> Vec<String> {
    spelling::entries(entries).collect()
}

impl From<Limit> for Count {
    fn from(limit: Limit) -> Self {
        match limit {
            Limit::Unlimited => Self::Word(spelling::UNLIMITED),
            Limit::AtMost(n) => Self::Number(n),
        }
    }
}

impl<'r> Daemon<'r> {
    fn of(loaded: &'r Loaded) -> Self {
        let GateInput { spec, lists, .. } = &loaded.gate;
        let LimitSettings { sessions, flows } = loaded.settings.limits;
        let count = |n: Option<NonZeroU32>| n.map_or(Count::Word(AUTO), Count::Number);
        Self {
            lists: lists
                .iter()
                .map(|(name, set)| List {
                    name: &name.0,
                    entries: set.len(),
                    file: spec.lists.get(name).and_then(|list| match list {
                        ListSpec::File(path) => Some(path.as_path()),
                        ListSpec::Inline(_) => None,
                    }),
                })
                .collect(),
            geoip: spec.geoip.as_deref(),
            guard: spec.guard.as_ref().map(Guard::of),
            limits: Limits { sessions: count(sessions), flows: count(flows) },
            router: Router::of(&loaded.settings.router),
        }
    }
}

impl<'r> Guard<'r> {
    fn of(spec: &'r GuardSpec) -> Self {
        Self {
            refusals: spelling::rate(Some(spec.refusals)),
            ban: Timeout::After(spec.ban).to_string(),
            exempt: spelled(&spec.exempt),
            state: spec.state.as_deref(),
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
            lease: Timeout::After(settings.lease).to_string(),
            on_conflict: settings.on_conflict,
            check_every: Timeout::After(settings.check_every).to_string(),
        }
    }
}
