//! What really listens, for whoever follows it from outside.

use std::collections::BTreeMap;

use crate::{
    config::ListenerKey,
    mapping::{Exposure, MappingName},
};

/// A listener that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// The mapping it belongs to.
    pub mapping: MappingName,
    /// Whether it shall be open on the home router.
    pub exposure: Option<Exposure>,
}

/// Every listener that listens; not those that wait for their address, and not those on their way out.
pub(crate) type LiveSet = BTreeMap<ListenerKey, Live>;
