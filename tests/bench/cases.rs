//! What is measured, and what portway promises about it.

use super::stats::{Better, best, ratio};

/// One case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    /// As given to `--case`.
    pub(crate) name: &'static str,
    /// As shown.
    pub(crate) title: &'static str,
    /// What is done.
    pub(crate) load: Load,
}

/// What is done in a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// Streams as fast as they go.
    Bulk { streams: usize },
    /// One request at a time on each of the connections.
    Ping { connections: usize },
    /// Connect, request, answer, close.
    Churn { parallel: usize },
    /// The same, with the first message of a TLS client, which the relay routes by the name in it.
    Named { parallel: usize },
    /// The same, and the target gets a PROXY header first.
    Greeted { parallel: usize },
    /// Sessions that have said one thing and then nothing.
    Idle { sessions: usize },
    /// One datagram at a time on each of the flows.
    DatagramPing { flows: usize },
    /// Datagrams as fast as they are delivered.
    Flood { size: usize, flows: usize },
    /// Many flows.
    Flows { count: usize },
    /// Many listeners: start, memory, reload.
    Listeners { count: usize },
}

impl Load {
    /// Whether it is about datagrams.
    pub(crate) fn is_udp(self) -> bool {
        matches!(self, Self::DatagramPing { .. } | Self::Flood { .. } | Self::Flows { .. })
    }

    /// What it yields; the first one stands for the case in the plot.
    pub(crate) fn metrics(self) -> &'static [Metric] {
        match self {
            Self::Bulk { .. } => &BULK,
            Self::Ping { .. } | Self::DatagramPing { .. } => &PING,
            Self::Churn { .. } | Self::Named { .. } | Self::Greeted { .. } => &CHURN,
            Self::Idle { .. } => &IDLE,
            Self::Flood { .. } => &FLOOD,
            Self::Flows { .. } => &FLOWS,
            Self::Listeners { .. } => &LISTENERS,
        }
    }
}

/// Something measured in a case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Metric {
    /// In the results file.
    pub(crate) key: &'static str,
    /// As shown.
    pub(crate) label: &'static str,
    /// Which value is the better one.
    pub(crate) better: Better,
}

const fn lower(key: &'static str, label: &'static str) -> Metric {
    Metric { key, label, better: Better::Lower }
}

const fn higher(key: &'static str, label: &'static str) -> Metric {
    Metric { key, label, better: Better::Higher }
}

const BULK: [Metric; 2] = [lower("cpu", "CPU s/GiB"), higher("rate", "Gbit/s")];
const PING: [Metric; 5] = [
    lower("cpu", "CPU µs/request"),
    lower("p50", "p50 µs"),
    lower("p99", "p99 µs"),
    lower("p999", "p99.9 µs"),
    higher("rate", "requests/s"),
];
const CHURN: [Metric; 5] = [
    lower("cpu", "CPU µs/connection"),
    lower("p50", "p50 µs"),
    lower("p99", "p99 µs"),
    lower("p999", "p99.9 µs"),
    higher("rate", "connections/s"),
];
const IDLE: [Metric; 4] = [
    lower("memory", "KiB/session"),
    lower("held", "MiB held after"),
    higher("returned", "% returned after"),
    higher("sessions", "sessions open"),
];
const FLOOD: [Metric; 3] =
    [lower("cpu", "CPU µs/datagram"), lower("loss", "% lost"), higher("rate", "datagrams/s")];
const FLOWS: [Metric; 4] = [
    lower("memory", "KiB/flow"),
    higher("rate", "new flows/s"),
    lower("cpu", "CPU µs/flow"),
    lower("resent", "% lost"),
];
const LISTENERS: [Metric; 3] =
    [lower("start", "start ms"), lower("memory", "MiB"), lower("reload", "reload ms")];

/// All cases, in the order of the table.
pub(crate) const CASES: [Case; 22] = [
    Case { name: "bulk-1", title: "bulk, 1 stream", load: Load::Bulk { streams: 1 } },
    Case { name: "bulk-8", title: "bulk, 8 streams", load: Load::Bulk { streams: 8 } },
    Case { name: "bulk-64", title: "bulk, 64 streams", load: Load::Bulk { streams: 64 } },
    Case { name: "ping-1", title: "ping-pong, 1 connection", load: Load::Ping { connections: 1 } },
    Case { name: "ping-64", title: "ping-pong, 64 connections", load: Load::Ping { connections: 64 } },
    Case { name: "ping-1000", title: "ping-pong, 1000 connections", load: Load::Ping { connections: 1000 } },
    Case { name: "connect-1", title: "connect-request-close, 1", load: Load::Churn { parallel: 1 } },
    Case { name: "connect-16", title: "connect-request-close, 16", load: Load::Churn { parallel: 16 } },
    Case { name: "sni-16", title: "connect by TLS name, 16", load: Load::Named { parallel: 16 } },
    Case { name: "proxy-16", title: "connect with PROXY header, 16", load: Load::Greeted { parallel: 16 } },
    Case { name: "idle", title: "7,000 idle sessions", load: Load::Idle { sessions: 7_000 } },
    Case { name: "udp-ping-1", title: "UDP ping-pong, 1 flow", load: Load::DatagramPing { flows: 1 } },
    Case { name: "udp-ping-16", title: "UDP ping-pong, 16 flows", load: Load::DatagramPing { flows: 16 } },
    Case { name: "flood-64x1", title: "UDP flood, 64 B × 1 flow", load: Load::Flood { size: 64, flows: 1 } },
    Case {
        name: "flood-64x16",
        title: "UDP flood, 64 B × 16 flows",
        load: Load::Flood { size: 64, flows: 16 },
    },
    Case {
        name: "flood-1200x1",
        title: "UDP flood, 1200 B × 1 flow",
        load: Load::Flood { size: 1200, flows: 1 },
    },
    Case {
        name: "flood-1200x16",
        title: "UDP flood, 1200 B × 16 flows",
        load: Load::Flood { size: 1200, flows: 16 },
    },
    Case { name: "flows", title: "5,000 UDP flows", load: Load::Flows { count: 5_000 } },
    Case { name: "listeners-1", title: "1 listener", load: Load::Listeners { count: 1 } },
    Case { name: "listeners-100", title: "100 listeners", load: Load::Listeners { count: 100 } },
    Case { name: "listeners-1000", title: "1,000 listeners", load: Load::Listeners { count: 1_000 } },
    Case { name: "listeners-5000", title: "5,000 listeners", load: Load::Listeners { count: 5_000 } },
];

/// The case of that name.
pub(crate) fn by_name(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}

/// What portway promises.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    /// A value of its own.
    Below(f64),
    /// A value of its own.
    Above(f64),
    /// So many times the best peer's value.
    BelowBest(f64),
    /// So many times the best peer's value.
    AboveBest(f64),
}

/// The goal for a metric of a case, if there is one.
pub(crate) fn goal(case: &str, metric: &str) -> Option<Goal> {
    Some(match (case, metric) {
        ("bulk-1" | "bulk-8", "cpu") => Goal::BelowBest(0.9),
        ("bulk-1", "rate") => Goal::AboveBest(1.0),
        ("ping-64", "cpu") => Goal::BelowBest(0.95),
        ("ping-64", "p99") | ("connect-16" | "sni-16" | "proxy-16", "cpu") => Goal::BelowBest(1.0),
        ("idle", "memory") => Goal::Below(1.5),
        ("idle", "returned") => Goal::Above(90.0),
        ("udp-ping-16", "cpu") => Goal::BelowBest(0.85),
        ("flood-1200x16", "cpu") => Goal::BelowBest(0.6),
        ("flows", "memory") => Goal::Below(2.0),
        ("flows", "rate") => Goal::AboveBest(2.0),
        _ => return None,
    })
}

impl Goal {
    /// As shown.
    pub(crate) fn text(self) -> String {
        match self {
            Self::Below(value) => format!("≤ {value}"),
            Self::Above(value) => format!("≥ {value}"),
            Self::BelowBest(times) => format!("≤ {times} ×"),
            Self::AboveBest(times) => format!("≥ {times} ×"),
        }
    }

    /// Whether a value keeps it; unknown without a peer to compare with.
    pub(crate) fn met(self, value: f64, best_peer: Option<f64>) -> Option<bool> {
        let times = best_peer.and_then(|best| ratio(value, best));
        match self {
            Self::Below(limit) => Some(value <= limit),
            Self::Above(limit) => Some(value >= limit),
            Self::BelowBest(limit) => times.map(|times| times <= limit),
            Self::AboveBest(limit) => times.map(|times| times >= limit),
        }
    }
}

/// The best of several peers by a metric.
pub(crate) fn best_peer<'a>(
    metric: &Metric,
    peers: impl IntoIterator<Item = (&'a str, f64)>,
) -> Option<(&'a str, f64)> {
    best(peers, metric.better)
}
