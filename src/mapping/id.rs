//! The identity of a mapping, over all plans.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::MappingName;

/// Identifies a mapping, in one plan and from one plan to the next.
///
/// A mapping has the name that the configuration gives it. Otherwise it has the default name of its
/// first listener. Two addresses can have the same port, so mappings can share a default name:
/// `nth` tells them apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MappingId {
    /// The given name, or the default name of the first listener.
    pub name: MappingName,
    /// The place among the mappings of this name, in the order of their first listeners; 0 for a
    /// given name.
    pub nth: u32,
}

impl fmt::Display for MappingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}
