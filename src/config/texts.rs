//! The texts of a configuration after they were read, kept for another look at the containers.
//!
//! A container comes and goes while its host changes a file. Such a change belongs to a reload, not
//! to the container: with these texts, the mappings are made again without a look at any file of
//! mappings. Lists and tokens are read as for a reload.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

#[cfg(feature = "docker")]
use super::System;
use super::{Loaded, Problems, Source, environment::Asked, fragment::Fragments, merge, text::Diagnostics};

/// Texts that were read.
pub(crate) struct Texts {
    /// A lock, because one thread at a time may look up lines in them.
    read: Mutex<(Fragments, Diagnostics)>,
    source: Source,
    /// The variables of the environment that they name.
    asked: HashSet<String>,
}

impl Texts {
    pub(super) fn new(
        fragments: Fragments,
        diagnostics: Diagnostics,
        source: &Source,
        asked: &Asked<'_>,
    ) -> Self {
        Self { read: Mutex::new((fragments, diagnostics)), source: source.clone(), asked: asked.names() }
    }

    /// Makes one plan of them for the first time. They are kept where they name an engine.
    pub(super) fn merged(self, asked: &Asked<'_>) -> Result<Loaded, Problems> {
        if !cfg!(feature = "docker") || self.copy().0.docker().is_none() {
            let (fragments, diagnostics) = self.read.into_inner().unwrap_or_else(PoisonError::into_inner);
            return merge(fragments, diagnostics, &self.source, asked);
        }
        Arc::new(self).plan(asked)
    }

    /// Makes a plan of them and of the containers that there are now. It belongs on a thread that
    /// may block.
    ///
    /// # Errors
    /// Everything that is wrong with it: a list may have become unreadable.
    #[cfg(feature = "docker")]
    pub(crate) fn again(self: &Arc<Self>) -> Result<Loaded, Problems> {
        self.plan(&Asked::again(&System, &self.asked))
    }

    fn plan(self: &Arc<Self>, asked: &Asked<'_>) -> Result<Loaded, Problems> {
        let (fragments, diagnostics) = self.copy();
        let loaded = merge(fragments, diagnostics, &self.source, asked)?;
        Ok(Loaded { texts: Some(Arc::clone(self)), ..loaded })
    }

    fn copy(&self) -> (Fragments, Diagnostics) {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Texts")
    }
}
