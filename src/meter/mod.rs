//! What happened: the live sessions, what they moved, and how each one ended.
//!
//! Owns the table of live sessions of each listener ([`ListenerMeter`]), the guard that a session
//! carries ([`SessionMeter`]) and the one way to end a session from outside ([`LiveSession::cut`]).
//! A session is entered when it is admitted and settled exactly once: by [`SessionMeter::end`], or,
//! if its task is dropped unfinished, by the guard's `Drop`. Settling removes it from the table,
//! adds its bytes to the totals and writes the session line, so the three cannot disagree. The
//! [`SessionLog`] of the mapping decides whether there is a line: strangers must not fill a disk.
//!
//! A live session takes three requests: to end ([`LiveSession::cut`]), to stop where it is
//! ([`LiveSession::ask_freeze`]), and to show its sockets. A frozen one stays in the table. It goes
//! on here, or in another process (`handed`), which writes its one line.
//!
//! Must not know how bytes are moved, nor why a session is ended.

mod ended;
mod handed;
mod histogram;
mod lines;
mod told;
mod totals;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use atomic_waker::AtomicWaker;
pub(crate) use ended::Ended;
pub(crate) use handed::{AccountRecord, LiveRecord};
pub(crate) use histogram::Durations;
pub(crate) use lines::{LeftOut, SessionLines, SessionLog};
use slab::Slab;
use tokio::time::Instant;
pub(crate) use totals::{MappingTotals, Moved, Totals};

use told::{Led, Over, Started};
use totals::Account;

use crate::{
    events::{Draft, EventKind, Events, Recorder, SessionNote, Step},
    mapping::{ListenAddr, MappingName, Protocol, TargetAddr},
    targets::{Member, Place},
};

/// What the accounts of all listeners share. Clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    /// The number of the last session of the daemon. They begin with 1, and none is reused.
    last_id: Arc<AtomicU64>,
    events: Events,
}

impl Ledger {
    /// A ledger without sessions. They are told to `events`.
    pub(crate) fn new(events: Events) -> Self {
        Self { last_id: Arc::default(), events }
    }

    fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Relaxed) + 1
    }
}

/// The account of one listener: its live sessions and the totals of those that ended.
#[derive(Debug)]
pub(crate) struct ListenerMeter {
    mapping: Mutex<MappingName>,
    log: Mutex<Arc<SessionLog>>,
    /// What sums its account up; it holds this one.
    totals: Mutex<Weak<MappingTotals>>,
    protocol: Protocol,
    listen: ListenAddr,
    ledger: Ledger,
    table: Mutex<Table>,
    /// The flight recorder of the mapping.
    recorder: ArcSwap<Recorder>,
}

/// The live sessions of a listener, and the account of all.
#[derive(Debug, Default)]
struct Table {
    live: Slab<Arc<LiveSession>>,
    /// Why every session ends, also one that is entered later; see [`ListenerMeter::close`].
    closed: Option<Ended>,
    /// Every session is asked to freeze, also one that is entered later.
    is_freezing: bool,
    /// It has what live sessions moved only after their end.
    account: Account,
}

impl ListenerMeter {
    /// An account with nothing in it, and a log of its own until [`ListenerMeter::join`].
    pub(crate) fn new(
        mapping: MappingName,
        protocol: Protocol,
        listen: ListenAddr,
        ledger: Ledger,
    ) -> Arc<Self> {
        Arc::new(Self {
            recorder: ArcSwap::new(ledger.events.recorder(Some(&mapping))),
            mapping: Mutex::new(mapping),
            log: Mutex::new(SessionLog::new(SessionLines::All, Arc::default())),
            totals: Mutex::default(),
            protocol,
            listen,
            ledger,
            table: Mutex::default(),
        })
    }

    /// Enters a session of `client` (its canonical address). It is live until the guard is settled.
    /// In a closed account the session is asked to end at once.
    pub(crate) fn open(self: &Arc<Self>, client: SocketAddr) -> SessionMeter {
        self.open_since(client, Instant::now())
    }

    /// The same for a client that came earlier: who it is turned out just now.
    pub(crate) fn open_since(self: &Arc<Self>, client: SocketAddr, started: Instant) -> SessionMeter {
        let live = Arc::new(LiveSession::new(self.ledger.next_id(), client, started));
        let mut table = self.table();
        table.account.started();
        let slot = table.enter(&live);
        drop(table);
        let id = self.events().emit_numbered(EventKind::SessionStarted, || {
            let message = Started { protocol: self.protocol, client };
            Draft::later(message).mapping(self.mapping()).session(live.id).client_at(client)
        });
        self.record(&live, id, Step::Started);
        SessionMeter { listener: Arc::clone(self), live, slot, settled: false }
    }

    /// How many sessions are live.
    pub(crate) fn live_count(&self) -> usize {
        self.table().live.len()
    }

    /// The live sessions, in no particular order.
    pub(crate) fn live(&self) -> Vec<Arc<LiveSession>> {
        self.table().live.iter().map(|(_, live)| Arc::clone(live)).collect()
    }

    /// Closes the account: asks every live session to end with `reason`, and each session that is
    /// entered from now on.
    ///
    /// A listener that closes may be in the middle of an accept. The table's lock decides for each
    /// session on which side of the close it stands, and both sides end. The first reason stands.
    pub(crate) fn close(&self, reason: Ended) {
        let live: Vec<_> = {
            let mut table = self.table();
            table.closed.get_or_insert(reason);
            table.live.iter().map(|(_, live)| Arc::clone(live)).collect()
        };
        for live in live {
            live.cut(reason);
        }
    }

    /// Asks every live session to freeze, and each that is entered from now on.
    pub(crate) fn freeze(&self) {
        let live: Vec<_> = {
            let mut table = self.table();
            table.is_freezing = true;
            table.live.iter().map(|(_, live)| Arc::clone(live)).collect()
        };
        for live in live {
            live.ask_freeze();
        }
    }

    /// Takes back what [`ListenerMeter::freeze`] asked for.
    pub(crate) fn thaw(&self) {
        let mut table = self.table();
        table.is_freezing = false;
        table.live.iter().for_each(|(_, live)| live.thaw());
    }

    /// The mapping this listener belongs to.
    pub(crate) fn mapping(&self) -> MappingName {
        self.mapping.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has a step of a session in the flight recorder.
    fn record(&self, live: &LiveSession, id: Option<u64>, step: Step) {
        let LiveSession { id: session, client, .. } = *live;
        let (at, protocol) = (SystemTime::now(), self.protocol);
        self.recorder.load().session(SessionNote { at, id, protocol, session, client, step });
    }

    /// Has a refusal in the flight recorder.
    pub(crate) fn record_refusal(&self, client: SocketAddr, reason: &'static str) {
        self.recorder.load().refusal(self.protocol, client, reason);
    }

    /// Gives the listener to another mapping: a reload kept its socket and changed its name.
    pub(crate) fn rename(&self, mapping: MappingName) {
        self.recorder.store(self.ledger.events.recorder(Some(&mapping)));
        *self.mapping.lock().unwrap_or_else(PoisonError::into_inner) = mapping;
    }

    /// Joins a mapping: its log has the session lines from now on, and its totals the account.
    pub(crate) fn join(self: &Arc<Self>, log: &Arc<SessionLog>, totals: &Arc<MappingTotals>) {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(log);
        let mut joined = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        if Weak::as_ptr(&joined) == Arc::as_ptr(totals) {
            return;
        }
        if let Some(before) = joined.upgrade() {
            before.leave(self);
        }
        totals.join(self);
        *joined = Arc::downgrade(totals);
    }

    /// How many sessions live, and the account with what they moved so far.
    fn account(&self) -> (u64, Account) {
        let table = self.table();
        let mut account = table.account.clone();
        account.moved += table.moved_by_live();
        (table.live.len() as u64, account)
    }

    /// The account without what live sessions moved.
    fn settled_account(&self) -> Account {
        self.table().account.clone()
    }

    /// How many sessions live, and what moved so far. Notes for each live session whether it has
    /// moved anything since the last sample.
    fn sample(&self, now: Instant) -> (u64, Moved) {
        let table = self.table();
        let mut moved = table.account.moved;
        for (_, live) in &table.live {
            let of_session = live.moved();
            live.note(&of_session, now);
            moved += of_session;
        }
        (table.live.len() as u64, moved)
    }

    /// The account with what live sessions moved so far, which is not in it again when they end.
    fn take_account(&self) -> Account {
        let mut table = self.table();
        let moved = table.moved_by_live();
        let mut account = std::mem::take(&mut table.account);
        account.moved += moved;
        table.account.moved = Moved::default().minus(moved);
        account
    }

    /// Whether the mapping may write another line that strangers can cause. It counts against the
    /// budget.
    pub(crate) fn may_log(&self) -> bool {
        self.log().takes_other(Instant::now())
    }

    fn log(&self) -> Arc<SessionLog> {
        Arc::clone(&self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where it tells what happens.
    pub(crate) fn events(&self) -> &Events {
        &self.ledger.events
    }

    /// The protocol of the listener.
    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The address of the listener, as the plan names it.
    pub(crate) fn listen(&self) -> &ListenAddr {
        &self.listen
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A panic elsewhere cannot leave the slab half-changed: insert and remove are its own,
        // whole operations.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Enters a session. Its task has not polled yet: what it is asked for wakes nothing.
    fn enter(&mut self, live: &Arc<LiveSession>) -> usize {
        if let Some(reason) = self.closed {
            live.cut(reason);
        }
        if self.is_freezing {
            live.ask_freeze();
        }
        self.live.insert(Arc::clone(live))
    }

    fn moved_by_live(&self) -> Moved {
        let mut moved = Moved::default();
        for (_, live) in &self.live {
            moved += live.moved();
        }
        moved
    }
}

/// Where a session leads, once that is known.
#[derive(Debug)]
enum Reached {
    /// The address it was connected to, and its place at the target that has this address.
    Address(SocketAddr, Place),
    /// What it was meant for, when no address was ever reached.
    Named(TargetAddr),
}

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
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    datagrams_in: AtomicU64,
    datagrams_out: AtomicU64,
    /// The sum of these four at the last sample, and when it had last changed, in milliseconds
    /// after the start. Only samples write these two.
    noted: AtomicU64,
    moved_ms: AtomicU64,
    /// What it is asked for: the code of the [`Ended`] that it was asked to end with, [`FREEZE`]
    /// and [`SHOW`]; and whether it stays ([`STAY`]). One number, because the session looks at it
    /// each time that it is polled.
    asked: AtomicU8,
    waker: AtomicWaker,
}

/// The bits of an [`Ended`] in what a session is asked for.
const END: u8 = 0x1f;
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
    fn new(id: u64, client: SocketAddr, started: Instant) -> Self {
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
            moved_ms: AtomicU64::new(0),
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
    fn leave(&self) {
        if let Some(Reached::Address(_, place)) = &mut *self.target() {
            drop(std::mem::take(place));
        }
    }

    fn target(&self) -> MutexGuard<'_, Option<Reached>> {
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

    fn note(&self, moved: &Moved, now: Instant) {
        let Moved { bytes_in, bytes_out, datagrams_in, datagrams_out } = *moved;
        let sum = bytes_in.wrapping_add(bytes_out).wrapping_add(datagrams_in).wrapping_add(datagrams_out);
        if self.noted.load(Relaxed) != sum {
            self.noted.store(sum, Relaxed);
            let ms = now.saturating_duration_since(self.started).as_millis();
            self.moved_ms.store(u64::try_from(ms).unwrap_or(u64::MAX), Relaxed);
        }
    }

    /// How long nothing has moved, as far as samples have shown; since the start, where none was
    /// taken.
    pub(crate) fn quiet(&self, now: Instant) -> Duration {
        let moved = Duration::from_millis(self.moved_ms.load(Relaxed));
        now.saturating_duration_since(self.started).saturating_sub(moved)
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

/// The guard of one session: it counts, and it settles the account exactly once.
#[derive(Debug)]
#[must_use = "a session that is dropped at once ends at once"]
pub(crate) struct SessionMeter {
    listener: Arc<ListenerMeter>,
    live: Arc<LiveSession>,
    slot: usize,
    settled: bool,
}

impl SessionMeter {
    /// What others see of this session.
    pub(crate) fn live(&self) -> &Arc<LiveSession> {
        &self.live
    }

    /// The mapping of the session's listener.
    pub(crate) fn mapping(&self) -> MappingName {
        self.listener.mapping()
    }

    /// Notes the address the session was connected to, and its place at the target. The last ones
    /// stand.
    pub(crate) fn reached(&self, target: SocketAddr, place: Place) {
        let before = self.live.target().replace(Reached::Address(target, place));
        // A flow needs no answer to be connected, and it can be connected again.
        let took = (before.is_none() && self.listener.protocol == Protocol::Tcp).then(|| {
            let took = Instant::now().saturating_duration_since(self.live.started);
            self.listener.table().account.reached(took);
            took
        });
        self.listener.record(&self.live, None, Step::Connected { target, took });
    }

    /// Notes the target that could not be reached, for a session that has reached none.
    pub(crate) fn missed(&self, target: &TargetAddr) {
        self.live.target().get_or_insert_with(|| Reached::Named(target.clone()));
    }

    /// Counts bytes that were delivered to the target.
    pub(crate) fn add_in(&self, bytes: u64) {
        self.live.bytes_in.fetch_add(bytes, Relaxed);
    }

    /// Counts bytes that were delivered to the client.
    pub(crate) fn add_out(&self, bytes: u64) {
        self.live.bytes_out.fetch_add(bytes, Relaxed);
    }

    /// Counts datagrams that were sent to the target.
    pub(crate) fn add_datagrams_in(&self, datagrams: u64) {
        self.live.datagrams_in.fetch_add(datagrams, Relaxed);
    }

    /// Counts datagrams that were sent to the client.
    pub(crate) fn add_datagrams_out(&self, datagrams: u64) {
        self.live.datagrams_out.fetch_add(datagrams, Relaxed);
    }

    /// Settles the account: the session ended for `reason`.
    pub(crate) fn end(mut self, reason: Ended) {
        self.settle(reason, None);
    }

    /// Settles the account: the session ended for `reason`, and this is what the system said.
    pub(crate) fn end_with(mut self, reason: Ended, error: &dyn std::fmt::Display) {
        self.settle(reason, Some(error));
    }

    fn settle(&mut self, reason: Ended, error: Option<&dyn std::fmt::Display>) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let ListenerMeter { protocol, listen, .. } = &*self.listener;
        let moved = self.live.moved();
        let Moved { bytes_in, bytes_out, .. } = moved;
        let now = Instant::now();
        let duration = now.saturating_duration_since(self.live.started);
        self.live.leave();
        {
            let mut table = self.listener.table();
            table.live.remove(self.slot);
            table.account.ended(reason, moved, duration);
        }
        let id = self.tell_end(reason, duration, error);
        let ended = Step::Ended { reason: reason.as_str(), lasted: duration, bytes_in, bytes_out };
        self.listener.record(&self.live, id, ended);
        // Where the level hides the lines, none of them is missed.
        if !tracing::enabled!(tracing::Level::INFO)
            || !self.listener.log().takes(reason, (bytes_in, bytes_out), now)
        {
            return;
        }
        tracing::info!(
            session.id = self.live.id,
            mapping = %self.listener.mapping(),
            protocol = protocol.as_str(),
            client.addr = %Whole(self.live.client),
            listen.addr = %listen,
            target.addr = %Shown(self.live.target().as_ref()),
            "bytes.in" = bytes_in,
            "bytes.out" = bytes_out,
            duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            reason = reason.as_str(),
            error = error.map(tracing::field::display),
            "session ended"
        );
    }

    fn tell_end(
        &self,
        reason: Ended,
        duration: Duration,
        error: Option<&dyn std::fmt::Display>,
    ) -> Option<u64> {
        let Self { listener, live, .. } = self;
        listener.events().emit_numbered(EventKind::SessionEnded, || {
            let led = match &*live.target() {
                Some(Reached::Address(addr, _)) => Led::To(*addr),
                Some(Reached::Named(target)) => Led::Toward(target.clone()),
                None => Led::Nowhere,
            };
            let (protocol, client, moved) = (listener.protocol, live.client, live.moved());
            let error = error.map(ToString::to_string);
            let message = Over { protocol, client, led, reason, moved, duration, error };
            let draft = Draft::later(message).mapping(listener.mapping());
            draft.session(live.id).client_at(client).reason(reason.as_str())
        })
    }
}

impl Drop for SessionMeter {
    /// A session whose task is dropped unfinished: the runtime is going away, or the task panicked.
    fn drop(&mut self) {
        self.settle(Ended::Shutdown, None);
    }
}

/// A target that may not be known yet, as the session line shows it.
struct Shown<'a>(Option<&'a Reached>);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(Reached::Address(addr, _)) => Whole(*addr).fmt(f),
            Some(Reached::Named(target)) => target.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// An address as it always is shown, but handed to the formatter whole: the standard library hands
/// over each number and each dot, which is half the cost of a session line.
struct Whole(SocketAddr);

impl std::fmt::Display for Whole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let SocketAddr::V4(addr) = self.0 else { return self.0.fmt(f) };
        // From the right, so that no number has to be measured first.
        let mut text = *b"255.255.255.255:65535";
        let mut start = text.len();
        let mut put = |mut number: u16, before: Option<u8>| {
            loop {
                start -= 1;
                text[start] = b'0' + (number % 10) as u8;
                number /= 10;
                if number == 0 {
                    break;
                }
            }
            if let Some(before) = before {
                start -= 1;
                text[start] = before;
            }
        };
        let [a, b, c, d] = addr.ip().octets().map(u16::from);
        put(addr.port(), Some(b':'));
        put(d, Some(b'.'));
        put(c, Some(b'.'));
        put(b, Some(b'.'));
        put(a, None);
        f.write_str(str::from_utf8(&text[start..]).map_err(|_| std::fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl ListenerMeter {
        /// Asks every live session to end with `reason`.
        pub(crate) fn cut_all(&self, reason: Ended) {
            for live in self.live() {
                live.cut(reason);
            }
        }

        /// How many sessions were ever opened.
        pub(crate) fn sessions_total(&self) -> u64 {
            self.table().account.counts(Ended::Idle).0
        }

        /// How many sessions ended for `reason`.
        pub(crate) fn ended_total(&self, reason: Ended) -> u64 {
            self.table().account.counts(reason).1
        }
    }

    #[tokio::test]
    async fn a_closed_account_ends_sessions_that_are_entered_later() {
        let port = std::num::NonZeroU16::MIN;
        let name = MappingName::new("1/tcp").unwrap();
        let meter = ListenerMeter::new(name, Protocol::Tcp, ListenAddr::every(port), Ledger::default());
        let client = "127.0.0.1:1".parse().unwrap();
        let before = meter.open(client);
        meter.close(Ended::Reload);
        let after = meter.open(client);
        meter.close(Ended::Shutdown);
        assert_eq!(before.live().wait_asked().await, Asked::End(Ended::Reload));
        assert_eq!(after.live().wait_asked().await, Asked::End(Ended::Reload));
    }

    #[test]
    fn an_address_is_shown_as_ever() {
        for addr in ["0.0.0.0:0", "1.20.255.100:9", "255.255.255.255:65535", "[::]:80", "[fe80::1%3]:10000"] {
            let addr: SocketAddr = addr.parse().unwrap();
            assert_eq!(Whole(addr).to_string(), addr.to_string());
        }
    }
}
