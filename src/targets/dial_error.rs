//! Why a target could not be reached.

use std::{io, net::SocketAddr, time::Duration};

use super::{CLEAR_SILENCE, ResolveError, Sign};

/// Why a target could not be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// Its name has no address, or none in time.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The connection was refused, or no route leads there.
    #[error("connect {addr}: {source}")]
    Connect {
        /// The last address tried.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing answered.
    #[error("connect {addr}: no answer within {} ms", limit.as_millis())]
    TimedOut {
        /// The last address tried.
        addr: SocketAddr,
        /// The limit for the whole target.
        limit: Duration,
    },
    /// There is a target, but none that takes sessions now.
    #[error("every target is paused")]
    AllPaused,
}

impl DialError {
    /// What it says about the target.
    pub(crate) fn sign(&self) -> Sign {
        match self {
            Self::Resolve(_) => Sign::Clear,
            Self::Connect { source, .. } => Sign::of(source),
            Self::TimedOut { limit, .. } if *limit >= CLEAR_SILENCE => Sign::Clear,
            Self::TimedOut { .. } => Sign::Doubtful,
            Self::AllPaused => Sign::Own,
        }
    }
}
