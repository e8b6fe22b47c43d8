//! The process that is to take over, as old has it: started, watched and ended.

use std::{
    process::{Child, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::{Line, program::Program};
use crate::{handover::Wire, job};

/// How long the system may take to start a program.
const START: Duration = Duration::from_secs(10);
/// How long it may take to end one that was killed.
const END: Duration = Duration::from_secs(10);
/// How long a process that has closed its end may take to be gone.
const GONE: Duration = Duration::from_secs(2);

/// A started process.
#[derive(Debug)]
pub(super) struct Heir {
    pid: Pid,
    child: Option<Child>,
}

impl Heir {
    /// Starts the program that is installed now.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) async fn start(program: &Program, how: &'static str) -> Result<(Self, Line), String> {
        let path = program.path()?.display().to_string();
        let mut command = program.command(how)?;
        let start = move || -> std::io::Result<(Child, Wire)> {
            let (ours, theirs) = Wire::pair()?;
            command.stdin(Stdio::from(theirs.into_socket()));
            Ok((command.spawn()?, ours))
        };
        let started = job::run_within(START, "portway-start", start).await;
        let started = started.map_err(|error| format!("start {path}: {error}"))?;
        let (child, wire) = started.map_err(|error| format!("start {path}: {error}"))?;
        Ok((Self { pid: Pid::from_child(&child), child: Some(child) }, Line::new(wire)))
    }

    /// Its id.
    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends it a signal.
    pub(super) fn signal(&self, signal: Signal) {
        // It is waited for here alone, so its id is no other's.
        if self.child.is_some() {
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Waits for its end, for a short while; how it ended.
    async fn gone(&mut self, limit: Duration) -> Option<ExitStatus> {
        let mut child = self.child.take()?;
        let waited = job::run_within(limit, "portway-wait", move || child.wait()).await;
        waited.ok()?.ok()
    }

    /// How it ended, where it has closed its end.
    pub(super) async fn how_it_ended(&mut self) -> Option<String> {
        let still = self.child.as_mut()?;
        let status = match still.try_wait() {
            Ok(Some(status)) => Some(status),
            _ => self.gone_or_kept(GONE).await,
        };
        status.map(|status| status.to_string())
    }

    /// Waits for its end, and keeps it where that does not come.
    async fn gone_or_kept(&mut self, limit: Duration) -> Option<ExitStatus> {
        const LOOK: Duration = Duration::from_millis(10);
        let until = tokio::time::Instant::now() + limit;
        loop {
            if let Ok(Some(status)) = self.child.as_mut()?.try_wait() {
                return Some(status);
            }
            if tokio::time::Instant::now() >= until {
                return None;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Kills it, and waits until it is gone.
    pub(super) async fn end(&mut self) {
        if self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_)))) {
            self.child = None;
            return;
        }
        self.signal(Signal::KILL);
        let was_there = self.child.is_some();
        if self.gone(END).await.is_none() && was_there {
            tracing::error!(pid = self.pid(), "the new process does not end");
        }
    }

    /// Leaves it alone: it serves.
    pub(super) fn leave(mut self) {
        self.child = None;
    }
}
