//! One live session, as others see it, and what they may ask of it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use atomic_waker::AtomicWaker;
use tokio::time::Instant;

use super::{
    Ended, Moved,
    reached::{Reached, Shown},
};
use crate::targets::Member;

/// One live session, as others may see it.
#[derive(Debug)]
pub(crate) struct LiveSession {
    /// The number of the session.
    pub id: u64,
    /// The client's canonical address.
    pub client: SocketAddr,
    /// When it was admitted.
    pub started: Instant,
    /// The name that the client asked for, where the mapping leads by names.
    name: OnceLock<Box<str>>,
    target: Mutex<Option<Reached>>,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    pub(super) datagrams_in: AtomicU64,
    pub(super) datagrams_out: AtomicU64,
    /// The sum of these four at the last sample, and when it had last changed, in tenths of a
    /// second after the start: 13 years. Only samples write these two.
    pub(super) noted: AtomicU64,
    moved_tenths: AtomicU32,
    /// What it is asked for: the code of the [`Ended`] that it was asked to end with, [`FREEZE`]
    /// and [`SHOW`]; and whether it stays ([`STAY`]). One number, because the session looks at it
    /// each time that it is polled.
    pub(super) asked: AtomicU8,
    waker: AtomicWaker,
}

/// The bits of an [`Ended`] in what a session is asked for.
pub(super) const END: u8 = 0x1f;
/// It does not freeze.
const STAY: u8 = 0x20;
/// It is to freeze.
const FREEZE: u8 = 0x40;
/// It is to show its sockets.
const SHOW: u8 = 0x80;

/// What a session is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To end, for this reason.
    End(Ended),
    /// To stop where it is, and to hand itself in. It is asked until [`LiveSession::thaw`].
    Freeze,
    /// To show its sockets, and to go on. It is asked once.
    Show,
}

impl LiveSession {
    pub(super) fn new(id: u64, client: SocketAddr, started: Instant) -> Self {
        Self {
            id,
            client,
            name: OnceLock::new(),
            target: Mutex::new(None),
            started,
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            datagrams_in: AtomicU64::new(0),
            datagrams_out: AtomicU64::new(0),
            noted: AtomicU64::new(0),
            moved_tenths: AtomicU32::new(0),
            asked: AtomicU8::new(0),
            waker: AtomicWaker::new(),
        }
    }

    /// Asks the session to end with `reason`. The first reason stands. Returns whether this is it.
    pub(crate) fn cut(&self, reason: Ended) -> bool {
        let first = |asked: u8| (asked & END == 0).then_some(asked | reason.code());
        let is_first = self.asked.fetch_update(SeqCst, Relaxed, first).is_ok();
        if is_first {
            self.waker.wake();
        }
        is_first
    }

    /// Asks the session to stop where it is and to hand itself in. A request to end goes first.
    pub(crate) fn ask_freeze(&self) {
        self.ask(FREEZE);
    }

    /// Asks the session to show its sockets.
    pub(crate) fn ask_to_show(&self) {
        self.ask(SHOW);
    }

    fn ask(&self, what: u8) {
        if self.asked.fetch_or(what, SeqCst) & what == 0 {
            self.waker.wake();
        }
    }

    /// Notes that the session does not freeze from now on: it is about to end by itself.
    pub(crate) fn stay(&self) {
        self.asked.fetch_or(STAY, SeqCst);
    }

    /// Takes the request to freeze back.
    pub(crate) fn thaw(&self) {
        self.asked.fetch_and(!FREEZE, SeqCst);
    }

    /// Ready with what the session is asked for. One task may poll this: the session's own.
    pub(crate) fn poll_asked(&self, cx: &Context<'_>) -> Poll<Asked> {
        self.waker.register(cx.waker());
        match self.asked.load(SeqCst) {
            0 => Poll::Pending,
            asked => self.read(asked).map_or(Poll::Pending, Poll::Ready),
        }
    }

    #[cold]
    fn read(&self, asked: u8) -> Option<Asked> {
        if let Some(reason) = Ended::from_code(asked & END) {
            return Some(Asked::End(reason));
        }
        if asked & SHOW != 0 {
            self.asked.fetch_and(!SHOW, SeqCst);
            return Some(Asked::Show);
        }
        (asked & FREEZE != 0 && asked & STAY == 0).then_some(Asked::Freeze)
    }

    /// Waits until the session is asked for something.
    pub(crate) async fn wait_asked(&self) -> Asked {
        std::future::poll_fn(|cx| self.poll_asked(cx)).await
    }

    /// Notes the name that the client asked for.
    pub(crate) fn asks_for(&self, name: &str) {
        let _ = self.name.set(name.into());
    }

    /// The name that the client asked for.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.get().map(|name| &**name)
    }

    /// The target as the session line shows it; `None` before it is known.
    pub(crate) fn target_text(&self) -> Option<String> {
        self.target().as_ref().map(|reached| Shown(Some(reached)).to_string())
    }

    /// The target that the session has a place at; `None` before it is reached, and where the
    /// mapping has but one.
    pub(crate) fn member(&self) -> Option<Arc<Member>> {
        match &*self.target() {
            Some(Reached::Address(_, place)) => place.member().cloned(),
            _ => None,
        }
    }

    /// Gives back the place at the target.
    pub(super) fn leave(&self) {
        if let Some(Reached::Address(_, place)) = &mut *self.target() {
            drop(std::mem::take(place));
        }
    }

    pub(super) fn target(&self) -> MutexGuard<'_, Option<Reached>> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it moved so far.
    pub(crate) fn moved(&self) -> Moved {
        Moved {
            bytes_in: self.bytes_in(),
            bytes_out: self.bytes_out(),
            datagrams_in: self.datagrams_in.load(Relaxed),
            datagrams_out: self.datagrams_out.load(Relaxed),
        }
    }

    pub(super) fn note(&self, moved: &Moved, now: Instant) {
        let Moved { bytes_in, bytes_out, datagrams_in, datagrams_out } = *moved;
        let sum = bytes_in.wrapping_add(bytes_out).wrapping_add(datagrams_in).wrapping_add(datagrams_out);
        if self.noted.load(Relaxed) != sum {
            self.noted.store(sum, Relaxed);
            self.set_moved(now.saturating_duration_since(self.started));
        }
    }

    /// How long nothing has moved, as far as samples have shown; since the start, where none was
    /// taken.
    pub(crate) fn quiet(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started).saturating_sub(self.last_moved())
    }

    /// When it had last moved, after the start, as far as samples have shown.
    pub(super) fn last_moved(&self) -> Duration {
        Duration::from_millis(100) * self.moved_tenths.load(Relaxed)
    }

    /// Notes when it had last moved, after the start.
    pub(super) fn set_moved(&self, after: Duration) {
        let tenths = u32::try_from(after.as_millis() / 100).unwrap_or(u32::MAX);
        self.moved_tenths.store(tenths, Relaxed);
    }

    /// Whether a byte has moved.
    pub(crate) fn has_moved(&self) -> bool {
        self.bytes_in() > 0 || self.bytes_out() > 0
    }

    /// Bytes from the client to the target so far.
    pub(crate) fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Relaxed)
    }

    /// Bytes from the target to the client so far.
    pub(crate) fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Relaxed)
    }
}
