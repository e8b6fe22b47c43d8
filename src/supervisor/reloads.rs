//! The configuration being read for a reload, and who waits for what comes of it.
//!
//! Reading takes as long as a file system likes, so it has a thread that may block, and everything else goes on
//! meanwhile. One reading runs at a time: whoever asks during it may know of a change that it has missed, and gets one
//! more after it, shared by all who asked. What is done with a reading is the supervisor's.
//!
//! A reading is never waited for at the end: who drops this lets its thread run on, and tells all who wait by dropping
//! their replies.

use std::sync::Arc;

use tokio::{
    sync::oneshot,
    task::{JoinHandle, spawn_blocking},
};

use super::{Applied, ReloadError};
use crate::config::{Loaded, Problems};

/// Reads the configuration; it may block.
pub(super) type Read = Arc<dyn Fn() -> Result<Loaded, Problems> + Send + Sync>;
/// Where the outcome of a reload goes.
pub(super) type Reply = oneshot::Sender<Result<Applied, Arc<ReloadError>>>;

/// The reading under way, and the next one.
pub(super) struct Reloads {
    read: Read,
    reading: Option<Reading>,
    /// Who asked during the reading.
    next: Vec<Reply>,
}

struct Reading {
    thread: JoinHandle<Result<Loaded, Problems>>,
    replies: Vec<Reply>,
}

impl Reloads {
    /// Nothing is read before someone asks.
    pub(super) fn new(read: Read) -> Self {
        Self { read, reading: None, next: Vec::new() }
    }

    /// Asks for a reading that begins after this moment.
    pub(super) fn ask(&mut self, reply: Reply) {
        self.next.push(reply);
        self.begin();
    }

    fn begin(&mut self) {
        if self.reading.is_none() && !self.next.is_empty() {
            let read = Arc::clone(&self.read);
            let thread = spawn_blocking(move || read());
            self.reading = Some(Reading { thread, replies: std::mem::take(&mut self.next) });
        }
    }

    /// Waits for the end of the reading under way: what was read, and for whom. Waits for ever when there is none. May be
    /// dropped at any time.
    pub(super) async fn done(&mut self) -> (Result<Loaded, ReloadError>, Vec<Reply>) {
        let Some(reading) = &mut self.reading else { return std::future::pending().await };
        let loaded = match (&mut reading.thread).await {
            Ok(loaded) => loaded.map_err(ReloadError::Config),
            // It is not run any more.
            Err(_) => Err(ReloadError::Stopping),
        };
        let replies = self.reading.take().map(|reading| reading.replies).unwrap_or_default();
        self.begin();
        (loaded, replies)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    };

    use super::*;
    use crate::config::{self, Source, System};

    #[tokio::test]
    async fn all_who_ask_during_a_reading_share_the_one_after_it() {
        let (release, blocked) = mpsc::channel::<()>();
        let (blocked, begun) = (Mutex::new(blocked), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&begun);
        let mut reloads = Reloads::new(Arc::new(move || {
            count.fetch_add(1, SeqCst);
            let _ = blocked.lock().unwrap().recv();
            config::load(&Source { publish: vec!["8080:80".into()], ..Source::default() }, &System)
        }));
        let reply = || oneshot::channel().0;
        reloads.ask(reply());
        while begun.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        (0..3).for_each(|_| reloads.ask(reply()));
        for waiting in [1, 3] {
            release.send(()).unwrap();
            let (loaded, replies) = reloads.done().await;
            assert!(loaded.is_ok());
            assert_eq!(replies.len(), waiting);
        }
        assert!(reloads.reading.is_none());
        assert_eq!(begun.load(SeqCst), 2);
    }
}
