//! A table by client, in parts with a lock each, so that listeners on several threads seldom wait
//! for each other.
//!
//! The part of a client depends on a secret of the process, so strangers cannot aim at one. An
//! admission hashes a client eight times. With the standard library's hasher, that would be a third
//! of its cost, so [`Secret`] is a quicker one (admission and leave: 360 ns in place of 510). It is
//! weaker, too. But strangers do not see a hash, and the worst case is a search through a table of
//! a few thousand entries.

use std::{
    hash::BuildHasher as _,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::mapping::ClientKey;

/// How clients are hashed: with random numbers of each table.
pub(super) type Secret = foldhash::quality::RandomState;

/// How many parts.
pub(super) const SHARDS: usize = 16;

/// A value in parts.
#[derive(Debug)]
pub(super) struct Shards<T> {
    parts: [Mutex<T>; SHARDS],
    secret: Secret,
}

impl<T: Default> Default for Shards<T> {
    fn default() -> Self {
        Self { parts: std::array::from_fn(|_| Mutex::default()), secret: Secret::default() }
    }
}

impl<T> Shards<T> {
    /// The part that has `client`, locked.
    pub(super) fn of(&self, client: &ClientKey) -> MutexGuard<'_, T> {
        let part = self.secret.hash_one(client) % SHARDS as u64;
        // Nothing that holds a lock leaves a part half-changed, so a panic elsewhere does not
        // matter.
        self.parts[part as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every part in turn, locked.
    pub(super) fn each(&self) -> impl Iterator<Item = MutexGuard<'_, T>> {
        self.parts.iter().map(|part| part.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
