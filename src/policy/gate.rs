//! What all doorkeepers share: the lists, the countries and the guard.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use ipnet::IpNet;
use tokio::sync::watch;

use super::{Countries, Guard, GuardSpec, IpSet, ListName};

/// What the configuration says for all mappings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GateSpec {
    /// Where the named lists come from.
    pub lists: BTreeMap<ListName, ListSpec>,
    /// The database of countries (`[geoip] database`, in MaxMind's format).
    pub geoip: Option<PathBuf>,
    /// The guard's terms; without them there are no automatic bans.
    pub guard: Option<GuardSpec>,
}

/// Where a list comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListSpec {
    /// The configuration itself.
    Inline(Vec<IpNet>),
    /// A file, one entry a line.
    File(PathBuf),
}

/// A [`GateSpec`] with what its files held when they were read.
#[derive(Clone, Debug, Default)]
pub struct GateInput {
    /// What the configuration says.
    pub spec: GateSpec,
    /// The content of every list.
    pub lists: BTreeMap<ListName, Arc<IpSet>>,
    /// The database of countries.
    pub countries: Option<Arc<Countries>>,
}

/// The lists, the countries and the guard of the daemon.
#[derive(Debug)]
pub struct Gate {
    guard: Guard,
    revision: watch::Sender<u64>,
}

impl Gate {
    /// A gate without lists and without bans.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { guard: Guard::default(), revision: watch::Sender::new(0) })
    }

    /// Takes what a configuration says, in place of what the one before said. Bans stay.
    pub fn apply(&self, _input: &GateInput) {}

    /// What the configuration said last.
    pub fn spec(&self) -> Arc<GateSpec> {
        Arc::default()
    }

    /// Replaces the content of one list: its file has changed.
    pub fn replace_list(&self, _name: &ListName, _set: Arc<IpSet>) {}

    /// Replaces the database of countries: its file has changed.
    pub fn replace_countries(&self, _countries: Arc<Countries>) {}

    /// Bans, and who earns one.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// A number that changes whenever a client who was allowed may no longer be: a list, the countries or a ban changed.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }
}
