//! Addresses that a target must not have, or that its author should think about twice: nowhere, and
//! loopback.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ipv4_inside;

/// Whether an address stands for no machine: "this network" (0.0.0.0/8, RFC 1122 section 3.2.1.3),
/// `::`, and IPv6 addresses with one of the former inside. The kernel takes 0.0.0.0 and `::` for
/// this machine, so none of them may be a target: what listens on loopback only would be open to
/// strangers.
pub(crate) fn is_nowhere(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[0] == 0,
        IpAddr::V6(ip) => ip.is_unspecified() || inner_ipv4(ip).is_some_and(|ip| ip.octets()[0] == 0),
    }
}

/// Whether an address can be that of one machine: it is not a wildcard, a multicast group or the
/// broadcast address.
pub(crate) fn is_of_one_machine(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Whether an address is loopback, also as the IPv4 address inside an IPv6 one.
pub(crate) fn is_loopback(ip: IpAddr) -> bool {
    ip.is_loopback() || matches!(ip, IpAddr::V6(ip) if inner_ipv4(ip).is_some_and(|ip| ip.is_loopback()))
}

/// The IPv4 address inside an IPv6 one: mapped or compatible (RFC 4291, section 2.5.5), or one of
/// [`ipv4_inside`].
fn inner_ipv4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let plain = match ip.segments() {
        _ if ip.is_loopback() => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => {
            Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
        }
        _ => None,
    };
    plain.or_else(|| ipv4_inside(ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(texts: &[&str], holds: impl Fn(IpAddr) -> bool) {
        for text in texts {
            assert!(holds(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn an_address_of_no_machine_is_known_in_every_form() {
        let nowhere = [
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "::ffff:0.0.0.0",
            "::0.0.0.9",
            "64:ff9b::0.0.0.0",
            "64:ff9b::0.1.2.3",
            "64:ff9b:1::",
            "64:ff9b:1:2:3:4:0.0.0.7",
            "2002::1",
            "2002:0:1::",
        ];
        all(&nowhere, is_nowhere);
        let somewhere = [
            "127.0.0.1",
            "::1",
            "10.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1:c000:2:100::",
        ];
        all(&somewhere, |ip| !is_nowhere(ip));
        all(&["2001:db8::", "fe80::1", "2002:a00:1::", "255.255.255.255"], |ip| !is_nowhere(ip));
    }

    #[test]
    fn loopback_is_known_in_every_form() {
        all(
            &["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::"],
            is_loopback,
        );
        all(&["128.0.0.1", "::2", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1"], |ip| !is_loopback(ip));
    }
}
