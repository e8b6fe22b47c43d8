//! The last column of the table: what differs from the built-in defaults, as it is written.

use std::{collections::BTreeSet, fmt::Display, net::IpAddr};

use super::{Listener, spelling};
use crate::{
    config::Service,
    mapping::Timeout,
    meter::SessionLines,
    policy::{AccessSpec, Country, GuardSpec, Policy, Rate, Refuse},
    relay::{tcp::TcpOptions, udp::UdpOptions},
    text::Escaped,
};

/// Words such as `idle_timeout=1h`.
#[derive(Default)]
struct Words(Vec<String>);

impl Words {
    fn add(&mut self, key: &str, differs: bool, value: impl Display) {
        if differs {
            self.0.push(format!("{key}={value}"));
        }
    }
}

/// What differs, but for the port on the router.
pub(super) fn options(listener: Listener<'_>) -> Vec<String> {
    let Some(mapping) = listener.mapping else { return Vec::new() };
    let mut words = Words::default();
    let source = |ip: Option<IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
    let bandwidth = match &listener.plan.service {
        Service::Tcp(spec) => {
            let (is, usual) = (&spec.options, TcpOptions::default());
            let connect = Timeout::After(is.connect_timeout);
            words.add("connect_timeout", is.connect_timeout != usual.connect_timeout, connect);
            words.add("idle_timeout", is.idle_timeout != usual.idle_timeout, is.idle_timeout);
            let half_close = is.half_close_timeout;
            words.add("half_close_timeout", half_close != usual.half_close_timeout, half_close);
            words.add("keepalive", is.keepalive != usual.keepalive, is.keepalive);
            words.add("source", is.source != usual.source, source(is.source));
            is.bandwidth
        }
        Service::Udp(spec) => {
            let (is, usual) = (&spec.options, UdpOptions::default());
            words.add("idle_timeout", is.idle_timeout != usual.idle_timeout, is.idle_timeout);
            words.add("source", is.source != usual.source, source(is.source));
            is.bandwidth
        }
        Service::Trap => return Vec::new(),
    };
    let is_udp = matches!(listener.plan.service, Service::Udp(_));
    access(&mapping.policy.access, &mut words);
    amounts(&mapping.policy, is_udp, &mut words);
    words.add("bandwidth_per_session", bandwidth.is_some(), spelling::size(bandwidth));
    let refuse = mapping.policy.refuse;
    words.add("refuse", !is_udp && refuse != Refuse::default(), spelling::refuse(refuse));
    words.add("log", mapping.log != SessionLines::default(), mapping.log.as_str());
    words.0
}

fn access(access: &AccessSpec, words: &mut Words) {
    let few = spelling::few_entries;
    let countries = |codes: &BTreeSet<Country>| {
        spelling::few(codes.iter().map(|code| code.as_str().to_owned()), codes.len())
    };
    if let Some(allow) = &access.allow {
        words.add("allow", true, few(allow));
    }
    let deny = few(&access.deny);
    words.add("deny", !deny.is_empty(), &deny);
    if let Some(allow) = &access.allow_countries {
        words.add("allow_countries", true, countries(allow));
    }
    words.add("deny_countries", !access.deny_countries.is_empty(), countries(&access.deny_countries));
}

fn amounts(policy: &Policy, is_udp: bool, words: &mut Words) {
    let (caps, usual) = (policy.caps, Policy::default().caps);
    words.add("max_sessions", caps.sessions != usual.sessions, spelling::limit(caps.sessions));
    let per_client = caps.sessions_per_client;
    words.add(
        "max_sessions_per_client",
        per_client != usual.sessions_per_client,
        spelling::limit(per_client),
    );
    let rates = &policy.rates;
    rate(rates.new_sessions, "new_sessions", "burst", words);
    rate(rates.new_sessions_per_client, "new_sessions_per_client", "burst_per_client", words);
    if is_udp {
        rate(rates.datagrams_per_client, "datagrams_per_client", "burst_per_client", words);
    }
}

fn rate(rate: Option<Rate>, key: &str, burst: &str, words: &mut Words) {
    if let Some(Rate { count, burst: at_once, .. }) = rate {
        words.add(key, true, spelling::rate(rate));
        words.add(burst, at_once != count, at_once);
    }
}

/// The port on the router, if it shall be open there.
pub(super) fn external_port(listener: Listener<'_>) -> Option<u16> {
    Some(listener.plan.exposure?.external_port.unwrap_or(listener.key.addr.port).get())
}

/// What shall be open on the router for a run of listeners: `router=30000`, `router=30000-30010`, `router=80+ipv6`.
pub(super) fn router(first: Listener<'_>, last: Listener<'_>) -> Option<String> {
    let (from, to) = (external_port(first)?, external_port(last)?);
    let ports = if from == to { from.to_string() } else { format!("{from}-{to}") };
    let ipv6 = if first.plan.exposure?.ipv6 { "+ipv6" } else { "" };
    Some(format!("router={ports}{ipv6}"))
}

/// The guard's terms.
pub(super) fn guard(spec: &GuardSpec) -> Vec<String> {
    let mut words = Words::default();
    words.add("refusals", true, spelling::rate(Some(spec.refusals)));
    words.add("ban", true, Timeout::After(spec.ban));
    let exempt = spelling::few_entries(&spec.exempt);
    words.add("exempt", !exempt.is_empty(), &exempt);
    if let Some(state) = &spec.state {
        words.add("state", true, Escaped(state.display()));
    }
    words.0
}
