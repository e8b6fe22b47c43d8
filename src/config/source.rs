//! Where the text of a configuration stands, and which files were read.

use std::{fmt, path::PathBuf, sync::Arc};

use crate::mapping::MappingOrigin;

/// Where the configuration is, when nothing else is said.
pub(crate) const DEFAULT_FILE: &str = "/etc/portway/portway.toml";
/// The name of standard input, in the place of a file.
pub(crate) const STDIN: &str = "-";
/// What to do where nothing was named.
pub(crate) const NAME_A_MAPPING: &str =
    "name a mapping, as in portway run -p 8080:80, or a file, as in portway run -c FILE";

/// Where the publish specs beside the file stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpecsFrom {
    /// In the arguments, each behind a `-p`.
    #[default]
    Arguments,
    /// In the variable [`SpecsFrom::VARIABLE`].
    Variable,
}

impl SpecsFrom {
    /// The environment's twin of `-p`.
    pub const VARIABLE: &str = "PORTWAY_PUBLISH";
}

impl fmt::Display for SpecsFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Arguments => "-p",
            Self::Variable => Self::VARIABLE,
        })
    }
}

/// Where a text comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A file, by the path as it was given.
    File(String),
    /// The managed file, by its path.
    Managed(String),
    /// A publish spec beside the file.
    Spec(SpecsFrom, String),
    /// The command line as a whole.
    CommandLine,
    /// The labels of a container.
    Container(Labels),
}

/// Which label stands where in the text that was made of the labels of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Labels {
    /// The container.
    pub(crate) container: Arc<str>,
    /// Where what was made of each label begins, in order.
    pub(crate) places: Arc<[(usize, Arc<str>)]>,
}

impl Labels {
    /// The label at a place of the text.
    pub(crate) fn describe(&self, at: usize) -> String {
        let after = self.places.partition_point(|(start, _)| *start <= at);
        match after.checked_sub(1).and_then(|before| self.places.get(before)) {
            Some((_, label)) => format!("container {}, label {label}", self.container),
            None => format!("container {}", self.container),
        }
    }
}

impl Origin {
    /// The origin of the mappings that stand in this text.
    pub(crate) fn of_mappings(&self) -> MappingOrigin {
        match self {
            Self::File(_) => MappingOrigin::File,
            Self::Managed(_) => MappingOrigin::Managed,
            Self::Spec(..) | Self::CommandLine => MappingOrigin::CommandLine,
            Self::Container(_) => MappingOrigin::Docker,
        }
    }

    /// Whether a place in it is a line and a column.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self, Self::File(_) | Self::Managed(_))
    }

    /// Whether a problem of this text concerns this text alone. The files and the command line
    /// hold together: a problem in one refuses all of them.
    pub(crate) fn stands_alone(&self) -> bool {
        match self {
            Self::File(_) | Self::Spec(..) | Self::CommandLine => false,
            Self::Managed(_) | Self::Container(_) => true,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) | Self::Managed(path) => f.write_str(path),
            Self::Spec(from, spec) if spec.chars().count() > 80 => {
                write!(f, "{from} \"{}...\"", spec.chars().take(77).collect::<String>())
            }
            Self::Spec(from, spec) => write!(f, "{from} \"{spec}\""),
            Self::CommandLine => f.write_str("command line"),
            Self::Container(labels) => write!(f, "container {}", labels.container),
        }
    }
}

/// The files that were read, as absolute paths. The daemon watches them for changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadSet {
    /// The files, those that were missing too.
    pub files: Vec<PathBuf>,
    /// The patterns of `include`: a new file that matches one belongs to the configuration.
    pub patterns: Vec<String>,
}
