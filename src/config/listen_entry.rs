//! One `listen` entry or publish spec after the grammar: ports of an address that lead to targets.

use std::sync::Arc;

use super::span::Span;
use crate::mapping::publish::{ListenSpec, Protocols, TargetSpec};

/// Ports of an address that lead to targets.
pub(super) struct ListenEntry {
    pub(super) listen: ListenSpec,
    pub(super) span: Span,
    pub(super) protocols: Protocols,
    /// Shared by all entries of a mapping. A decoy has none.
    pub(super) targets: Arc<[(TargetSpec, Span)]>,
}
