//! The mappings that an operator paused, by name. The managed file has the list; it holds for the
//! mappings of every file.

use std::{cell::RefCell, collections::HashSet};

use crate::{
    config::text::{Code, Diagnostics, Text},
    mapping::MappingName,
};

/// The names of paused mappings. It remembers which of them there are.
#[derive(Default)]
pub(crate) struct Paused {
    names: Vec<Text>,
    found: RefCell<HashSet<String>>,
}

impl Paused {
    /// These names.
    pub(crate) fn new(names: Vec<Text>) -> Self {
        Self { names, found: RefCell::default() }
    }

    /// Whether no mapping is paused.
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether the mapping of this name is paused.
    pub(super) fn has(&self, name: &MappingName) -> bool {
        let has = self.names.iter().any(|text| text.value == name.as_str());
        if has {
            self.found.borrow_mut().insert(name.as_str().to_owned());
        }
        has
    }

    /// Warns of names that no mapping has.
    pub(crate) fn warn_of_unknown(&self, diagnostics: &mut Diagnostics) {
        let found = self.found.borrow();
        for text in self.names.iter().filter(|text| !found.contains(&text.value)) {
            let message = format!("`{}` is paused, and no mapping has this name", text.value);
            diagnostics
                .warning(Code::NoEffect, text.span(), message)
                .text(&text.value)
                .hint("remove it from `paused`, as `portway resume` does");
        }
    }
}
