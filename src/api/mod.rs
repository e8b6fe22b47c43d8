//! The API: what runs, over HTTP, and requests to change it.
//!
//! [`client`] is the side that asks.

pub(crate) mod client;
