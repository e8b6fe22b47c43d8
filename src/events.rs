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

mod kind;
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

pub(crate) use kind::EventKind;
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
mod tests;
