//! The flight recorder: the last events of each mapping, for the question of what went wrong.
//!
//! Owns a [`Recorder`] for each name of a mapping, and one for what belongs to no mapping. It runs
//! at all times, also while the bus is off. Must not know how an event is shown.
//!
//! - A recorder holds [`SESSIONS`] notes of sessions, [`REFUSALS`] of refusals and [`OTHERS`] of
//!   everything else: 256 in all. So a flood of one kind pushes out no other kind.
//! - Refusals of one client for one reason are one note with a count.
//! - A note of a session has a fixed size (at most 160 bytes) and no text. It is made when a
//!   session starts, reaches its target and ends: three short locks for each session, beside that
//!   of the table of live sessions, and none while bytes move. A ring by an atomic index would need
//!   notes that a reader may see half-written.
//! - A recorder without a listener stays for a while, so that the end of a mapping can be read.
//!   [`ORPHANS`] of them stay at most, or as many as there are others.
//!
//! It ends with its last handle. A new process after a hand-over starts with empty recorders.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use super::{Event, EventKind, Text};
use crate::mapping::{MappingName, Protocol};

/// Notes of sessions that a recorder holds.
const SESSIONS: usize = 160;
/// Notes of refusals.
const REFUSALS: usize = 32;
/// Notes of everything else.
const OTHERS: usize = 64;
/// Recorders without a listener that stay.
const ORPHANS: usize = 128;

/// What happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It was admitted.
    Started,
    /// It reached its target.
    Connected {
        /// The target.
        target: SocketAddr,
        /// The time since the client came; a flow needs none.
        took: Option<Duration>,
    },
    /// It ended.
    Ended {
        /// The word of the session line.
        reason: &'static str,
        /// Its age.
        lasted: Duration,
        /// Bytes from the client.
        bytes_in: u64,
        /// Bytes to the client.
        bytes_out: u64,
    },
}

/// An event of a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionNote {
    /// When.
    pub at: SystemTime,
    /// The number of the event on the bus, where it has one.
    pub id: Option<u64>,
    /// The protocol of the listener.
    pub protocol: Protocol,
    /// The number of the session.
    pub session: u64,
    /// The client.
    pub client: SocketAddr,
    /// What happened.
    pub step: Step,
}

/// Refusals of one client for one reason.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RefusalNote {
    /// The first time.
    pub since: SystemTime,
    /// The last time.
    pub at: SystemTime,
    /// The protocol of the listener.
    pub protocol: Protocol,
    /// The client, with its last port.
    pub client: SocketAddr,
    /// The word of the refusal.
    pub reason: &'static str,
    /// How many there were.
    pub count: u64,
}

/// Something else.
#[derive(Clone, Debug)]
pub(crate) struct OtherNote {
    /// When.
    pub at: SystemTime,
    /// The number of the event on the bus, where it has one.
    pub id: Option<u64>,
    /// What it is about.
    pub kind: EventKind,
    /// The client.
    pub client: Option<Text>,
    /// Why.
    pub reason: Option<Cow<'static, str>>,
    /// A text for people.
    pub message: Text,
}

/// Anything that a recorder holds.
#[derive(Clone, Debug)]
pub(crate) enum Note {
    /// Of a session.
    Session(SessionNote),
    /// Of refusals.
    Refusal(RefusalNote),
    /// Of something else.
    Other(OtherNote),
}

impl Note {
    /// When it happened last.
    fn at(&self) -> SystemTime {
        match self {
            Self::Session(note) => note.at,
            Self::Refusal(note) => note.at,
            Self::Other(note) => note.at,
        }
    }
}

/// The recorder of one mapping.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<Rings>);

/// What a recorder holds, each kind in its own ring.
#[derive(Debug, Default)]
struct Rings {
    sessions: VecDeque<SessionNote>,
    refusals: VecDeque<RefusalNote>,
    others: VecDeque<OtherNote>,
}

impl Recorder {
    /// Notes an event of a session.
    pub(crate) fn session(&self, note: SessionNote) {
        push(&mut self.rings().sessions, SESSIONS, note);
    }

    /// Notes a refusal, where possible with earlier ones of the same client.
    pub(crate) fn refusal(&self, protocol: Protocol, client: SocketAddr, reason: &'static str) {
        let at = SystemTime::now();
        let mut rings = self.rings();
        let same = |note: &&mut RefusalNote| note.client.ip() == client.ip() && note.reason == reason;
        match rings.refusals.iter_mut().rev().find(same) {
            Some(note) => {
                (note.at, note.client) = (at, client);
                note.count += 1;
            }
            None => {
                let note = RefusalNote { since: at, at, protocol, client, reason, count: 1 };
                push(&mut rings.refusals, REFUSALS, note);
            }
        }
    }

    /// Notes an event of the bus that is not of a session.
    pub(super) fn other(&self, event: &Event, is_numbered: bool) {
        let Event { id, at, kind, client, reason, message, .. } = event.clone();
        let note = OtherNote { at, id: is_numbered.then_some(id), kind, client, reason, message };
        push(&mut self.rings().others, OTHERS, note);
    }

    /// Everything that it holds, the oldest first.
    pub(crate) fn notes(&self) -> Vec<Note> {
        let rings = self.rings();
        let sessions = rings.sessions.iter().map(|note| Note::Session(*note));
        let refusals = rings.refusals.iter().map(|note| Note::Refusal(*note));
        let others = rings.others.iter().map(|note| Note::Other(note.clone()));
        let mut notes: Vec<_> = sessions.chain(refusals).chain(others).collect();
        drop(rings);
        notes.sort_by_key(Note::at);
        notes
    }

    fn rings(&self) -> MutexGuard<'_, Rings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts a note at the end of a ring that has room for `most`.
fn push<T>(ring: &mut VecDeque<T>, most: usize, note: T) {
    if ring.len() == most {
        ring.pop_front();
    } else if ring.capacity() == 0 {
        // Most mappings of a large configuration have a single one: that they listen.
        ring.reserve_exact(1);
    }
    ring.push_back(note);
}

/// The recorders by the names of their mappings; `None` is for what belongs to no mapping.
#[derive(Debug, Default)]
pub(super) struct Recorders(Mutex<Known>);

/// The recorders that there are.
#[derive(Debug, Default)]
struct Known {
    by_name: HashMap<Option<MappingName>, Arc<Recorder>>,
    /// Unused ones are looked for when there are more than this.
    most: usize,
}

impl Recorders {
    /// The recorder of this name.
    pub(super) fn of(&self, name: Option<&MappingName>) -> Arc<Recorder> {
        let mut known = self.known();
        if let Some(recorder) = known.by_name.get(&name.cloned()) {
            return Arc::clone(recorder);
        }
        known.make_room();
        Arc::clone(known.by_name.entry(name.cloned()).or_default())
    }

    /// All of them, in the order of their names.
    pub(super) fn all(&self) -> Vec<(Option<MappingName>, Arc<Recorder>)> {
        let mut all: Vec<_> =
            self.known().by_name.iter().map(|(name, r)| (name.clone(), r.clone())).collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Forgets recorders that only this table holds, those that were quiet longest. The next look
    /// comes when there are twice as many, so that many mappings cost a look each on average.
    fn make_room(&mut self) {
        if self.by_name.len() < self.most.max(ORPHANS) {
            return;
        }
        let last = |recorder: &Arc<Recorder>| recorder.notes().last().map(Note::at);
        let unused = self.by_name.iter().filter(|(name, r)| name.is_some() && Arc::strong_count(r) == 1);
        let mut unused: Vec<_> = unused.map(|(name, recorder)| (last(recorder), name.clone())).collect();
        unused.sort_unstable();
        for (_, name) in unused.iter().take(unused.len().saturating_sub(ORPHANS / 2)) {
            self.by_name.remove(name);
        }
        self.most = 2 * self.by_name.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: usize) -> SocketAddr {
        let ip = std::net::Ipv4Addr::from(0xcb00_7100 + u32::try_from(n).unwrap());
        (ip, 1000).into()
    }

    fn started(session: u64) -> SessionNote {
        let (at, client) = (SystemTime::now(), client(1));
        SessionNote { at, id: None, protocol: Protocol::Tcp, session, client, step: Step::Started }
    }

    fn event(message: &str) -> Event {
        Event {
            id: 1,
            at: SystemTime::now(),
            kind: EventKind::Router,
            mapping: None,
            session: None,
            client: None,
            reason: None,
            message: Text::now(&message, 400),
        }
    }

    #[test]
    fn a_flood_of_refusals_leaves_sessions_and_other_events() {
        let recorder = Recorder::default();
        recorder.other(&event("opened"), true);
        recorder.session(started(7));
        for n in 0..10_000 {
            recorder.refusal(Protocol::Tcp, client(n), "denied");
        }
        let notes = recorder.notes();
        assert!(matches!(&notes[0], Note::Other(note) if note.message.to_string() == "opened"));
        assert!(matches!(&notes[1], Note::Session(note) if note.session == 7));
        assert_eq!(notes.len(), 2 + REFUSALS);
    }

    #[test]
    fn refusals_of_one_client_for_one_reason_are_one_note() {
        let recorder = Recorder::default();
        for _ in 0..100 {
            recorder.refusal(Protocol::Tcp, client(1), "denied");
            recorder.refusal(Protocol::Tcp, client(2), "denied");
            recorder.refusal(Protocol::Tcp, client(1), "rate");
        }
        let counts: Vec<_> = recorder
            .notes()
            .iter()
            .map(|note| match note {
                Note::Refusal(note) => note.count,
                _ => 0,
            })
            .collect();
        assert_eq!(counts, [100, 100, 100]);
    }

    #[test]
    fn a_recorder_holds_256_notes() {
        let recorder = Recorder::default();
        for n in 0..1000 {
            recorder.session(started(n as u64));
            recorder.refusal(Protocol::Udp, client(n), "full");
            recorder.other(&event("x"), false);
        }
        assert_eq!(recorder.notes().len(), 256);
        assert!(size_of::<SessionNote>() <= 160 && size_of::<RefusalNote>() <= 160);
    }

    #[test]
    fn recorders_of_mappings_that_are_gone_are_bounded_and_those_in_use_stay() {
        let recorders = Recorders::default();
        let name = |n: usize| MappingName::new(&format!("m{n}")).unwrap();
        let used: Vec<_> = (0..300).map(|n| recorders.of(Some(&name(n)))).collect();
        recorders.of(None).other(&event("x"), true);
        (1000..50_000).for_each(|n| drop(recorders.of(Some(&name(n)))));
        let known = recorders.all();
        assert!(known.len() < 1000, "{}", known.len());
        assert!(used.iter().all(|used| known.iter().any(|(_, recorder)| Arc::ptr_eq(used, recorder))));
        assert_eq!(recorders.of(None).notes().len(), 1);
    }
}
