//! The knock: one datagram that asks to be let in (single-packet authorisation).
//!
//! Owns the form of the datagram ([`packet`]) and of the keys ([`keys`]). Must not know sockets,
//! clocks, or who was let in: bytes and times are arguments. What an observer learns, and what a
//! replay, a stolen key, a wrong clock and a NAT do, is in `policy/README.md`.
//!
//! The cryptography is that of RustCrypto and dalek. `ring` has no X25519 key that can be kept
//! over a restart, and it needs a C compiler, which the static build does without.

#[cfg(any(test, fuzzing))]
pub(crate) mod claims;
pub(crate) mod keys;
mod packet;

#[cfg(test)]
pub(crate) use packet::LEN;
pub(crate) use packet::{False, Lock, millis, seal};
