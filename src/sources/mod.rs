//! Where mappings come from beside the files that a person writes.
//!
//! Each source owns what it keeps, and asks the supervisor for a reload when that changes. `config`
//! reads it with the rest.

#[cfg(feature = "docker")]
pub(crate) mod docker;
#[cfg(feature = "api")]
pub(crate) mod managed;
