//! The data plane: it moves the bytes.
//!
//! Given a bound socket, who may enter, where to lead it, a meter and a drain, a listener runs; it knows no
//! configuration, no supervisor and no clock but tokio's.
//!
//! ```text
//! TCP  accept ─► door: refused │ session: pick ─► dial ─► pump ⇄ meter ─► settle, once, with the reason
//! UDP  datagram ─► flow table: known │ new: door, pick, connect │ dropped │ refused ─► target
//!      target's datagram ─► return path: to the client, from the address it hit
//! ```
//!
//! A listener ends when its [`Drain`] closes: it stops taking new sessions at once; those it has go on until they end
//! by themselves or are cut through the meter.

mod admission_handle;
mod drain;
mod quiet;
pub(crate) mod tcp;
mod throttle;
pub(crate) mod udp;

pub(crate) use admission_handle::AdmissionHandle;
pub(crate) use drain::{Drain, DrainWatch};
