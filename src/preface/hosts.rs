//! A table of host names: exact ones, and wildcards such as `*.example.org`.
//!
//! An exact name wins, then the longest wildcard. Names are compared without case and without a
//! closing dot. A lookup allocates nothing.

use std::collections::BTreeMap;

/// Values by host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostTable<T> {
    /// By the name in lower case, without a closing dot; a wildcard keeps its `*.`.
    all: BTreeMap<Box<str>, T>,
}

impl<T> HostTable<T> {
    /// The values, in the order of their names.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.all.values()
    }
}
