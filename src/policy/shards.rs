//! Something that is kept by client, in parts with a lock each, so that listeners on several threads seldom meet.
//!
//! Which part a client falls into depends on a secret of the process: nobody can aim at one. Hashing would be a third of what an
//! admission costs, and a client is hashed eight times for it, so that [`Secret`] is quicker than the standard library's
//! hasher (admission and leave: 360 ns in place of 510). It is weaker, too; but nobody outside sees a hash, and the
//! worst that a table of a few thousand entries could be made to do is to be searched from end to end.

use std::{
    hash::BuildHasher as _,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::mapping::ClientKey;

/// How clients are hashed: with numbers that are drawn anew for each table.
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
        // Nothing that holds a lock leaves a part half-changed, so a panic elsewhere does not matter.
        self.parts[part as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every part in turn, locked.
    #[cfg(test)]
    pub(super) fn each(&self) -> impl Iterator<Item = MutexGuard<'_, T>> {
        self.parts.iter().map(|part| part.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
