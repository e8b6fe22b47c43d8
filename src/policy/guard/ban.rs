//! A ban as it is shown.

use std::{fmt, time::SystemTime};

use humantime::Rfc3339Timestamp;
use serde::{Deserialize, Serialize, Serializer};

use super::book::Sentence;
use crate::mapping::ClientKey;

/// One ban. As JSON, times are RFC 3339 in whole seconds of UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ban {
    /// Who: an address, or an IPv6 /64.
    pub client: String,
    /// Since when.
    #[serde(serialize_with = "date")]
    pub since: SystemTime,
    /// Until when; `None` (`null`) where it stays until the operator ends it.
    #[serde(serialize_with = "optional_date")]
    pub until: Option<SystemTime>,
    /// Why.
    pub reason: BanReason,
    /// How many automatic bans of the client went before, and made this one longer.
    pub repeats: u32,
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

impl Ban {
    pub(super) fn new(client: ClientKey, sentence: &Sentence) -> Self {
        Self {
            client: client.to_string(),
            since: sentence.since,
            until: sentence.until,
            reason: sentence.reason,
            repeats: sentence.repeats,
        }
    }
}

/// A time as RFC 3339 has it.
pub(super) fn rfc3339(time: SystemTime) -> Rfc3339Timestamp {
    humantime::format_rfc3339_seconds(time)
}

fn date<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&rfc3339(*time))
}

#[allow(clippy::ref_option, reason = "serde calls it with a reference to the field")]
fn optional_date<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.collect_str(&rfc3339(*time)),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_ban_is_shown_with_readable_times() {
        let since = UNIX_EPOCH + Duration::from_secs(1_766_000_000);
        let mut ban = Ban {
            client: "2001:db8::/64".to_owned(),
            since,
            until: Some(since + Duration::from_secs(3600)),
            reason: BanReason::Refusals,
            repeats: 2,
        };
        let json = |ban: &Ban| serde_json::to_string(ban).unwrap();
        assert_eq!(
            json(&ban),
            r#"{"client":"2001:db8::/64","since":"2025-12-17T19:33:20Z","until":"2025-12-17T20:33:20Z","reason":"refusals","repeats":2}"#
        );
        ban.until = None;
        assert!(json(&ban).contains(r#""until":null"#));
    }
}
