//! Offences and bans.
//!
//! Owns who is banned, until when and why, who has been before, and how many refusals each client has collected. Knows
//! no socket: the code that refuses a client says so. Clients are [`ClientKey`]s, so an IPv6 client is usually banned with its /64.
//!
//! - A client that is refused more often than `refusals` allows is banned for `ban`; whoever touches a trap is banned
//!   at once. Each further ban is twice as long as the one before, up to [`LONGEST`]. That is forgotten after a client
//!   has been quiet for as long as its last ban and [`FORGIVEN`] on top, counted from the end of that ban.
//! - Knocking while banned is neither an offence nor does it prolong the ban.
//! - `exempt` clients are never banned by themselves, nor kept out by the ban that another address of their /64 earned.
//!   The operator's own word is stronger: [`Guard::ban`] takes anyone, for any time, also until further notice.
//! - Without terms (no `[guard]`) nobody is banned automatically, nor kept out by such a ban from before, which counts
//!   again where terms come back before it has ended. The operator's bans hold in any case.
//! - Bans outlive a change of the terms, and, by [`Guard::save`] and [`Guard::load`], the process.
//!
//! Invariants: [`CLIENTS`] bans and as many memories of earlier ones at most, and what ends first makes room; a client has
//! at most one ban; `banned` is the number of bans on the book, so that asking costs one load where there is none. Times
//! are the monotonic clock's (a machine that learns the date late frees nobody by it); the dates that are shown and
//! saved are taken once, when a ban begins.

mod ban;
mod book;
mod lines;
mod state;

use std::{
    net::IpAddr,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
pub(crate) use ban::{Ban, BanReason};
pub(crate) use state::{Restored, StateError};
use tokio::{sync::watch, time::Instant};

use self::{
    book::{Book, End, Past, Sentence},
    lines::Lines,
};
use super::{
    GuardSpec, Rate,
    access::Side,
    rate::{CLIENTS, ClientLimiter, Crowded},
};
use crate::mapping::{ClientKey, canonical};

/// The longest that a ban grows to by repeats (one that begins longer stays as long), and is believed to last when it is
/// read from a file.
pub(super) const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a client must have been quiet after its last ban, besides the length of that ban, to be as new.
const FORGIVEN: Duration = Duration::from_secs(24 * 3600);
/// A ban that is longer has no end: dates have four digits for a year.
const ENDLESS: Duration = Duration::from_secs(1000 * 365 * 24 * 3600);

/// The bans of the daemon.
#[derive(Debug)]
pub struct Guard {
    terms: ArcSwapOption<Terms>,
    book: RwLock<Book>,
    banned: AtomicUsize,
    trap_touches: AtomicU64,
    lines: Lines,
    /// Told when somebody who was allowed may no longer be.
    revision: watch::Sender<u64>,
    /// Told when there is something to save.
    changes: watch::Sender<u64>,
}

/// A [`GuardSpec`], ready to be applied.
#[derive(Debug)]
struct Terms {
    ban: Duration,
    exempt: Side,
    refusals: Arc<ClientLimiter>,
}

impl Default for Guard {
    fn default() -> Self {
        Self::new(watch::Sender::new(0))
    }
}

impl Guard {
    /// A guard without terms and bans, who counts `revision` up for each new ban.
    pub(super) fn new(revision: watch::Sender<u64>) -> Self {
        Self {
            terms: ArcSwapOption::empty(),
            book: RwLock::default(),
            banned: AtomicUsize::new(0),
            trap_touches: AtomicU64::new(0),
            lines: Lines::default(),
            revision,
            changes: watch::Sender::new(0),
        }
    }

    /// Takes other terms; without any there are no automatic bans, and those from before keep nobody out. Bans stay on
    /// the book; refusals so far count on unless their
    /// rate has changed.
    pub(super) fn retune(&self, spec: Option<&GuardSpec>, exempt: Side) {
        let terms = spec.map(|spec| {
            let old = self.terms.load_full().filter(|old| old.refusals.rate() == offences(spec));
            let refusals = old.map_or_else(|| new_limiter(spec), |old| old.refusals.clone());
            Terms { ban: spec.ban, exempt, refusals }.into()
        });
        self.terms.store(terms);
    }

    /// Counts a refusal of `client`, whose address is proven by a handshake. `Some` if it was one too many: it is banned.
    pub fn offence(&self, client: IpAddr, now: Instant) -> Option<Ban> {
        let terms = self.terms.load_full()?;
        let key = ClientKey::of(client);
        if terms.exempt.longest(canonical(client)).is_some()
            || self.keeps_out(client, now)
            || terms.refusals.take(key, now)
        {
            return None;
        }
        terms.refusals.forget(key);
        self.sentence(key, &terms, BanReason::Refusals, now)
    }

    /// Bans `client`, which has touched a trap, and counts that; `None` where it is exempt or banned already, or there are no terms, or the
    /// book is full of bans that end later.
    pub fn trap(&self, client: IpAddr, now: Instant) -> Option<Ban> {
        self.trap_touches.fetch_add(1, Ordering::Relaxed);
        let terms = self.terms.load_full()?;
        let is_exempt = terms.exempt.longest(canonical(client)).is_some();
        if is_exempt { None } else { self.sentence(ClientKey::of(client), &terms, BanReason::Trap, now) }
    }

    /// Bans `client` by the operator's word, exempt or not, in place of any ban it has; without a length until
    /// further notice. It does not count as a repeat.
    pub fn ban(&self, client: IpAddr, length: Option<Duration>, now: Instant) -> Ban {
        let key = ClientKey::of(client);
        let (end, until) = ends(length, now);
        let sentence = Sentence { since: SystemTime::now(), until, reason: BanReason::Operator, repeats: 0 };
        let ban = Ban::new(key, &sentence);
        self.change(|book| book.bans.insist(key, end, sentence));
        lines::operator_banned(key, length);
        self.tell_new_ban();
        ban
    }

    /// Ends the ban of `client` and forgets its offences and earlier bans; `false` where there was no ban.
    pub fn unban(&self, client: IpAddr) -> bool {
        let key = ClientKey::of(client);
        if let Some(terms) = &*self.terms.load() {
            terms.refusals.forget(key);
        }
        let was_banned = self.change(|book| {
            book.past.remove(&key);
            book.bans.remove(&key).is_some()
        });
        self.tell_change();
        if was_banned {
            tracing::info!(client.addr = %key, "client unbanned");
        }
        was_banned
    }

    /// The ban that keeps `client` out.
    pub fn is_banned(&self, client: IpAddr, now: Instant) -> Option<Ban> {
        if self.banned.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let key = ClientKey::of(client);
        let book = self.read();
        let sentence = book.bans.get(&key, now)?;
        self.holds(sentence.reason, client).then(|| Ban::new(key, sentence))
    }

    /// Whether a ban keeps `client` out: what every client is asked first, so nothing is built for the answer.
    pub(super) fn keeps_out(&self, client: IpAddr, now: Instant) -> bool {
        if self.banned.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let reason = self.read().bans.get(&ClientKey::of(client), now).map(|sentence| sentence.reason);
        reason.is_some_and(|reason| self.holds(reason, client))
    }

    /// Every ban that is in force, that which ends first before the others.
    pub fn bans(&self, now: Instant) -> Vec<Ban> {
        let all = self.terms.load().is_some();
        let book = self.read();
        let in_force = book.bans.iter(now).filter(|(_, ban)| all || ban.reason == BanReason::Operator);
        in_force.map(|(client, sentence)| Ban::new(*client, sentence)).collect()
    }

    /// How many connections to traps there were, also of clients who are exempt, or were banned already.
    pub fn trap_touches(&self) -> u64 {
        self.trap_touches.load(Ordering::Relaxed)
    }

    /// Strikes out what has ended; says how many bans that were. Nothing depends on it but memory and the saved file: a
    /// ban that has ended keeps nobody out.
    pub fn expire(&self, now: Instant) -> usize {
        let ended = self.change(|book| book.expire(now));
        if ended > 0 {
            self.tell_change();
        }
        ended
    }

    /// A number that changes with everything that [`Guard::save`] would save.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn sentence(&self, client: ClientKey, terms: &Terms, reason: BanReason, now: Instant) -> Option<Ban> {
        let (sentence, length) = self.change(|book| {
            book.expire(now);
            if book.bans.get(&client, now).is_some() {
                return None;
            }
            let repeats = book.past.get(&client, now).map_or(0, |past| past.bans);
            let length = lengthened(terms.ban, repeats);
            let (end, until) = ends(Some(length), now);
            let sentence = Sentence { since: SystemTime::now(), until, reason, repeats };
            if !book.bans.insert(client, end, sentence.clone()) {
                return None;
            }
            let (forgotten, date) = ends(Some(length.saturating_mul(2).saturating_add(FORGIVEN)), now);
            book.past.insert(client, forgotten, Past { bans: repeats.saturating_add(1), until: date });
            Some((sentence, length))
        })?;
        let ban = Ban::new(client, &sentence);
        self.lines.banned(&ban, length, now);
        self.tell_new_ban();
        Some(ban)
    }

    /// Whether a ban for that reason keeps `client` out, who is on the book with it.
    fn holds(&self, reason: BanReason, client: IpAddr) -> bool {
        let is_exempt = |terms: &Arc<Terms>| terms.exempt.longest(canonical(client)).is_some();
        reason == BanReason::Operator || self.terms.load().as_ref().is_some_and(|terms| !is_exempt(terms))
    }

    fn tell_new_ban(&self) {
        self.tell_change();
        self.revision.send_modify(|revision| *revision = revision.wrapping_add(1));
    }

    fn tell_change(&self) {
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    fn read(&self) -> RwLockReadGuard<'_, Book> {
        self.book.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        let mut book: RwLockWriteGuard<'_, Book> = self.book.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut book);
        self.banned.store(book.bans.len(), Ordering::Relaxed);
        result
    }
}

/// The rate of refusals that is borne: as many at once as in its time.
fn offences(spec: &GuardSpec) -> Rate {
    Rate { burst: spec.refusals.count, ..spec.refusals }
}

fn new_limiter(spec: &GuardSpec) -> Arc<ClientLimiter> {
    ClientLimiter::new(offences(spec), CLIENTS, Crowded::Replace).into()
}

/// How long the ban is that follows `repeats` others.
fn lengthened(first: Duration, repeats: u32) -> Duration {
    let factor = 1_u32.checked_shl(repeats).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(LONGEST.max(first))
}

/// When something of that length ends, by both clocks; a length that no clock can tell has no end.
fn ends(length: Option<Duration>, now: Instant) -> (End, Option<SystemTime>) {
    let length = length.filter(|length| *length < ENDLESS);
    let instant = length.and_then(|length| now.checked_add(length));
    let date = length.and_then(|length| SystemTime::now().checked_add(length));
    instant.zip(date).map_or((End::Never, None), |(instant, date)| (End::At(instant), Some(date)))
}

#[cfg(test)]
mod tests;
