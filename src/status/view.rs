//! The values of the interface, as JSON has them: names in `snake_case`, durations in `…_ms`, times
//! by RFC 3339 in UTC, addresses as text. What is unknown is absent. Fields are added and never
//! renamed, and a reader ignores fields that it does not know.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) use crate::mapping::MappingOrigin;
use crate::mapping::Protocol;

/// The daemon as a whole (`GET /v1/status`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    /// The version of the program.
    pub version: String,
    /// The commit that it was built from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Its process.
    pub pid: u32,
    /// When it started.
    pub started: String,
    /// How long ago that was.
    pub uptime_ms: u64,
    /// Every enabled listener listens.
    pub ready: bool,
    /// The listeners that do not, as text with the reason; the first few.
    pub not_ready: Vec<String>,
    /// Mappings, also the closed ones.
    pub mappings: usize,
    /// Listeners of the plan, also those that wait.
    pub listeners: usize,
    /// Live TCP sessions.
    pub sessions: usize,
    /// Live UDP flows.
    pub flows: usize,
    /// Bans in force.
    pub bans: usize,
    /// Clients that are let in by a knock, the one whose time ends first comes first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<Grant>,
    /// The last reading of the configuration after the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_reload: Option<LastReload>,
    /// Targets that sessions start, as far as a session has needed one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub wakes: Vec<Wake>,
    /// Warnings of the configuration that runs.
    pub warnings: Vec<Problem>,
    /// File descriptors of the process.
    pub descriptors: Descriptors,
    /// The external address of the router.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<String>,
    /// This machine's own addresses but loopback; the one that leads to the internet comes first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// The least important log line that is written now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
}

/// A client that is let in by a knock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Grant {
    /// Its address; of IPv6, its whole /64 is let in.
    pub client: String,
    /// The key that it knocked with.
    pub key: String,
    /// Until when it may enter.
    pub until: String,
    /// How often it has knocked.
    pub count: u64,
}

/// The clients that are let in by a knock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Grants {
    /// The one whose time ends first comes first.
    pub grants: Vec<Grant>,
}

/// A target that sessions start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Wake {
    /// The mapping whose session needed it first.
    pub mapping: String,
    /// What starts it, such as `unit wiki.service`.
    pub what: String,
    /// `asleep`, `starting`, `running`, `stopping` or `failed`.
    pub state: String,
    /// Sessions that keep it awake.
    pub sessions: usize,
    /// How long ago the start began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Why the last start failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long until a client starts it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_ms: Option<u64>,
}

/// What came of a reload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LastReload {
    /// When it ended.
    pub at: String,
    /// `applied` or `refused`.
    pub outcome: String,
    /// Why it was refused.
    pub problems: Vec<Problem>,
}

/// File descriptors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Descriptors {
    /// Open now.
    pub open: u64,
    /// As many as there may be.
    pub limit: u64,
}

/// Something that is wrong with the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Problem {
    /// Its stable code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The file, or what stands for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// A mapping with what happens on it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Mapping {
    /// Its name.
    pub name: String,
    /// The kind of place where it is declared.
    pub origin: MappingOrigin,
    /// The place: `file:line:column`, or the spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// False where its file says `enabled = false`.
    pub enabled: bool,
    /// True while it is paused.
    pub paused: bool,
    /// When it ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Its listeners.
    pub listeners: Vec<Listener>,
    /// Its targets, in their order.
    pub targets: Vec<Target>,
    /// Live sessions and flows.
    pub sessions: u64,
    /// Sessions and flows since the start, also the live ones.
    pub sessions_total: u64,
    /// Bytes from clients to targets since the start.
    pub bytes_in: u64,
    /// Bytes from targets to clients since the start.
    pub bytes_out: u64,
    /// Bytes of the last second, from clients to targets; absent where rates are not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_in: Option<u64>,
    /// Bytes of the last second, from targets to clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_out: Option<u64>,
    /// Refusals since the start, by reason; reasons without any are left out.
    pub refused: BTreeMap<String, u64>,
    /// The clients that may enter because they knocked; absent where it wants no knock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grants: Option<Vec<Grant>>,
    /// Its openings on the router; absent where it wants none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router: Option<Vec<Opening>>,
    /// Its keys with their values, as `check --json` shows them.
    pub policy: Map<String, Value>,
}

/// What a listener does now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ListenerState {
    /// It takes clients.
    Listening,
    /// Its address or port is not free yet; it is tried every second.
    Waiting,
    /// Its socket died; it is tried every second.
    Failed,
    /// Its mapping is disabled or paused.
    #[default]
    Closed,
}

/// A listener of a mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Listener {
    /// `tcp` or `udp`.
    #[serde(with = "protocol")]
    pub protocol: Option<Protocol>,
    /// The address and port.
    pub listen: String,
    /// What it does now.
    pub state: ListenerState,
    /// Why it does not listen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The process that has its port, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
}

/// Whether sessions reach a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TargetState {
    /// The last session reached it, or none was tried yet.
    #[default]
    Up,
    /// Sessions cannot reach it.
    Down,
    /// It takes no new sessions: an operator has paused it.
    Paused,
}

/// A target of a mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Target {
    /// Its address, as the configuration names it.
    pub address: String,
    /// Whether sessions reach it.
    pub state: TargetState,
    /// Live sessions and flows that lead to it.
    pub sessions: u64,
    /// Its share of the sessions, where that is another than 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// Whether it takes sessions only while no other target works.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub backup: bool,
    /// What the last failure said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Since when it is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// A live session or flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Session {
    /// Its number; unique in this run of the daemon.
    pub id: u64,
    /// Its mapping.
    pub mapping: String,
    /// `tcp` or `udp`.
    #[serde(with = "protocol")]
    pub protocol: Option<Protocol>,
    /// The client.
    pub client: String,
    /// The listener.
    pub listen: String,
    /// The target, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The country of the client, where a database says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// When it was admitted.
    pub started: String,
    /// How long ago that was.
    pub age_ms: u64,
    /// How long nothing has moved, to about a second; absent where that is not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
    /// Bytes from the client to the target.
    pub bytes_in: u64,
    /// Bytes from the target to the client.
    pub bytes_out: u64,
}

/// A ban in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Ban {
    /// The client: an address or a network.
    pub client: String,
    /// When it began.
    pub since: String,
    /// When it ends; absent where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Why.
    pub reason: String,
    /// How often the client was banned.
    pub count: u32,
    /// An operator made it.
    pub manual: bool,
}

/// The home router (`GET /v1/router`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Router {
    /// `off`, `searching`, `ready` or `missing`.
    pub state: String,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// How it is asked: `upnp`, `pcp` or `natpmp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// What it calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Its external address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<String>,
    /// What that address means: a word, and the cure where the internet cannot reach it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// What is open, or should be.
    pub leases: Vec<Opening>,
}

/// A port that is open on the router, or should be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Opening {
    /// Its mapping.
    pub mapping: String,
    /// `tcp` or `udp`.
    #[serde(with = "protocol")]
    pub protocol: Option<Protocol>,
    /// The listener.
    pub listen: String,
    /// `searching`, `open`, `conflict`, `denied` or `failed`.
    pub state: String,
    /// Where the internet reaches it, `address:port`, while it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<String>,
    /// The port on the router.
    pub external_port: u16,
    /// How it was opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol_used: Option<String>,
    /// The lease that the router granted; absent where it has no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// How long until it is tried again after a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_ms: Option<u64>,
    /// Why it is not open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The router granted it and does not show it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unverified: bool,
}

/// Something that happened (`GET /v1/events`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Event {
    /// Its number, rising in this run of the daemon.
    pub id: u64,
    /// When.
    pub at: String,
    /// What: `session-started`, `session-ended`, `session-refused`, `target-down`, `target-up`,
    /// `target-starting`, `target-started`, `target-stopped`, `start-failed`,
    /// `listening`, `listener-waiting`, `listener-failed`, `listener-closed`, `banned`, `unbanned`,
    /// `knock-accepted`, `knock-ended`,
    /// `reload-applied`, `reload-refused`, `router`, `mapping-added`, `mapping-removed`,
    /// `mapping-paused`, `mapping-resumed`, `log-level`, `stopping`,
    /// `handing-over`, `handed-over`, `hand-over-failed`.
    pub kind: String,
    /// The mapping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mapping: Option<String>,
    /// The number of the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// The client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Why: the word of the session line, of a refusal or of a ban.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A sentence for people.
    pub message: String,
}

/// An event of the flight recorder (`GET /v1/recorder`). It has the fields of an [`Event`], and
/// some more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Recorded {
    /// Its number, where it was an event of the bus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// When; of refusals, the last time.
    pub at: String,
    /// What: as in an event, and `session-connected`.
    pub kind: String,
    /// The mapping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mapping: Option<String>,
    /// The number of the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// The client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The target that was reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Why: the word of the session line, of a refusal or of a ban.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The time until the target was reached, or the age of the session at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// Bytes from the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_in: Option<u64>,
    /// Bytes to the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_out: Option<u64>,
    /// How many refusals of the client for this reason there were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// The first of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// A sentence for people.
    pub message: String,
}

/// What the flight recorder holds of a mapping (`GET /v1/recorder`), the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Recorder {
    /// The events.
    pub events: Vec<Recorded>,
}

/// Rates over time (`GET /v1/history`), the oldest point first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct History {
    /// The mapping; absent for all of them together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mapping: Option<String>,
    /// The time from one point to the next: 1000 up to 15 minutes, 60000 beyond.
    pub interval_ms: u64,
    /// The points; none before the daemon started.
    pub points: Vec<Point>,
}

/// What moved in one interval.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Point {
    /// When the interval ended.
    pub at: String,
    /// Bytes a second from clients to targets.
    pub bytes_in: u64,
    /// Bytes a second from targets to clients.
    pub bytes_out: u64,
    /// Live sessions and flows at its end; over minutes, the most.
    pub sessions: u64,
}

/// What a reload did, or would do (`POST /v1/reload`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Reload {
    /// True where nothing was changed.
    pub dry_run: bool,
    /// The listeners that open, as `mapping address/protocol`.
    pub opened: Vec<String>,
    /// The listeners that close.
    pub closed: Vec<String>,
    /// The listeners that change in place.
    pub changed: Vec<String>,
    /// The listeners that open in the place of others that overlap.
    pub replaced: Vec<String>,
    /// The live sessions whose listener closes: they are cut when the grace is over.
    pub sessions_cut: Vec<u64>,
    /// How many these are. The list has at most 1000.
    pub sessions_cut_count: u64,
    /// Warnings of the new configuration.
    pub warnings: Vec<Problem>,
}

/// Why a request failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Failure {
    /// What failed, and what helps.
    pub error: String,
    /// What is wrong with the configuration or the body.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// A list, under its plural name, or a part of it: then `next` is the `after` of the next part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Sessions {
    /// The sessions, by number.
    pub sessions: Vec<Session>,
    /// The `after` of the next part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// All mappings, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Mappings {
    /// The mappings.
    pub mappings: Vec<Mapping>,
}

/// All bans; the one that ends first comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Bans {
    /// The bans.
    pub bans: Vec<Ban>,
}

/// A protocol by its word.
mod protocol {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::mapping::Protocol;

    #[expect(clippy::ref_option, reason = "serde calls it with a reference to the field")]
    pub(super) fn serialize<S: Serializer>(
        protocol: &Option<Protocol>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        protocol.map(Protocol::as_str).serialize(serializer)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(
        deserializer: D,
    ) -> Result<Option<Protocol>, D::Error> {
        let word = Option::<String>::deserialize(deserializer)?;
        Ok(match word.as_deref() {
            Some("tcp") => Some(Protocol::Tcp),
            Some("udp") => Some(Protocol::Udp),
            _ => None,
        })
    }
}
