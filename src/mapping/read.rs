//! Values from their text, as another portway wrote it: for records that one process hands to the
//! next.
//!
//! The text is the one that people see (`Display`). What a person writes has its own grammar
//! ([`publish`](super::publish)), with messages that say what would be right.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU16,
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{ClientKey, Host, ListenAddr, MappingName, TargetAddr, Zone};

/// A text that is no such value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a value of this kind")]
pub struct NoValue;

impl FromStr for ListenAddr {
    type Err = NoValue;

    fn from_str(text: &str) -> Result<Self, NoValue> {
        let (host, port) = with_port(text)?;
        let (ip, zone) = literal(host).ok_or(NoValue)?;
        Ok(Self { ip, zone, port })
    }
}

impl FromStr for TargetAddr {
    type Err = NoValue;

    fn from_str(text: &str) -> Result<Self, NoValue> {
        if let Some(host) = Host::srv(text) {
            return Ok(Self { host, port: NonZeroU16::MIN });
        }
        let (host, port) = with_port(text)?;
        let host = match literal(host) {
            Some((ip, zone)) => Host::Ip(ip, zone),
            None => Host::name(host).ok_or(NoValue)?,
        };
        Ok(Self { host, port })
    }
}

impl FromStr for ClientKey {
    type Err = NoValue;

    fn from_str(text: &str) -> Result<Self, NoValue> {
        let first = text.strip_suffix("/64").unwrap_or(text);
        let key = Self::of(first.parse().map_err(|_| NoValue)?);
        if key.to_string() == text { Ok(key) } else { Err(NoValue) }
    }
}

fn with_port(text: &str) -> Result<(&str, NonZeroU16), NoValue> {
    let (host, port) = text.rsplit_once(':').ok_or(NoValue)?;
    Ok((host, port.parse().map_err(|_| NoValue)?))
}

/// A literal address as it stands before a port.
fn literal(text: &str) -> Option<(IpAddr, Option<Zone>)> {
    let Some(inside) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) else {
        return Some((IpAddr::V4(text.parse().ok()?), None));
    };
    let (ip, zone) = match inside.split_once('%') {
        Some((ip, zone)) => (ip, Some(Zone::new(zone)?)),
        None => (inside, None),
    };
    Some((IpAddr::V6(ip.parse::<Ipv6Addr>().ok()?), zone))
}

/// Reads a value from its text.
fn from_text<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: std::fmt::Display>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(D::Error::custom)
}

impl<'de> Deserialize<'de> for ListenAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

impl<'de> Deserialize<'de> for TargetAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

impl<'de> Deserialize<'de> for ClientKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer)
    }
}

impl Serialize for ClientKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MappingName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;

    fn read<T: DeserializeOwned + Serialize>(text: &str) -> Option<String> {
        let value: T = serde_json::from_value(text.into()).ok()?;
        serde_json::to_value(value).ok()?.as_str().map(str::to_owned)
    }

    #[test]
    fn a_value_that_was_written_is_read_back() {
        for text in ["0.0.0.0:80", "[::]:80", "[fe80::1%eth0]:65535"] {
            assert_eq!(read::<ListenAddr>(text).as_deref(), Some(text));
        }
        for text in ["10.0.0.7:80", "[2001:db8::5]:80", "[fe80::1%2]:1", "nas.lan:443", "_mc._tcp.lan"] {
            assert_eq!(read::<TargetAddr>(text).as_deref(), Some(text));
        }
        for text in ["192.0.2.7", "2001:db8:1:2::/64", "fe80::9", "2001:db8::5efe:0:9"] {
            assert_eq!(read::<ClientKey>(text).as_deref(), Some(text));
        }
        for text in ["web", "8080/tcp", "5000-5010/udp"] {
            assert_eq!(read::<MappingName>(text).as_deref(), Some(text));
        }
    }

    #[test]
    fn another_text_is_refused() {
        for text in ["", ":", "80", "x:0", "10.0.0.7", "10.0.0.7:65536", "[::1:80", "::1:80", "[1.2.3.4]:5"] {
            assert_eq!(read::<ListenAddr>(text), None, "{text}");
            assert_eq!(read::<TargetAddr>(text), None, "{text}");
        }
        for text in ["", "192.0.2.7/64", "2001:db8:1:2::", "2001:db8:1:2::3/64", "nas.lan"] {
            assert_eq!(read::<ClientKey>(text), None, "{text}");
        }
    }
}
