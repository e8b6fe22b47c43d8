//! Work that may block, each piece on a thread of its own.
//!
//! Files, `/proc` and the system resolver answer when they like. So nothing of them runs on a
//! thread of the runtime: a machine with one processor has one such thread, and every listener
//! lives on it.
//!
//! Not tokio's `spawn_blocking`: that panics where the system makes no thread, and waits without
//! end where another such thread is busy. Here a missing thread is a [`JobError`] of this one piece
//! of work, and so is a panic. A limit is the caller's: a job that is not waited for any more runs
//! on, and its result is dropped.
//!
//! A thread takes no signal: those that mean something belong to the first thread, which can then
//! hold them all.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::sys::signal::{SigSet, SigmaskHow};
use tokio::{sync::oneshot, time::timeout};

/// The stack of a thread. It is set, so that `RUST_MIN_STACK`, which is meant for other programs,
/// changes nothing.
pub(crate) const STACK: usize = 2 << 20;

/// Why a job has not produced a result.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The system makes no thread.
    #[error("the system makes no thread ({0}): raise TasksMax= in the unit, or `ulimit -u`")]
    NoThread(#[source] io::Error),
    /// The work panicked.
    #[error("a mistake in portway has ended this work; standard error has the details")]
    Panicked,
    /// It takes too long, and runs on.
    #[error("no answer within {} s; does the file system or the name service hang?", .0.as_secs())]
    TimedOut(Duration),
}

/// Work under way. A future of its result; dropped, it lets the work run on.
#[derive(Debug)]
pub(crate) struct Job<T>(oneshot::Receiver<T>);

impl<T> Job<T> {
    /// Whether the work has ended.
    pub(crate) fn has_ended(&self) -> bool {
        !self.0.is_empty() || self.0.is_terminated()
    }
}

impl<T> Future for Job<T> {
    type Output = Result<T, JobError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The sender is dropped without a word by a panic alone.
        Pin::new(&mut self.0).poll(cx).map_err(|_| JobError::Panicked)
    }
}

/// Starts `work` on a thread with this name, of which the system shows 15 bytes.
///
/// # Errors
/// [`JobError::NoThread`].
pub(crate) fn start<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Job<T>, JobError> {
    let (done, result) = oneshot::channel();
    #[cfg(test)]
    let clock = tests::Clock::held();
    let work = move || {
        #[cfg(test)]
        let _clock = clock.enter();
        let _ = done.send(work());
    };
    thread(name, work).map_err(|(error, _)| JobError::NoThread(error))?;
    Ok(Job(result))
}

/// Runs `work` to its end, and calls `tell` where that takes longer than `limit`.
///
/// # Errors
/// [`JobError`], but no limit.
pub(crate) async fn run_or_tell<T: Send + 'static>(
    limit: Duration,
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
    tell: impl FnOnce(),
) -> Result<T, JobError> {
    let mut job = start(name, work)?;
    match timeout(limit, &mut job).await {
        Ok(done) => done,
        Err(_) => {
            tell();
            job.await
        }
    }
}

/// Runs `work`, and waits for it until the limit.
///
/// # Errors
/// [`JobError`].
pub(crate) async fn run_within<T: Send + 'static>(
    limit: Duration,
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JobError> {
    timeout(limit, start(name, work)?).await.unwrap_or(Err(JobError::TimedOut(limit)))
}

/// Starts a thread. Where the system makes none, the work comes back with the error.
///
/// # Errors
/// What the system said.
pub(crate) fn thread<F>(name: &str, work: F) -> Result<JoinHandle<()>, (io::Error, F)>
where
    F: FnOnce() + Send + 'static,
{
    let slot = Arc::new(Mutex::new(Some(work)));
    let theirs = Arc::clone(&slot);
    let run = move || {
        let work = taken(&theirs);
        drop(theirs);
        if let Some(work) = work {
            work();
        }
    };
    let make = || thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(run);
    let spawned = without_signals(make);
    spawned.map_err(|error| {
        let work = taken(&slot).expect("no thread has taken it");
        (error, work)
    })
}

/// Makes a thread that has these signals blocked: it inherits that.
fn without_signals<T>(make: impl FnOnce() -> T) -> T {
    use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGPWR, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
    let asynchronous = SigSet::from_iter([SIGHUP, SIGINT, SIGPWR, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2]);
    let before = asynchronous.thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let made = make();
    if let Ok(before) = before {
        // It was in force a moment ago.
        let _ = before.thread_set_mask();
    }
    made
}

fn taken<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paused clock of a test, as the threads of tokio have it: theirs, too, and it does not
    /// run on while one works.
    pub(super) struct Clock {
        runtime: Option<tokio::runtime::Handle>,
        _holds: std::sync::mpsc::Sender<()>,
    }

    impl Clock {
        pub(super) fn held() -> Self {
            let (holds, ended) = std::sync::mpsc::channel();
            let runtime = tokio::runtime::Handle::try_current().ok();
            if let Some(runtime) = &runtime {
                drop(runtime.spawn_blocking(move || ended.recv()));
            }
            Self { runtime, _holds: holds }
        }

        pub(super) fn enter(&self) -> Option<tokio::runtime::EnterGuard<'_>> {
            self.runtime.as_ref().map(tokio::runtime::Handle::enter)
        }
    }

    /// Runs `work` to its end, however long it takes.
    async fn run<T: Send + 'static>(
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JobError> {
        start(name, work)?.await
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_hangs_is_given_up_and_one_that_panics_is_an_error() {
        assert_eq!(run("job", || 7).await.unwrap(), 7);
        let failed = run("job", || {
            if std::hint::black_box(true) {
                panic!("as the test wants")
            }
        })
        .await;
        assert!(matches!(failed, Err(JobError::Panicked)));
    }

    #[tokio::test]
    async fn work_that_takes_longer_than_its_limit_runs_on() {
        let (release, hangs) = std::sync::mpsc::channel::<()>();
        let limit = Duration::from_millis(10);
        let late = run_within(limit, "job", move || hangs.recv()).await;
        assert!(matches!(late, Err(JobError::TimedOut(_))));
        drop(release);
    }
}
