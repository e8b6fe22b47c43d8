//! The bans in force and those of before: entries that end.
//!
//! Owns [`Ending`], a bounded table of clients in which each entry has an end, and [`BanTable`],
//! which has two of them beside the bans of networks. Pure: time is an argument. Invariants: the
//! order has exactly one place for each entry. A table holds [`CLIENTS`] entries at most. In a full
//! table the entry that ends first makes room, which may be the new one.

use std::collections::{BTreeSet, HashMap};

use tokio::time::Instant;

use super::{
    super::{rate::CLIENTS, shards::Secret},
    ban::{Ban, End, PastBans},
    nets::NetBans,
};
use crate::mapping::ClientKey;

/// What the guard remembers.
#[derive(Debug, Default)]
pub(super) struct BanTable {
    pub(super) bans: Ending<Ban>,
    pub(super) nets: NetBans,
    pub(super) past: Ending<PastBans>,
}

impl BanTable {
    /// Removes what has ended; says how many bans that were.
    pub(super) fn expire(&mut self, now: Instant) -> usize {
        self.past.expire(now);
        self.bans.expire(now) + self.nets.expire(now)
    }

    /// How many bans there are, of either kind.
    pub(super) fn len(&self) -> usize {
        self.bans.len() + self.nets.len()
    }

    /// The bans that have not ended: those of clients, then those of networks.
    pub(super) fn bans(&self, now: Instant) -> impl Iterator<Item = &Ban> {
        self.bans.iter(now).chain(self.nets.iter(now))
    }
}

/// A bounded table in which each entry has an end.
#[derive(Debug)]
pub(super) struct Ending<T> {
    entries: HashMap<ClientKey, (End, T), Secret>,
    order: BTreeSet<(End, ClientKey)>,
}

impl<T> Default for Ending<T> {
    fn default() -> Self {
        Self { entries: HashMap::default(), order: BTreeSet::new() }
    }
}

impl<T> Ending<T> {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many have not ended.
    pub(super) fn count(&self, now: Instant) -> usize {
        self.len() - self.order.iter().take_while(|(end, _)| *end <= End::At(now)).count()
    }

    /// The entry of `client`, if it has not ended.
    pub(super) fn get(&self, client: &ClientKey, now: Instant) -> Option<&T> {
        self.entries.get(client).filter(|(end, _)| *end > End::At(now)).map(|(_, entry)| entry)
    }

    /// Puts an entry in the place of any other of the client; whether it stays. In a full table it
    /// does not stay if it would end first.
    pub(super) fn insert(&mut self, client: ClientKey, end: End, entry: T) -> bool {
        if let Some((before, _)) = self.entries.insert(client, (end, entry)) {
            self.order.remove(&(before, client));
        }
        self.order.insert((end, client));
        if self.entries.len() <= CLIENTS {
            return true;
        }
        let first = self.order.pop_first();
        first.is_none_or(|(_, first)| {
            self.entries.remove(&first);
            first != client
        })
    }

    /// The same, but it stays in any case.
    pub(super) fn insist(&mut self, client: ClientKey, end: End, entry: T) {
        if self.entries.len() >= CLIENTS
            && !self.entries.contains_key(&client)
            && let Some((_, first)) = self.order.pop_first()
        {
            self.entries.remove(&first);
        }
        self.insert(client, end, entry);
    }

    pub(super) fn remove(&mut self, client: &ClientKey) -> Option<T> {
        let (end, entry) = self.entries.remove(client)?;
        self.order.remove(&(end, *client));
        Some(entry)
    }

    /// The entries that have not ended; the one that ends first comes first.
    pub(super) fn iter(&self, now: Instant) -> impl Iterator<Item = &T> {
        let live = self.order.iter().skip_while(move |(end, _)| *end <= End::At(now));
        live.filter_map(|(_, client)| Some(&self.entries.get(client)?.1))
    }

    fn expire(&mut self, now: Instant) -> usize {
        let before = self.entries.len();
        while let Some((end, client)) = self.order.first().copied().filter(|(end, _)| *end <= End::At(now)) {
            self.order.remove(&(end, client));
            self.entries.remove(&client);
        }
        if self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
        before - self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;

    fn client(n: u32) -> ClientKey {
        ClientKey::V4(Ipv4Addr::from(n))
    }

    #[test]
    fn what_ends_first_makes_room_and_a_new_end_replaces_the_old() {
        let now = Instant::now();
        let at = |seconds| End::At(now + Duration::from_secs(seconds));
        let mut table = Ending::default();
        table.insert(client(u32::MAX), End::Never, 0);
        for n in 0..70_000 {
            table.insert(client(n), at(1 + u64::from(n)), n);
            table.insert(client(n), at(100_000 + u64::from(n)), n);
        }
        assert_eq!((table.len(), table.order.len()), (CLIENTS, CLIENTS));
        assert_eq!(table.get(&client(0), now), None, "it would have ended first");
        assert_eq!(table.get(&client(69_999), now), Some(&69_999));
        assert_eq!(table.get(&client(u32::MAX), now), Some(&0));
        assert!(!table.insert(client(0), at(1), 0) && table.insert(client(0), at(200_000), 0));
        table.insist(client(1), at(1), 1);
        assert_eq!((table.len(), table.order.len()), (CLIENTS, CLIENTS));
        assert_eq!((table.get(&client(0), now), table.get(&client(1), now)), (Some(&0), Some(&1)));
        let all_but_endless = CLIENTS - 1;
        assert_eq!(table.expire(now + Duration::from_secs(1_000_000)), all_but_endless);
        assert_eq!((table.len(), table.order.len()), (1, 1));
        assert!(table.entries.capacity() < 1000);
    }

    #[test]
    fn an_entry_ends_when_it_should_whether_or_not_it_was_removed() {
        let now = Instant::now();
        let mut table = Ending::default();
        table.insert(client(2), End::At(now + Duration::from_secs(2)), 2);
        table.insert(client(1), End::At(now + Duration::from_secs(1)), 1);
        assert_eq!(table.iter(now).copied().collect::<Vec<_>>(), [1, 2]);
        let later = now + Duration::from_secs(1);
        assert_eq!(table.get(&client(1), later), None);
        assert_eq!(table.iter(later).copied().collect::<Vec<_>>(), [2]);
        assert_eq!((table.count(now), table.count(later), table.len()), (2, 1, 2));
        assert_eq!(table.expire(later), 1);
        assert_eq!(
            (table.remove(&client(2)), table.remove(&client(2)), table.order.len()),
            (Some(2), None, 0)
        );
    }
}
