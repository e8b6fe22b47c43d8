//! portway: a port-forwarding daemon and layer-4 reverse proxy.
//!
//! A [mapping] promises that a listener forwards to [targets] under a [policy]. [Config](config)
//! turns text into a [plan](config::Plan): every promise, keyed by the socket it needs. The
//! [supervisor] keeps what runs equal to the plan. The [relay] moves the bytes: each admitted
//! connection is a *session*, each admitted client of a datagram listener a *flow*. The [meter]
//! counts what the relay does. The [gateway] keeps the router open for exactly what is live.
//! [Status](status) is a picture of all of it. The `api` shows that picture and passes on requests.
//! The [daemon] starts and stops these parts in order.
//! The [cli] reads the command line.
//!
//! Modules stand in layers, the lowest first. A module uses only what is declared above its own
//! group. Sockets ([sock]) are above [mapping], because they are bound to its addresses.

#![cfg_attr(
    not(feature = "api"),
    allow(dead_code, unused_imports, unused_mut, reason = "the windows use it")
)]

mod alarm;
#[cfg(test)]
mod fixture;
mod handover;
mod help;
mod job;
mod log_level;
mod log_limiter;
mod mapping;
mod text;
mod version;

mod events;
#[cfg(feature = "knock")]
mod knock;
mod preface;
mod sock;
mod state;

mod engine;

mod policy;
mod targets;
mod wake;

mod meter;

mod gateway;
mod relay;

mod config;

mod supervisor;

mod sources;

#[cfg(feature = "api")]
mod status;

#[cfg(feature = "api")]
mod probe;

#[cfg(feature = "api")]
mod api;

#[cfg(feature = "api")]
mod doctor;

mod daemon;

pub mod cli;

#[doc(hidden)]
pub mod testing;
