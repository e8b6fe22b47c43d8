//! Something that is kept by client, in parts with a lock each, so that listeners on several threads seldom meet.
//!
//! Which part a client falls into depends on a secret of the process: nobody can aim at one.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::mapping::ClientKey;

/// How many parts.
pub(super) const SHARDS: usize = 16;

/// A value in parts.
#[derive(Debug)]
pub(super) struct Shards<T> {
    parts: [Mutex<T>; SHARDS],
    secret: RandomState,
}

impl<T: Default> Default for Shards<T> {
    fn default() -> Self {
        Self { parts: std::array::from_fn(|_| Mutex::default()), secret: RandomState::new() }
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
