//! Descriptors that the service manager passed by number (`LISTEN_FDS`), made owned.
//!
//! Invariant of the unsafe code: this runs once, before the process has opened a descriptor of its
//! own. So what is open from number 3 on was passed to it, and nothing else owns it.

#![allow(unsafe_code, reason = "a number becomes an owned descriptor")]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Each of them, with the name that the unit gives it. Variables that are meant for another
/// process, or that make no sense, pass nothing.
pub(super) fn descriptors() -> Vec<(OwnedFd, String)> {
    // This closes each of them at an exec, and fails where one is not open.
    let Ok(passed) = sd_notify::listen_fds_with_names() else { return Vec::new() };
    passed.map(|(number, name)| (owned(number), name)).collect()
}

fn owned(number: RawFd) -> OwnedFd {
    // SAFETY: it is open, and nothing else owns it: see the invariant above.
    unsafe { OwnedFd::from_raw_fd(number) }
}
