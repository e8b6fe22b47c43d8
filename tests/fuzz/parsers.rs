//! The parsers of the program without the rest of it, so that a target is built in a minute.

#![allow(dead_code, unused_imports, reason = "the rest of the program uses it")]

#[path = "../../src/knock/mod.rs"]
mod knock;
#[path = "../../src/mapping/mod.rs"]
mod mapping;
#[path = "../../src/preface/mod.rs"]
mod preface;

pub use knock::claims::knock;
pub use preface::claims::{http, minecraft, proxy, tls};
