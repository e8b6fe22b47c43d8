//! The kind of place where a mapping is declared.

use serde::{Deserialize, Serialize};

/// Where a mapping stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum MappingOrigin {
    /// A configuration file.
    #[default]
    File,
    /// The managed file: the API may change it.
    Managed,
    /// A `-p` spec, or its variable.
    CommandLine,
    /// A label of a container.
    Docker,
}
