//! What is known of the containers: the labels from which mappings are made, while they run.
//!
//! A shelf between two that do not know each other. `sources::docker` asks the engine and puts what
//! runs on it; a reading of the configuration takes it from there. What is on it is not yet read:
//! `label` makes texts of it.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// The shelf. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Containers(Arc<Mutex<Arc<Seen>>>);

/// Two sources of configurations are the same where they share the shelf.
impl PartialEq for Containers {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Containers {}

/// What was last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Those with labels of portway that run, in the order in which they have a claim to a port.
    pub(crate) containers: Vec<Container>,
    /// Why the engine cannot be asked, and what would help.
    pub(crate) trouble: Option<(String, &'static str)>,
}

/// A container with labels of portway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Container {
    /// Its name, or its id where it has none.
    pub(crate) name: String,
    /// Its id in full.
    pub(crate) id: String,
    /// By name.
    pub(crate) labels: Vec<Label>,
    /// Where it is reached.
    pub(crate) home: Home,
}

/// A label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    /// Its whole name.
    pub(crate) name: String,
    /// Where in the name the prefix and its dot end.
    pub(crate) at: usize,
    /// What it says.
    pub(crate) value: String,
}

/// Where a container is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// At this address.
    At(IpAddr),
    /// It is not known where: why, and what would help.
    Unknown(String, String),
}

impl Containers {
    /// What was last put on it.
    pub(crate) fn seen(&self) -> Arc<Seen> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts on it what is seen now. Returns whether that is something else.
    #[cfg(any(feature = "docker", test))]
    pub(crate) fn put(&self, seen: Seen) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_other = **last != seen;
        if is_other {
            *last = Arc::new(seen);
        }
        is_other
    }
}
