//! What came of applying a plan, as an answer, a log line and an event.

use std::{sync::Arc, time::SystemTime};

use super::{
    bind::BindError,
    named::ChangedNames,
    roster::{Changes, MOST_LISTED},
};
use crate::{
    config::{Problem, Problems},
    events::{Draft, EventKind, Events},
    job::JobError,
};

/// What applying a plan did, in numbers of listeners, and the names of their mappings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Newly opened.
    pub opened: usize,
    /// Closed for good.
    pub closed: usize,
    /// Changed in place: same socket, same sessions.
    pub retuned: usize,
    /// Opened in the place of others that overlapped.
    pub replaced: usize,
    /// Their mappings.
    pub names: ChangedNames,
    /// The listeners themselves.
    pub(crate) changes: Changes,
}

impl Applied {
    /// Whether all runs as before.
    fn is_nothing(&self) -> bool {
        self.opened + self.closed + self.retuned + self.replaced == 0
    }
}

/// What a reload would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Preview {
    /// The listeners that would change, and the sessions that would end.
    pub(crate) changes: Changes,
    /// The warnings of the configuration.
    pub(crate) warnings: Vec<Problem>,
}

/// Why a plan was not applied; what ran before runs on.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] Problems),
    /// Some listeners could not be opened.
    #[error("{}", lines(.0))]
    Bind(Vec<BindError>),
    /// The configuration could not be read.
    #[error("read the configuration: {0}")]
    Job(#[from] JobError),
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
    /// Another process serves now.
    #[error("another process has taken over, and reads the configuration again; ask it")]
    HandedOver,
}

impl ReloadError {
    /// Everything that was wrong, for a log: an event is one line.
    fn on_one_line(&self) -> String {
        match self {
            Self::Config(problems) => joined(problems.iter().map(Problem::one_line), problems.len()),
            Self::Bind(errors) => joined(errors.iter().map(ToString::to_string), errors.len()),
            Self::Job(_) | Self::Stopping | Self::HandedOver => self.to_string(),
        }
    }
}

/// The first few of `count` messages.
fn joined(messages: impl Iterator<Item = String>, count: usize) -> String {
    const SHOWN: usize = 10;
    let mut line = messages.take(SHOWN).collect::<Vec<_>>().join("; ");
    if count > SHOWN {
        line.push_str(&format!("; and {} more", count - SHOWN));
    }
    line
}

/// Each error on a line of its own.
fn lines(errors: &[BindError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Why a plan is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// An operator, a file, or the API asked for it.
    Reload,
    /// Containers came, went or changed.
    Containers,
}

/// The last reading of the configuration after the start, and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct LastReload {
    /// When it ended.
    pub(crate) at: SystemTime,
    /// When a reload was last applied; `None` before the first one.
    pub(crate) applied: Option<SystemTime>,
    /// Why it was refused; nothing where it was applied.
    pub(crate) refused: Vec<String>,
    /// The problems of the configuration, where that is why.
    pub(crate) problems: Vec<Problem>,
}

impl LastReload {
    /// Whether it was applied.
    pub(crate) fn is_applied(&self) -> bool {
        self.refused.is_empty() && self.problems.is_empty()
    }

    /// The outcome that is known now, after the one before.
    pub(super) fn of(outcome: &Result<Applied, Arc<ReloadError>>, before: Option<&Self>) -> Self {
        let (mut refused, mut problems) = (Vec::new(), Vec::new());
        match outcome.as_ref().err().map(|error| &**error) {
            Some(ReloadError::Config(config)) => problems.extend(config.iter().take(MOST_LISTED).cloned()),
            Some(ReloadError::Bind(errors)) => {
                refused.extend(errors.iter().take(MOST_LISTED).map(ToString::to_string));
            }
            Some(error) => refused.push(error.to_string()),
            None => {}
        }
        let at = SystemTime::now();
        let before = before.and_then(|before| before.applied);
        Self { at, applied: if outcome.is_ok() { Some(at) } else { before }, refused, problems }
    }
}

/// Logs the outcome, and tells it.
pub(super) fn report(cause: Cause, outcome: &Result<Applied, Arc<ReloadError>>, events: &Events) {
    let (of, applied, refused) = match cause {
        Cause::Reload => ("configuration", "reload applied", "reload refused"),
        Cause::Containers => ("containers", "containers applied", "containers not applied"),
    };
    match outcome {
        // A container whose change changes no mapping is worth no line.
        Ok(applied) if cause == Cause::Containers && applied.is_nothing() => {}
        Ok(Applied { opened, closed, retuned, replaced, names, .. }) => {
            tracing::info!(
                opened,
                closed,
                retuned,
                replaced,
                "opened.names" = names.opened.as_deref(),
                "closed.names" = names.closed.as_deref(),
                "changed.names" = names.changed.as_deref(),
                "{applied}"
            );
            events.emit(EventKind::ReloadApplied, || {
                Draft::new(format_args!(
                    "{of} applied: {opened} listeners opened, {closed} closed, {retuned} changed, \
                     {replaced} replaced"
                ))
            });
        }
        Err(error) => {
            let error = error.on_one_line();
            events.emit(EventKind::ReloadRefused, || Draft::new(format_args!("{of} refused: {error}")));
            tracing::warn!(error, "{refused}");
        }
    }
}
