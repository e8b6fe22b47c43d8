//! The data plane: it moves the bytes.
//!
//! Given a bound socket, where to lead it, a meter and a drain, a listener runs; it knows no configuration, no
//! supervisor and no clock but tokio's.
//!
//! ```text
//! TCP  accept ─► session: pick ─► dial ─► pump ⇄ meter ─► settle, once, with the reason
//! UDP  datagram ─► flow table: known │ new: pick, connect │ dropped ─► target
//!      target's datagram ─► return path: to the client, from the address it hit
//! ```
//!
//! A listener ends when its [`Drain`] closes: it stops taking new sessions at once; those it has go on until they end
//! by themselves or are cut through the meter.

mod drain;
mod quiet;
pub mod socket;
pub mod tcp;
pub mod udp;

pub use drain::{Drain, DrainWatch};
pub use quiet::Quiet;
