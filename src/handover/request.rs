//! The wish for a hand-over, from those that may ask to the one that does it.
//!
//! Owns the channel, what a hand-over reports, and why it was refused. One is done at a time: the
//! daemon answers the others.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

/// What was handed over (`POST /v1/upgrade`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Report {
    /// The version that runs now.
    pub version: String,
    /// The commit that it was built from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Its process.
    pub pid: u32,
    /// The TCP sessions that went along.
    pub sessions: usize,
    /// The UDP flows that went along.
    pub flows: usize,
    /// How long they stood still.
    pub pause_ms: f64,
    /// The sessions and flows that stay with the former process until they end.
    pub left_behind: usize,
}

impl Report {
    /// Notes how long they stood still.
    pub(crate) fn stood_still(&mut self, pause: Duration) {
        // In whole microseconds, as the one process tells the other.
        let micros = u32::try_from(pause.as_micros()).unwrap_or(u32::MAX);
        self.pause_ms = f64::from(micros) / 1e3;
    }
}

/// Whose fault a refusal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Fault {
    /// The configuration.
    Configuration,
    /// The state of this machine or of a process.
    #[default]
    #[serde(other)]
    Conflict,
}

/// Why nothing was handed over. What ran goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub(crate) struct Refusal {
    /// Whose fault it is.
    pub(crate) fault: Fault,
    /// The cause, for people.
    pub(crate) error: String,
    /// The problems of the configuration, as the API has them.
    pub(crate) problems: Vec<Value>,
}

impl Refusal {
    /// With this cause.
    pub(crate) fn new(error: impl Into<String>) -> Self {
        Self { error: error.into(), ..Self::default() }
    }

    /// The cause and the first problems, for a log.
    pub(crate) fn on_one_line(&self) -> String {
        const SHOWN: usize = 3;
        let messages = self.problems.iter().filter_map(|problem| problem.get("message")?.as_str());
        let others = messages.filter(|message| !self.error.contains(message)).take(SHOWN);
        others.fold(self.error.clone(), |line, message| line + "; " + message)
    }
}

/// What came of it.
pub(crate) type Outcome = Result<Report, Refusal>;

/// Where the outcome goes.
pub(crate) type Reply = oneshot::Sender<Outcome>;

/// Those that ask. Clones ask the same daemon.
#[derive(Clone, Debug)]
pub(crate) struct Upgrades {
    asked: mpsc::Sender<Reply>,
    stands_still: Arc<AtomicBool>,
    came_by: Arc<OnceLock<Report>>,
}

/// What they ask.
#[derive(Debug)]
pub(crate) struct Requests(mpsc::Receiver<Reply>);

/// Both ends.
pub(crate) fn requests() -> (Upgrades, Requests) {
    let (asked, receiver) = mpsc::channel(16);
    (Upgrades { asked, stands_still: Arc::default(), came_by: Arc::default() }, Requests(receiver))
}

impl Upgrades {
    /// Asks for a hand-over to the program that is installed now, and waits for the outcome.
    ///
    /// # Errors
    /// [`Refusal`]: what ran goes on.
    pub(crate) async fn ask(&self) -> Outcome {
        let ends = |_| Refusal::new("the daemon is stopping");
        let (reply, outcome) = oneshot::channel();
        self.asked.send(reply).await.map_err(|_| ends(()))?;
        outcome.await.unwrap_or_else(|_| Err(ends(())))
    }

    /// Whether all stands still, because the state is on its way to another process: what changes
    /// now would be lost.
    pub(crate) fn stands_still(&self) -> bool {
        self.stands_still.load(SeqCst)
    }

    /// Notes whether all stands still.
    pub(crate) fn stand_still(&self, still: bool) {
        self.stands_still.store(still, SeqCst);
    }

    /// The hand-over by which this process came to serve.
    pub(crate) fn came_by(&self) -> Option<&Report> {
        self.came_by.get()
    }

    /// Notes the hand-over by which this process came to serve.
    pub(crate) fn note(&self, report: Report) {
        // It comes once in the life of a process.
        let _ = self.came_by.set(report);
    }
}

impl Requests {
    /// The next one. May be dropped at any time.
    pub(crate) async fn next(&mut self) -> Reply {
        match self.0.recv().await {
            Some(reply) => reply,
            // There is no one left to ask.
            None => std::future::pending().await,
        }
    }
}
