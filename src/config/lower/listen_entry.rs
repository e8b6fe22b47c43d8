//! One `listen` entry or publish spec after the grammar: ports of an address that lead to targets.

use std::sync::Arc;

use crate::{
    config::text::Span,
    mapping::publish::{ListenSpec, Protocols, TargetSpec},
};

/// Ports of an address that lead to targets.
pub(crate) struct ListenEntry {
    pub(crate) listen: ListenSpec,
    pub(crate) span: Span,
    pub(crate) protocols: Protocols,
    /// Shared by all entries of a mapping. A decoy has none.
    pub(crate) targets: Arc<[(TargetSpec, Span)]>,
}
