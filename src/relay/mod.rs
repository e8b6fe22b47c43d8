//! The data plane: it moves the bytes.
//!
//! A listener needs a bound socket, an admission, targets, a meter and a drain. It knows no
//! configuration, no supervisor and no clock but tokio's.
//!
//! ```text
//! TCP  accept ─► admission: refused │ session: dial ─► pump ⇄ meter ─► settle, once, with the reason
//! UDP  datagram ─► flow table: known │ new: admission, connect │ dropped │ refused ─► target
//!      target's datagram ─► return path: to the client, from the address it hit
//! ```
//!
//! A listener ends when its [`Drain`] closes. It stops taking new sessions at once. Its sessions go
//! on until they end by themselves or are cut through the meter.

mod admission_handle;
mod drain;
mod hold;
mod log_limits;
mod seldom;
pub(crate) mod tcp;
mod throttle;
pub(crate) mod udp;

pub(crate) use admission_handle::AdmissionHandle;
pub(crate) use drain::{Drain, DrainWatch};
pub(crate) use hold::Hold;
pub(crate) use log_limits::LogLimits;
