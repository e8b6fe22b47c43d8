//! Which portway this is: the one place that knows its version and its commit.

/// The version of the package.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that it was built from, if that is known: see `src/build.rs`.
pub(crate) const COMMIT: Option<&str> = match env!("COMMIT_OF_PORTWAY").as_bytes() {
    b"unknown" => None,
    _ => Some(env!("COMMIT_OF_PORTWAY")),
};

/// Both, for a person.
pub(crate) const LINE: &str = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("COMMIT_OF_PORTWAY"), ")");
