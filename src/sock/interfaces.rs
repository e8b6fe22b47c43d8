//! The interfaces of this network: whether there is any way out of it.

use std::net::IpAddr;

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};

/// What interfaces there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interfaces {
    /// Loopback is up.
    pub(crate) loopback: bool,
    /// There is another one, up or not, with an address or without.
    pub(crate) others: bool,
}

impl Interfaces {
    /// Those that there are now; `None` where the system does not say.
    pub(crate) fn now() -> Option<Self> {
        let mut found = Self { loopback: false, others: false };
        for interface in getifaddrs().ok()? {
            if interface.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
                found.loopback |= interface.flags.contains(InterfaceFlags::IFF_UP);
            } else {
                found.others = true;
            }
        }
        Some(found)
    }
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    /// Its name.
    pub(crate) name: String,
    /// An administrator has it up.
    pub(crate) is_up: bool,
    /// Its cable, or what stands for it, leads somewhere.
    pub(crate) has_link: bool,
    /// Its addresses.
    pub(crate) addresses: Vec<IpAddr>,
}

impl Interface {
    /// All but loopback; none where the system does not say.
    pub(crate) fn all() -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for entry in getifaddrs().into_iter().flatten() {
            if entry.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
                continue;
            }
            let address = entry.address.as_ref();
            let v4 = address.and_then(|a| a.as_sockaddr_in()).map(|a| IpAddr::V4(a.ip()));
            let v6 = address.and_then(|a| a.as_sockaddr_in6()).map(|a| IpAddr::V6(a.ip()));
            let known = all.iter_mut().find(|interface| interface.name == entry.interface_name);
            match (known, v4.or(v6)) {
                (Some(known), address) => known.addresses.extend(address),
                (None, address) => all.push(Self {
                    is_up: entry.flags.contains(InterfaceFlags::IFF_UP),
                    has_link: entry.flags.contains(InterfaceFlags::IFF_RUNNING),
                    addresses: address.into_iter().collect(),
                    name: entry.interface_name,
                }),
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_loopback() {
        assert!(Interfaces::now().unwrap().loopback);
    }
}
