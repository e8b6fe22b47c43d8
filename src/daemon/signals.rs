//! What the outside asks of the daemon by signal.
//!
//! As process 1 of a container a program gets no default handling at all, so every signal that matters is taken here.

use std::io;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// Read the configuration again (`SIGHUP`).
    Reload,
    /// Stop with grace; the second one, at once (`SIGTERM`, `SIGINT`).
    Stop,
}

/// The signals, installed.
#[derive(Debug)]
pub(super) struct Signals {
    hangup: Stream,
    terminate: Stream,
    interrupt: Stream,
}

impl Signals {
    /// Takes the signals over; from here on none of them ends the program by itself.
    pub(super) fn install() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next request.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
        }
    }
}
