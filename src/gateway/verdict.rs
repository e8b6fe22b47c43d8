//! What an external address says about the way to the internet.
//!
//! Pure. A router that has no public address itself can open ports as much as it likes: what is in
//! front of it decides. Yet the opening stays, because a forward (or "DMZ") on the outer router may
//! make it work.

use std::net::{IpAddr, Ipv4Addr};

/// What an external address says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// An address of the internet.
    Public,
    /// A private address (RFC 1918): there is another router in front of this one.
    SecondNat,
    /// An address of the provider's own NAT (RFC 6598), which many customers share.
    CarrierNat,
    /// No address that anyone could reach, or none at all.
    NoAddress,
}

impl Verdict {
    /// The verdict about an external address; `None` where the router has none or does not say.
    pub(crate) fn of(external: Option<IpAddr>) -> Self {
        match external {
            None => Self::NoAddress,
            Some(IpAddr::V4(ip)) => Self::of_v4(ip),
            // An address family translation at the router: what it is worth cannot be told from
            // here.
            Some(IpAddr::V6(ip)) if ip.is_unspecified() || ip.is_loopback() => Self::NoAddress,
            Some(IpAddr::V6(_)) => Self::Public,
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        let [a, b, c, _] = ip.octets();
        match (a, b, c) {
            _ if ip.is_private() => Self::SecondNat,
            (100, 64..=127, _) => Self::CarrierNat,
            // 192.0.0.0/24 is what DS-Lite gives a router (RFC 6333): the provider's NAT again.
            (192, 0, 0) => Self::CarrierNat,
            // "This network", loopback, link-local, benchmarks (RFC 2544), multicast and reserved.
            (0 | 127, ..) | (169, 254, _) | (198, 18..=19, _) | (224.., ..) => Self::NoAddress,
            _ if ip.is_documentation() => Self::NoAddress,
            _ => Self::Public,
        }
    }

    /// Whether the internet can reach it.
    #[cfg(any(test, feature = "api"))]
    pub(crate) fn is_public(self) -> bool {
        self == Self::Public
    }

    /// What the person at home can do about it; empty where nothing has to be done.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Public => "",
            Self::SecondNat => {
                "another router stands in front of this one: forward the port on that one too, or set it to bridge mode"
            }
            Self::CarrierNat => {
                "the provider shares one address among many customers: ask it for a public IPv4 address, or use IPv6"
            }
            Self::NoAddress => {
                "look whether the router is online, and which address it shows there: a private one means that another router or the provider's NAT is in front of it, so forward the port there, or ask the provider for a public address"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_of_the_internet_is_public() {
        use Verdict::{CarrierNat, NoAddress, Public, SecondNat};
        for (address, verdict) in [
            ("8.8.8.8", Public),
            ("11.22.33.1", Public),
            ("100.63.255.255", Public),
            ("100.64.0.0", CarrierNat),
            ("100.127.255.255", CarrierNat),
            ("100.128.0.0", Public),
            ("10.0.0.1", SecondNat),
            ("172.16.0.1", SecondNat),
            ("172.31.255.255", SecondNat),
            ("172.32.0.1", Public),
            ("192.168.178.20", SecondNat),
            ("192.0.0.2", CarrierNat),
            ("192.0.1.1", Public),
            ("0.0.0.0", NoAddress),
            ("0.1.2.3", NoAddress),
            ("127.0.0.1", NoAddress),
            ("169.254.3.4", NoAddress),
            ("198.18.0.1", NoAddress),
            ("198.19.255.255", NoAddress),
            ("198.20.0.1", Public),
            ("192.0.2.1", NoAddress),
            ("198.51.100.1", NoAddress),
            ("203.0.113.1", NoAddress),
            ("239.0.0.1", NoAddress),
            ("240.0.0.1", NoAddress),
            ("255.255.255.255", NoAddress),
        ] {
            assert_eq!(Verdict::of(Some(address.parse().unwrap())), verdict, "{address}");
        }
        assert_eq!(Verdict::of(None), NoAddress);
    }

    #[test]
    fn each_verdict_of_unreachable_names_a_cure() {
        for verdict in [Verdict::SecondNat, Verdict::CarrierNat, Verdict::NoAddress] {
            assert!(!verdict.is_public() && !verdict.advice().is_empty());
        }
        assert!(Verdict::Public.advice().is_empty());
    }
}
