//! What the sessions of a mapping did since the mapping came into the plan.
//!
//! Owns the account of a listener ([`Account`], plain numbers under the lock of its table) and the
//! totals of a mapping ([`MappingTotals`]), which sum up the accounts of its listeners. The totals
//! outlive the listeners and every reload that keeps the mapping. An account changes when a session
//! starts, has reached its target, and ends. What a session moves is counted in the session
//! meanwhile, so the data path knows nothing of accounts.
//!
//! Invariant: what happened is neither lost nor counted twice, at any moment of a read. The lock of
//! the table makes one step of the end of a session: out of the live ones, into the account. The
//! totals take over the account of a listener that is gone, or that another mapping has now.

use std::{
    ops::AddAssign,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Ended, ListenerMeter, Moved,
    handed::{AccountRecord, DurationsRecord},
    histogram::{DIAL_MS, Durations, Histogram, SESSION_MS},
};
use crate::mapping::Protocol;

/// What happened on a listener, or on all of a mapping.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    sessions: u64,
    /// What ended sessions moved. It wraps; see [`Moved::minus`].
    pub(super) moved: Moved,
    /// Made for the first session: most listeners of a large configuration have none.
    counts: Option<Box<Counts>>,
}

/// The larger part of an account.
#[derive(Clone, Debug)]
struct Counts {
    /// Sessions that ended, in the order of [`Ended::ALL`].
    ended: [u64; Ended::ALL.len()],
    dials: Histogram,
    durations: Histogram,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            ended: [0; Ended::ALL.len()],
            dials: Histogram::new(DIAL_MS),
            durations: Histogram::new(SESSION_MS),
        }
    }
}

impl Account {
    /// Notes that a session was admitted.
    pub(super) fn started(&mut self) {
        self.sessions += 1;
    }

    /// Notes that a session reached its target, so long after it was admitted.
    pub(super) fn reached(&mut self, after: Duration) {
        self.counts_mut().dials.note(after);
    }

    /// Notes the end of a session.
    pub(super) fn ended(&mut self, reason: Ended, moved: Moved, lasted: Duration) {
        self.moved += moved;
        let counts = self.counts_mut();
        counts.ended[reason.index()] += 1;
        counts.durations.note(lasted);
    }

    fn counts_mut(&mut self) -> &mut Counts {
        self.counts.get_or_insert_default()
    }

    fn record(&self) -> AccountRecord {
        let Moved { bytes_in, bytes_out, datagrams_in, datagrams_out } = self.moved;
        let durations = |histogram: &Histogram| {
            let (counts, sum_us) = histogram.handed();
            DurationsRecord { counts, sum_us }
        };
        let Counts { ended, dials, durations: lasted } = &*self.counts.clone().unwrap_or_default();
        let ended = Ended::ALL.into_iter().zip(*ended).filter(|(_, count)| *count > 0);
        AccountRecord {
            sessions: self.sessions,
            bytes_in,
            bytes_out,
            datagrams_in,
            datagrams_out,
            ended: ended.map(|(reason, count)| (reason.as_str().into(), count)).collect(),
            dials: durations(dials),
            durations: durations(lasted),
        }
    }

    fn take_over(&mut self, record: &AccountRecord) {
        let AccountRecord { bytes_in, bytes_out, datagrams_in, datagrams_out, .. } = *record;
        self.sessions = self.sessions.saturating_add(record.sessions);
        self.moved += Moved { bytes_in, bytes_out, datagrams_in, datagrams_out };
        let Counts { ended, dials, durations } = self.counts_mut();
        for (reason, count) in Ended::ALL.into_iter().zip(ended) {
            *count = count.saturating_add(record.ended.get(reason.as_str()).copied().unwrap_or(0));
        }
        dials.take_over(&record.dials.counts, record.dials.sum_us);
        durations.take_over(&record.durations.counts, record.durations.sum_us);
    }

    #[cfg(test)]
    pub(super) fn counts(&self, reason: Ended) -> (u64, u64) {
        (self.sessions, self.counts.as_ref().map_or(0, |counts| counts.ended[reason.index()]))
    }
}

impl AddAssign<&Self> for Account {
    fn add_assign(&mut self, other: &Self) {
        self.sessions += other.sessions;
        self.moved += other.moved;
        let Some(other) = &other.counts else { return };
        let Counts { ended, dials, durations } = self.counts_mut();
        for (count, more) in ended.iter_mut().zip(other.ended) {
            *count += more;
        }
        *dials += &other.dials;
        *durations += &other.durations;
    }
}

/// The totals of a mapping.
#[derive(Debug, Default)]
pub(crate) struct MappingTotals {
    tcp: Mutex<Listeners>,
    udp: Mutex<Listeners>,
}

/// The listeners that count for a mapping, in one protocol.
#[derive(Debug, Default)]
struct Listeners {
    /// Those that are there. One that only this list holds is gone.
    present: Vec<Arc<ListenerMeter>>,
    /// How many there may be until those that are gone are looked for.
    look_at: usize,
    /// What happened on the others.
    gone: Account,
}

/// The totals of a mapping in one protocol, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Sessions, or flows, that live.
    pub live: u64,
    /// Those that were admitted, also the live ones.
    pub sessions: u64,
    /// What they moved, also the live ones.
    pub moved: Moved,
    /// How many ended for each reason.
    pub ended: Vec<(Ended, u64)>,
    /// How long it took from the admission of a TCP client to the connection to a target. A target
    /// that was tried before is included. A session that reached none is not.
    pub dials: Durations,
    /// How long the sessions lasted that ended.
    pub durations: Durations,
}

impl MappingTotals {
    /// The totals of one protocol now. It takes the lock of each listener's table, for as long as a
    /// sum over its sessions needs.
    pub(crate) fn read(&self, protocol: Protocol) -> Totals {
        let mut listeners = self.listeners(protocol);
        listeners.forget_the_gone();
        let (mut live, mut account) = (0, listeners.gone.clone());
        for listener in &listeners.present {
            let (count, of_listener) = listener.account();
            live += count;
            account += &of_listener;
        }
        let Account { sessions, moved, counts } = account;
        let Counts { ended, dials, durations } = *counts.unwrap_or_default();
        let ended = Ended::ALL.into_iter().zip(ended).collect();
        Totals { live, sessions, moved, ended, dials: dials.read(), durations: durations.read() }
    }

    /// How many sessions and flows live, and what moved so far. It also notes for each of them
    /// whether it has moved anything since the last sample. So a second must pass between two
    /// samples, and one task takes them.
    pub(crate) fn sample(&self, now: Instant) -> (u64, Moved) {
        let (mut live, mut moved) = (0, Moved::default());
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let mut listeners = self.listeners(protocol);
            listeners.forget_the_gone();
            moved += listeners.gone.moved;
            for listener in &listeners.present {
                let (count, of_listener) = listener.sample(now);
                live += count;
                moved += of_listener;
            }
        }
        (live, moved)
    }

    /// What happened so far in one protocol, but for what live sessions moved: these are handed
    /// over with their own counters.
    pub(crate) fn record(&self, protocol: Protocol) -> AccountRecord {
        let listeners = self.listeners(protocol);
        let mut account = listeners.gone.clone();
        for listener in &listeners.present {
            account += &listener.settled_account();
        }
        account.record()
    }

    /// Adds what happened in another process.
    pub(crate) fn take_over(&self, protocol: Protocol, record: &AccountRecord) {
        self.listeners(protocol).gone.take_over(record);
    }

    /// Counts a listener from now on.
    pub(super) fn join(&self, listener: &Arc<ListenerMeter>) {
        let mut listeners = self.listeners(listener.protocol());
        if listeners.present.len() >= listeners.look_at {
            listeners.forget_the_gone();
            listeners.look_at = 2 * listeners.present.len() + 16;
        }
        listeners.present.push(Arc::clone(listener));
    }

    /// Counts a listener no more. What happened on it so far stays here.
    pub(super) fn leave(&self, listener: &ListenerMeter) {
        let mut listeners = self.listeners(listener.protocol());
        let is_it = |present: &Arc<ListenerMeter>| std::ptr::eq(Arc::as_ptr(present), listener);
        if let Some(place) = listeners.present.iter().position(is_it) {
            listeners.present.swap_remove(place);
            listeners.gone += &listener.take_account();
        }
    }

    fn listeners(&self, protocol: Protocol) -> MutexGuard<'_, Listeners> {
        let listeners = match protocol {
            Protocol::Tcp => &self.tcp,
            Protocol::Udp => &self.udp,
        };
        // Nothing in these sections panics half-way.
        listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listeners {
    /// Takes over the accounts of the listeners that nothing else holds: neither the supervisor nor
    /// a session.
    fn forget_the_gone(&mut self) {
        let gone = &mut self.gone;
        self.present.retain(|listener| {
            let is_there = Arc::strong_count(listener) > 1;
            if !is_there {
                *gone += &listener.take_account();
            }
            is_there
        });
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;
    use crate::{
        mapping::{ListenAddr, MappingName},
        meter::{Ledger, SessionLines, SessionLog},
    };

    fn listener(protocol: Protocol) -> Arc<ListenerMeter> {
        let listen = ListenAddr::every(NonZeroU16::MIN);
        ListenerMeter::new(MappingName::new("web").unwrap(), protocol, listen, Ledger::default())
    }

    fn join(listener: &Arc<ListenerMeter>, totals: &Arc<MappingTotals>) {
        listener.join(&SessionLog::new(SessionLines::None, Arc::default()), totals);
    }

    fn client() -> std::net::SocketAddr {
        "127.0.0.1:1".parse().unwrap()
    }

    fn bytes(totals: &MappingTotals) -> (u64, u64) {
        let Moved { bytes_in, bytes_out, .. } = totals.read(Protocol::Tcp).moved;
        (bytes_in, bytes_out)
    }

    #[tokio::test(start_paused = true)]
    async fn live_and_ended_sessions_count_once_also_of_listeners_that_are_gone() {
        let totals = Arc::<MappingTotals>::default();
        let (one, other) = (listener(Protocol::Tcp), listener(Protocol::Tcp));
        join(&one, &totals);
        join(&other, &totals);
        let (first, second) = (one.open(client()), other.open(client()));
        first.add_in(10);
        second.add_out(5);
        assert_eq!(bytes(&totals), (10, 5));
        tokio::time::advance(Duration::from_secs(3)).await;
        first.end(Ended::Idle);
        assert_eq!(bytes(&totals), (10, 5));
        drop(one);
        assert_eq!(bytes(&totals), (10, 5));
        assert_eq!(totals.listeners(Protocol::Tcp).present.len(), 1);
        drop(other);
        second.add_out(1);
        let read = totals.read(Protocol::Tcp);
        assert_eq!((read.sessions, read.live, bytes(&totals)), (2, 1, (10, 6)), "its session holds it");
        second.end(Ended::ClientClosed);
        let read = totals.read(Protocol::Tcp);
        assert_eq!((read.sessions, read.live, bytes(&totals)), (2, 0, (10, 6)));
        let ended: Vec<_> = read.ended.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(ended, [(Ended::ClientClosed, 1), (Ended::Idle, 1)]);
        assert_eq!((read.durations.count(), read.durations.sum), (2, Duration::from_secs(6)));
        assert!(totals.listeners(Protocol::Tcp).present.is_empty());
    }

    #[tokio::test]
    async fn a_listener_that_goes_to_another_mapping_leaves_what_it_has_moved_so_far() {
        let (old, new) = (Arc::<MappingTotals>::default(), Arc::<MappingTotals>::default());
        let listener = listener(Protocol::Tcp);
        join(&listener, &old);
        let (stays, ends) = (listener.open(client()), listener.open(client()));
        stays.add_in(100);
        ends.add_in(20);
        ends.end(Ended::ClientClosed);
        join(&listener, &new);
        join(&listener, &new);
        assert_eq!((bytes(&old), bytes(&new)), ((120, 0), (0, 0)));
        stays.add_in(1);
        assert_eq!((bytes(&old), bytes(&new)), ((120, 0), (1, 0)));
        stays.end(Ended::ClientClosed);
        assert_eq!((bytes(&old), bytes(&new)), ((120, 0), (1, 0)));
        let ended = |totals: &MappingTotals| totals.read(Protocol::Tcp).durations.count();
        assert_eq!((ended(&old), ended(&new)), (1, 1), "it ended as one of the new mapping");
    }

    #[tokio::test(start_paused = true)]
    async fn a_dial_is_timed_from_the_admission_and_only_the_first_connection_of_tcp() {
        let totals = Arc::<MappingTotals>::default();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let listener = listener(protocol);
            join(&listener, &totals);
            let session = listener.open(client());
            tokio::time::advance(Duration::from_millis(30)).await;
            session.reached(client(), crate::targets::Place::default());
            session.end(Ended::Idle);
        }
        assert_eq!(totals.read(Protocol::Udp).dials.count(), 0);
        let dials = totals.read(Protocol::Tcp).dials;
        assert_eq!((dials.count(), dials.sum), (1, Duration::from_millis(30)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sample_notes_when_a_session_last_moved_something() {
        let totals = Arc::<MappingTotals>::default();
        let listener = listener(Protocol::Udp);
        join(&listener, &totals);
        let session = listener.open(client());
        let mut quiet = Vec::new();
        for second in 0..8 {
            match second {
                2 => session.add_in(1),
                // An empty datagram.
                5 => session.add_datagrams_out(1),
                _ => {}
            }
            totals.sample(Instant::now());
            quiet.push(session.live().quiet(Instant::now()).as_secs());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(quiet, [0, 1, 0, 1, 2, 0, 1, 2]);
        assert_eq!(totals.sample(Instant::now()).0, 1);
    }

    #[test]
    fn a_sum_never_goes_back_while_sessions_end() {
        let totals = Arc::<MappingTotals>::default();
        let listener = listener(Protocol::Udp);
        join(&listener, &totals);
        let churn = std::thread::spawn(move || {
            for _ in 0..20_000 {
                let session = listener.open(client());
                session.add_datagrams_in(1);
                session.end(Ended::Idle);
            }
        });
        let mut last = 0;
        while !churn.is_finished() {
            let now = totals.read(Protocol::Udp).moved.datagrams_in;
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
        churn.join().unwrap();
        assert_eq!(totals.read(Protocol::Udp).moved.datagrams_in, 20_000);
    }
}
