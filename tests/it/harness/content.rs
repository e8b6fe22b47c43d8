//! A stream of bytes that both ends know, so that a lost, repeated or swapped piece is seen where it happens.
//!
//! The bytes repeat with a prime period: no whole number of buffers, pages or pipes fits into it, so a piece in the
//! wrong place never looks right. Comparing is one `memcmp` a read, cheap in a debug build.

use std::io::{self, Read, Write};

use crate::random::Random;

const PERIOD: usize = 1_048_573;
const WINDOW: usize = 256 * 1024;

/// An endless stream, chosen by its seed.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    block: std::sync::Arc<[u8]>,
}

impl Content {
    /// The stream of `seed`.
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = Random::of(seed);
        let mut block = Vec::with_capacity(PERIOD + WINDOW);
        while block.len() < PERIOD {
            block.extend_from_slice(&random.next().to_le_bytes());
        }
        block.truncate(PERIOD);
        block.extend_from_within(..WINDOW);
        Self { block: block.into() }
    }

    /// `len` bytes of the stream from `offset` on.
    pub(crate) fn piece(&self, offset: u64, len: usize) -> &[u8] {
        let start = usize::try_from(offset % PERIOD as u64).expect("below the period");
        &self.block[start..start + len]
    }

    /// Writes the first `total` bytes.
    pub(crate) fn send(&self, to: &mut impl Write, total: u64) -> io::Result<()> {
        let mut sent = 0;
        while sent < total {
            let len = usize::try_from(total - sent).unwrap_or(WINDOW).min(WINDOW);
            to.write_all(self.piece(sent, len))?;
            sent += len as u64;
        }
        Ok(())
    }

    /// Reads to the end of the stream and compares every byte; says how many there were.
    pub(crate) fn receive(&self, from: &mut impl Read) -> io::Result<u64> {
        self.receive_at_most(from, u64::MAX)
    }

    /// The same, but no further than `limit` bytes.
    pub(crate) fn receive_at_most(&self, from: &mut impl Read, limit: u64) -> io::Result<u64> {
        let mut buffer = vec![0; WINDOW];
        let mut received = 0;
        while received < limit {
            let room = usize::try_from(limit - received).unwrap_or(WINDOW).min(WINDOW);
            let len = from.read(&mut buffer[..room])?;
            if len == 0 {
                break;
            }
            self.compare(received, &buffer[..len]);
            received += len as u64;
        }
        Ok(received)
    }

    /// Fails with the first byte that is not the stream's.
    pub(crate) fn compare(&self, offset: u64, got: &[u8]) {
        let expected = self.piece(offset, got.len());
        if expected != got {
            let wrong = expected.iter().zip(got).position(|(a, b)| a != b).unwrap_or(0);
            panic!("the stream differs at byte {}", offset + wrong as u64);
        }
    }
}
