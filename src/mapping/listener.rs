//! A listener by the socket that it needs, and the set of those that listen.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{Exposure, ListenAddr, MappingName, Protocol};

/// The socket that a listener needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ListenerKey {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The address and port.
    pub addr: ListenAddr,
}

impl fmt::Display for ListenerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.protocol)
    }
}

/// A listener that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LiveListener {
    /// The mapping it belongs to.
    pub mapping: MappingName,
    /// How it should be reachable through the home router; `None` keeps it closed there.
    pub exposure: Option<Exposure>,
}

/// Every listener that listens. It has none that waits for its address or that is closing.
pub(crate) type LiveSet = BTreeMap<ListenerKey, LiveListener>;
