//! The vocabulary: the values that a mapping is made of.
//!
//! Owns the words of the interface as types: [`Protocol`], [`MappingName`], [`MappingId`],
//! [`ListenerKey`], [`ListenAddr`], [`TargetAddr`], [`ClientKey`], [`Exposure`], [`Timeout`] and
//! the grammar of a publish spec ([`publish`]). Everything here is a plain value: no socket, no
//! clock, no file, and nothing that can fail after it was made. Text becomes one of these types
//! once, when it is read, and is never parsed again.

mod address;
mod client;
mod exposure;
mod id;
mod listener;
mod origin;
pub(crate) mod publish;
mod read;
mod special;

use std::{fmt, sync::Arc, time::Duration};

pub(crate) use address::{
    Host, ListenAddr, PortSpan, TargetAddr, Zone, canonical, canonical_socket, collide, takes,
};
pub(crate) use client::{ClientKey, ipv4_inside};
pub(crate) use exposure::{Exposure, WhileDown};
pub(crate) use id::MappingId;
pub(crate) use listener::{ListenerKey, LiveListener, LiveSet};
pub(crate) use origin::MappingOrigin;
use serde::{Deserialize, Serialize};
pub(crate) use special::{is_loopback, is_nowhere, is_of_one_machine};

/// What a listener speaks. "tcp+udp" is not a protocol: it makes two listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// A stream; one accepted connection is a session.
    Tcp,
    /// Datagrams; one client address is a flow.
    Udp,
}

impl Protocol {
    /// The word for it in the interface: `tcp` or `udp`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of a mapping: `[A-Za-z0-9._-]{1,64}`, or the default form
/// `<listen port or range>/<protocol>`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct MappingName(Arc<str>);

/// Why a text cannot be the name of a mapping.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a name is 1 to 64 of the characters A-Z a-z 0-9 . _ - (or has the default form, such as 8080/tcp)")]
pub struct InvalidName;

impl MappingName {
    /// The longest name, in characters.
    pub const MAX_LEN: usize = 64;

    /// Takes `text` as a name.
    ///
    /// # Errors
    /// [`InvalidName`] when it has another form than the interface allows.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        let is_default_form = text.split_once('/').is_some_and(|(ports, protocol)| {
            let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
            let span = first.parse().ok().zip(last.parse().ok());
            let span = span.and_then(|(first, last)| PortSpan::new(first, last));
            // Each span has one spelling: not `080`, nor `80-80`.
            span.is_some_and(|span| span.to_string() == ports) && matches!(protocol, "tcp" | "udp")
        });
        let is_plain = (1..=Self::MAX_LEN).contains(&text.len()) && text.bytes().all(plain);
        if is_plain || is_default_form { Ok(Self(text.into())) } else { Err(InvalidName) }
    }

    /// The name that the listeners on `ports` have when their mapping was given none.
    pub fn default_for(ports: PortSpan, protocol: Protocol) -> Self {
        let (first, protocol) = (ports.first(), protocol.as_str());
        Self(match ports.count() {
            1 => format!("{first}/{protocol}").into(),
            _ => format!("{ports}/{protocol}").into(),
        })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MappingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MappingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A time limit that may be absent. Zero does not mean "off": absence has its own name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timeout {
    /// No limit (`"never"`).
    Never,
    /// The limit; zero only for the grace of a stop, where it means at once.
    After(Duration),
}

impl Timeout {
    /// The limit as an option, for arithmetic with deadlines.
    pub const fn duration(self) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::After(limit) => Some(limit),
        }
    }
}

impl fmt::Display for Timeout {
    /// The text that the configuration reads back: `never`, or a number with the largest unit that
    /// fits exactly.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::After(limit) = self else { return f.write_str("never") };
        let ms = limit.as_millis();
        let (each, unit) = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")]
            .into_iter()
            .find(|(each, _)| ms != 0 && ms % each == 0)
            .unwrap_or((1, "ms"));
        write!(f, "{}{unit}", ms / each)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    #[test]
    fn a_name_is_plain_or_just_as_a_default_name_is_written() {
        let longest = "x".repeat(64);
        for good in ["web", "a.b_c-D9", "0", &longest, "80/tcp", "65535/udp", "5000-5010/udp"] {
            assert!(MappingName::new(good).is_ok(), "{good}");
        }
        let too_long = "x".repeat(65);
        for bad in [
            "",
            "a b",
            "\u{e9}",
            &too_long,
            "+28080/tcp",
            "0080/udp",
            "80-80/udp",
            "81-80/udp",
            "080-81/udp",
            "80-/udp",
            "80-81-82/udp",
            "0/tcp",
            "65536/tcp",
            "80/TCP",
            "80/",
            "/tcp",
        ] {
            assert_eq!(MappingName::new(bad), Err(InvalidName), "{bad}");
        }
        let port = |port| NonZeroU16::new(port).unwrap();
        let span = PortSpan::single(port(80));
        assert_eq!(MappingName::new("80/tcp"), Ok(MappingName::default_for(span, Protocol::Tcp)));
        let span = PortSpan::new(port(80), port(90)).unwrap();
        assert_eq!(MappingName::new("80-90/udp"), Ok(MappingName::default_for(span, Protocol::Udp)));
    }
}
