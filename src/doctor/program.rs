//! What a program of this machine says: such as the list of firewall rules.
//!
//! Owns how it is found and started. It blocks until the program ends: the caller has the limit.

use std::{
    io,
    path::Path,
    process::{Command, Output, Stdio},
};

/// Where administrators' programs are, beyond the search path.
const SBIN: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Why a program said nothing.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is not installed.
    Missing,
    /// It failed, with these words.
    Failed(String),
}

/// What a program writes to its end.
///
/// # Errors
/// [`Fault`].
pub(super) fn said(program: &str, args: &[&str]) -> Result<String, Fault> {
    let run = |program: &Path| -> io::Result<Output> {
        Command::new(program).args(args).env("LC_ALL", "C").stdin(Stdio::null()).output()
    };
    let mut output = run(Path::new(program));
    for dir in SBIN {
        if output.is_err() {
            output = run(&Path::new(dir).join(program));
        }
    }
    match output {
        Err(_) => Err(Fault::Missing),
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => Err(Fault::Failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}
