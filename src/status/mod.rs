//! The picture: one value that every window renders.
//!
//! Owns [`view`], the values of the interface, and the [`Board`] that makes them. The API sends
//! them as JSON. The command line, `top` and the page read them back. A number has one name here,
//! whatever shows it.
//!
//! Must not know how a window looks. Reads only: a change is a call on the supervisor's handle.

mod addresses;
mod anonymous;
mod board;
mod dump;
mod event;
mod gauges;
mod history;
mod recorded;
mod router;
mod sessions;
pub(crate) mod view;

pub(crate) use board::{Board, Facts};
pub(crate) use gauges::Gauges;
pub(crate) use history::History;
pub(crate) use recorded::recorded;
pub(crate) use sessions::SessionList;

use std::time::{Duration, SystemTime};

/// A duration in whole milliseconds.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A time by RFC 3339 in UTC, to the millisecond.
fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// The time that was `age` ago.
fn ago(age: Duration) -> String {
    let now = SystemTime::now();
    rfc3339(now.checked_sub(age).unwrap_or(now))
}
