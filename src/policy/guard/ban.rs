//! A ban, and what is remembered of earlier ones: plain values, which are shown and kept over a
//! restart.

use std::{fmt, time::SystemTime};

use humantime::Rfc3339Timestamp;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use tokio::time::Instant;

use super::super::access::entry::parse_net;
use crate::mapping::ClientKey;

/// One ban. As JSON, times are RFC 3339 in whole seconds of UTC, and a client is an address or a
/// network: `203.0.113.9`, `2001:db8:1:2::/64`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ban {
    /// What is kept out.
    pub(crate) client: Banned,
    /// Since when.
    #[serde(serialize_with = "write_date", deserialize_with = "read_date")]
    pub since: SystemTime,
    /// Until when; `None` (`null`) where it stays until the operator ends it.
    #[serde(serialize_with = "write_end", deserialize_with = "read_end")]
    pub until: Option<SystemTime>,
    /// Why.
    pub reason: BanReason,
    /// How many automatic bans of the client went before, and made this one longer.
    pub repeats: u32,
    /// The operator's own words for the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What a ban keeps out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Banned {
    /// One client.
    Client(ClientKey),
    /// All clients of a network.
    Net(IpNet),
}

impl Banned {
    /// Those of `net`. A single address stands for its client, which may have a whole /64.
    pub(super) fn of(net: IpNet) -> Self {
        let client = ClientKey::of(net.addr());
        let is_one = net.prefix_len() == net.max_prefix_len() || client.to_string() == net.to_string();
        if is_one { Self::Client(client) } else { Self::Net(net) }
    }
}

impl fmt::Display for Banned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(client) => client.fmt(f),
            Self::Net(net) => net.fmt(f),
        }
    }
}

impl Serialize for Banned {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Banned {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_net(&text).map(Self::of).map_err(D::Error::custom)
    }
}

/// When a ban, or the memory of one, ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// At a moment.
    At(Instant),
    /// When the operator ends it; later than every moment.
    Never,
}

/// Earlier automatic bans of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PastBans {
    /// The client.
    #[serde(serialize_with = "write_client", deserialize_with = "read_client")]
    pub client: ClientKey,
    /// How many there were.
    pub bans: u32,
    /// When they are forgotten.
    #[serde(serialize_with = "write_end", deserialize_with = "read_end")]
    pub until: Option<SystemTime>,
}

/// What a client is banned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BanReason {
    /// It was refused too often.
    Refusals,
    /// It touched a trap.
    Trap,
    /// The operator said so.
    Operator,
}

impl BanReason {
    /// The word of log lines, of the API and of the saved file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refusals => "refusals",
            Self::Trap => "trap",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for BanReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A time as RFC 3339 has it.
pub(super) fn rfc3339(time: SystemTime) -> Rfc3339Timestamp {
    humantime::format_rfc3339_seconds(time)
}

fn write_client<S: Serializer>(client: &ClientKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(client)
}

fn read_client<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ClientKey, D::Error> {
    match Banned::deserialize(deserializer)? {
        Banned::Client(client) => Ok(client),
        Banned::Net(_) => Err(D::Error::custom("a client is an address or an IPv6 /64")),
    }
}

fn write_date<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&rfc3339(*time))
}

fn read_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_rfc3339(&text).map_err(D::Error::custom)
}

#[allow(clippy::ref_option, reason = "serde calls it with a reference to the field")]
fn write_end<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => write_date(time, serializer),
        None => serializer.serialize_none(),
    }
}

fn read_end<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| humantime::parse_rfc3339(&text)).transpose().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_ban_is_shown_with_readable_times() {
        let since = UNIX_EPOCH + Duration::from_secs(1_766_000_000);
        let mut ban = Ban {
            client: Banned::Client(ClientKey::of("2001:db8::".parse().unwrap())),
            since,
            until: Some(since + Duration::from_secs(3600)),
            reason: BanReason::Refusals,
            repeats: 2,
            note: None,
        };
        let json = |ban: &Ban| serde_json::to_string(ban).unwrap();
        assert_eq!(
            json(&ban),
            r#"{"client":"2001:db8::/64","since":"2025-12-17T19:33:20Z","until":"2025-12-17T20:33:20Z","reason":"refusals","repeats":2}"#
        );
        ban.until = None;
        assert!(json(&ban).contains(r#""until":null"#));
        for client in ["203.0.113.0/24", "203.0.113.9", "2001:db8::/48", "2001:db8:0:1::/64", "fe80::1"] {
            let text = json(&ban).replace("2001:db8::/64", client);
            let read: Ban = serde_json::from_str(&text).unwrap();
            assert_eq!(read.client.to_string(), client);
            assert_eq!(json(&read), text);
        }
    }
}
