//! Which knocks were taken before. Pure: times are arguments.
//!
//! A datagram is true for a minute on either side of its own time. So its nonce is kept until that
//! has passed, and an older datagram is refused by its time. Only a datagram that was signed by a
//! known key is entered, so a stranger cannot fill this. It is bounded all the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How long a datagram may be true after its time, in milliseconds, with a second to spare.
const LIFE_MS: u64 = 61_000;
/// The most nonces: more than the budget lets in within their life.
const MOST: usize = 16_384;
/// How often those that are over are looked for, in milliseconds: each look is at all of them.
const SWEEP_MS: u64 = 10_000;

/// The nonces of the knocks that were taken, with their times.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Taken {
    times: BTreeMap<String, u64>,
    /// When it was last swept.
    #[serde(skip)]
    swept: u64,
}

impl Taken {
    /// Whether this knock was taken before.
    pub(super) fn has(&self, nonce: &[u8; 32]) -> bool {
        !self.times.is_empty() && self.times.contains_key(&name(nonce))
    }

    /// Enters a knock with its time. Returns false where it was there, or where there is no room.
    pub(super) fn enter(&mut self, nonce: &[u8; 32], time: u64, now: u64) -> bool {
        if now.abs_diff(self.swept) >= SWEEP_MS {
            self.forget(now);
        }
        self.times.len() < MOST && self.times.insert(name(nonce), time).is_none()
    }

    /// Adds those of an earlier process.
    pub(super) fn add(&mut self, other: Self, now: u64) {
        self.times.extend(other.times.into_iter().take(MOST));
        self.forget(now);
    }

    /// Forgets those that are refused by their times.
    pub(super) fn forget(&mut self, now: u64) {
        self.swept = now;
        self.times.retain(|_, time| time.saturating_add(LIFE_MS) >= now);
    }
}

/// Half of a nonce tells it from all others.
fn name(nonce: &[u8; 32]) -> String {
    use std::fmt::Write as _;
    nonce[..16].iter().fold(String::with_capacity(32), |mut text, byte| {
        // A string takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_knock_is_taken_once_as_long_as_its_time_is_right() {
        let mut taken = Taken::default();
        assert!(taken.enter(&[1; 32], 1_000_000, 1_000_000));
        assert!(taken.has(&[1; 32]) && !taken.has(&[2; 32]));
        assert!(!taken.enter(&[1; 32], 1_000_000, 1_060_000));
        let mut next = Taken::default();
        next.add(taken.clone(), 1_060_000);
        assert!(!next.enter(&[1; 32], 1_000_000, 1_060_000), "also after a restart");
        next.forget(1_062_000);
        assert!(next.times.is_empty(), "then its time is wrong");
    }

    #[test]
    fn memory_is_bounded_and_what_is_known_stays_known() {
        let mut taken = Taken::default();
        for n in 0..=MOST {
            let mut nonce = [0; 32];
            nonce[..8].copy_from_slice(&(n as u64).to_be_bytes());
            assert_eq!(taken.enter(&nonce, 5, 5), n < MOST);
        }
        assert!(taken.has(&[0; 32]));
    }
}
