//! Executes the running program once more, in the place of this process.
//!
//! What is given up for good belongs to a thread: rights, a user, the files that Landlock closes.
//! Another thread would keep it, and an allocator may have one before the first line of the program
//! runs. Such a change is therefore followed by this: the new image begins with the one thread that
//! has given everything up. Descriptors that were passed by number stay. Signals stay blocked, so
//! that none is lost.

use std::{
    ffi::{CString, OsString},
    os::unix::ffi::OsStringExt as _,
};

use rustix::io::Errno;

/// What runs.
pub(super) const SELF: &str = "/proc/self/exe";

/// Starts the program with the same arguments, and with this variable in its environment. Returns
/// only an error.
pub(super) fn execute_self(variable: Option<&(&str, String)>) -> Errno {
    let c_string = |text: OsString| CString::new(text.into_vec());
    let args: Result<Vec<CString>, _> = std::env::args_os().map(c_string).collect();
    let own = variable.map(|(name, _)| *name);
    let kept = std::env::vars_os().filter(|(name, _)| own.is_none_or(|own| name != own));
    let added = variable.iter().map(|(name, value)| ((*name).into(), value.into()));
    let pair = |(name, value): (OsString, OsString)| c_string([name, value].join("=".as_ref()));
    let environment: Result<Vec<CString>, _> = kept.chain(added).map(pair).collect();
    let (Ok(args), Ok(environment)) = (args, environment) else { return Errno::INVAL };
    let Err(error) = nix::unistd::execve(c"/proc/self/exe", &args, &environment);
    Errno::from_raw_os_error(error as i32)
}
