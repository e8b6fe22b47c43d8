//! Bytes to values that know where they stand.
//!
//! Owns the reading of a file, the parsing of TOML with recovery, the spans, and the problems with
//! their hints. A [`table::Reader`] takes the keys out of a table and refuses the rest. Nothing
//! here knows what a mapping is.

pub(super) mod amount;
pub(super) mod bounded;
pub(super) mod bytes;
pub(super) mod cure;
pub(super) mod duration;
pub(super) mod expand;
pub(super) mod hint;
pub(super) mod problem;
pub(super) mod read;
pub(super) mod shape;
pub(super) mod span;
pub(super) mod spelling;
pub(super) mod syntax;
pub(super) mod table;

pub(crate) use amount::Pace;
pub(crate) use cure::{Kind, Refusal};
pub(crate) use expand::{ExpansionBudget, Text};
pub(crate) use problem::{Code, Diagnostic, Diagnostics, Problem, Problems};
pub(crate) use read::ReadError;
pub(crate) use span::{SourceMap, Span};
pub(crate) use spelling::{Spell, Term};
pub(crate) use table::{Keys, List, Located, Reader, Setting, Value};
