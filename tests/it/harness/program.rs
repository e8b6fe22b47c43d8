//! Other people's programs: started for one test, killed by their own process id.

use std::process::{Child, Command, Stdio};

/// A running program.
#[derive(Debug)]
pub(crate) struct Program(Child);

impl Program {
    /// Starts it; it has to stay in the foreground. Its output is only shown if it writes to standard error.
    #[track_caller]
    pub(crate) fn start(program: &str, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        // Administrators' programs are not on everyone's search path.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.spawn().unwrap_or_else(|e| panic!("start {command:?}: {e}")))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
