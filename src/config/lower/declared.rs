//! What the files declare for mappings to refer to: lists, and a database of countries.

use std::collections::BTreeSet;

use crate::{
    config::{
        lower::entries::EntriesText,
        text::{Diagnostics, Span},
    },
    policy::ListName,
};

/// What a mapping may refer to.
pub(crate) struct Declared {
    /// The lists by name. `None` accepts every name, because a file with lists could not be read.
    pub(crate) lists: Option<BTreeSet<ListName>>,
    /// Whether there is a database of countries.
    pub(crate) has_countries: bool,
    /// Whether clients can knock.
    pub(crate) has_knock: bool,
    /// Where `[knock]` is, if anywhere.
    pub(crate) knock: Option<Span>,
}

impl Declared {
    /// Accepts every name.
    pub(crate) fn anything() -> Self {
        Self { lists: None, has_countries: true, has_knock: true, knock: None }
    }

    /// Refuses names of lists that do not exist.
    pub(crate) fn refuse_unknown_lists(&self, entries: &EntriesText, diagnostics: &mut Diagnostics) {
        if let Some(lists) = &self.lists {
            entries.refuse_unknown(lists, diagnostics);
        }
    }
}
