//! Keys of the interface that this version does not have.
//!
//! The author of such a key knows it from the interface, so another key is not suggested.
//! When a version reads the key, it moves from here to the table that reads it.

/// Tables at the top of the file.
pub(crate) const OF_FILE: [&str; 3] = ["docker", "knock", "probe"];
/// Keys of a mapping, and of `[defaults]`.
pub(crate) const OF_MAPPING: [&str; 7] =
    ["send_proxy", "accept_proxy", "balance", "health", "on_down", "hosts", "match"];
/// Keys of a target.
pub(crate) const OF_TARGET: [&str; 2] = ["weight", "backup"];
