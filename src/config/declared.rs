//! What the files declare for mappings to refer to: lists, and a database of countries.

use std::collections::BTreeSet;

use super::{entries::EntriesText, problem::Diagnostics};
use crate::policy::ListName;

/// What a mapping may refer to.
pub(super) struct Declared {
    /// The lists by name. `None` accepts every name, because a file with lists could not be read.
    pub(super) lists: Option<BTreeSet<ListName>>,
    /// Whether there is a database of countries.
    pub(super) has_countries: bool,
}

impl Declared {
    /// Accepts every name.
    pub(super) fn anything() -> Self {
        Self { lists: None, has_countries: true }
    }

    /// Refuses names of lists that do not exist.
    pub(super) fn refuse_unknown_lists(&self, entries: &EntriesText, diagnostics: &mut Diagnostics) {
        if let Some(lists) = &self.lists {
            entries.refuse_unknown(lists, diagnostics);
        }
    }
}
