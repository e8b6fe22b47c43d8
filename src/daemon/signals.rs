//! What the outside asks of the daemon by signal.
//!
//! As process 1 of a container a program gets no default handling at all, and elsewhere the default is the end, so every
//! signal that somebody may send to a daemon is taken here, before anything that takes time: a configuration with long
//! lists is read for seconds.

use std::io;

use tokio::{
    signal::unix::{Signal as Stream, SignalKind, signal},
    sync::Notify,
};

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// Read the configuration again (`SIGHUP`).
    Reload,
    /// Stop with grace; the second one, at once (`SIGTERM`, `SIGINT`).
    Stop,
    /// Hand over to a new program (`SIGUSR2`).
    HandOver,
}

/// The signals, installed.
#[derive(Debug)]
pub(super) struct Signals {
    hangup: Stream,
    terminate: Stream,
    interrupt: Stream,
    second_user: Stream,
}

impl Signals {
    /// Takes the signals over; from here on none of them ends the program by itself. `SIGUSR1` means nothing.
    pub(super) fn install() -> io::Result<Self> {
        // A signal that was taken once never has its default again.
        drop(signal(SignalKind::user_defined1())?);
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            second_user: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next request.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.second_user.recv() => Signal::HandOver,
        }
    }

    /// Does a part of the start, unless the end is asked for before it is done. A reload that is asked for meanwhile is
    /// noted in `reload`.
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
                    Signal::HandOver => {}
                },
            }
        }
    }

    /// Waits until the end is asked for.
    pub(super) async fn stop(&mut self) {
        while self.next().await != Signal::Stop {}
    }
}
