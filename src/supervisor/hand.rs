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
    ops::Range,
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

/// What new has taken of a snapshot, or of a part of one.
#[derive(Debug, Default)]
pub(crate) struct TakenOver {
    /// TCP sessions, with those of the parts before.
    pub(crate) sessions: usize,
    /// UDP flows, with those of the parts before.
    pub(crate) flows: usize,
    /// Those of this part that could not be taken, by a socket of each.
    pub(crate) not_taken: Vec<SocketId>,
    /// What nothing has referred to yet.
    pub(crate) unpacker: Unpacker,
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

/// A part of what is frozen: listeners, by their numbers, and which clients of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part(Vec<(usize, Range<usize>)>);

impl Frozen {
    /// All of it.
    pub(crate) fn whole(&self) -> Part {
        let listeners = self.listeners.iter().enumerate();
        Part(listeners.map(|(nth, (_, frozen))| (nth, 0..frozen.count())).collect())
    }

    /// All of it in at most so many parts, and one more, each of at least so many clients where
    /// there are as many. There is at least one.
    pub(crate) fn parts(&self, most: usize, least: usize) -> Vec<Part> {
        let clients = self.listeners.iter().map(|(_, frozen)| (frozen.count(), frozen.has_parts()));
        divided(clients, most, least)
    }

    /// What goes to the other process. Everything stays here as well.
    ///
    /// # Errors
    /// What the system says of a socket.
    pub(crate) fn pack<'a>(&'a self, part: &Part, packer: &mut Packer<'a>) -> std::io::Result<Snapshot> {
        let mut listeners = Vec::with_capacity(part.0.len());
        for (nth, clients) in &part.0 {
            let (key, frozen) = &self.listeners[*nth];
            let has = frozen.pack(clients.clone(), packer)?;
            listeners.push(ListenerSnapshot { listener: key.to_string(), has });
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

/// Divides listeners, each with so many clients, of which some cannot be divided; see
/// [`Frozen::parts`].
fn divided(listeners: impl Iterator<Item = (usize, bool)> + Clone, most: usize, least: usize) -> Vec<Part> {
    let all: usize = listeners.clone().map(|(count, _)| count).sum();
    let size = all.div_ceil(most.max(1)).max(least).max(1);
    let (mut parts, mut part, mut room) = (Vec::new(), Part::default(), size);
    for (nth, (count, is_divisible)) in listeners.enumerate() {
        let mut at = 0;
        loop {
            let end = if is_divisible { count.min(at + room) } else { count };
            part.0.push((nth, at..end));
            room = room.saturating_sub(end - at);
            if room == 0 {
                parts.push(std::mem::take(&mut part));
                room = size;
            }
            at = end;
            if at == count {
                break;
            }
        }
    }
    if !part.0.is_empty() || parts.is_empty() {
        parts.push(part);
    }
    parts
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

#[cfg(test)]
mod tests {
    use super::*;

    fn of(listeners: &[(usize, bool)], most: usize, least: usize) -> Vec<Vec<(usize, Range<usize>)>> {
        divided(listeners.iter().copied(), most, least).into_iter().map(|part| part.0).collect()
    }

    #[test]
    fn parts_hold_each_client_once_and_each_listener() {
        assert_eq!(of(&[], 8, 2), [vec![]]);
        assert_eq!(of(&[(0, true), (0, false)], 8, 2), [vec![(0, 0..0), (1, 0..0)]]);
        assert_eq!(of(&[(5, true)], 8, 2), [vec![(0, 0..2)], vec![(0, 2..4)], vec![(0, 4..5)]]);
        assert_eq!(of(&[(4, true), (0, true)], 2, 1), [vec![(0, 0..2)], vec![(0, 2..4)], vec![(1, 0..0)]]);
        assert_eq!(
            of(&[(1, true), (7, false), (1, true)], 4, 3),
            [vec![(0, 0..1), (1, 0..7)], vec![(2, 0..1)]]
        );
    }

    #[test]
    fn the_number_of_parts_does_not_grow_with_that_of_clients() {
        for count in [1, 100, 10_000, 1_000_000] {
            for listeners in [1, 7, 1000] {
                let parts = of(&vec![(count, true); listeners], 8, 128);
                assert!(
                    parts.len() <= 9,
                    "{count} clients at each of {listeners} listeners: {}",
                    parts.len()
                );
                let all: usize = parts.iter().flatten().map(|(_, clients)| clients.len()).sum();
                assert_eq!(all, count * listeners);
            }
        }
    }
}
