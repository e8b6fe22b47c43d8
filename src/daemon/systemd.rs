//! The service manager: the sockets that it passes at the start ([`Given`]), and what it hears of
//! the daemon ([`Notifier`], [`Manager`]).
//!
//! Owns the protocol of sd_notify(3). Everything is said by one thread, that of the
//! [`watchdog`](super::watchdog): a manager that does not read holds no other part. The daemon says
//! what has happened, and the thread finds the words: a status for a person is made where one is
//! sent, at most every few seconds, and only where it has changed.
//!
//! The watchdog of the manager is fed after the supervisor has answered. So a supervisor that hangs
//! is found by the manager as well. While sessions drain, the manager's limit for a stop is
//! extended as long as the supervisor answers.
//!
//! Without a manager nothing is sent, and the rest of the daemon sees no difference. Variables of
//! the manager stay in the environment: children of portway are started without them.

mod passed;
mod status;
pub(in crate::daemon) mod store;

use std::{
    os::fd::OwnedFd,
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    thread,
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::{sync::watch, time::Instant};

use crate::{
    sock::inherited::{Inherited, Stays},
    supervisor::{Handle, Turns},
};
use status::Facts;

/// News that may wait for the thread.
const MOST_NEWS: usize = 64;
/// How much longer a stop may take, from each sign of life on.
const EXTENSION: Duration = Duration::from_secs(20);

/// Whether a service manager started this process.
pub(super) fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// What the service manager passed to this process.
#[derive(Debug, Default)]
pub(crate) struct Given {
    sockets: Vec<(OwnedFd, String)>,
    stored: Stored,
    /// What was wrong with what was stored, for the log that there is not yet.
    trouble: Option<String>,
}

/// What the process before this one put into the store of the manager.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Stored {
    /// The file with the snapshot.
    pub(in crate::daemon) snapshot: Option<OwnedFd>,
    /// The sockets that it refers to.
    pub(in crate::daemon) sockets: Vec<OwnedFd>,
}

impl Stored {
    pub(in crate::daemon) fn is_empty(&self) -> bool {
        self.snapshot.is_none() && self.sockets.is_empty()
    }
}

impl Given {
    /// Takes it. To be called first of all, once, before this process opens anything.
    pub(crate) fn take() -> Self {
        let mut given = Self::default();
        for (descriptor, name) in passed::descriptors() {
            match name.as_str() {
                store::SNAPSHOT => given.stored.snapshot = Some(descriptor),
                store::LIVE => given.stored.sockets.push(descriptor),
                _ => given.sockets.push((descriptor, name)),
            }
        }
        given
    }

    /// Takes out what the process before this one stored.
    pub(super) fn stored(&mut self) -> Stored {
        std::mem::take(&mut self.stored)
    }

    /// Notes what was wrong with it.
    pub(super) fn note(&mut self, trouble: String) {
        self.trouble = Some(trouble);
    }

    /// Puts the listening sockets into the bag that listeners look into. The manager holds them
    /// open, so they stay there.
    pub(super) fn put_into(self, inherited: &Inherited) {
        if let Some(error) = self.trouble {
            tracing::error!(error, "the sessions of the process before this one are lost");
        }
        for (descriptor, name) in self.sockets {
            match inherited.add(descriptor, Stays::Always) {
                Ok(socket) => tracing::debug!(%socket, name, "socket passed by the service manager"),
                Err(error) => {
                    tracing::warn!(%error, name, "what the service manager passed cannot be used; it is closed");
                }
            }
        }
    }
}

/// Logs the sockets that no listener wanted.
pub(super) fn say_left(inherited: &Inherited) {
    const NAMED: usize = 10;
    let left = inherited.left();
    for socket in left.iter().take(NAMED) {
        tracing::warn!(
            %socket,
            "a socket that was passed matches no listener, so its clients get no answer; add a mapping for exactly this \
             address, or remove the socket from the .socket unit"
        );
    }
    if let Some(left_out @ 1..) = left.len().checked_sub(NAMED) {
        tracing::warn!(left_out, "more sockets that were passed match no listener");
    }
}

/// What has happened, for the manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    /// The start is complete, or a reload.
    Ready,
    /// A reload begins.
    Reloading,
    /// The stop begins.
    Stopping,
    /// Another process is the main one, and speaks.
    Left,
}

/// The side that tells. Clones tell the same manager.
#[derive(Clone, Debug)]
pub(super) struct Notifier(SyncSender<News>);

impl Notifier {
    /// The start is complete.
    pub(super) fn ready(&self) {
        self.tell(News::Ready);
    }

    /// The stop begins.
    pub(super) fn stopping(&self) {
        self.tell(News::Stopping);
    }

    /// Another process is the main one: nothing more is said.
    pub(super) fn leave(&self) {
        self.tell(News::Left);
    }

    /// Tells of every reload, from wherever it was asked for. It does not return before the
    /// supervisor ends.
    pub(super) async fn follow(self, mut turns: watch::Receiver<Turns>) {
        let mut told = *turns.borrow_and_update();
        while turns.changed().await.is_ok() {
            let now = *turns.borrow_and_update();
            // One that began and ended meanwhile is told as well: the manager may wait for it.
            if now.asked != told.asked {
                self.tell(News::Reloading);
            }
            if now.done == now.asked {
                self.tell(News::Ready);
            }
            told = now;
        }
    }

    fn tell(&self, news: News) {
        // A manager that reads nothing for so long has other troubles.
        let _ = self.0.try_send(news);
    }
}

/// The side that speaks, on a thread of its own.
#[derive(Debug)]
pub(super) struct Manager {
    news: Receiver<News>,
    /// `None` where no manager listens.
    facts: Option<Facts>,
    /// How often its watchdog has to be fed, at the least.
    watchdog: Option<Duration>,
    /// The last status.
    shown: String,
    is_stopping: bool,
    /// A failure was logged.
    has_failed: bool,
}

/// The two sides, for the manager that started this process, if one did.
pub(super) fn manager(handle: &Handle, inherited: &Inherited) -> (Notifier, Manager) {
    let (tell, news) = mpsc::sync_channel(MOST_NEWS);
    let is_there = is_there();
    let manager = Manager {
        news,
        facts: is_there.then(|| Facts::of(handle, inherited)),
        watchdog: sd_notify::watchdog_enabled().filter(|_| is_there),
        shown: String::new(),
        is_stopping: false,
        has_failed: false,
    };
    (Notifier(tell), manager)
}

impl Manager {
    /// The longest pause between two signs of life: a third of what the manager allows.
    pub(super) fn pace(&self) -> Duration {
        self.watchdog.map_or(Duration::MAX, |limit| limit / 3)
    }

    /// Passes on the news of as long as `pause`.
    pub(super) fn listen_for(&mut self, pause: Duration) {
        let end = Instant::now() + pause;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.news.recv_timeout(left) {
                Ok(news) => self.pass_on(news),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => return thread::park_timeout(left),
            }
        }
    }

    fn pass_on(&mut self, news: News) {
        if news == News::Left {
            self.facts = None;
        }
        // The listeners may show it a moment later.
        self.is_stopping |= news == News::Stopping;
        let Some(line) = self.line() else { return };
        let status = NotifyState::Status(&line);
        match news {
            News::Ready => self.send(&[NotifyState::Ready, status]),
            News::Reloading => {
                let Ok(now) = NotifyState::monotonic_usec_now() else { return };
                return self.send(&[NotifyState::Reloading, now]);
            }
            News::Left => return,
            News::Stopping => self.send(&[NotifyState::Stopping, status, extension()]),
        }
        self.shown = line;
    }

    /// The status of this moment; `None` where no manager listens.
    fn line(&self) -> Option<String> {
        Some(self.facts.as_ref()?.line(self.is_stopping))
    }

    /// Says that the supervisor lives, and how it is where that has changed.
    pub(super) fn is_alive(&mut self) {
        let Some(line) = self.line() else { return };
        let mut states = Vec::new();
        if self.watchdog.is_some() {
            states.push(NotifyState::Watchdog);
        }
        if self.is_stopping {
            states.push(extension());
        }
        if line != self.shown {
            states.push(NotifyState::Status(&line));
        }
        if !states.is_empty() {
            self.send(&states);
            self.shown = line;
        }
    }

    fn send(&mut self, states: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(states)
            && !std::mem::replace(&mut self.has_failed, true)
        {
            tracing::warn!(%error, "the service manager cannot be told how it is");
        }
    }
}

fn extension() -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(EXTENSION.as_micros()).unwrap_or(u32::MAX))
}
