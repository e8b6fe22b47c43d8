//! The parsers of the program without the rest of it, so that a target is built in a minute.

#![allow(dead_code, unused_imports, reason = "the rest of the program uses it")]

#[path = "../../src/cli/import/convert/mod.rs"]
mod convert;
#[path = "../../src/handover/frame.rs"]
mod frame;
#[path = "../../src/cli/fresh.rs"]
mod fresh;
#[path = "../../src/handover/claims.rs"]
mod handover;
#[path = "../../src/knock/mod.rs"]
mod knock;
#[path = "../../src/mapping/mod.rs"]
mod mapping;
#[path = "../../src/preface/mod.rs"]
mod preface;
#[path = "../../src/text.rs"]
mod text;

mod cli {
    pub(crate) use crate::fresh;
}

pub use convert::claims::import;
pub use handover::frame as handover_frame;
pub use knock::claims::knock;
pub use preface::claims::{http, minecraft, proxy, tls};
