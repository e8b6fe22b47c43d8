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
    /// The same work with more and more of something beside it.
    Grow { by: Growth, size: usize },
    /// One request at a time on one connection, in quiet and then beside something else.
    Under(Disturbance),
}

/// What goes on beside a ping-pong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disturbance {
    /// Eight streams as fast as they go.
    Bulk,
    /// Ten thousand clients a second that may not enter.
    Refused,
    /// Reloads of a thousand mappings.
    Reload,
    /// An open dashboard of a hundred mappings.
    Dashboard,
}

impl Disturbance {
    /// As a message names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bulk => "beside bulk streams",
            Self::Refused => "beside refused clients",
            Self::Reload => "beside reloads",
            Self::Dashboard => "beside a dashboard",
        }
    }
}

/// What grows, while the work stays the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Growth {
    /// Open connections, of which up to 64 have a request under way.
    Connections,
    /// Open flows, of which up to 16 have a datagram under way.
    Flows,
    /// Mappings that 16 connections at a time go to in turn.
    Mappings,
    /// Entries of a list that keeps others out.
    Entries,
    /// Banned addresses.
    Bans,
    /// Cores, for connections.
    CoresConnect,
    /// Cores, for requests.
    CoresPing,
}

/// Requests under way among however many connections there are.
pub(crate) const BUSY_CONNECTIONS: usize = 64;
/// Datagrams under way among however many flows there are.
pub(crate) const BUSY_FLOWS: usize = 16;

impl Growth {
    /// Descriptors of the relay, or of the load, that one more of these takes.
    fn descriptors(self) -> usize {
        match self {
            Self::Connections => 2,
            Self::Flows | Self::Mappings => 1,
            Self::Entries | Self::Bans | Self::CoresConnect | Self::CoresPing => 0,
        }
    }
}

impl Load {
    /// Whether it is a point of a curve.
    pub(crate) fn is_growth(self) -> bool {
        matches!(self, Self::Grow { .. })
    }

    /// Whether it is about datagrams.
    pub(crate) fn is_udp(self) -> bool {
        matches!(
            self,
            Self::DatagramPing { .. }
                | Self::Flood { .. }
                | Self::Flows { .. }
                | Self::Grow { by: Growth::Flows, .. }
        )
    }

    /// The same with no more of what grows than there are descriptors for: if that is less than half of what is wanted,
    /// it says why not.
    pub(crate) fn within(self, descriptors: usize) -> Result<Self, String> {
        let Self::Grow { by, size } = self else { return Ok(self) };
        let most = descriptors.saturating_sub(SPARE).checked_div(by.descriptors()).unwrap_or(usize::MAX);
        if most < size.div_ceil(2) {
            let wanted = size * by.descriptors() + SPARE;
            return Err(format!("needs {wanted} descriptors, and the limit is {descriptors}"));
        }
        Ok(Self::Grow { by, size: size.min(most) })
    }

    /// The same with so little of everything that it is over at once, to see that it works.
    pub(crate) fn tiny(self) -> Self {
        let few = |count: usize| count.min(24);
        match self {
            Self::Bulk { streams } => Self::Bulk { streams: few(streams) },
            Self::Ping { connections } => Self::Ping { connections: few(connections) },
            Self::Idle { sessions } => Self::Idle { sessions: few(sessions) },
            Self::Flows { count } => Self::Flows { count: few(count) },
            Self::Listeners { count } => Self::Listeners { count: few(count) },
            Self::Grow { by, size } => Self::Grow { by, size: few(size) },
            same => same,
        }
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
            Self::Grow { by: Growth::Connections | Growth::Flows | Growth::CoresPing, .. } => &PING,
            Self::Grow { .. } => &CHURN,
            Self::Under(Disturbance::Bulk) => &UNDER_BULK,
            Self::Under(Disturbance::Refused) => &UNDER_REFUSED,
            Self::Under(Disturbance::Reload) => &UNDER_RELOAD,
            Self::Under(Disturbance::Dashboard) => &UNDER_DASHBOARD,
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

const BULK: [Metric; 4] = [
    lower("cpu", "CPU s/GiB"),
    lower("machine", "machine's s/GiB"),
    lower("rest", "rest's s/GiB"),
    higher("rate", "Gbit/s"),
];
const PING: [Metric; 7] = [
    lower("cpu", "CPU µs/request"),
    lower("machine", "machine's µs/request"),
    lower("rest", "rest's µs/request"),
    lower("p50", "p50 µs"),
    lower("p99", "p99 µs"),
    lower("p999", "p99.9 µs"),
    higher("rate", "requests/s"),
];
const CHURN: [Metric; 7] = [
    lower("cpu", "CPU µs/connection"),
    lower("machine", "machine's µs/connection"),
    lower("rest", "rest's µs/connection"),
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
const FLOOD: [Metric; 5] = [
    lower("cpu", "CPU µs/datagram"),
    lower("machine", "machine's µs/datagram"),
    lower("rest", "rest's µs/datagram"),
    lower("loss", "% lost"),
    higher("rate", "datagrams/s"),
];
const FLOWS: [Metric; 6] = [
    lower("memory", "KiB/flow"),
    higher("rate", "new flows/s"),
    lower("cpu", "CPU µs/flow"),
    lower("machine", "machine's µs/flow"),
    lower("rest", "rest's µs/flow"),
    lower("resent", "% lost"),
];
const LISTENERS: [Metric; 3] =
    [lower("start", "start ms"), lower("memory", "MiB"), lower("reload", "reload ms")];

const UNDER_BULK: [Metric; 6] = under(higher("beside", "Gbit/s beside it"));
const UNDER_REFUSED: [Metric; 6] = under(higher("beside", "refused/s beside it"));
const UNDER_RELOAD: [Metric; 6] = under(higher("beside", "reloads beside it"));
const UNDER_DASHBOARD: [Metric; 6] = under(higher("beside", "rounds beside it"));

const fn under(beside: Metric) -> [Metric; 6] {
    [
        lower("p99", "p99 µs"),
        lower("quiet", "p99 µs in quiet"),
        lower("times", "p99 / quiet"),
        lower("p50", "p50 µs"),
        lower("p999", "p99.9 µs"),
        beside,
    ]
}

/// Descriptors for everything but what grows.
const SPARE: usize = 1_500;

/// A case of a curve.
const fn grow(name: &'static str, title: &'static str, by: Growth, size: usize) -> Case {
    Case { name, title, load: Load::Grow { by, size } }
}

/// All cases, in the order of the table.
pub(crate) const CASES: [Case; 51] = [
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
    Case { name: "listeners-10000", title: "10,000 listeners", load: Load::Listeners { count: 10_000 } },
    grow("grow-connections-1", "ping-pong among 1 connection", Growth::Connections, 1),
    grow("grow-connections-64", "ping-pong among 64 connections", Growth::Connections, 64),
    grow("grow-connections-1000", "ping-pong among 1,000 connections", Growth::Connections, 1_000),
    grow("grow-connections-10000", "ping-pong among 10,000 connections", Growth::Connections, 10_000),
    grow("grow-connections-60000", "ping-pong among 60,000 connections", Growth::Connections, 60_000),
    grow("grow-flows-1", "UDP ping-pong among 1 flow", Growth::Flows, 1),
    grow("grow-flows-16", "UDP ping-pong among 16 flows", Growth::Flows, 16),
    grow("grow-flows-1000", "UDP ping-pong among 1,000 flows", Growth::Flows, 1_000),
    grow("grow-flows-10000", "UDP ping-pong among 10,000 flows", Growth::Flows, 10_000),
    grow("grow-mappings-1", "connect among 1 mapping", Growth::Mappings, 1),
    grow("grow-mappings-1000", "connect among 1,000 mappings", Growth::Mappings, 1_000),
    grow("grow-mappings-10000", "connect among 10,000 mappings", Growth::Mappings, 10_000),
    grow("grow-entries-10", "connect beside 10 list entries", Growth::Entries, 10),
    grow("grow-entries-1000", "connect beside 1,000 list entries", Growth::Entries, 1_000),
    grow("grow-entries-100000", "connect beside 100,000 list entries", Growth::Entries, 100_000),
    grow("grow-entries-1000000", "connect beside 1,000,000 list entries", Growth::Entries, 1_000_000),
    grow("grow-bans-0", "connect beside 0 bans", Growth::Bans, 0),
    grow("grow-bans-1000", "connect beside 1,000 bans", Growth::Bans, 1_000),
    grow("grow-bans-10000", "connect beside 10,000 bans", Growth::Bans, 10_000),
    grow("grow-bans-65536", "connect beside 65,536 bans", Growth::Bans, 65_536),
    grow("grow-cores-connect-1", "connect with 1 core", Growth::CoresConnect, 1),
    grow("grow-cores-connect-2", "connect with 2 cores", Growth::CoresConnect, 2),
    grow("grow-cores-ping-1", "ping-pong with 1 core", Growth::CoresPing, 1),
    grow("grow-cores-ping-2", "ping-pong with 2 cores", Growth::CoresPing, 2),
    Case {
        name: "under-bulk",
        title: "ping-pong beside 8 bulk streams",
        load: Load::Under(Disturbance::Bulk),
    },
    Case {
        name: "under-refused",
        title: "ping-pong beside 10,000 refused/s",
        load: Load::Under(Disturbance::Refused),
    },
    Case {
        name: "under-reload",
        title: "ping-pong in reloads of 1,000 mappings",
        load: Load::Under(Disturbance::Reload),
    },
    Case {
        name: "under-dashboard",
        title: "ping-pong beside an open dashboard",
        load: Load::Under(Disturbance::Dashboard),
    },
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
        ("under-bulk" | "under-refused" | "under-reload" | "under-dashboard", "p99") => Goal::BelowBest(1.0),
        ("under-bulk" | "under-refused" | "under-reload" | "under-dashboard", "times") => Goal::Below(2.0),
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
