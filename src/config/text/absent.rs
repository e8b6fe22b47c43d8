//! Keys of the interface that this version does not have.
//!
//! The author of such a key knows it from the interface, so another key is not suggested.
//! When a version reads the key, it moves from here to the table that reads it.

/// Tables at the top of the file.
pub(crate) const OF_FILE: [&str; 0] = [];
