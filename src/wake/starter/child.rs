//! The signals of a process that portway starts.
//!
//! Portway blocks almost every signal on its threads, and a process inherits that from the thread
//! that starts it. Otherwise the server would ignore SIGTERM.
//!
//! Invariant of the unsafe code: what runs between fork and exec allocates nothing and takes no
//! lock. It is one system call.

#![allow(unsafe_code, reason = "no crate in the tree sets the signal mask of a child")]

use nix::sys::signal::SigSet;
use tokio::process::Command;

/// Lets the process take every signal.
pub(super) fn take_signals(command: &mut Command) {
    let all = SigSet::empty();
    // SAFETY: the closure calls sigprocmask alone, which is safe there.
    unsafe { command.pre_exec(move || Ok(all.thread_set_mask()?)) };
}
