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
mod live;
mod moved;
mod reached;
mod session;
mod told;
mod totals;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use arc_swap::ArcSwap;
pub(crate) use ended::Ended;
pub(crate) use handed::{AccountRecord, LiveRecord};
pub(crate) use histogram::Durations;
pub(crate) use lines::{LeftOut, SessionLines, SessionLog};
pub(crate) use live::{Asked, LiveSession};
pub(crate) use moved::Moved;
pub(crate) use session::SessionMeter;
use slab::Slab;
use tokio::time::Instant;
pub(crate) use totals::{MappingTotals, Totals};

use told::Started;
use totals::Account;

use crate::{
    events::{Draft, EventKind, Events, Recorder, SessionNote, Step},
    mapping::{ListenAddr, MappingName, Protocol},
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
}
