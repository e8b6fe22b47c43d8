//! Why an engine did not do what it was asked.

use std::{error::Error, io, time::Duration};

use super::EngineAddress;

/// Why an engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// Nothing listens there, or it may not be used.
    #[error("{0}")]
    Connect(#[source] io::Error),
    /// The connection broke, or what came is not HTTP.
    #[error("{}", whole(.0))]
    Http(#[source] hyper::Error),
    /// The engine, or a proxy before it, says no.
    #[error("{message} (HTTP {status})")]
    Refused {
        /// The status of HTTP.
        status: u16,
        /// Its words.
        message: String,
    },
    /// The answer is not what an engine says.
    #[error("its answer cannot be read: {0}")]
    Strange(String),
    /// It does not answer.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// The stream of events has ended.
    #[error("it ended the connection")]
    Ended,
}

impl EngineError {
    /// Whether the caller's rights are what is missing.
    fn is_denied(&self) -> bool {
        matches!(self, Self::Connect(error) if error.kind() == io::ErrorKind::PermissionDenied)
    }

    /// What would help, for an engine at `address`.
    pub(crate) fn cure(&self, address: &EngineAddress) -> &'static str {
        let by_tcp = matches!(address.way, super::address::Way::Tcp(_));
        match self {
            _ if self.is_denied() => {
                "add portway's user to the group of the socket (`SupplementaryGroups=docker`)"
            }
            Self::Refused { status: 401 | 403, .. } => {
                "a proxy before the engine has to allow GET /containers and GET /events"
            }
            _ if by_tcp => "does the proxy before the engine run, and can it be reached from here?",
            _ => "is it running? In a container, mount its socket",
        }
    }
}

/// An error with its causes.
fn whole(error: &hyper::Error) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        said = format!("{said}: {cause}");
        source = cause.source();
    }
    said
}
