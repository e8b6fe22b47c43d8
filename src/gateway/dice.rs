//! Chance, from a seed: jitter, so that many machines do not ask one router in step, and nonces.
//!
//! Owns nothing but its state. A seed makes it repeatable, which the simulation needs; [`Dice::loaded_by_the_system`]
//! takes one that nobody outside can know.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

/// The first wait after a failure.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// The longest wait after failures in a row.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// A source of chance (SplitMix64).
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// The same numbers for the same seed.
    pub(super) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// Numbers that nobody outside this process can know beforehand: keyed by the system's randomness.
    pub(super) fn loaded_by_the_system() -> Self {
        Self(RandomState::new().build_hasher().finish())
    }

    /// The next number.
    pub(super) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// `time`, give or take so many percent.
    pub(super) fn about(&mut self, time: Duration, percent: u32) -> Duration {
        let span = u64::from(2 * percent) + 1;
        let drawn = u32::try_from(self.number() % span).unwrap_or(percent);
        time * (100 - percent + drawn) / 100
    }

    /// How long to wait after so many failures in a row: 5 s, doubled for each, at most 10 minutes, ±20 %.
    pub(super) fn wait_after(&mut self, failures: u32) -> Duration {
        let doubled = FIRST_WAIT.saturating_mul(1 << failures.saturating_sub(1).min(10));
        self.about(doubled.min(LONGEST_WAIT), 20)
    }

    /// A nonce of PCP (RFC 6887, section 11.1): whoever knows it can take the opening away.
    pub(super) fn nonce(&mut self) -> [u8; 12] {
        let mut nonce = [0; 12];
        for piece in nonce.chunks_mut(8) {
            let bytes = self.number().to_be_bytes();
            piece.copy_from_slice(&bytes[..piece.len()]);
        }
        nonce
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_ten_minutes_and_stray_by_a_fifth() {
        let mut dice = Dice::seeded(1);
        for _ in 0..1000 {
            for (failures, middle) in [(1, 5), (2, 10), (4, 40), (8, 600), (100, 600)] {
                let wait = dice.wait_after(failures).as_secs_f64();
                let middle = f64::from(middle);
                assert!((middle * 0.8..=middle * 1.2).contains(&wait), "{failures}: {wait}");
            }
        }
    }

    #[test]
    fn no_two_nonces_are_the_same() {
        let mut dice = Dice::loaded_by_the_system();
        assert_ne!(dice.nonce(), dice.nonce());
        assert_ne!(Dice::loaded_by_the_system().nonce(), Dice::loaded_by_the_system().nonce());
    }
}
