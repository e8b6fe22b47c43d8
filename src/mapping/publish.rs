//! The grammar of a publish spec.
