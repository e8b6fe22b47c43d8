//! The metrics, as Prometheus reads them.
//!
//! Nothing is counted here. Each scrape makes the metrics from the [`Board`], so a mapping that is
//! gone has none. Names follow Prometheus' rules. A label never has a client's address, and the
//! series of listeners and targets have a limit ([`MOST_SERIES`]): a range of ports can have
//! thousands. `portway_listeners` counts all of them in any case.

use std::{
    collections::BTreeMap,
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet, prometheus_text, text},
    metrics::MetricType,
    registry::Registry,
};

use crate::{
    mapping::Protocol,
    meter::{Durations, Totals},
    policy::Refusal,
    status::{Board, Gauges, view},
};

/// The most series of listeners, and of targets.
const MOST_SERIES: usize = 2000;
/// The `Content-Type` of OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The form of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Prometheus' own.
    Prometheus,
    /// OpenMetrics.
    OpenMetrics,
}

impl Form {
    /// The form for a reader with this `Accept` header.
    pub(super) fn for_reader(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The `Content-Type`.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => OPEN_METRICS,
        }
    }
}

/// The metrics of this moment.
///
/// # Errors
/// A metric that cannot be written, which is a mistake of this module.
pub(super) fn text(board: &Board, form: Form) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape::of(board)));
    let mut text = String::new();
    match form {
        Form::Prometheus => prometheus_text::encode(&mut text, &registry)?,
        Form::OpenMetrics => text::encode(&mut text, &registry)?,
    }
    Ok(text)
}

/// What one scrape shows.
#[derive(Debug)]
struct Scrape {
    status: view::Status,
    mappings: Vec<view::Mapping>,
    /// By the label of the mapping, and by protocol.
    totals: Vec<(String, Protocol, Totals)>,
    /// By mapping and reason.
    dropped: BTreeMap<(String, &'static str), u64>,
    gauges: Gauges,
    /// By what became of them.
    knocks: Vec<(&'static str, u64)>,
}

impl Scrape {
    fn of(board: &Board) -> Self {
        let mut mappings = board.mappings();
        tell_apart(mappings.iter_mut().map(|mapping| &mut mapping.name));
        let mut totals = board.totals();
        // In the same order, so that the labels are the same.
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            tell_apart(totals.iter_mut().filter(|(_, of, _)| *of == protocol).map(|(name, ..)| name));
        }
        let (dropped, gauges, knocks) = (board.dropped(), board.gauges(), board.knocks());
        Self { status: board.status(), mappings, totals, dropped, gauges, knocks }
    }
}

/// Two mappings can share a default name, but two series must not have the same labels.
fn tell_apart<'n>(names: impl Iterator<Item = &'n mut String>) {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for name in names {
        let times = seen.entry(name.clone()).or_default();
        *times += 1;
        if *times > 1 {
            *name = format!("{name}#{times}");
        }
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.sessions(&mut encoder)?;
        self.durations(&mut encoder)?;
        self.refusals(&mut encoder)?;
        self.listeners(&mut encoder)?;
        self.targets(&mut encoder)?;
        self.router(&mut encoder)?;
        self.daemon(&mut encoder)?;
        self.process(&mut encoder)
    }
}

impl Scrape {
    fn sessions(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut active = gauge(encoder, "portway_sessions_active", "Live TCP sessions and UDP flows")?;
        for (mapping, protocol, totals) in &self.totals {
            set(&mut active, &of(mapping, *protocol), totals.live)?;
        }
        let help = "TCP sessions and UDP flows that were admitted";
        let mut started = counter(encoder, "portway_sessions_started", help)?;
        for (mapping, protocol, totals) in &self.totals {
            count(&mut started, &of(mapping, *protocol), totals.sessions)?;
        }
        let help = "TCP sessions and UDP flows that ended, by reason";
        let mut ended = counter(encoder, "portway_sessions_ended", help)?;
        for (mapping, protocol, totals) in &self.totals {
            for (reason, ended_so) in &totals.ended {
                let [mapping, protocol] = of(mapping, *protocol);
                count(&mut ended, &[mapping, protocol, ("reason", reason.as_str())], *ended_so)?;
            }
        }
        let help = "Bytes that were relayed: in is from clients to targets, out is from targets to clients";
        let mut bytes = counter(encoder, "portway_bytes", help)?;
        for (mapping, protocol, totals) in &self.totals {
            let [mapping, protocol] = of(mapping, *protocol);
            count(&mut bytes, &[mapping, protocol, ("direction", "in")], totals.moved.bytes_in)?;
            count(&mut bytes, &[mapping, protocol, ("direction", "out")], totals.moved.bytes_out)?;
        }
        let mut datagrams = counter(encoder, "portway_datagrams", "UDP datagrams that were relayed")?;
        for (mapping, _, totals) in self.totals.iter().filter(|(_, of, _)| *of == Protocol::Udp) {
            let mapping = ("mapping", mapping.as_str());
            count(&mut datagrams, &[mapping, ("direction", "in")], totals.moved.datagrams_in)?;
            count(&mut datagrams, &[mapping, ("direction", "out")], totals.moved.datagrams_out)?;
        }
        let help = "UDP datagrams of clients that were dropped, by reason";
        let mut dropped = counter(encoder, "portway_datagrams_dropped", help)?;
        for ((mapping, reason), datagrams) in &self.dropped {
            count(&mut dropped, &[("mapping", mapping.as_str()), ("reason", *reason)], *datagrams)?;
        }
        Ok(())
    }

    fn durations(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Time from the admission of a TCP client to the connection to its target";
        let mut dials =
            encoder.encode_descriptor("portway_dial_duration_seconds", help, None, MetricType::Histogram)?;
        for (mapping, _, totals) in self.totals.iter().filter(|(_, of, _)| *of == Protocol::Tcp) {
            histogram(&mut dials, &[("mapping", mapping)], &totals.dials)?;
        }
        let help = "Time that sessions and flows lasted";
        let mut lasted = encoder.encode_descriptor(
            "portway_session_duration_seconds",
            help,
            None,
            MetricType::Histogram,
        )?;
        for (mapping, protocol, totals) in &self.totals {
            histogram(&mut lasted, &of(mapping, *protocol), &totals.durations)?;
        }
        Ok(())
    }

    fn refusals(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut refusals = counter(encoder, "portway_refusals", "Clients that were refused, by reason")?;
        for mapping in &self.mappings {
            for reason in Refusal::ALL.map(|refusal| refusal.as_str()) {
                let refused = mapping.refused.get(reason).copied().unwrap_or_default();
                count(&mut refusals, &[("mapping", mapping.name.as_str()), ("reason", reason)], refused)?;
            }
        }
        Ok(())
    }

    fn listeners(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let all = || self.mappings.iter().flat_map(|m| m.listeners.iter().map(move |l| (&m.name, l)));
        let mut by_state = gauge(encoder, "portway_listeners", "Listeners of the configuration, by state")?;
        for (word, state) in [
            ("listening", view::ListenerState::Listening),
            ("waiting", view::ListenerState::Waiting),
            ("failed", view::ListenerState::Failed),
            ("closed", view::ListenerState::Closed),
        ] {
            let listeners = all().filter(|(_, listener)| listener.state == state).count() as u64;
            set(&mut by_state, &[("state", word)], listeners)?;
        }
        let mut up = gauge(encoder, "portway_listener_up", "Whether an enabled listener takes clients")?;
        let enabled = all().filter(|(_, listener)| listener.state != view::ListenerState::Closed);
        for (mapping, listener) in enabled.take(MOST_SERIES) {
            let protocol = listener.protocol.map_or("", Protocol::as_str);
            let labels = [("mapping", &**mapping), ("protocol", protocol), ("listener", &*listener.listen)];
            set(&mut up, &labels, u64::from(listener.state == view::ListenerState::Listening))?;
        }
        Ok(())
    }

    fn targets(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Whether sessions reach a target, or would as far as it is known";
        let mut up = gauge(encoder, "portway_target_up", help)?;
        let all = self.mappings.iter().flat_map(|m| m.targets.iter().map(move |target| (&m.name, target)));
        for (mapping, target) in all.clone().take(MOST_SERIES) {
            let labels = [("mapping", &**mapping), ("target", &*target.address)];
            set(&mut up, &labels, u64::from(target.state != view::TargetState::Down))?;
        }
        let help = "Whether an operator has paused a target, so that it takes no new sessions";
        let mut paused = gauge(encoder, "portway_target_paused", help)?;
        for (mapping, target) in all.clone().take(MOST_SERIES) {
            let labels = [("mapping", &**mapping), ("target", &*target.address)];
            set(&mut paused, &labels, u64::from(target.state == view::TargetState::Paused))?;
        }
        let mut sessions = gauge(encoder, "portway_target_sessions", "Live sessions and flows of a target")?;
        for (mapping, target) in all.take(MOST_SERIES) {
            let labels = [("mapping", &**mapping), ("target", &*target.address)];
            set(&mut sessions, &labels, target.sessions)?;
        }
        Ok(())
    }

    fn router(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut open = gauge(encoder, "portway_lease_up", "Whether a port is open on the home router")?;
        let leases = self.mappings.iter().flat_map(|m| {
            let leases = m.router.iter().flatten();
            // An IPv6 listener has a pinhole beside its port.
            let mut up: BTreeMap<(&str, &str), bool> = BTreeMap::new();
            for lease in leases {
                let protocol = lease.protocol.map_or("", Protocol::as_str);
                *up.entry((protocol, &lease.listen)).or_default() |= lease.state == "open";
            }
            up.into_iter().map(move |(lease, is_up)| (&m.name, lease, is_up))
        });
        for (mapping, (protocol, listener), is_up) in leases.take(MOST_SERIES) {
            let labels = [("mapping", &**mapping), ("protocol", protocol), ("listener", listener)];
            set(&mut open, &labels, u64::from(is_up))?;
        }
        Ok(())
    }

    fn daemon(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Gauges { sessions_limit, flows_limit, reload_successful, reload_success, .. } = self.gauges;
        let help = "The version that runs";
        set(&mut gauge(encoder, "portway_build_info", help)?, &[("version", &*self.status.version)], 1)?;
        value(encoder, "portway_bans_active", "Bans in force", self.status.bans as u64)?;
        let help = "Connections to decoys";
        count_alone(encoder, "portway_trap_touches", help, self.gauges.trap_touches)?;
        let mut knocks = counter(encoder, "portway_knocks", "Knocks by what became of them")?;
        for (reason, number) in &self.knocks {
            count(&mut knocks, &[("reason", *reason)], *number)?;
        }
        value(encoder, "portway_sessions_limit", "TCP sessions that there may be", sessions_limit)?;
        value(encoder, "portway_flows_limit", "UDP flows that there may be", flows_limit)?;
        let help = "Whether the last reload was applied; the start counts";
        value(encoder, "portway_config_last_reload_successful", help, u64::from(reload_successful))?;
        let help = "When a configuration was last applied";
        let mut applied = gauge(encoder, "portway_config_last_reload_success_timestamp_seconds", help)?;
        applied.encode_gauge(&seconds(reload_success))
    }

    fn process(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let view::Descriptors { open, limit } = self.status.descriptors;
        value(encoder, "process_open_fds", "Number of open file descriptors", open)?;
        value(encoder, "process_max_fds", "Maximum number of open file descriptors", limit)?;
        let help = "Resident memory size in bytes";
        value(encoder, "process_resident_memory_bytes", help, self.gauges.resident_bytes)?;
        let help = "Start time of the process since unix epoch in seconds";
        gauge(encoder, "process_start_time_seconds", help)?.encode_gauge(&seconds(self.gauges.started))
    }
}

fn of(mapping: &str, protocol: Protocol) -> [(&'static str, &str); 2] {
    [("mapping", mapping), ("protocol", protocol.as_str())]
}

fn gauge<'e>(
    encoder: &'e mut DescriptorEncoder<'_>,
    name: &'e str,
    help: &'e str,
) -> Result<MetricEncoder<'e>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)
}

/// A counter. The encoder adds `_total` to its name.
fn counter<'e>(
    encoder: &'e mut DescriptorEncoder<'_>,
    name: &'e str,
    help: &'e str,
) -> Result<MetricEncoder<'e>, fmt::Error> {
    encoder.encode_descriptor(name, help, None, MetricType::Counter)
}

/// A gauge without labels.
fn value(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    gauge(encoder, name, help)?.encode_gauge(&value)
}

/// A counter without labels.
fn count_alone(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    counter(encoder, name, help)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
}

fn set(family: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, value: u64) -> fmt::Result {
    family.encode_family(labels)?.encode_gauge(&value)
}

fn count(family: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, value: u64) -> fmt::Result {
    family.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
}

fn histogram(
    family: &mut MetricEncoder<'_>,
    labels: &impl EncodeLabelSet,
    durations: &Durations,
) -> fmt::Result {
    let end = |end: &Option<std::time::Duration>| end.map_or(f64::MAX, |end| end.as_secs_f64());
    let ranges: Vec<_> = durations.ranges.iter().map(|(upper, count)| (end(upper), *count)).collect();
    let sum = durations.sum.as_secs_f64();
    family.encode_family(labels)?.encode_histogram::<NoLabelSet>(sum, durations.count(), &ranges, None)
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
