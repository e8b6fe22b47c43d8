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
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use crate::mapping::ClientKey;

/// How clients are hashed: with random numbers of each table.
pub(super) type Secret = foldhash::quality::RandomState;

/// How many parts.
pub(super) const SHARDS: usize = 16;

/// A value in parts. They are made for the first client: most mappings of a large configuration
/// have none at a time.
#[derive(Debug)]
pub(super) struct Shards<T>(OnceLock<Box<Parts<T>>>);

#[derive(Debug)]
struct Parts<T> {
    parts: [Mutex<T>; SHARDS],
    secret: Secret,
}

impl<T> Default for Shards<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T: Default> Default for Parts<T> {
    fn default() -> Self {
        Self { parts: std::array::from_fn(|_| Mutex::default()), secret: Secret::default() }
    }
}

impl<T: Default> Shards<T> {
    /// The part that has `client`, locked.
    pub(super) fn of(&self, client: &ClientKey) -> MutexGuard<'_, T> {
        let Parts { parts, secret } = &**self.0.get_or_init(Box::default);
        let part = secret.hash_one(client) % SHARDS as u64;
        // Nothing that holds a lock leaves a part half-changed, so a panic elsewhere does not
        // matter.
        parts[part as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every part in turn, locked; none before the first client.
    pub(super) fn each(&self) -> impl Iterator<Item = MutexGuard<'_, T>> {
        let parts = self.0.get().into_iter().flat_map(|all| &all.parts);
        parts.map(|part| part.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
