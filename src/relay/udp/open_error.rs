//! Why a flow could not be opened.

use std::{io, net::SocketAddr};

use tokio::time::Instant;

use super::drops::DropReason;
use crate::{
    relay::LogLimits,
    targets::{ResolveError, Sign},
    wake::StartError,
};

/// Why a flow could not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error("connect {addr}: {source}")]
    Connect { addr: SocketAddr, source: io::Error },
    #[error("open a socket for {addr}: {source}")]
    NoSocket { addr: SocketAddr, source: io::Error },
    #[error("the targets have no other address")]
    NoOther,
    #[error("every target is paused")]
    AllPaused,
    #[error(transparent)]
    NotStarted(#[from] StartError),
}

impl OpenError {
    pub(super) fn sign(&self) -> Sign {
        match self {
            Self::Resolve(_) => Sign::Clear,
            Self::Connect { source, .. } => Sign::of(source),
            Self::NoSocket { .. } | Self::NoOther | Self::AllPaused | Self::NotStarted(_) => Sign::Own,
        }
    }

    /// What the datagrams of the flow are counted under. A lack of descriptors is a line, too.
    pub(super) fn tell(&self, log: &LogLimits) -> DropReason {
        let Self::NoSocket { .. } = self else { return DropReason::Unreachable };
        if let Some(left_out) = log.open.take(Instant::now()) {
            tracing::warn!(error = %self, failures = left_out + 1, "cannot open flows; raise the descriptor limit or lower limits.flows");
        }
        DropReason::NoSocket
    }
}
