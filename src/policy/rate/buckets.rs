//! Where governor keeps the state of its buckets.
//!
//! Owns [`Bucket`], the state of one, and [`Buckets`], that of many clients with an upper bound: a
//! flood of forged addresses must cost neither memory nor time. The state is one number, the time
//! at which the bucket is full again. A full bucket is forgotten without loss. Each newcomer checks
//! a few old entries, in turn, so the table holds little more than the clients that matter. Nothing
//! else sweeps it, and no look-up walks it. [`Crowded`] says what happens to a newcomer when no
//! client can be forgotten. A client whose bucket is full counts as a newcomer, although it may
//! have been there before.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use governor::{
    clock::Clock as _,
    nanos::Nanos,
    state::{NotKeyed, StateStore},
};
use indexmap::IndexMap;

use super::{
    super::shards::{SHARDS, Secret, Shards},
    Hands,
    shares::{self, Shares},
};
use crate::mapping::ClientKey;

/// How many clients are remembered unless told otherwise.
pub(in super::super) const CLIENTS: usize = 65_536;
/// How many old entries each newcomer has looked at.
const LOOKED_AT: usize = 8;
/// A table that had many entries keeps this room, in entries.
const ROOM: usize = 64;

/// What happens to a newcomer when the table is full of clients whose buckets are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crowded {
    /// The share of its networks decides ([`Shares`]), so a flood from elsewhere does not lock it
    /// out. The clients in the table stay.
    Share,
    /// Of a few clients, it replaces the one whose bucket is the fullest. A quiet client finds its
    /// bucket full in any crowd.
    Replace,
}

/// The state of one bucket: when it is full again, in nanoseconds; 0 for one that was never used.
#[derive(Clone, Debug, Default)]
pub(super) struct Bucket(Arc<AtomicU64>);

impl Bucket {
    /// Lets it be full earlier by `nanos`.
    pub(super) fn give_back(&self, nanos: u64) {
        shares::give_back(&self.0, nanos);
    }

    /// When it is full again; 0 if it was never used.
    pub(super) fn full_at(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Lets it be full no earlier than then.
    pub(super) fn is_full_at(&self, full_at: u64) {
        self.0.fetch_max(full_at, Ordering::Relaxed);
    }
}

impl StateStore for Bucket {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        shares::measure(&self.0, decide)
    }
}

/// The state of many buckets, by client.
#[derive(Clone, Debug)]
pub(super) struct Buckets(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Shards<Part>,
    most_in_a_part: usize,
    crowded: Crowded,
    shares: Shares,
    hands: Hands,
}

#[derive(Debug, Default)]
struct Part {
    full_at: IndexMap<ClientKey, u64, Secret>,
    /// The entry that is looked at next.
    next: usize,
}

impl Buckets {
    pub(super) fn new(clients: usize, crowded: Crowded, hands: Hands) -> Self {
        let most_in_a_part = clients.div_ceil(SHARDS);
        Self(Arc::new(Inner {
            parts: Shards::default(),
            most_in_a_part,
            crowded,
            shares: Shares::default(),
            hands,
        }))
    }

    pub(super) fn give_back(&self, client: ClientKey, nanos: u64) {
        let mut part = self.0.parts.of(&client);
        match part.full_at.get_mut(&client) {
            Some(full_at) => *full_at = full_at.saturating_sub(nanos),
            // An entry from which something was taken is not full, and stays: it was taken from a
            // share.
            None => {
                drop(part);
                self.0.shares.give_back(&client, nanos, self.0.hands.now().into());
            }
        }
    }

    pub(super) fn has(&self, client: ClientKey) -> bool {
        self.0.parts.of(&client).full_at.contains_key(&client)
    }

    pub(super) fn forget(&self, client: ClientKey) {
        self.0.parts.of(&client).full_at.swap_remove(&client);
    }

    /// Every client that is remembered, and when its bucket is full again.
    pub(super) fn all(&self) -> Vec<(ClientKey, u64)> {
        let mut all = Vec::new();
        for part in self.0.parts.each() {
            all.extend(part.full_at.iter().map(|(client, full_at)| (*client, *full_at)));
        }
        all
    }

    /// Lets the bucket of a client be full no earlier than then, if there is room for it.
    pub(super) fn is_full_at(&self, client: ClientKey, full_at: u64) {
        let mut part = self.0.parts.of(&client);
        let has_room = part.full_at.len() < self.0.most_in_a_part;
        match part.full_at.get_mut(&client) {
            Some(known) => *known = full_at.max(*known),
            None if has_room => drop(part.full_at.insert(client, full_at)),
            None => {}
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.parts.each().map(|part| part.full_at.len()).sum()
    }

    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.0.parts.each().map(|part| part.full_at.capacity()).sum()
    }
}

impl StateStore for Buckets {
    type Key = ClientKey;

    fn measure_and_replace<T, F, E>(&self, client: &ClientKey, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut part = self.0.parts.of(client);
        if let Some(full_at) = part.full_at.get_mut(client) {
            let (outcome, next) = decide(Some((*full_at).into()))?;
            *full_at = next.into();
            return Ok(outcome);
        }
        let fullest = part.sweep(self.0.hands.now().into());
        if part.full_at.len() >= self.0.most_in_a_part {
            match (self.0.crowded, fullest) {
                (Crowded::Replace, Some(fullest)) => {
                    part.full_at.swap_remove_index(fullest);
                }
                _ => {
                    drop(part);
                    return self.0.shares.measure_and_replace(client, decide);
                }
            }
        }
        let (outcome, next) = decide(None)?;
        part.full_at.insert(*client, next.into());
        Ok(outcome)
    }
}

impl Part {
    /// Looks at a few entries and forgets those whose buckets are full; says which of the others is
    /// the fullest.
    fn sweep(&mut self, now: u64) -> Option<usize> {
        let mut fullest: Option<(u64, ClientKey)> = None;
        for _ in 0..LOOKED_AT.min(self.full_at.len()) {
            if self.next >= self.full_at.len() {
                self.next = 0;
            }
            let Some((client, full_at)) = self.full_at.get_index(self.next) else { break };
            if *full_at <= now {
                self.full_at.swap_remove_index(self.next);
                continue;
            }
            if fullest.is_none_or(|(least, _)| *full_at < least) {
                fullest = Some((*full_at, *client));
            }
            self.next += 1;
        }
        if self.full_at.capacity() > ROOM && self.full_at.len() < self.full_at.capacity() / 8 {
            self.full_at.shrink_to((self.full_at.len() * 2).max(ROOM / 2));
        }
        self.full_at.get_index_of(&fullest?.1)
    }
}
