//! The bans of whole networks: few, and by an operator alone.
//!
//! Owns a bounded list. Pure: time is an argument. Each new client is compared with all of them, so
//! there are at most [`MOST`]. In a full list the ban that ends first makes room.

use std::net::IpAddr;

use ipnet::IpNet;
use tokio::time::Instant;

use super::ban::{Ban, End};

/// The most bans of networks. A longer list belongs in a file: see `[lists]`.
const MOST: usize = 256;

/// Bans of networks; the one that ends first comes first.
#[derive(Debug, Default)]
pub(super) struct NetBans(Vec<(End, IpNet, Ban)>);

impl NetBans {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The ban of a network that has `ip` (canonical), if it has not ended.
    pub(super) fn holding(&self, ip: IpAddr, now: Instant) -> Option<&Ban> {
        self.0.iter().find(|(end, net, _)| *end > End::At(now) && net.contains(&ip)).map(|(_, _, ban)| ban)
    }

    /// The ban of exactly this network, if it has not ended.
    pub(super) fn get(&self, net: IpNet, now: Instant) -> Option<&Ban> {
        self.0.iter().find(|(end, banned, _)| *end > End::At(now) && *banned == net).map(|(_, _, ban)| ban)
    }

    /// Puts a ban in the place of any other of the network.
    pub(super) fn insist(&mut self, net: IpNet, end: End, ban: Ban) {
        self.remove(net);
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        let place = self.0.partition_point(|(other, _, _)| *other <= end);
        self.0.insert(place, (end, net, ban));
    }

    /// Whether there was one.
    pub(super) fn remove(&mut self, net: IpNet) -> bool {
        let before = self.0.len();
        self.0.retain(|(_, banned, _)| *banned != net);
        self.0.len() < before
    }

    /// The bans that have not ended.
    pub(super) fn iter(&self, now: Instant) -> impl Iterator<Item = &Ban> {
        self.0.iter().filter(move |(end, _, _)| *end > End::At(now)).map(|(_, _, ban)| ban)
    }

    /// Removes what has ended; says how many these were.
    pub(super) fn expire(&mut self, now: Instant) -> usize {
        let before = self.0.len();
        self.0.retain(|(end, _, _)| *end > End::At(now));
        before - self.0.len()
    }
}
