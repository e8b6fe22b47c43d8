//! All that a TCP listener has, standing still: packed for another process, and then resumed here
//! or let go.
//!
//! ```text
//! freeze ─► FrozenTcp ─ pack ─► records, sockets, bytes ─ unpack ─► FrozenTcp in the next process
//!               ├ resume: as if nothing had happened                    └ resume: goes on there
//!               └ let_go: closed here, without a line; what was not taken goes on here
//! ```
//!
//! A frozen session keeps its live objects: sockets, permit, slot, place at the target, account. So
//! nothing is lost or counted twice, whichever way it goes. Four kinds of clients are there:
//! - a session that is joined to its target, with both sockets and the state of its pump;
//! - an opening one, with what its client has said so far. Its dial is made again, with the time
//!   that was left;
//! - a listed peer that has not said yet who its client is;
//! - a client that waits for a slot of the session budget.
//!
//! Not frozen are a session that says its last words to a client (it could not begin again), and
//! clients that are kept in silence. They stay, and end here. So does one whose task does not
//! answer within [`LIMIT`].
//!
//! Invariants: no byte moves while this exists, and the listener accepts no client. It ends with
//! [`FrozenTcp::resume`] or [`FrozenTcp::let_go`]; a drop resumes.

mod record;

use std::{
    any::Any,
    collections::{HashSet, VecDeque},
    io,
    ops::Range,
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};

use super::{
    proxied::StoppedPeer,
    pump::PumpRecord,
    service::TcpService,
    session::Stopped,
    sessions::{Admitted, Sessions, Standing},
};
use crate::{
    handover::{Held, Packer, SocketId, Span, Unpacker},
    meter::{ListenerMeter, LiveRecord, LiveSession},
};

use record::{HeaderRecord, NewcomerRecord, Taken, Unpacking};

/// How long sessions have to stop, and to show their sockets. They need a moment, unless the
/// machine is overloaded: then a long pause is better than sessions that stay behind.
const LIMIT: Duration = Duration::from_secs(2);
/// Sessions that show their sockets at once: their descriptors fit into one message.
pub(crate) const AT_ONCE: usize = 126;

/// A session that stands still, or a peer.
#[derive(Debug)]
enum FrozenSession {
    Session(Box<Stopped>),
    Peer(Box<StoppedPeer>),
}

impl FrozenSession {
    /// What was handed in; nothing else ever is.
    fn of(standing: Box<dyn Standing>) -> Option<Self> {
        let standing: Box<dyn Any> = standing;
        match standing.downcast() {
            Ok(session) => Some(Self::Session(session)),
            Err(standing) => standing.downcast().ok().map(Self::Peer),
        }
    }

    /// Goes on where it stopped.
    fn resume(self) {
        match self {
            Self::Session(session) => session.resume(),
            Self::Peer(peer) => peer.resume(),
        }
    }

    /// Closes the sockets of a session that another process has. Its line is written there.
    fn let_go(self) {
        if let Self::Session(session) = self {
            let Stopped { near, permit, origin, lead } = *session;
            drop((origin, lead, near.client, permit));
            near.meter.let_go();
        }
    }

    fn client(&self) -> io::Result<SocketId> {
        match self {
            Self::Session(session) => SocketId::of(&session.near.client),
            Self::Peer(peer) => SocketId::of(&peer.peer.socket),
        }
    }
}

/// A client of a listener, for another process: a session that is joined to its target (`target`
/// and `pump`), one on its way there (`live` alone), or a client without a session (`newcomer`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SessionRecord {
    client: Option<SocketId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<LiveRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<SocketId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pump: Option<PumpRecord>,
    /// The session keeps its target awake.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_awake: bool,
    /// What the client has said so far, and what the target has not got.
    #[serde(skip_serializing_if = "Option::is_none")]
    said: Option<Held>,
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<HeaderRecord>,
    /// When the dial began, and the wait for a target that is started.
    #[serde(skip_serializing_if = "Option::is_none")]
    dialled_us: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waking_us: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    newcomer: Option<NewcomerRecord>,
}

/// All that a TCP listener has, standing still.
#[derive(Debug)]
#[must_use = "it goes on when this is dropped"]
pub(crate) struct FrozenTcp {
    all: Arc<Sessions>,
    sessions: Vec<FrozenSession>,
    waiting: VecDeque<Admitted>,
    /// How many sessions did not stop.
    left: usize,
    /// Whether the acceptors go on when this is dropped.
    releases: bool,
}

/// A client that stands still.
enum Client<'a> {
    Frozen(&'a FrozenSession),
    Waiting(&'a Admitted),
}

/// A freeze under way. Where it is broken off, all goes on.
struct Freezing<'a> {
    all: &'a Arc<Sessions>,
    meter: &'a ListenerMeter,
    is_over: bool,
}

impl Freezing<'_> {
    fn end(&mut self) -> FrozenTcp {
        self.is_over = true;
        let (standing, left) = self.all.close_tray();
        let sessions = standing.into_iter().filter_map(FrozenSession::of).collect();
        self.meter.thaw();
        let waiting = self.all.take_waiting();
        FrozenTcp { all: Arc::clone(self.all), sessions, waiting, left, releases: true }
    }
}

impl Drop for Freezing<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.end().resume();
        }
    }
}

impl FrozenTcp {
    /// Stops the acceptors of a listener, and asks its sessions to stop. Ready when all have
    /// answered, or after [`LIMIT`]. May be dropped before: then all goes on.
    pub(crate) async fn freeze(all: &Arc<Sessions>, meter: &ListenerMeter) -> Self {
        let mut freezing = Freezing { all, meter, is_over: false };
        all.hold.hold();
        all.await_sessions();
        meter.freeze();
        let stopped = async {
            all.hold.stopped().await;
            all.complete().await;
        };
        let _ = timeout(LIMIT, stopped).await;
        freezing.end()
    }

    /// A listener that stands still and has nothing yet, in a process that takes over.
    pub(crate) fn held(all: &Arc<Sessions>) -> Self {
        all.hold.hold();
        Self { all: Arc::clone(all), sessions: Vec::new(), waiting: VecDeque::new(), left: 0, releases: true }
    }

    /// How many clients stand still.
    pub(crate) fn count(&self) -> usize {
        self.sessions.len() + self.waiting.len()
    }

    /// How many sessions did not stop. They go on here, and end here.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// The records of these clients of all [`FrozenTcp::count`], in no order. What they refer to
    /// stays open here.
    ///
    /// # Errors
    /// What the system says of a socket.
    pub(crate) fn pack<'a>(
        &'a self,
        clients: Range<usize>,
        packer: &mut Packer<'a>,
    ) -> io::Result<Vec<SessionRecord>> {
        let now = Instant::now();
        let sessions = self.sessions.iter().map(Client::Frozen);
        let all = sessions.chain(self.waiting.iter().map(Client::Waiting));
        let records = all.skip(clients.start).take(clients.len()).map(|client| match client {
            Client::Frozen(session) => SessionRecord::of(session, packer, now),
            Client::Waiting(admitted) => SessionRecord::of_waiting(admitted, packer, now),
        });
        records.collect()
    }

    /// Adds what another process hands over. Returns the clients that it cannot take: they stay
    /// with the other process.
    pub(crate) fn take_over(
        &mut self,
        records: &[SessionRecord],
        unpacker: &mut Unpacker,
        service: &Arc<TcpService>,
    ) -> Vec<SocketId> {
        let unpacking = Unpacking::new(service);
        let mut not_taken = Vec::new();
        for record in records {
            match unpacking.take(record, unpacker) {
                Ok(Taken::Session(session)) => self.sessions.push(session),
                Ok(Taken::Waiting(admitted)) => self.waiting.push_back(admitted),
                Err(error) => {
                    tracing::debug!(%error, session.id = record.id(), "session not taken over");
                    not_taken.extend(record.client());
                }
            }
        }
        not_taken
    }

    /// Goes on where it stopped.
    pub(crate) fn resume(self) {
        drop(self);
    }

    /// Lets all go that another process has. What it did not take goes on here, but for clients
    /// that wait for a slot: the listener accepts no more.
    pub(crate) fn let_go(mut self, not_taken: &HashSet<SocketId>) {
        let stays = |client: io::Result<SocketId>| client.is_ok_and(|client| not_taken.contains(&client));
        for session in self.sessions.drain(..) {
            if !not_taken.is_empty() && stays(session.client()) {
                session.resume();
            } else {
                session.let_go();
            }
        }
        self.waiting.clear();
        self.releases = false;
    }
}

impl Drop for FrozenTcp {
    fn drop(&mut self) {
        self.all.keep_waiting(std::mem::take(&mut self.waiting));
        self.sessions.drain(..).for_each(FrozenSession::resume);
        if self.releases {
            self.all.hold.release();
        }
    }
}

/// Copies of the sockets of sessions that are joined, to be sent before a freeze. They go on.
/// Ready when all of `live` have answered, or after [`LIMIT`]; [`AT_ONCE`] of them fit into one
/// message.
pub(crate) async fn ahead(all: &Sessions, live: &[Arc<LiveSession>]) -> Vec<[OwnedFd; 2]> {
    all.await_sockets(live.len());
    live.iter().for_each(|live| live.ask_to_show());
    let _ = timeout(LIMIT, all.complete()).await;
    all.take_shown()
}

#[cfg(test)]
mod tests;
