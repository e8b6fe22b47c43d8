//! The engine of containers, Docker's or podman's, by its HTTP interface.
//!
//! Owns the connecting: a unix socket, or TCP to a proxy that stands before the socket and lets
//! only some requests through. One connection serves one request. An answer has a limit of time and
//! one of bytes, and a stream of events one for the length of a line: what stands behind the socket
//! can be anything.
//!
//! Paths have no version, so that each engine answers in its own: only what all of them have in
//! common is read. Knows no container by name, and nothing of mappings.

mod address;
#[cfg(any(feature = "docker", feature = "wake"))]
mod client;
#[cfg(any(feature = "docker", feature = "wake"))]
mod error;

pub(crate) use address::{EngineAddress, NoAddress};
#[cfg(any(feature = "docker", feature = "wake"))]
pub(crate) use client::{Bounds, Engine};
#[cfg(any(feature = "docker", feature = "wake"))]
pub(crate) use error::EngineError;
