//! Why the daemon did not come up or came down, and where that is said.
//!
//! The log has it first, as far as its level lets it; what is left is for the terminal. A log of
//! JSON lines has nothing else beside them, unless it would say nothing at all.

use std::{fmt, io, sync::Arc};

use super::{handover::TakeError, rights::UserError};
use crate::{
    config::{LogFormat, LogSettings, LogTarget, Problems},
    handover::{Fault, Refusal},
    job::JobError,
    supervisor::BindError,
};

/// How many listeners that could not be opened are named; a range of ports may have thousands.
const NAMED: usize = 10;

/// Why the daemon did not come up, or did not end in order.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The runtime, a signal handler or another part of the machinery is missing.
    #[error("start: {0}")]
    System(#[from] io::Error),
    /// The configuration could not be read: no thread, or no answer.
    #[error("start: read the configuration: {0}")]
    Read(JobError),
    /// The log target cannot be opened.
    #[error("start: open the log target {target}: {error}; write another [log] target, or mend its path")]
    Log {
        /// The target.
        target: LogTarget,
        /// What the system said.
        error: io::Error,
    },
    /// A part of the running daemon has ended or stands, by a mistake of portway.
    #[error("{0} has ended without plan, or does not end")]
    Part(Arc<str>),
    /// A socket of the API could not be opened.
    #[error("start: {0}")]
    Window(String),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] Problems),
    /// The user that is named cannot be had.
    #[error("start: {0}")]
    User(UserError),
    /// Listeners could not be opened.
    #[error("{0}")]
    Bind(Unopened),
    /// Another process serves, and goes on.
    #[error("take over: {0}")]
    TakeOver(#[from] TakeError),
}

impl From<UserError> for StartError {
    fn from(error: UserError) -> Self {
        match error {
            UserError::Config(problems) => Self::Config(problems),
            UserError::System(error) => Self::System(error),
            other => Self::User(other),
        }
    }
}

impl StartError {
    /// Whether another configuration, and nothing else, would cure it.
    pub(crate) fn is_of_config(&self) -> bool {
        matches!(self, Self::Config(_) | Self::User(UserError::Unknown { .. } | UserError::Unreadable { .. }))
    }

    /// What the process that hands over hears of it.
    pub(super) fn refusal(&self) -> Refusal {
        match self {
            Self::Config(problems) => Refusal {
                fault: Fault::Configuration,
                error: "the configuration is wrong".into(),
                problems: problems.iter().filter_map(|problem| serde_json::to_value(problem).ok()).collect(),
            },
            Self::Bind(unopened) => {
                let first: Vec<_> = unopened.errors.iter().take(NAMED).map(ToString::to_string).collect();
                Refusal::new(first.join("; "))
            }
            other => Refusal::new(other.to_string()),
        }
    }

    /// Whether nothing may be written beside the log, which has said everything.
    pub(crate) fn is_told(&self) -> bool {
        match self {
            Self::Bind(unopened) => unopened.logged_as == Some(LogFormat::Json),
            Self::Part(_) => tracing::enabled!(tracing::Level::ERROR),
            _ => false,
        }
    }
}

/// Listeners that could not be opened.
#[derive(Debug)]
pub(crate) struct Unopened {
    /// Every one of them.
    pub errors: Vec<BindError>,
    /// How standard error has them from the log; `None` where its level hides them, or it goes to
    /// another target.
    logged_as: Option<LogFormat>,
}

impl Unopened {
    /// Logs the first of `errors`, and how many more there are.
    pub(super) fn log(errors: Vec<BindError>, log: &LogSettings) -> Self {
        for error in errors.iter().take(NAMED) {
            tracing::error!("{error}");
        }
        if let Some(left_out) = left_out(&errors) {
            tracing::error!(left_out, "more listeners could not be opened");
        }
        let is_seen = log.target == LogTarget::Stderr && tracing::enabled!(tracing::Level::ERROR);
        let logged_as = is_seen.then_some(log.format);
        Self { errors, logged_as }
    }
}

impl fmt::Display for Unopened {
    /// How many there are, and the first of them where the log does not have them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of the listeners could not be opened", self.errors.len())?;
        if self.logged_as.is_some() {
            return Ok(());
        }
        for error in self.errors.iter().take(NAMED) {
            write!(f, "\n{error}")?;
        }
        left_out(&self.errors).map_or(Ok(()), |left_out| write!(f, "\nand {left_out} more"))
    }
}

/// How many of them are not named.
fn left_out(errors: &[BindError]) -> Option<usize> {
    errors.len().checked_sub(NAMED).filter(|left_out| *left_out > 0)
}
