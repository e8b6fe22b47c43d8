//! What the integration tests and benchmarks use of the library. It is not an interface.

pub use crate::{
    alarm::Alarm,
    config::{Source, System, load},
    events::Events,
    mapping::Protocol,
    policy::{
        AccessSpec, Admission, Caps, Entries, Gate, GateInput, IpSet, Limit, ListName, Policy, Rate, Rates,
        Refusal,
    },
    supervisor::{Budgets, Handle, Means, Tolerance},
};

/// What the fuzz targets claim of any bytes.
#[cfg(any(test, fuzzing))]
pub mod claims {
    pub use crate::preface::claims::{http, minecraft, proxy, tls};
}
