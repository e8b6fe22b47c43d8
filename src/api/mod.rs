//! The API: what runs, over HTTP, and requests to change it.
//!
//! [`client`] is the side that asks.

#[allow(dead_code, reason = "the commands that ask follow")]
pub(crate) mod client;
