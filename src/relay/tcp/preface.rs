//! What comes before a session leads anywhere: the PROXY header of a listed peer, and the name that
//! the client wants.
//!
//! Owns how long both may take: `match_timeout` in all, from the accept on. What the bytes mean is
//! decided in `crate::preface`, which is pure.

use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{
    direction::Pending,
    pump::{ClientSide, Ending},
    said::Said,
};
use crate::{
    meter::Ended,
    preface::{
        Match, Reader, Verdict,
        proxy::{self, Header, Invalid, Received},
    },
    wake::Awake,
};

/// What came before a session, and what it needs besides for that.
#[derive(Debug, Default)]
pub(super) struct Lead {
    /// The header of the peer; what it says more is passed on.
    pub(super) header: Option<Header>,
    /// What the client has said by now.
    pub(super) said: Said,
    /// What the target gets before anything else.
    pub(super) first: Option<Box<Pending>>,
    /// Keeps the target awake while the session lives.
    pub(super) awake: Option<Awake>,
    /// When the dial began that is under way, and the wait for a target that is started. A session
    /// that stood still goes on with them.
    pub(super) dialled: Option<Instant>,
    pub(super) waking: Option<Instant>,
}

/// Why a client gets nowhere before a target is asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Misled {
    #[error(transparent)]
    Header(#[from] Invalid),
    #[error("the peer sent no PROXY header in time")]
    NoHeader,
    #[error("the peer closed before its PROXY header")]
    HeaderCut,
    #[error("no host of the mapping has the name {0}")]
    UnknownName(Box<str>),
    #[error("the client said no name")]
    NoName,
    #[error("the client does not speak the protocol of `match`")]
    Foreign,
    #[error("the client breaks the rules of its protocol")]
    Invalid,
}

/// Reads the header of a peer until `deadline`. What came behind it stays in `said`.
pub(super) async fn header(peer: &TcpStream, deadline: Instant, said: &mut Said) -> Result<Header, Misled> {
    let listening = async {
        // A connection that broke is one without a header, too.
        while said.hear(peer).await.unwrap_or(false) {
            match proxy::read(said.bytes()) {
                Received::More => {}
                Received::Header(header) => {
                    said.take_off(header.length);
                    return Ok(header);
                }
                Received::Invalid(invalid) => return Err(invalid.into()),
            }
        }
        Err(Misled::HeaderCut)
    };
    timeout_at(deadline, listening).await.unwrap_or(Err(Misled::NoHeader))
}

/// Reads which name the client wants: until it has said it, has ended, or `deadline` has come.
pub(super) async fn name(
    near: &ClientSide,
    by: Match,
    deadline: Instant,
    said: &mut Said,
) -> Result<(Verdict, Reader), Ending> {
    let mut reader = Reader::new(by);
    let listening = async {
        loop {
            match reader.read(said.bytes()) {
                Verdict::More if said.hear(&near.client).await? => {}
                verdict => return Ok(verdict),
            }
        }
    };
    let heard = timeout_at(deadline, listening).await.unwrap_or(Ok(Verdict::More));
    let verdict = match heard {
        Ok(Verdict::More) if said.is_nothing() => return Err(Ended::ClientClosed.into()),
        Ok(Verdict::More) => match reader.finish(said.bytes()) {
            Verdict::More => Verdict::Nameless,
            verdict => verdict,
        },
        Ok(verdict) => verdict,
        Err(error) => return Err(Ending { reason: Ended::ClientError, error: Some(error) }),
    };
    Ok((verdict, reader))
}
