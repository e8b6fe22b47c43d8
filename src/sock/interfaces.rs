//! The interfaces of this network: whether there is any way out of it.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_loopback() {
        assert!(Interfaces::now().unwrap().loopback);
    }
}
