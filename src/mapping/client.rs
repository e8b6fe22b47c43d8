//! What counts as one client, for every limit, rate and ban.
//!
//! Owns [`ClientKey`] and what the kinds of IPv6 addresses say about their owner. Usually a /64 is
//! one customer, which can use each of its addresses. In some kinds of networks a /64 has many
//! customers: a key that took them together would shut all of them out for what one did. There the
//! key follows the part of the address that tells them apart.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::canonical;

/// The two bytes before the IPv4 address in an ISATAP interface identifier (RFC 5214, 6.1).
const ISATAP: [u8; 2] = [0x5e, 0xfe];

/// The client that a limit, a rate or a ban is about.
///
/// - An IPv4 address is a client, also where it is inside an IPv6 address: NAT64, 6to4, Teredo (see
///   [`ipv4_inside`]).
/// - A link-local address (`fe80::/10`) is a client: each machine of the link has one.
/// - An ISATAP address is a client with those of its /64 that end in the same byte. All machines of
///   a site share that /64. The whole address would let the owner of any /64 have 2³² clients,
///   which no ban and no rate could hold.
/// - Any other IPv6 address is a client with its /64: the owner of one address of a /64 has all of
///   them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ClientKey {
    /// One IPv4 address.
    V4(Ipv4Addr),
    /// The first 64 bits of the addresses of one network.
    V6([u8; 8]),
    /// The last 64 bits of a link-local address.
    LinkLocal([u8; 8]),
    /// The first 64 bits of an ISATAP address, and its last byte.
    Isatap([u8; 8], u8),
}

impl ClientKey {
    /// The client that has `ip`; an IPv4-mapped address is its IPv4 address.
    pub(crate) fn of(ip: IpAddr) -> Self {
        let ip = match canonical(ip) {
            IpAddr::V4(ip) => return Self::V4(ip),
            IpAddr::V6(ip) => ip,
        };
        if let Some(inside) = ipv4_inside(ip) {
            return Self::V4(inside);
        }
        let [a, b, c, d, e, f, g, h, rest @ ..] = ip.octets();
        let net = [a, b, c, d, e, f, g, h];
        if ip.is_unicast_link_local() {
            return Self::LinkLocal(rest);
        }
        match rest {
            [0 | 2, 0, x, y, _, _, _, last] if [x, y] == ISATAP => Self::Isatap(net, last),
            _ => Self::V6(net),
        }
    }

    /// The networks that the client is a part of, the smaller one first: a /48 and a /32 of IPv6, a
    /// /24 and a /16 of IPv4. For a crowd of clients that is too large to know each of them.
    pub(crate) fn networks(self) -> [IpAddr; 2] {
        let v6 = |bytes: [u8; 6]| {
            let [a, b, c, d, e, f] = bytes;
            IpAddr::from(Ipv6Addr::from([a, b, c, d, e, f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))
        };
        match self {
            Self::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                [Ipv4Addr::new(a, b, c, 0).into(), Ipv4Addr::new(a, b, 0, 0).into()]
            }
            Self::V6([a, b, c, d, e, f, ..]) | Self::Isatap([a, b, c, d, e, f, ..], _) => {
                [v6([a, b, c, d, e, f]), v6([a, b, c, d, 0, 0])]
            }
            Self::LinkLocal(_) => [v6([0xfe, 0x80, 0, 0, 0, 0]); 2],
        }
    }

    /// An address of the client: the only one, or the first.
    fn ip(self) -> IpAddr {
        let whole = |net: [u8; 8], rest: [u8; 8]| {
            let bits = u128::from(u64::from_be_bytes(net)) << 64 | u128::from(u64::from_be_bytes(rest));
            IpAddr::from(Ipv6Addr::from_bits(bits))
        };
        match self {
            Self::V4(ip) => ip.into(),
            Self::V6(net) => whole(net, [0; 8]),
            Self::LinkLocal(rest) => whole([0xfe, 0x80, 0, 0, 0, 0, 0, 0], rest),
            Self::Isatap(net, last) => whole(net, [0, 0, ISATAP[0], ISATAP[1], 0, 0, 0, last]),
        }
    }
}

/// The IPv4 address inside an IPv6 address whose kind says that its owner is that one's.
///
/// - NAT64 and stateless translation: `64:ff9b::/96` (RFC 6052), `64:ff9b:1::/48` (RFC 8215, with
///   the address in any of the places of RFC 6052), `::ffff:0:0:0/96` (RFC 2765).
/// - 6to4, `2002::/16` (RFC 3056).
/// - Teredo, `2001::/32` (RFC 4380): the client's own address, not its server's. Its bits are
///   inverted.
///
/// Not ISATAP: every owner of a prefix could write the address of another machine into it.
pub(crate) fn ipv4_inside(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let o = ip.octets();
    let last = [o[12], o[13], o[14], o[15]];
    let inside = match o {
        [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, ..]
        | [0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, ..] => last,
        // What follows the IPv4 address is zero, which tells the length of the prefix.
        [0, 0x64, 0xff, 0x9b, 0, 1, ..] if o[11..] == [0; 5] => [o[6], o[7], o[9], o[10]],
        [0, 0x64, 0xff, 0x9b, 0, 1, ..] if o[12..] == [0; 4] => [o[7], o[9], o[10], o[11]],
        [0, 0x64, 0xff, 0x9b, 0, 1, ..] if o[13..] == [0; 3] => [o[9], o[10], o[11], o[12]],
        [0, 0x64, 0xff, 0x9b, 0, 1, ..] => last,
        [0x20, 0x02, a, b, c, d, ..] => [a, b, c, d],
        [0x20, 0x01, 0, 0, ..] => last.map(|byte| !byte),
        _ => return None,
    };
    Some(inside.into())
}

impl fmt::Display for ClientKey {
    /// `203.0.113.9`, `fe80::9`, or `2001:db8:1:2::/64`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V6(_) => write!(f, "{}/64", self.ip()),
            Self::V4(_) | Self::LinkLocal(_) | Self::Isatap(..) => self.ip().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> ClientKey {
        ClientKey::of(text.parse().unwrap())
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_client_and_a_64_is_one_client() {
        assert_eq!(key("::ffff:192.0.2.7"), key("192.0.2.7"));
        assert_eq!(key("192.0.2.7").to_string(), "192.0.2.7");
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("2001:db8:1:2::1").to_string(), "2001:db8:1:2::/64");
    }

    #[test]
    fn an_address_with_an_ipv4_address_inside_is_that_client() {
        for text in [
            "64:ff9b::192.0.2.7",
            "64:ff9b:1::192.0.2.7",
            "64:ff9b:1:abcd::192.0.2.7",
            "64:ff9b:1:c000:2:700::",
            "64:ff9b:1:aac0:0:207::",
            "64:ff9b:1:aabb:c0:2:700:0",
            "::ffff:0:192.0.2.7",
            "2002:c000:207:5::9",
            "2001:0:cb00:7101:8000:63bf:3fff:fdf8",
        ] {
            assert_eq!(key(text), key("192.0.2.7"), "{text}");
        }
        assert_ne!(key("64:ff9b:2::192.0.2.7"), key("192.0.2.7"));
        assert_ne!(key("2001:1::c000:207"), key("2001:2::c000:207"), "only 2001::/32 is Teredo");
    }

    #[test]
    fn neighbours_of_a_link_and_of_a_site_are_clients_of_their_own() {
        assert_ne!(key("fe80::a"), key("fe80::b"));
        assert_eq!(key("fe80::a").to_string(), "fe80::a");
        let (one, other) = (key("2001:db8::5efe:10.0.0.1"), key("2001:db8::5efe:10.0.0.2"));
        assert_ne!(one, other);
        assert_eq!(one, key("2001:db8::200:5efe:10.0.0.1"), "local or global, it is the same machine");
        assert_ne!(one, key("2001:db8:0:1::5efe:10.0.0.1"), "another site");
        assert_ne!(one, key("10.0.0.1"), "anyone may write an address into ISATAP");
        let keys = (0..5_000_u32).map(|n| key(&format!("2001:db8::5efe:{}", Ipv4Addr::from(n * 977))));
        let keys: std::collections::BTreeSet<_> = keys.collect();
        assert!(keys.len() <= 256, "{} clients in one /64", keys.len());
    }

    #[test]
    fn what_is_shown_is_the_same_client_when_it_is_read() {
        for text in ["192.0.2.7", "2001:db8:1:2::1", "fe80::abcd:1", "2001:db8::5efe:10.0.0.9", "::1"] {
            let shown = key(text).to_string();
            let address = shown.strip_suffix("/64").unwrap_or(&shown);
            assert_eq!(key(address), key(text), "{text} as {shown}");
        }
    }

    #[test]
    fn a_client_is_a_part_of_two_networks() {
        let networks = |text: &str| key(text).networks().map(|net| net.to_string());
        assert_eq!(networks("192.0.2.7"), ["192.0.2.0", "192.0.0.0"]);
        assert_eq!(networks("2001:db8:1:2::3"), ["2001:db8:1::", "2001:db8::"]);
        assert_eq!(networks("fe80::3"), ["fe80::", "fe80::"]);
    }
}
