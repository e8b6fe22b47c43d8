//! The sessions of one listener: their slots, where their tasks run, and where they hand themselves
//! in when the listener freezes.
//!
//! A session reaches this through its slot, so that a freeze costs a session that is not frozen no
//! memory. The tray is open only during a freeze: a session that comes late goes on by itself.
//!
//! Invariants: each slot is a client that is connected. All are there when as many have been handed
//! in, or are known to stay, as slots are taken.

use std::{
    any::Any,
    collections::VecDeque,
    fmt,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use tokio::{sync::Notify, time::Instant};

use super::{
    budget::{Queue, SessionBudget},
    pipe::Pipes,
};
use crate::{
    meter::LiveSession,
    policy::Permit,
    relay::{DrainWatch, Hold},
};

/// A session that stands still, or a client that is about to have one. `frozen` knows which there
/// are.
pub(super) trait Standing: Any + fmt::Debug + Send {
    /// Goes on where it stopped.
    fn resume(self: Box<Self>);
}

/// An admitted client without a session yet.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) socket: OwnedFd,
    pub(super) client: SocketAddr,
    pub(super) right: Right,
    pub(super) since: Instant,
}

/// By which right a client is in.
#[derive(Debug)]
pub(super) enum Right {
    /// It was admitted.
    Own(Permit),
    /// It is a listed peer, which has to say who its client is.
    Peer,
}

/// The sessions of one listener.
#[derive(Debug)]
pub(crate) struct Sessions {
    budget: SessionBudget,
    tasks: DrainWatch,
    /// Stops those that accept for it.
    pub(super) hold: Hold,
    taken: AtomicUsize,
    /// Sessions that say their last words, and do not freeze.
    staying: AtomicUsize,
    /// Whether the tray awaits anything: what a session that ends looks at.
    is_open: AtomicBool,
    tray: Mutex<Tray>,
    /// Rung when the tray may be complete.
    bell: Notify,
}

/// What sessions hand in.
#[derive(Debug, Default)]
struct Tray {
    /// What is awaited.
    awaits: Awaits,
    standing: Vec<Box<dyn Standing>>,
    shown: Vec<[OwnedFd; 2]>,
    /// How many sessions have answered that were asked to show their sockets.
    answers: usize,
    /// Clients that wait for a slot, while their acceptor is stopped.
    waiting: VecDeque<Admitted>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Awaits {
    #[default]
    Nothing,
    /// The sessions themselves.
    Sessions,
    /// The sockets of so many, when so many slots were taken.
    Sockets { asked: usize, taken: usize },
}

impl Sessions {
    /// Sessions with slots of `budget`, whose tasks run at `tasks`.
    pub(crate) fn new(budget: SessionBudget, tasks: DrainWatch) -> Arc<Self> {
        Arc::new(Self {
            budget,
            tasks,
            hold: Hold::default(),
            taken: AtomicUsize::new(0),
            staying: AtomicUsize::new(0),
            is_open: AtomicBool::new(false),
            tray: Mutex::default(),
            bell: Notify::new(),
        })
    }

    /// Runs the task of a session.
    pub(super) fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task);
    }

    /// Waits until the listener closes.
    pub(super) async fn closing(&self) {
        self.tasks.closing().await;
    }

    /// A slot for one more session, if one is free now.
    pub(super) fn try_take(self: &Arc<Self>) -> Option<SessionSlot> {
        self.budget.try_take().then(|| self.slot())
    }

    /// A slot for a session that another process admitted, also above the limit.
    pub(super) fn take_over(self: &Arc<Self>) -> SessionSlot {
        self.budget.take();
        self.slot()
    }

    /// A place in the queue for a slot.
    pub(super) fn queue(self: &Arc<Self>) -> SlotQueue {
        SlotQueue { queue: self.budget.queue(), sessions: Arc::clone(self) }
    }

    fn slot(self: &Arc<Self>) -> SessionSlot {
        self.taken.fetch_add(1, SeqCst);
        SessionSlot(Arc::clone(self))
    }

    /// Keeps the clients that wait while their acceptor is stopped.
    pub(super) fn keep_waiting(&self, waiting: VecDeque<Admitted>) {
        self.tray().waiting.extend(waiting);
    }

    /// Gives back what [`Sessions::keep_waiting`] took.
    pub(super) fn take_waiting(&self) -> VecDeque<Admitted> {
        std::mem::take(&mut self.tray().waiting)
    }

    /// A session says its last words from now on: it does not freeze.
    pub(super) fn stay<'a>(&'a self, live: &LiveSession) -> Staying<'a> {
        live.stay();
        self.staying.fetch_add(1, SeqCst);
        self.ring(&self.tray());
        Staying(self)
    }

    /// Takes a session that stopped where it was. Where it comes too late, it goes on.
    pub(super) fn hand_in(&self, standing: Box<dyn Standing>) {
        let mut tray = self.tray();
        if tray.awaits == Awaits::Sessions {
            tray.standing.push(standing);
            self.ring(&tray);
        } else {
            drop(tray);
            standing.resume();
        }
    }

    /// Takes copies of the sockets of a session that goes on; `None` where it has not both.
    pub(super) fn show(&self, sockets: Option<[OwnedFd; 2]>) {
        let mut tray = self.tray();
        if matches!(tray.awaits, Awaits::Sockets { .. }) {
            tray.shown.extend(sockets);
            tray.answers += 1;
            self.ring(&tray);
        }
    }

    /// Opens the tray for sessions.
    pub(super) fn await_sessions(&self) {
        self.tray().awaits = Awaits::Sessions;
        self.is_open.store(true, SeqCst);
    }

    /// Opens the tray for the sockets of so many sessions.
    pub(super) fn await_sockets(&self, sessions: usize) {
        let mut tray = self.tray();
        let taken = self.taken.load(SeqCst);
        (tray.awaits, tray.answers) = (Awaits::Sockets { asked: sessions, taken }, 0);
        self.is_open.store(true, SeqCst);
    }

    /// Waits until the tray has all that can come.
    pub(super) async fn complete(&self) {
        loop {
            let rung = self.bell.notified();
            if self.is_complete(&self.tray()) {
                return;
            }
            rung.await;
        }
    }

    /// Closes the tray: what is in it, and how many sessions are not.
    pub(super) fn close_tray(&self) -> (Vec<Box<dyn Standing>>, usize) {
        let mut tray = self.closed();
        let left = self.taken.load(SeqCst).saturating_sub(tray.standing.len());
        (std::mem::take(&mut tray.standing), left)
    }

    /// Closes the tray: the sockets in it.
    pub(super) fn take_shown(&self) -> Vec<[OwnedFd; 2]> {
        let mut tray = self.closed();
        std::mem::take(&mut tray.shown)
    }

    fn closed(&self) -> MutexGuard<'_, Tray> {
        let mut tray = self.tray();
        tray.awaits = Awaits::Nothing;
        self.is_open.store(false, SeqCst);
        tray
    }

    fn is_complete(&self, tray: &Tray) -> bool {
        let taken = self.taken.load(SeqCst);
        match tray.awaits {
            Awaits::Nothing => true,
            Awaits::Sessions => tray.standing.len() + self.staying.load(SeqCst) >= taken,
            // One that has ended does not answer.
            Awaits::Sockets { asked, taken: before } => tray.answers + before.saturating_sub(taken) >= asked,
        }
    }

    fn ring(&self, tray: &Tray) {
        if tray.awaits != Awaits::Nothing && self.is_complete(tray) {
            self.bell.notify_one();
        }
    }

    fn tray(&self) -> MutexGuard<'_, Tray> {
        // Nothing in these sections panics half-way.
        self.tray.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue for a slot. It is kept between calls.
#[derive(Debug)]
pub(super) struct SlotQueue {
    queue: Queue,
    sessions: Arc<Sessions>,
}

impl SlotQueue {
    /// Waits for a slot. May be dropped at any time, and keeps its place then.
    pub(super) async fn slot(&mut self) -> SessionSlot {
        self.queue.taken().await;
        self.sessions.slot()
    }
}

/// One session's share of the budget. Dropping it releases it.
#[derive(Debug)]
#[must_use = "a slot that is dropped is released"]
pub(super) struct SessionSlot(Arc<Sessions>);

impl SessionSlot {
    /// The pipes that its session may take bulk through.
    pub(super) fn pipes(&self) -> &Pipes {
        self.0.budget.pipes()
    }

    /// Those that it is one of.
    pub(super) fn sessions(&self) -> &Arc<Sessions> {
        &self.0
    }
}

impl Drop for SessionSlot {
    fn drop(&mut self) {
        self.0.budget.give_back();
        self.0.taken.fetch_sub(1, SeqCst);
        if self.0.is_open.load(SeqCst) {
            self.0.ring(&self.0.tray());
        }
    }
}

/// A session that says its last words.
#[derive(Debug)]
#[must_use = "it counts as one that can freeze when this is dropped"]
pub(super) struct Staying<'a>(&'a Sessions);

impl Drop for Staying<'_> {
    fn drop(&mut self) {
        self.0.staying.fetch_sub(1, SeqCst);
    }
}
