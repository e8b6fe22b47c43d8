//! Offences and bans.
//!
//! Owns the bans (of which client, until when, why), the memory of earlier ones, and how many
//! refusals each client has collected. Knows no socket: the code that refuses a client reports it.
//! Clients are [`ClientKey`]s, so an IPv6 client is usually banned with its /64.
//!
//! - A client that is refused more often than `refusals` allows is banned for `ban`. A client that
//!   touches a trap is banned at once. Each further ban is twice as long as the one before, up to
//!   [`LONGEST`]. The guard forgets earlier bans when the client has been quiet, from the end of
//!   its last ban, for the length of that ban and [`FORGIVEN`].
//! - An attempt of a banned client is not an offence, and does not prolong the ban.
//! - `exempt` clients are never banned automatically, nor kept out by a ban that another address of
//!   their /64 earned. The operator's word is stronger: [`Guard::ban`] takes any client, and whole
//!   networks, for any time, also until further notice.
//! - Without terms (no `[guard]`) there are no automatic bans, and those from before keep out no
//!   client. They count again if terms come back before they have ended. The operator's bans hold
//!   in any case.
//! - Bans outlive a change of the terms, and, by [`Guard::snapshot`] and [`Guard::restore`], the
//!   process.
//!
//! Invariants: [`CLIENTS`] bans of clients and as many memories of earlier ones at most, and few
//! bans of networks; the entry that ends first makes room. A client has at most one ban. `banned`
//! is the number of bans in the table, so that a check costs one load where there is none. The
//! guard reads no clock and no disk. Times are arguments, of the monotonic clock: a machine that
//! learns the date late ends no ban by it. The dates that are shown and saved are taken once, when
//! a ban begins, from the `dates` that the guard was made with. So an admission does not pay for a
//! date.

mod ban;
mod lines;
mod nets;
mod record;
mod snapshot;
mod table;

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
use ipnet::IpNet;
pub(crate) use record::GuardRecord;
pub(crate) use snapshot::{GuardSnapshot, Restored};
use tokio::{sync::watch, time::Instant};

use self::{
    ban::{Banned, End, PastBans},
    lines::Lines,
    table::BanTable,
};
use super::{
    GuardSpec, Rate,
    access::{Side, entry::canonical_net},
    rate::{CLIENTS, ClientLimiter, Crowded},
};
use crate::{
    events::{Draft, EventKind, Events},
    mapping::{ClientKey, canonical},
    text::clean_start,
};

/// The longest that a ban grows to by repeats; a first ban may be longer. A ban of a snapshot lasts
/// no longer, either.
pub(super) const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a client must have been quiet after its last ban, besides the length of that ban, until
/// that is forgotten.
const FORGIVEN: Duration = Duration::from_secs(24 * 3600);
/// The longest note of an operator, in characters.
const LONGEST_NOTE: usize = 200;
/// A ban that is longer has no end: dates have four digits for a year.
const ENDLESS: Duration = Duration::from_secs(1000 * 365 * 24 * 3600);

/// The bans of the daemon.
#[derive(Debug)]
pub struct Guard {
    terms: ArcSwapOption<GuardTerms>,
    table: RwLock<BanTable>,
    banned: AtomicUsize,
    trap_touches: AtomicU64,
    lines: Lines,
    /// Changes when a client that was allowed may not be allowed any more.
    revision: watch::Sender<u64>,
    /// Changes when a snapshot would.
    changes: watch::Sender<u64>,
    /// Tells the date.
    dates: fn() -> SystemTime,
    events: Events,
}

/// A [`GuardSpec`], ready to be applied.
#[derive(Debug)]
struct GuardTerms {
    ban: Duration,
    exempt: Side,
    refusals: Arc<ClientLimiter>,
}

impl Guard {
    /// A guard without terms and bans. It counts `revision` up for each new ban, and has its dates
    /// from `dates`. It tells `events` of the bans that the log has.
    pub(super) fn new(revision: watch::Sender<u64>, dates: fn() -> SystemTime, events: Events) -> Self {
        Self {
            terms: ArcSwapOption::empty(),
            table: RwLock::default(),
            banned: AtomicUsize::new(0),
            trap_touches: AtomicU64::new(0),
            lines: Lines::default(),
            revision,
            changes: watch::Sender::new(0),
            dates,
            events,
        }
    }

    /// Takes other terms. Without any there are no automatic bans, and those from before keep out
    /// no client. Bans stay in the table. Earlier refusals still count, unless their rate has
    /// changed.
    pub(super) fn retune(&self, spec: Option<&GuardSpec>, exempt: Side) {
        let terms = spec.map(|spec| {
            // As many at once as in its time.
            let rate = Rate { burst: spec.refusals.count, ..spec.refusals };
            let old = self.terms.load_full().filter(|old| old.refusals.rate() == rate);
            let new = || ClientLimiter::new(rate, CLIENTS, Crowded::Replace).into();
            let refusals = old.map_or_else(new, |old| old.refusals.clone());
            GuardTerms { ban: spec.ban, exempt, refusals }.into()
        });
        self.terms.store(terms);
    }

    /// Counts a refusal of `client`, whose address is proven by a handshake. `Some` if it was one
    /// too many: it is banned.
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
        self.ban_automatically(key, &terms, BanReason::Refusals, now)
    }

    /// Bans `client`, which has touched a trap, and counts that. `None` where it is exempt or
    /// banned already, where there are no terms, or where the table is full of bans that end later.
    pub fn trap(&self, client: IpAddr, now: Instant) -> Option<Ban> {
        self.trap_touches.fetch_add(1, Ordering::Relaxed);
        let terms = self.terms.load_full()?;
        let is_exempt = terms.exempt.longest(canonical(client)).is_some();
        if is_exempt {
            return None;
        }
        self.ban_automatically(ClientKey::of(client), &terms, BanReason::Trap, now)
    }

    /// Bans `client` by the operator's word, as [`Guard::ban_net`] does.
    pub fn ban(&self, client: IpAddr, length: Option<Duration>, now: Instant) -> Ban {
        self.ban_net(client.into(), length, None, now)
    }

    /// Bans the clients of a network by the operator's word, exempt or not, in place of any ban
    /// that it has; without a length until further notice. It does not count as a repeat. A single
    /// address stands for its client.
    pub(crate) fn ban_net(
        &self,
        net: IpNet,
        length: Option<Duration>,
        note: Option<&str>,
        now: Instant,
    ) -> Ban {
        let (client, date) = (Banned::of(canonical_net(net)), self.date());
        let (end, until) = ends(length, now, date);
        let note = note.map(|note| clean_start(note, LONGEST_NOTE)).filter(|note| !note.is_empty());
        let ban = Ban { client, since: date, until, reason: BanReason::Operator, repeats: 0, note };
        self.change(|table| match client {
            Banned::Client(client) => table.bans.insist(client, end, ban.clone()),
            Banned::Net(net) => table.nets.insist(net, end, ban.clone()),
        });
        lines::operator_banned(&ban, length, &self.events);
        self.tell_new_ban();
        ban
    }

    /// Ends the ban of `client`, as [`Guard::unban_net`] does.
    pub fn unban(&self, client: IpAddr) -> bool {
        self.unban_net(client.into())
    }

    /// Ends the ban of exactly this network; `false` where there was none. Of a client, it forgets
    /// the offences and earlier bans, too.
    pub(crate) fn unban_net(&self, net: IpNet) -> bool {
        let client = Banned::of(canonical_net(net));
        if let (Some(terms), Banned::Client(key)) = (&*self.terms.load(), client) {
            terms.refusals.forget(key);
        }
        let was_banned = self.change(|table| match client {
            Banned::Client(key) => {
                table.past.remove(&key);
                table.bans.remove(&key).is_some()
            }
            Banned::Net(net) => table.nets.remove(net),
        });
        self.tell_change();
        if was_banned {
            tracing::info!(client.addr = %client, "client unbanned");
            self.events.emit(EventKind::Unbanned, || {
                Draft::new(format_args!("an operator ended the ban of {client}")).client(client)
            });
        }
        was_banned
    }

    /// The bans in force, those of networks last; of each kind the one that ends first comes first.
    pub(crate) fn bans(&self, now: Instant) -> Vec<Ban> {
        let all = self.terms.load().is_some();
        let table = self.read();
        table.bans(now).filter(|ban| all || ban.reason == BanReason::Operator).cloned().collect()
    }

    /// Whether a ban keeps `client` out. Every client is asked this first, so the answer allocates
    /// nothing.
    pub(super) fn keeps_out(&self, client: IpAddr, now: Instant) -> bool {
        if self.banned.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let table = self.read();
        // An operator's ban of the network holds, whatever becomes of the client's own.
        if table.nets.holding(canonical(client), now).is_some() {
            return true;
        }
        let reason = table.bans.get(&ClientKey::of(client), now).map(|ban| ban.reason);
        drop(table);
        reason.is_some_and(|reason| self.holds(reason, client))
    }

    /// Removes what has ended; says how many bans that were. Only memory and the snapshot depend on
    /// it: a ban that has ended keeps out no client.
    pub fn expire(&self, now: Instant) -> usize {
        let ended = self.change(|table| table.expire(now));
        if ended > 0 {
            self.tell_change();
        }
        ended
    }

    /// How many bans have not ended.
    pub(crate) fn count(&self, now: Instant) -> usize {
        self.read().bans.count(now)
    }

    /// How many connections to traps there were, also of clients that are exempt or banned already.
    pub(crate) fn trap_touches(&self) -> u64 {
        self.trap_touches.load(Ordering::Relaxed)
    }

    /// A number that changes with [`Guard::snapshot`].
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn ban_automatically(
        &self,
        client: ClientKey,
        terms: &GuardTerms,
        reason: BanReason,
        now: Instant,
    ) -> Option<Ban> {
        let date = self.date();
        let (ban, length) = self.change(|table| {
            table.expire(now);
            if table.bans.get(&client, now).is_some() {
                return None;
            }
            let repeats = table.past.get(&client, now).map_or(0, |past| past.bans);
            let length = lengthened(terms.ban, repeats);
            let (end, until) = ends(Some(length), now, date);
            let banned = Banned::Client(client);
            let ban = Ban { client: banned, since: date, until, reason, repeats, note: None };
            if !table.bans.insert(client, end, ban.clone()) {
                return None;
            }
            let remembered = length.saturating_mul(2).saturating_add(FORGIVEN);
            let (forgotten, until) = ends(Some(remembered), now, date);
            let past = PastBans { client, bans: repeats.saturating_add(1), until };
            table.past.insert(client, forgotten, past);
            Some((ban, length))
        })?;
        self.lines.banned(&ban, length, now, &self.events);
        self.tell_new_ban();
        Some(ban)
    }

    /// Whether a ban in the table, for that reason, keeps `client` out.
    fn holds(&self, reason: BanReason, client: IpAddr) -> bool {
        let is_exempt = |terms: &Arc<GuardTerms>| terms.exempt.longest(canonical(client)).is_some();
        reason == BanReason::Operator || self.terms.load().as_ref().is_some_and(|terms| !is_exempt(terms))
    }

    fn tell_new_ban(&self) {
        self.tell_change();
        self.revision.send_modify(|revision| *revision = revision.wrapping_add(1));
    }

    fn tell_change(&self) {
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    fn date(&self) -> SystemTime {
        (self.dates)()
    }

    fn read(&self) -> RwLockReadGuard<'_, BanTable> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut BanTable) -> T) -> T {
        let mut table: RwLockWriteGuard<'_, BanTable> =
            self.table.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut table);
        self.banned.store(table.len(), Ordering::Relaxed);
        result
    }
}

/// How long the ban is that follows `repeats` others.
fn lengthened(first: Duration, repeats: u32) -> Duration {
    let factor = 1_u32.checked_shl(repeats).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(LONGEST.max(first))
}

/// When something of that length ends, by both clocks; a length that a clock cannot tell has no
/// end.
fn ends(length: Option<Duration>, now: Instant, date: SystemTime) -> (End, Option<SystemTime>) {
    let length = length.filter(|length| *length < ENDLESS);
    let instant = length.and_then(|length| now.checked_add(length));
    let until = length.and_then(|length| date.checked_add(length));
    instant.zip(until).map_or((End::Never, None), |(instant, until)| (End::At(instant), Some(until)))
}

#[cfg(test)]
mod tests;
