//! The ports of the router: each belongs to one opening, and their number is limited.
//!
//! Pure. The configuration refuses what breaks this rule, with the place in the file. The gateway
//! applies the same rule to the live listeners, whose addresses the configuration does not know.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::Ipv6Addr,
    num::NonZeroU16,
};

use crate::mapping::Protocol;

/// The most openings at once: more than the tables of small routers hold.
pub(crate) const MOST_OPENINGS: usize = 64;

/// A port of the router's IPv4 address, or of an IPv6 address that its firewall lets through.
pub(crate) type RouterPort = (Protocol, NonZeroU16, Option<Ipv6Addr>);

/// The ports that are taken, each with the place or thing that took it.
#[derive(Debug)]
pub(crate) struct RouterPorts<T>(BTreeMap<RouterPort, T>);

impl<T> Default for RouterPorts<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

/// Why an opening cannot have a port.
#[derive(Debug)]
pub(crate) enum PortRefusal<T> {
    /// This one took it before.
    Taken(T),
    /// There are [`MOST_OPENINGS`] already.
    TooMany,
}

impl<T: Copy> RouterPorts<T> {
    /// Takes a port for `by`.
    pub(crate) fn take(&mut self, port: RouterPort, by: T) -> Result<(), PortRefusal<T>> {
        let count = self.0.len();
        match self.0.entry(port) {
            Entry::Occupied(taken) => Err(PortRefusal::Taken(*taken.get())),
            Entry::Vacant(_) if count >= MOST_OPENINGS => Err(PortRefusal::TooMany),
            Entry::Vacant(free) => {
                free.insert(by);
                Ok(())
            }
        }
    }
}
