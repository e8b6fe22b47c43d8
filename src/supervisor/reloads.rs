//! Reads the configuration for a reload, and keeps the requests that wait for it.
//!
//! A file system can take any time, so the reading has a thread of its own. One reading runs at a
//! time. A request that comes meanwhile may be about a later change, so one more reading follows,
//! which all such requests share. The supervisor applies the result.
//!
//! A reading that takes longer than [`LIMIT`] is an error of its reload, and so is a thread that
//! the system does not make. The thread of such a reading runs on, but at most [`MOST_LATE`] of
//! them do: a file system that hangs must not take all threads.
//!
//! Dropping this waits for no reading. Its thread runs on, and the replies are dropped with it.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{Applied, Preview, ReloadError};
use crate::{
    config::{Loaded, Problems, Texts},
    job::{self, Job, JobError},
};

/// How long a reading may take: far more than the longest lists need.
const LIMIT: Duration = Duration::from_secs(60);
/// Readings that were given up and still run.
const MOST_LATE: usize = 4;

/// Reads the whole configuration, and may block. The composition root gives it to the supervisor,
/// which does not know where plans come from.
pub(crate) type PlanSource = Arc<dyn Fn() -> Result<Loaded, Problems> + Send + Sync>;

/// How many reloads there were. As long as the numbers differ, one is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Turns {
    /// Asked for.
    pub(crate) asked: u64,
    /// Ended, applied or refused.
    pub(crate) done: u64,
}

/// Where the outcome of a reading goes.
pub(super) enum Reply {
    /// The plan is applied.
    Apply(oneshot::Sender<Result<Applied, Arc<ReloadError>>>),
    /// The changes are only told.
    DryRun(oneshot::Sender<Result<Preview, Arc<ReloadError>>>),
    /// The plan is applied. Only containers have changed: no file of mappings is read for it.
    #[cfg(feature = "docker")]
    Containers(oneshot::Sender<Result<Applied, Arc<ReloadError>>>),
}

impl Reply {
    /// Whether only containers have changed.
    pub(super) const fn is_of_containers(&self) -> bool {
        match self {
            Self::Apply(_) | Self::DryRun(_) => false,
            #[cfg(feature = "docker")]
            Self::Containers(_) => true,
        }
    }
}

impl Reply {
    /// Says that nothing was applied.
    pub(super) fn refuse(self, error: &Arc<ReloadError>) {
        match self {
            Self::Apply(reply) => drop(reply.send(Err(Arc::clone(error)))),
            #[cfg(feature = "docker")]
            Self::Containers(reply) => drop(reply.send(Err(Arc::clone(error)))),
            Self::DryRun(reply) => drop(reply.send(Err(Arc::clone(error)))),
        }
    }
}

/// The reading under way, and the next one.
pub(super) struct Reloads {
    read: PlanSource,
    reading: Option<Reading>,
    /// The requests that came during the reading.
    next: Vec<Reply>,
    late: Vec<Job<Result<Loaded, Problems>>>,
    /// The texts of the plan that runs.
    texts: Option<Arc<Texts>>,
}

struct Reading {
    /// The thread that reads, or why there is none.
    job: Result<Job<Result<Loaded, Problems>>, Option<JobError>>,
    until: Instant,
    replies: Vec<Reply>,
}

impl Reloads {
    /// Nothing is read before the first request.
    pub(super) fn new(read: PlanSource) -> Self {
        Self { read, reading: None, next: Vec::new(), late: Vec::new(), texts: None }
    }

    /// Keeps the texts of the plan that runs from now on.
    pub(super) fn keep(&mut self, texts: Option<Arc<Texts>>) {
        self.texts = texts;
    }

    /// Reads everything, or makes a plan of the texts where only containers have changed.
    fn work(&self) -> PlanSource {
        #[cfg(feature = "docker")]
        if let Some(texts) = self.texts.as_ref().filter(|_| self.next.iter().all(Reply::is_of_containers)) {
            let texts = Arc::clone(texts);
            return Arc::new(move || texts.again());
        }
        Arc::clone(&self.read)
    }

    /// Whether nothing is being read.
    pub(super) fn is_idle(&self) -> bool {
        self.reading.is_none()
    }

    /// Asks for a reading that begins after this moment.
    pub(super) fn ask(&mut self, reply: Reply) {
        self.next.push(reply);
        self.begin();
    }

    fn begin(&mut self) {
        if self.reading.is_none() && !self.next.is_empty() {
            self.late.retain(|job| !job.has_ended());
            let read = self.work();
            let job = match self.late.len() {
                MOST_LATE.. => Err(JobError::TimedOut(LIMIT)),
                _ => job::start("portway-config", move || read()),
            };
            let replies = std::mem::take(&mut self.next);
            self.reading = Some(Reading { job: job.map_err(Some), until: Instant::now() + LIMIT, replies });
        }
    }

    /// Waits for the end of the current reading. Returns its result and the requests for it. Does
    /// not return while nothing is read. May be dropped at any time.
    pub(super) async fn done(&mut self) -> (Result<Loaded, ReloadError>, Vec<Reply>) {
        let Some(reading) = &mut self.reading else { return std::future::pending().await };
        let mut is_late = false;
        let loaded = match &mut reading.job {
            Ok(job) => match timeout_at(reading.until, job).await {
                Ok(Ok(loaded)) => loaded.map_err(ReloadError::Config),
                Ok(Err(error)) => Err(error.into()),
                Err(_) => {
                    is_late = true;
                    Err(JobError::TimedOut(LIMIT).into())
                }
            },
            Err(error) => Err(error.take().unwrap_or(JobError::TimedOut(LIMIT)).into()),
        };
        let mut replies = Vec::new();
        if let Some(reading) = self.reading.take() {
            replies = reading.replies;
            self.late.extend(reading.job.ok().filter(|_| is_late));
        }
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
        let reply = || Reply::Apply(oneshot::channel().0);
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

    #[tokio::test(start_paused = true)]
    async fn a_reading_that_never_ends_is_an_error_of_its_reload_and_few_of_them_are_left_behind() {
        let (release, blocked) = mpsc::channel::<()>();
        let (blocked, begun) = (Arc::new(Mutex::new(blocked)), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&begun);
        let mut reloads = Reloads::new(Arc::new(move || {
            count.fetch_add(1, SeqCst);
            let _ = blocked.lock().unwrap().recv();
            config::load(&Source::default(), &System)
        }));
        for _ in 0..MOST_LATE + 2 {
            reloads.ask(Reply::Apply(oneshot::channel().0));
            tokio::time::advance(LIMIT).await;
            let (loaded, replies) = reloads.done().await;
            assert!(matches!(loaded, Err(ReloadError::Job(JobError::TimedOut(_)))));
            assert_eq!(replies.len(), 1);
        }
        assert_eq!(reloads.late.len(), MOST_LATE);
        drop(release);
        while begun.load(SeqCst) < MOST_LATE {
            tokio::task::yield_now().await;
        }
    }
}
