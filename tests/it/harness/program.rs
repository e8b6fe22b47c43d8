//! Other people's programs: started for one test, killed with all that they started.

use std::{
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process_group};

/// A running program and its children, in a process group of their own: a program that is killed (nginx, say) does not
/// end its workers, and a worker that lives on keeps the output of the tests open.
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
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        Self(command.spawn().unwrap_or_else(|e| panic!("start {command:?}: {e}")))
    }

    /// A name server (dnsmasq) on this address that knows only what `args` say.
    #[track_caller]
    pub(crate) fn name_server(at: &str, args: &[&str]) -> Self {
        let listen = format!("--listen-address={at}");
        let own = ["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"];
        let rest = ["--user=root", "--pid-file=", "--bind-interfaces", &listen];
        Self::start("dnsmasq", &[&own[..], &rest, args].concat())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}
