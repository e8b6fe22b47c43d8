//! The bytes that the load sends, and the comparison with what comes back.
//!
//! One table of noise whose period is a prime, so that no buffer size divides it: a chunk that a relay lost, doubled
//! or swapped with one of another session does not fit where it arrives.

use anyhow::{Result, ensure};

use crate::random::Random;

/// A prime just below 64 KiB.
const PERIOD: usize = 65_521;
/// The longest slice that anyone may ask for.
pub(crate) const LONGEST: usize = 256 * 1024;
/// How far apart the streams of two neighbouring sessions begin.
const STRIDE: u64 = 7_919;

/// The table.
pub(crate) struct Pattern {
    bytes: Vec<u8>,
}

impl Pattern {
    /// The same noise in every run.
    pub(crate) fn new() -> Self {
        let mut random = Random::of(1);
        let noise: Vec<u8> = std::iter::repeat_with(|| random.next().to_le_bytes()[0]).take(PERIOD).collect();
        Self { bytes: noise.iter().copied().cycle().take(PERIOD + LONGEST).collect() }
    }

    /// `length` bytes of stream `id` from `offset` on.
    pub(crate) fn slice(&self, id: u64, offset: u64, length: usize) -> &[u8] {
        let start = usize::try_from((id * STRIDE + offset) % PERIOD as u64).unwrap_or_default();
        &self.bytes[start..start + length]
    }

    /// Fails unless `got` is what stream `id` has at `offset`.
    pub(crate) fn check(&self, id: u64, offset: u64, got: &[u8]) -> Result<()> {
        ensure!(self.slice(id, offset, got.len()) == got, "wrong bytes in stream {id} after {offset} bytes");
        Ok(())
    }
}
