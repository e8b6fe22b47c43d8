//! The time of day where this machine is, which RFC 3164 wants.
//!
//! Owns the call `localtime_r`. Invariant of the unsafe code: it gets pointers to two values on the
//! stack, one of which it fills. It reads the environment variable `TZ`, which this program never
//! changes.

#![allow(unsafe_code, reason = "no crate in the tree knows the time zone of the machine")]

use std::time::Duration;

use nix::libc;

/// A time of day and its date, without the year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LocalTime {
    /// From 0.
    pub(super) month: u8,
    /// From 1.
    pub(super) day: u8,
    pub(super) hour: u8,
    pub(super) minute: u8,
    pub(super) second: u8,
}

impl LocalTime {
    /// A moment since 1970.
    pub(super) fn at(since_epoch: Duration) -> Self {
        // The type of a time has 32 or 64 bits, by the C library: its name is deprecated for musl.
        let moment = since_epoch.as_secs().try_into().unwrap_or(i32::MAX.into());
        // SAFETY: a C struct of integers and a pointer, for which zero is a value.
        let mut parts: libc::tm = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to values that live until the call returns.
        unsafe { libc::localtime_r(&raw const moment, &raw mut parts) };
        // All are below 100.
        let part = |number: libc::c_int| u8::try_from(number).unwrap_or(0);
        Self {
            month: part(parts.tm_mon),
            day: part(parts.tm_mday),
            hour: part(parts.tm_hour),
            minute: part(parts.tm_min),
            second: part(parts.tm_sec),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_zone_is_whole_minutes_off() {
        let time = LocalTime::at(Duration::from_secs(1_795_280_054));
        assert_eq!((time.second, time.month), (14, 10));
        assert!((20..=22).contains(&time.day) && time.hour < 24 && time.minute < 60, "{time:?}");
    }
}
