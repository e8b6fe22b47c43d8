//! What the outside asks of the daemon by signal.
//!
//! As process 1 of a container a program gets no default handling at all, and elsewhere the default
//! is the end. So [`hold`] blocks every signal before anything else, and the threads that are made
//! later inherit that. [`Signals`] then takes those that mean something, on the first thread. All
//! others stay blocked and end nothing: a log file at its limit (`SIGXFSZ`) is a failed write, and
//! a background job may write to its terminal (`SIGTTOU`).
//!
//! `SIGUSR1` opens the log file again at every moment, so it is no request to another part: it is
//! done here.
//!
//! Left alone are the signals of the program's own faults, and those that stop it and let it go on:
//! `SIGTSTP` is Ctrl-Z.

use std::io;

use nix::sys::signal::{SigSet, Signal as Number};
use tokio::{
    signal::unix::{Signal as Stream, SignalKind, signal},
    sync::Notify,
};

use super::{logging, systemd::is_there};

/// Those that [`Signals`] takes.
const TAKEN: [Number; 7] = [
    Number::SIGHUP,
    Number::SIGTERM,
    Number::SIGINT,
    Number::SIGUSR1,
    Number::SIGUSR2,
    Number::SIGPWR,
    Number::SIGQUIT,
];
/// Those that keep their default.
const LEFT_ALONE: [Number; 9] = [
    Number::SIGSEGV,
    Number::SIGBUS,
    Number::SIGILL,
    Number::SIGFPE,
    Number::SIGABRT,
    Number::SIGTRAP,
    Number::SIGSYS,
    Number::SIGTSTP,
    Number::SIGCONT,
];

/// Blocks signals on this thread, and on those that it makes later: what comes until
/// [`Signals::install`] waits. A caller that starts a thread before [`run`](super::run) calls this
/// first, so that the thread takes no signal.
///
/// # Errors
/// What the system said.
pub(crate) fn hold() -> io::Result<()> {
    let mut held = SigSet::all();
    LEFT_ALONE.iter().for_each(|signal| held.remove(*signal));
    Ok(held.thread_set_mask()?)
}

/// Lets those through again that [`Signals`] takes, on the first thread, after [`hold`].
pub(super) fn release() -> io::Result<()> {
    // SIGCHLD is for the part that waits for processes; it ends nothing.
    Ok(SigSet::from_iter(TAKEN.into_iter().chain([Number::SIGCHLD])).thread_unblock()?)
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// Read the configuration again (`SIGHUP`).
    Reload,
    /// Stop with grace; the second one, at once (`SIGTERM`, `SIGINT`).
    Stop,
    /// Hand over to a new program (`SIGUSR2`).
    HandOver,
    /// Stop, and be started again at once (`SIGPWR`): the sessions go on then. Without a service
    /// manager it means nothing.
    Restart,
    /// Write a dump for a report of a fault (`SIGQUIT`).
    Dump,
}

/// The signals, installed.
#[derive(Debug)]
pub(super) struct Signals {
    hangup: Stream,
    terminate: Stream,
    interrupt: Stream,
    first_user: Stream,
    second_user: Stream,
    power: Stream,
    quit: Stream,
}

impl Signals {
    /// Takes the signals, on the thread that calls this.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn install() -> io::Result<Self> {
        let signals = Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            first_user: signal(SignalKind::user_defined1())?,
            second_user: signal(SignalKind::user_defined2())?,
            power: signal(SignalKind::from_raw(Number::SIGPWR as i32))?,
            quit: signal(SignalKind::quit())?,
        };
        // Also where the parent left them blocked.
        release()?;
        Ok(signals)
    }

    /// The next request.
    pub(super) async fn next(&mut self) -> Signal {
        loop {
            tokio::select! {
                _ = self.hangup.recv() => return Signal::Reload,
                _ = self.terminate.recv() => return Signal::Stop,
                _ = self.interrupt.recv() => return Signal::Stop,
                _ = self.first_user.recv() => logging::reopen(),
                _ = self.second_user.recv() => return Signal::HandOver,
                _ = self.power.recv() => return Signal::Restart,
                _ = self.quit.recv() => return Signal::Dump,
            }
        }
    }

    /// Does a part of the start, unless the end is asked for before it is done. A reload that is
    /// asked for meanwhile is noted in `reload`.
    pub(super) async fn unless_stopped<T>(
        &mut self,
        reload: &Notify,
        start: impl Future<Output = T>,
    ) -> Option<T> {
        tokio::pin!(start);
        loop {
            tokio::select! {
                done = &mut start => return Some(done),
                signal = self.next() => match signal {
                    Signal::Reload => reload.notify_one(),
                    Signal::Stop => return None,
                    Signal::Restart if is_there() => return None,
                    Signal::HandOver | Signal::Restart | Signal::Dump => {}
                },
            }
        }
    }

    /// Waits until the end is asked for.
    pub(super) async fn stop(&mut self) {
        while self.next().await != Signal::Stop {}
    }
}
