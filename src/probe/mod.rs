//! Proof from outside: one portway tries the address and port of another.
//!
//! ```text
//! asker ── POST /v1/probe ─► other node        which address it came from, which port to try
//! asker ◄── TCP, or one datagram with a number ── other node
//! asker ◄── what came of it ── other node
//! ```
//!
//! Owns the values that travel ([`Question`], [`Tried`]), the try itself (`attempt`), how another
//! node is asked (`node`), and what an answer means (`told`). Who may ask is the API's business,
//! and so is the address that is tried. Every step has a limit of time, and every text of the other
//! side has one of length.

mod attempt;
mod node;
mod told;

use std::{net::IpAddr, num::NonZeroU16};

pub(crate) use attempt::attempt;
pub(crate) use node::Node;
use serde::{Deserialize, Serialize};
pub(crate) use told::{Told, Way, arrived, told};

use crate::{gateway, mapping::Protocol, policy::Nonce};

/// What another node is asked (`POST /v1/probe`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    /// How the port is tried.
    pub(crate) protocol: Protocol,
    /// The port to try.
    pub(crate) port: NonZeroU16,
    /// The asker's own public address, where it knows it. Over TCP the other node takes the one
    /// that the request came from, and refuses another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<IpAddr>,
    /// For UDP: the number that the asker's listener answers, in 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) nonce: Option<String>,
}

/// What came of a try.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tried {
    /// The address that was tried: the one that the other node sees.
    pub(crate) address: String,
    /// Its port.
    pub(crate) port: u16,
    /// `tcp` or `udp`.
    pub(crate) protocol: String,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// How long that took: of TCP, until it was connected.
    pub(crate) took_ms: u64,
    /// What a TCP connection did then: `bytes`, `closed`, `reset`, or `silent` for two seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) then: Option<String>,
    /// The bytes that came first, up to 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<u64>,
    /// What these look like: `ssh`, `http`, `tls`, `vnc`, `text` or `binary`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
    /// What the system said, where it is none of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// How a try ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// TCP was connected.
    Connected,
    /// The listener answered the datagram.
    Answered,
    /// It was refused.
    Refused,
    /// Nothing came back in time.
    #[default]
    Timeout,
    /// The system found no way.
    Unreachable,
}

/// Whether an address is one of the internet, and of one machine.
pub(crate) fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        ip @ IpAddr::V4(_) => gateway::Verdict::of(Some(ip)).is_public(),
        IpAddr::V6(ip) => {
            // Global unicast, but for documentation (2001:db8::/32), and for those that have
            // another address inside: 6to4 (2002::/16) and everything of 2001::/23.
            let [first, second, ..] = ip.segments();
            let is_special = first == 0x2002 || (first == 0x2001 && (second < 0x200 || second == 0xdb8));
            (0x2000..0x4000).contains(&first) && !is_special
        }
    }
}

/// A number as text.
pub(crate) fn text_of(nonce: Nonce) -> String {
    nonce.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The number of a text.
pub(crate) fn nonce_of(text: &str) -> Option<Nonce> {
    let mut nonce = Nonce::default();
    if text.len() != 2 * nonce.len() || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in nonce.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_of_the_internet_may_be_tried() {
        for ip in ["8.8.8.8", "11.22.33.1", "::ffff:8.8.8.8", "2606:4700::1", "2a00:1450::1", "2001:4860::8"]
        {
            assert!(is_public(ip.parse().unwrap()), "{ip}");
        }
        for ip in [
            "127.0.0.1",
            "10.0.0.1",
            "192.168.1.1",
            "172.16.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "203.0.113.9",
            "::1",
            "::",
            "::ffff:10.0.0.1",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "64:ff9b::10.0.0.1",
            "2002:a00:1::",
            "2001::1",
            "2001:db8::1",
        ] {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn a_number_is_read_as_it_is_written() {
        let nonce = std::array::from_fn(|at| (at * 17) as u8);
        assert_eq!(text_of(nonce), "00112233445566778899aabbccddeeff");
        assert_eq!(nonce_of(&text_of(nonce)), Some(nonce));
        for text in [
            "",
            "00",
            "00112233445566778899aabbccddeef",
            "00112233445566778899aabbccddeefg",
            "+0112233445566778899aabbccddeeff",
        ] {
            assert_eq!(nonce_of(text), None, "{text}");
        }
    }
}
