//! The supervisor's part of a hand-over to another process, and of one from another process.
//!
//! Old asks for a [`HandOver`]. From then on no configuration is read, and listeners stay as they
//! are: requests to read are kept. [`HandOver::freeze`] stops every listener and every session.
//! What is [`Frozen`] comes back to the supervisor, which thaws it or lets it go. A [`HandOver`]
//! that is dropped ends without either, and kept requests are done then. After letting go, only
//! sessions that new could not take are left, and the supervisor ends with the last of them.
//!
//! New starts with listeners that do not serve yet ([`Handle::prepare`](super::Handle::prepare)),
//! takes the snapshot of old, and begins.

use std::{
    collections::HashSet,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::{
    kind::{Ahead, FrozenListener, HandedListener},
    reloads::Reply,
};
use crate::{
    handover::{Packer, SocketId, Unpacker},
    mapping::{ListenerKey, Protocol},
};

/// A hand-over that is under way in old.
#[derive(Debug)]
pub(crate) struct HandOver {
    commands: mpsc::Sender<Command>,
    waiting: Vec<String>,
    staying: Vec<SocketId>,
    reload_was_asked: Arc<AtomicBool>,
}

/// Duplicates of the sockets that go to the next process before anything else.
#[derive(Debug, Default)]
pub(super) struct Twins {
    /// Those that listen now.
    pub(super) listening: Vec<OwnedFd>,
    /// Those that a service manager passed: it holds them open as well.
    pub(super) staying: Vec<OwnedFd>,
    /// The listeners without one, as text.
    pub(super) waiting: Vec<String>,
}

/// What the supervisor is to do for a hand-over.
pub(super) enum Command {
    Ahead(oneshot::Sender<Vec<Ahead>>),
    Freeze(oneshot::Sender<Frozen>),
    Thaw(Frozen, Sessions, oneshot::Sender<()>),
    LetGo(Frozen, HashSet<SocketId>, oneshot::Sender<()>),
}

/// What becomes of what was frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sessions {
    GoOn,
    /// Another process had moved them, and is gone.
    End,
}

/// Everything that serves, standing still. It goes on when this is dropped, on a thread of the
/// runtime.
#[derive(Debug, Default)]
pub(crate) struct Frozen {
    pub(super) listeners: Vec<(ListenerKey, FrozenListener)>,
}

/// What goes to the other process, beside sockets and bytes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Snapshot {
    pub(super) listeners: Vec<ListenerSnapshot>,
}

/// A listener of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ListenerSnapshot {
    /// Its key, as text.
    pub(super) listener: String,
    /// What it has.
    pub(super) has: HandedListener,
}

/// What new has taken of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TakenOver {
    /// TCP sessions.
    pub(crate) sessions: usize,
    /// UDP flows.
    pub(crate) flows: usize,
    /// Those that could not be taken, by a socket of each.
    pub(crate) not_taken: Vec<SocketId>,
}

/// What new takes over: the snapshot, and what it refers to.
#[derive(Debug)]
pub(crate) struct Inheritance {
    /// The records.
    pub(crate) snapshot: Snapshot,
    /// Their sockets and bytes.
    pub(crate) unpacker: Unpacker,
}

impl HandOver {
    /// The listeners that have no socket, as text.
    pub(crate) fn waiting(&self) -> Vec<String> {
        self.waiting.clone()
    }

    /// The sockets that a service manager passed.
    pub(crate) fn staying(&self) -> Vec<SocketId> {
        self.staying.clone()
    }

    /// Whether a request to read the configuration is kept: it becomes true when one comes.
    pub(crate) fn reload_was_asked(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.reload_was_asked)
    }

    /// Copies of the sockets of live sessions, a batch a future: what goes before a freeze costs no
    /// pause. The futures are awaited one after the other.
    pub(crate) async fn ahead(&self) -> Vec<Ahead> {
        let (reply, batches) = oneshot::channel();
        if self.commands.send(Command::Ahead(reply)).await.is_err() {
            return Vec::new();
        }
        batches.await.unwrap_or_default()
    }

    /// Stops every listener and every session. `None` where the supervisor has ended.
    pub(crate) async fn freeze(&self) -> Option<Frozen> {
        let (reply, frozen) = oneshot::channel();
        self.commands.send(Command::Freeze(reply)).await.ok()?;
        frozen.await.ok()
    }

    /// Lets everything go on, as if nothing had happened.
    pub(crate) async fn thaw(&self, frozen: Frozen) {
        self.thaw_with(frozen, Sessions::GoOn).await;
    }

    async fn thaw_with(&self, frozen: Frozen, sessions: Sessions) {
        let (reply, done) = oneshot::channel();
        if self.commands.send(Command::Thaw(frozen, sessions, reply)).await.is_ok() {
            let _ = done.await;
        }
    }

    /// Lets the listeners go on. The sessions end: another process had them, and is gone.
    pub(crate) async fn thaw_without_sessions(&self, frozen: Frozen) {
        self.thaw_with(frozen, Sessions::End).await;
    }

    /// Lets go of what another process has. The sessions of `not_taken` go on here.
    pub(crate) async fn let_go(self, frozen: Frozen, not_taken: HashSet<SocketId>) {
        let (reply, done) = oneshot::channel();
        if self.commands.send(Command::LetGo(frozen, not_taken, reply)).await.is_ok() {
            let _ = done.await;
        }
    }
}

impl Frozen {
    /// What goes to the other process. Everything stays here as well.
    ///
    /// # Errors
    /// What the system says of a socket.
    pub(crate) fn pack<'a>(&'a self, packer: &mut Packer<'a>) -> std::io::Result<Snapshot> {
        let mut listeners = Vec::with_capacity(self.listeners.len());
        for (key, frozen) in &self.listeners {
            listeners.push(ListenerSnapshot { listener: key.to_string(), has: frozen.pack(packer)? });
        }
        Ok(Snapshot { listeners })
    }

    /// How many sessions and flows did not stop: they stay here.
    pub(crate) fn left(&self) -> usize {
        self.listeners.iter().map(|(_, frozen)| frozen.left()).sum()
    }

    /// The sessions and flows that stand still.
    pub(super) fn counts(&self) -> (usize, usize) {
        let of = |protocol| {
            let listeners = self.listeners.iter().filter(move |(key, _)| key.protocol == protocol);
            listeners.map(|(_, frozen)| frozen.count()).sum()
        };
        (of(Protocol::Tcp), of(Protocol::Udp))
    }
}

/// The hand-over in old, as the supervisor has it.
#[derive(Default)]
pub(super) enum Hand {
    /// There is none.
    #[default]
    Empty,
    /// It begins when no configuration is being read.
    Wanted(Wish),
    UnderWay(UnderWay),
}

/// Where a new [`HandOver`] and the sockets of the listeners go.
pub(super) type Wish = oneshot::Sender<(HandOver, Vec<OwnedFd>)>;

pub(super) struct UnderWay {
    commands: mpsc::Receiver<Command>,
    /// Requests that wait for its end.
    kept: Vec<Reply>,
    reload_was_asked: Arc<AtomicBool>,
    pub(super) is_frozen: bool,
}

impl Hand {
    /// Notes that a hand-over is wanted. A second one is refused: the wish is dropped.
    pub(super) fn want(&mut self, wish: Wish) {
        if matches!(self, Self::Empty) {
            *self = Self::Wanted(wish);
        }
    }

    /// Begins, with the sockets that listen now and the listeners without one.
    pub(super) fn begin(&mut self, sockets: impl FnOnce() -> Twins) {
        let Self::Wanted(wish) = std::mem::take(self) else { return };
        let (commands, received) = mpsc::channel(1);
        let Twins { listening: mut sockets, staying: passed, waiting } = sockets();
        let staying: Vec<_> = passed.iter().filter_map(|socket| SocketId::of(socket).ok()).collect();
        let listening: HashSet<_> = sockets.iter().filter_map(|socket| SocketId::of(socket).ok()).collect();
        // A listener's socket goes once.
        let is_new = |socket: &OwnedFd| SocketId::of(socket).is_ok_and(|id| !listening.contains(&id));
        sockets.extend(passed.into_iter().filter(is_new));
        let reload_was_asked = Arc::<AtomicBool>::default();
        let hand_over =
            HandOver { commands, waiting, staying, reload_was_asked: Arc::clone(&reload_was_asked) };
        if wish.send((hand_over, sockets)).is_ok() {
            *self = Self::UnderWay(UnderWay {
                commands: received,
                kept: Vec::new(),
                reload_was_asked,
                is_frozen: false,
            });
        }
    }

    pub(super) fn is_wanted(&self) -> bool {
        matches!(self, Self::Wanted(_))
    }

    pub(super) fn is_under_way(&self) -> bool {
        matches!(self, Self::UnderWay(_))
    }

    pub(super) fn is_frozen(&self) -> bool {
        matches!(self, Self::UnderWay(UnderWay { is_frozen: true, .. }))
    }

    /// Notes that all stands still, or does not.
    pub(super) fn set_frozen(&mut self, frozen: bool) {
        if let Self::UnderWay(under_way) = self {
            under_way.is_frozen = frozen;
        }
    }

    /// Keeps a request until the end of the hand-over; gives it back where there is none.
    pub(super) fn keep(&mut self, reply: Reply) -> Option<Reply> {
        match self {
            Self::UnderWay(under_way) => {
                under_way.reload_was_asked.store(true, SeqCst);
                under_way.kept.push(reply);
                None
            }
            Self::Empty | Self::Wanted(_) => Some(reply),
        }
    }

    /// The next command; `None` at the end of the hand-over. Does not return without one.
    pub(super) async fn command(&mut self) -> Option<Command> {
        match self {
            Self::UnderWay(under_way) => under_way.commands.recv().await,
            Self::Empty | Self::Wanted(_) => std::future::pending().await,
        }
    }

    /// Ends it; the requests that were kept.
    pub(super) fn end(&mut self) -> Vec<Reply> {
        match std::mem::take(self) {
            Self::UnderWay(under_way) => under_way.kept,
            Self::Empty | Self::Wanted(_) => Vec::new(),
        }
    }
}
