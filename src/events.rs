//! What happens, as it happens: one bus for every part that has something to say, and for every
//! window that follows it.
//!
//! Owns the numbers of the events, the recent ones for a reader that comes back, and the channel to
//! the readers ([`Events`]). A part makes an event where it decides what the event is about. Must
//! not know how an event is shown.
//!
//! - The bus is off until a window needs it. Then it keeps nothing but what the flight recorder
//!   ([`recorder`]) does, and for an event of a session [`Events::emit`] is one relaxed load.
//! - Numbers rise by one from 1. So a reader knows from two numbers how many it has missed.
//! - The recent events are bounded: [`RECENT_SESSIONS`] of sessions and [`RECENT_OTHERS`] of the
//!   rest, each of at most a few hundred characters. Strangers cause the first kind, and it does
//!   not push out the second. Refusals have a budget beside that ([`REFUSALS`]).
//! - An event of a session costs no text until a reader wants one ([`text`]).
//! - The channel is lossy: a reader that is slower than [`AHEAD`] events is told how many it lost.
//!   No part ever waits for a reader.
//!
//! It ends with its last handle.

mod recorder;
mod text;

use std::{
    borrow::Cow,
    collections::VecDeque,
    fmt::Display,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use recorder::Recorders;
pub(crate) use recorder::{Note, OtherNote, Recorder, RefusalNote, SessionNote, Step};
use serde::{Deserialize, Serialize};
pub(crate) use text::Text;
use tokio::{sync::broadcast, time::Instant};

use crate::{handover::lenient, log_limiter::LogLimiter, mapping::MappingName, text::clean_start};

/// The recent events of sessions.
const RECENT_SESSIONS: usize = 1024;
/// The recent events of everything else.
const RECENT_OTHERS: usize = 512;
/// How many events a reader may be behind.
const AHEAD: usize = 1024;
/// Refusals that become events, at once and in a second. The counters have all of them.
const REFUSALS: u32 = 20;
/// The longest text for people, in characters.
const LONGEST: usize = 400;
/// The longest client and the longest reason.
const LONGEST_WORD: usize = 64;
/// The last moment of the year 9999.
const LAST_DATE_MS: u64 = 253_402_300_799_000;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum EventKind {
    /// A client was admitted.
    SessionStarted,
    /// A session ended.
    SessionEnded,
    /// A client was refused.
    SessionRefused,
    /// Sessions cannot reach a target.
    TargetDown,
    /// They can again.
    TargetUp,
    /// A target is started, because a client came.
    TargetStarting,
    /// A started target takes clients.
    TargetStarted,
    /// A target was stopped, because no session was left.
    TargetStopped,
    /// A target could not be started.
    StartFailed,
    /// A listener takes clients.
    Listening,
    /// A listener has no socket, because its address or port is not free.
    ListenerWaiting,
    /// The socket of a listener died.
    ListenerFailed,
    /// A listener takes no more clients.
    ListenerClosed,
    /// A client was banned.
    Banned,
    /// An operator ended a ban.
    Unbanned,
    /// A client is let in, because it knocked.
    KnockAccepted,
    /// The time of a client that knocked is over.
    KnockEnded,
    /// A changed configuration runs.
    ReloadApplied,
    /// A changed configuration was refused.
    ReloadRefused,
    /// Something changed on the home router.
    Router,
    /// A mapping was made at run time.
    MappingAdded,
    /// A mapping that was made at run time was removed.
    MappingRemoved,
    /// A mapping was paused.
    MappingPaused,
    /// A paused mapping goes on.
    MappingResumed,
    /// The log has another level.
    LogLevel,
    /// The daemon ends.
    Stopping,
    /// A new process is about to take over.
    HandingOver,
    /// It has taken over, and this is the first that it tells.
    HandedOver,
    /// It could not; all goes on.
    HandOverFailed,
}

impl EventKind {
    /// Every kind.
    const ALL: [Self; 29] = [
        Self::SessionStarted,
        Self::SessionEnded,
        Self::SessionRefused,
        Self::TargetDown,
        Self::TargetUp,
        Self::TargetStarting,
        Self::TargetStarted,
        Self::TargetStopped,
        Self::StartFailed,
        Self::Listening,
        Self::ListenerWaiting,
        Self::ListenerFailed,
        Self::ListenerClosed,
        Self::Banned,
        Self::Unbanned,
        Self::KnockAccepted,
        Self::KnockEnded,
        Self::ReloadApplied,
        Self::ReloadRefused,
        Self::Router,
        Self::MappingAdded,
        Self::MappingRemoved,
        Self::MappingPaused,
        Self::MappingResumed,
        Self::LogLevel,
        Self::HandingOver,
        Self::HandedOver,
        Self::HandOverFailed,
        Self::Stopping,
    ];

    /// The word of the interface.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::SessionStarted => "session-started",
            Self::SessionEnded => "session-ended",
            Self::SessionRefused => "session-refused",
            Self::TargetDown => "target-down",
            Self::TargetUp => "target-up",
            Self::TargetStarting => "target-starting",
            Self::TargetStarted => "target-started",
            Self::TargetStopped => "target-stopped",
            Self::StartFailed => "start-failed",
            Self::Listening => "listening",
            Self::ListenerWaiting => "listener-waiting",
            Self::ListenerFailed => "listener-failed",
            Self::ListenerClosed => "listener-closed",
            Self::Banned => "banned",
            Self::Unbanned => "unbanned",
            Self::KnockAccepted => "knock-accepted",
            Self::KnockEnded => "knock-ended",
            Self::ReloadApplied => "reload-applied",
            Self::ReloadRefused => "reload-refused",
            Self::Router => "router",
            Self::MappingAdded => "mapping-added",
            Self::MappingRemoved => "mapping-removed",
            Self::MappingPaused => "mapping-paused",
            Self::MappingResumed => "mapping-resumed",
            Self::LogLevel => "log-level",
            Self::Stopping => "stopping",
            Self::HandingOver => "handing-over",
            Self::HandedOver => "handed-over",
            Self::HandOverFailed => "hand-over-failed",
        }
    }

    /// Whether strangers cause it at will.
    const fn is_of_sessions(self) -> bool {
        matches!(self, Self::SessionStarted | Self::SessionEnded | Self::SessionRefused)
    }
}

/// What a part says of an event.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    mapping: Option<MappingName>,
    session: Option<u64>,
    client: Option<Text>,
    reason: Option<Cow<'static, str>>,
    message: Text,
}

impl Draft {
    /// An event with this text for people.
    pub(crate) fn new(message: impl Display) -> Self {
        Self::of(Text::now(&message, LONGEST))
    }

    /// The same with a text that is made when it is read. The value is as small as what a session
    /// is known by.
    pub(crate) fn later(message: impl Display + Send + Sync + 'static) -> Self {
        Self::of(Text::later(message, LONGEST))
    }

    fn of(message: Text) -> Self {
        Self { mapping: None, session: None, client: None, reason: None, message }
    }

    /// Names the mapping.
    pub(crate) fn mapping(mut self, name: MappingName) -> Self {
        self.mapping = Some(name);
        self
    }

    /// Names the session.
    pub(crate) fn session(mut self, id: u64) -> Self {
        self.session = Some(id);
        self
    }

    /// Names the client: an address with its port, an address, or a network.
    pub(crate) fn client(mut self, client: impl Display) -> Self {
        self.client = Some(Text::now(&client, LONGEST_WORD));
        self
    }

    /// Names the client by its address with its port. The text is made when it is read.
    pub(crate) fn client_at(mut self, client: SocketAddr) -> Self {
        self.client = Some(Text::client(client));
        self
    }

    /// Says why, in the word of the session line, of a refusal or of a ban.
    pub(crate) fn reason(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        let reason = reason.into();
        self.reason = Some(match reason.len() {
            0..=LONGEST_WORD => reason,
            _ => clean_start(&reason, LONGEST_WORD).into(),
        });
        self
    }
}

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// Its number: one more than that of the event before.
    pub id: u64,
    /// When, by the wall clock.
    pub at: SystemTime,
    /// What it is about.
    pub kind: EventKind,
    /// The mapping.
    pub mapping: Option<MappingName>,
    /// The number of the session.
    pub session: Option<u64>,
    /// The client.
    pub client: Option<Text>,
    /// Why: the word of the session line, of a refusal or of a ban.
    pub reason: Option<Cow<'static, str>>,
    /// A text for people, on one line.
    pub message: Text,
}

/// What a reader follows. There is no gap between the recent events and the next one.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// Events that were asked for and are still known, the oldest first.
    pub recent: Vec<Arc<Event>>,
    /// Events that were asked for and are not known any more.
    pub lost: u64,
    /// What comes next. It tells a slow reader how many events it lost.
    pub next: broadcast::Receiver<Arc<Event>>,
}

/// The bus. Clones lead to the same one. By default it is off.
#[derive(Clone, Debug)]
pub struct Events(Arc<Bus>);

#[derive(Debug)]
struct Bus {
    is_on: AtomicBool,
    state: Mutex<State>,
    refusals: LogLimiter,
    recorders: Recorders,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the last event.
    last: u64,
    /// The last number that an earlier process gave, if it handed its numbers over.
    inherited: u64,
    /// `None` while the bus is off.
    on: Option<On>,
}

#[derive(Debug)]
struct On {
    sessions: VecDeque<Arc<Event>>,
    others: VecDeque<Arc<Event>>,
    readers: broadcast::Sender<Arc<Event>>,
}

impl Default for Events {
    fn default() -> Self {
        let refusals = LogLimiter::new(REFUSALS, Duration::from_secs(1) / REFUSALS);
        Self(Arc::new(Bus {
            is_on: AtomicBool::new(false),
            state: Mutex::default(),
            refusals,
            recorders: Recorders::default(),
        }))
    }
}

impl Events {
    /// Turns the bus on or off. Off, it forgets the recent events and ends its readers. The numbers
    /// go on.
    pub(crate) fn switch(&self, on: bool) {
        let mut state = self.state();
        if on != state.on.is_some() {
            state.on = on.then(On::new);
        }
        self.0.is_on.store(on, Relaxed);
    }

    /// Whether an event goes anywhere.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_on.load(Relaxed)
    }

    /// Makes an event. While the bus is off, `draft` is not called for an event of a session: those
    /// are recorded where they happen.
    #[inline]
    pub(crate) fn emit(&self, kind: EventKind, draft: impl FnOnce() -> Draft) {
        self.emit_numbered(kind, draft);
    }

    /// The same, and returns the number of the event if the bus is on.
    #[inline]
    pub(crate) fn emit_numbered(&self, kind: EventKind, draft: impl FnOnce() -> Draft) -> Option<u64> {
        if self.is_on() || !kind.is_of_sessions() {
            return self.take(kind, draft);
        }
        None
    }

    #[cold]
    fn take(&self, kind: EventKind, draft: impl FnOnce() -> Draft) -> Option<u64> {
        if kind == EventKind::SessionRefused && self.0.refusals.take(Instant::now()).is_none() {
            return None;
        }
        let (at, Draft { mapping, session, client, reason, message }) = (SystemTime::now(), draft());
        let mut event = Event { id: 0, at, kind, mapping, session, client, reason, message };
        let mut state = self.state();
        let State { last, on, .. } = &mut *state;
        if on.is_some() {
            *last += 1;
            event.id = *last;
        }
        let id = on.as_ref().map(|_| event.id);
        let event = Arc::new(event);
        if let Some(on) = on {
            on.keep(&event);
            // Under the lock, so that readers get the events in the order of their numbers. An
            // error means that there is no reader.
            let _ = on.readers.send(Arc::clone(&event));
        }
        drop(state);
        if !kind.is_of_sessions() {
            self.recorder(event.mapping.as_ref()).other(&event, id.is_some());
        }
        id
    }

    /// The flight recorder of a mapping, or of what belongs to no mapping.
    pub(crate) fn recorder(&self, mapping: Option<&MappingName>) -> Arc<Recorder> {
        self.0.recorders.of(mapping)
    }

    /// Every flight recorder, in the order of the names.
    pub(crate) fn recorders(&self) -> Vec<(Option<MappingName>, Arc<Recorder>)> {
        self.0.recorders.all()
    }

    /// Follows the events from now on. With `after`, the known ones behind that number come first;
    /// 0 asks for all of them. A number that this run has not given yet is of an earlier run, and
    /// stands for 0. `None` while the bus is off.
    pub(crate) fn subscribe(&self, after: Option<u64>) -> Option<Subscription> {
        let state = self.state();
        let (last, on) = (state.last, state.on.as_ref()?);
        let after = after.map_or(last, |after| if after > last { 0 } else { after });
        let (mut recent, next) = (on.after(after), on.readers.subscribe());
        // The parts that make events do not wait for more than the copies.
        drop(state);
        recent.sort_unstable_by_key(|event| event.id);
        let lost = (last - after).saturating_sub(recent.len() as u64);
        Some(Subscription { recent, lost, next })
    }

    /// What is handed to the next process: the last number, and the known events behind `after`.
    pub(crate) fn snapshot(&self, after: u64) -> EventsRecord {
        let state = self.state();
        let (last, mut recent) = (state.last, state.on.as_ref().map_or_else(Vec::new, |on| on.after(after)));
        drop(state);
        recent.sort_unstable_by_key(|event| event.id);
        EventsRecord { last, recent: recent.iter().map(|event| EventRecord::of(event)).collect() }
    }

    /// Takes over the numbers and the events of an earlier process: its own events come after them.
    /// It can be called again with what was handed over later. No reader may be there yet, because
    /// numbers change.
    pub(crate) fn take_over(&self, record: &EventsRecord) {
        let mut state = self.state();
        let State { last, inherited, on } = &mut *state;
        // Half of the numbers are enough: the others are for the events to come.
        let Some(more) = record.last.checked_sub(*inherited).filter(|_| record.last < u64::MAX / 2) else {
            tracing::debug!("the numbers of events that were handed over mean nothing here");
            return;
        };
        let before = std::mem::replace(inherited, record.last);
        *last += more;
        let Some(on) = on else { return };
        let known = [std::mem::take(&mut on.sessions), std::mem::take(&mut on.others)];
        let known = known.into_iter().flatten().map(|event| match event.id > before {
            true => Arc::new(Event { id: event.id + more, ..(*event).clone() }),
            false => event,
        });
        let taken = record.recent.iter().filter_map(EventRecord::event).map(Arc::new);
        let taken = taken.filter(|event| (before + 1..=record.last).contains(&event.id));
        let mut all: Vec<_> = known.chain(taken).collect();
        all.sort_by_key(|event| event.id);
        all.dedup_by_key(|event| event.id);
        all.iter().for_each(|event| on.keep(event));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere cannot leave it half-changed: nothing in these sections panics.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl On {
    fn new() -> Self {
        let readers = broadcast::Sender::new(AHEAD);
        Self { sessions: VecDeque::new(), others: VecDeque::new(), readers }
    }

    fn keep(&mut self, event: &Arc<Event>) {
        let (kept, most) = match event.kind.is_of_sessions() {
            true => (&mut self.sessions, RECENT_SESSIONS),
            false => (&mut self.others, RECENT_OTHERS),
        };
        if kept.len() == most {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(event));
    }

    /// The known events behind that number, in no particular order.
    fn after(&self, after: u64) -> Vec<Arc<Event>> {
        let known = self.sessions.iter().chain(&self.others);
        known.filter(|event| event.id > after).cloned().collect()
    }
}

/// What the bus hands to the next process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct EventsRecord {
    /// The number of the last event.
    pub last: u64,
    #[serde(deserialize_with = "lenient::each")]
    recent: Vec<EventRecord>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct EventRecord {
    id: u64,
    at_ms: u64,
    kind: Cow<'static, str>,
    #[serde(default)]
    mapping: Option<MappingName>,
    #[serde(default)]
    session: Option<u64>,
    #[serde(default)]
    client: Option<String>,
    #[serde(default)]
    reason: Option<Cow<'static, str>>,
    message: String,
}

impl EventRecord {
    fn of(event: &Event) -> Self {
        let Event { id, at, kind, mapping, session, client, reason, message } = event.clone();
        let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (at_ms, kind) = (u64::try_from(at.as_millis()).unwrap_or(u64::MAX), kind.as_str().into());
        let (client, message) = (client.map(|client| client.to_string()), message.to_string());
        Self { id, at_ms, kind, mapping, session, client, reason, message }
    }

    /// The event; `None` for a kind that this version does not know.
    fn event(&self) -> Option<Event> {
        let Self { id, at_ms, kind, mapping, session, client, reason, message } = self.clone();
        let kind = EventKind::ALL.into_iter().find(|known| known.as_str() == kind)?;
        // A date has four digits for the year.
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(at_ms.min(LAST_DATE_MS));
        let mut draft = Draft::new(message);
        draft = client.map_or(draft.clone(), |client| draft.client(client));
        draft = reason.map_or(draft.clone(), |reason| draft.reason(reason));
        let Draft { client, reason, message, .. } = draft;
        Some(Event { id, at, kind, mapping, session, client, reason, message })
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast::error::{RecvError, TryRecvError};

    use super::*;

    fn bus() -> Events {
        let events = Events::default();
        events.switch(true);
        events
    }

    fn say(events: &Events, kind: EventKind, count: usize) {
        (0..count).for_each(|n| events.emit(kind, || Draft::new(n)));
    }

    fn ids(subscription: &Subscription) -> Vec<u64> {
        subscription.recent.iter().map(|event| event.id).collect()
    }

    #[tokio::test]
    async fn a_bus_that_is_off_asks_for_no_event_and_keeps_none() {
        let events = Events::default();
        assert_eq!(events.emit_numbered(EventKind::SessionStarted, || unreachable!("the bus is off")), None);
        assert_eq!(events.emit_numbered(EventKind::Stopping, || Draft::new("is recorded")), None);
        assert!(events.subscribe(Some(0)).is_none());
        assert_eq!(events.recorder(None).notes().len(), 1);
        events.switch(true);
        say(&events, EventKind::Listening, 2);
        let mut reader = events.subscribe(None).unwrap();
        events.switch(false);
        events.switch(true);
        say(&events, EventKind::Listening, 1);
        assert_eq!(reader.next.recv().await.unwrap_err(), RecvError::Closed);
        let after = events.subscribe(Some(0)).unwrap();
        assert_eq!((ids(&after), after.lost), (vec![3], 2), "the numbers go on");
    }

    #[tokio::test]
    async fn a_reader_gets_what_is_known_and_then_what_comes_without_a_gap() {
        let events = bus();
        say(&events, EventKind::Listening, 3);
        let mut reader = events.subscribe(Some(1)).unwrap();
        say(&events, EventKind::SessionEnded, 2);
        assert_eq!((ids(&reader), reader.lost), (vec![2, 3], 0));
        assert_eq!(reader.next.recv().await.unwrap().id, 4);
        assert_eq!(reader.next.recv().await.unwrap().id, 5);
        assert_eq!(reader.next.try_recv().unwrap_err(), TryRecvError::Empty);
        assert_eq!(ids(&events.subscribe(None).unwrap()), [0; 0]);
        assert_eq!(ids(&events.subscribe(Some(5)).unwrap()), [0; 0]);
        let of_an_earlier_run = events.subscribe(Some(70)).unwrap();
        assert_eq!((ids(&of_an_earlier_run), of_an_earlier_run.lost), (vec![1, 2, 3, 4, 5], 0));
    }

    #[tokio::test]
    async fn sessions_do_not_push_out_what_an_operator_must_see() {
        let events = bus();
        say(&events, EventKind::TargetDown, 1);
        say(&events, EventKind::SessionStarted, 5 * RECENT_SESSIONS);
        let reader = events.subscribe(Some(0)).unwrap();
        assert_eq!(reader.recent[0].kind, EventKind::TargetDown);
        assert_eq!(reader.recent.len(), 1 + RECENT_SESSIONS);
        assert_eq!(reader.lost, 4 * RECENT_SESSIONS as u64);
        assert!(reader.recent.is_sorted_by_key(|event| event.id));
        say(&events, EventKind::Listening, 2 * RECENT_OTHERS);
        assert_eq!(events.subscribe(Some(0)).unwrap().recent.len(), RECENT_SESSIONS + RECENT_OTHERS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_refusals_is_twenty_events_a_second() {
        let events = bus();
        let mut drafted = 0;
        for _ in 0..10 {
            for _ in 0..1_000 {
                events.emit(EventKind::SessionRefused, || {
                    drafted += 1;
                    Draft::new("refused")
                });
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(drafted, 10 * REFUSALS);
        assert_eq!(events.subscribe(Some(0)).unwrap().lost, 0, "what is left out has no number");
    }

    /// The bus of the next process, which has told `own` events by the time of the hand-over.
    fn next(before: &Events, own: usize) -> Events {
        let next = bus();
        let json = serde_json::to_string(&before.snapshot(0)).unwrap();
        say(&next, EventKind::Listening, own);
        next.take_over(&serde_json::from_str(&json).unwrap());
        next
    }

    #[tokio::test]
    async fn numbers_and_recent_events_go_on_in_the_next_process() {
        let before = bus();
        say(&before, EventKind::Banned, 3);
        say(&before, EventKind::SessionEnded, 2);
        let next = next(&before, 2);
        let ahead = before.snapshot(0).last;
        say(&before, EventKind::Banned, 1);
        next.take_over(&before.snapshot(ahead));
        next.take_over(&before.snapshot(ahead));
        let reader = next.subscribe(Some(2)).unwrap();
        assert_eq!((ids(&reader), reader.lost), (vec![3, 4, 5, 6, 7, 8], 0));
        let kinds: Vec<_> = reader.recent.iter().map(|event| event.kind).collect();
        let (banned, ended, own) = (EventKind::Banned, EventKind::SessionEnded, EventKind::Listening);
        assert_eq!(kinds, [banned, ended, ended, banned, own, own]);
        assert_eq!(reader.recent[0].message.to_string(), "2");
        let mut reader = next.subscribe(None).unwrap();
        say(&next, EventKind::Listening, 1);
        assert_eq!(reader.next.recv().await.unwrap().id, 9);
        let third = self::next(&next, 0);
        assert_eq!(ids(&third.subscribe(Some(0)).unwrap()), (1..=9).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn every_kind_of_event_is_read_back() {
        let (before, mut words) = (bus(), std::collections::BTreeSet::new());
        for kind in EventKind::ALL {
            before.emit(kind, || Draft::new("x").client("192.0.2.1").reason("idle").session(7));
            words.insert(kind.as_str());
        }
        let next = next(&before, 0);
        let (was, is) = (before.subscribe(Some(0)).unwrap().recent, next.subscribe(Some(0)).unwrap().recent);
        assert_eq!((is.len(), words.len()), (EventKind::ALL.len(), EventKind::ALL.len()));
        for (was, is) in was.iter().zip(&is) {
            assert_eq!(
                (was.kind, &was.client, &was.reason, was.session),
                (is.kind, &is.client, &is.reason, is.session)
            );
        }
    }

    #[test]
    fn a_spoilt_record_does_not_panic_and_leaves_room_for_numbers() {
        let before = bus();
        say(&before, EventKind::Banned, 2);
        say(&before, EventKind::SessionEnded, 2);
        crate::fixture::each_spoilt(&before.snapshot(0), |spoilt| {
            let Ok(record) = serde_json::from_value::<EventsRecord>(spoilt) else { return };
            let next = bus();
            say(&next, EventKind::Listening, 2);
            next.take_over(&record);
            say(&next, EventKind::Listening, 1);
            let all = next.subscribe(Some(0)).unwrap();
            assert!(all.recent.is_sorted_by(|a, b| a.id < b.id) && all.recent.len() >= 3);
        });
    }

    #[tokio::test]
    async fn a_slow_reader_learns_how_many_events_it_lost() {
        let events = bus();
        let mut reader = events.subscribe(None).unwrap();
        say(&events, EventKind::SessionEnded, AHEAD + 7);
        assert_eq!(reader.next.recv().await.unwrap_err(), RecvError::Lagged(7));
        assert_eq!(reader.next.recv().await.unwrap().id, 8);
    }

    #[test]
    fn an_event_has_a_bounded_size_and_one_line() {
        let long = "é".repeat(100_000);
        let text = format!("a\nb{long}");
        for draft in [Draft::new(&text), Draft::later(text)] {
            let draft = draft.client(&long).reason(long.clone());
            let message = draft.message.to_string();
            assert!(message.starts_with("a.bé") && message.len() < 1_000);
            assert!(draft.client.unwrap().to_string().len() < 200 && draft.reason.unwrap().len() < 200);
        }
    }
}
