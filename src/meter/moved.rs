//! Bytes and datagrams, as numbers.

use std::ops::AddAssign;

/// What moved through sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Bytes from clients to targets.
    pub bytes_in: u64,
    /// Bytes from targets to clients.
    pub bytes_out: u64,
    /// Datagrams from clients to targets; 0 with TCP.
    pub datagrams_in: u64,
    /// Datagrams from targets to clients; 0 with TCP.
    pub datagrams_out: u64,
}

impl AddAssign for Moved {
    /// Wraps, as [`Moved::minus`] does.
    fn add_assign(&mut self, other: Self) {
        self.bytes_in = self.bytes_in.wrapping_add(other.bytes_in);
        self.bytes_out = self.bytes_out.wrapping_add(other.bytes_out);
        self.datagrams_in = self.datagrams_in.wrapping_add(other.datagrams_in);
        self.datagrams_out = self.datagrams_out.wrapping_add(other.datagrams_out);
    }
}

impl Moved {
    /// The difference. A sum that is taken from zero wraps, and is right again when it is added.
    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            bytes_in: self.bytes_in.wrapping_sub(other.bytes_in),
            bytes_out: self.bytes_out.wrapping_sub(other.bytes_out),
            datagrams_in: self.datagrams_in.wrapping_sub(other.datagrams_in),
            datagrams_out: self.datagrams_out.wrapping_sub(other.datagrams_out),
        }
    }
}
