//! Knocks: which are true, and what follows.
//!
//! Owns the terms (`[knock]`), the grants, the memory of knocks that were taken, and the counts of
//! false ones. Touches no socket and reads no clock: a datagram, its source and the times are
//! arguments. The form of a datagram is in [`crate::knock`].
//!
//! - The cheap checks come first: length, version, tag, time, then whether it was taken before.
//!   Only what passes them costs an operation on a curve, and [`PER_SECOND`] bounds these. A
//!   stranger cannot make a datagram that passes, so a flood of its own locks out no key. Each
//!   source has a share beside that ([`PER_CLIENT`]).
//! - A false knock is counted by its reason and bans no one: its source may be forged.
//! - A key or a sequence that a reload removes loses its grants.
//! - Grants and taken knocks outlive the process by [`Knocks::snapshot`] and [`Knocks::restore`].
//!
//! A check of a client costs one load where nothing is granted.

mod replay;
mod sequence;
mod spec;

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
pub(crate) use sequence::Port;
use serde::{Deserialize, Serialize};
pub(crate) use spec::{KnockKey, KnockSpec, ServerSecret};
use tokio::{sync::watch, time::Instant};

use self::{replay::Taken, sequence::Progress};
use super::{
    Rate,
    grants::{Grant, Grants},
    rate::{CLIENTS, ClientLimiter, Crowded, Limiter},
};
#[cfg(feature = "knock")]
pub(crate) use crate::knock::False;
#[cfg(feature = "knock")]
use crate::knock::{Lock, millis};
use crate::{
    events::{Draft, EventKind, Events},
    handover::lenient,
    mapping::{ClientKey, canonical},
};

/// Datagrams that are opened in a second, in all and of one client.
const PER_SECOND: u32 = 100;
/// The same of one client.
const PER_CLIENT: u32 = 5;
/// What stands for a key where the sequence opened.
const SEQUENCE: &str = "(sequence)";

/// Why a knock is false, for the counters.
#[cfg(not(feature = "knock"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum False {
    /// Nothing here can open it.
    Malformed,
}

#[cfg(not(feature = "knock"))]
fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl False {
    /// Every reason.
    #[cfg(feature = "knock")]
    pub(crate) const ALL: &[Self] =
        &[Self::Malformed, Self::Old, Self::Replayed, Self::UnknownKey, Self::OtherAddress, Self::TooMany];
    /// Every reason.
    #[cfg(not(feature = "knock"))]
    pub(crate) const ALL: &[Self] = &[Self::Malformed];

    /// The word of log lines and metric labels.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            #[cfg(feature = "knock")]
            Self::Old => "old",
            #[cfg(feature = "knock")]
            Self::Replayed => "replayed",
            #[cfg(feature = "knock")]
            Self::UnknownKey => "unknown-key",
            #[cfg(feature = "knock")]
            Self::OtherAddress => "other-address",
            #[cfg(feature = "knock")]
            Self::TooMany => "too-many",
        }
    }
}

/// The knocks of the daemon.
#[derive(Debug)]
pub(crate) struct Knocks {
    terms: ArcSwapOption<Terms>,
    grants: RwLock<Grants>,
    /// How many grants there are.
    granted: AtomicUsize,
    taken: Mutex<Taken>,
    progress: Mutex<Progress>,
    accepted: AtomicU64,
    falses: [AtomicU64; 6],
    /// Changes when a snapshot would.
    changes: watch::Sender<u64>,
    dates: fn() -> SystemTime,
    events: Events,
}

/// A [`KnockSpec`], ready to be applied.
#[derive(Debug)]
struct Terms {
    spec: KnockSpec,
    #[cfg(feature = "knock")]
    lock: Option<Lock>,
    all: Limiter,
    per_client: ClientLimiter,
}

impl Terms {
    fn new(spec: &KnockSpec) -> Self {
        let rate = |count: u32| {
            let count = std::num::NonZeroU32::new(count).expect("a rate is not 0");
            Rate { count, per: Duration::from_secs(1), burst: count }
        };
        Self {
            #[cfg(feature = "knock")]
            lock: spec
                .secret
                .as_ref()
                .map(|secret| Lock::new(&secret.0, spec.keys.iter().map(|key| &key.public))),
            spec: spec.clone(),
            all: Limiter::new(rate(PER_SECOND)),
            per_client: ClientLimiter::new(rate(PER_CLIENT), CLIENTS, Crowded::Replace),
        }
    }

    /// Whether what opened this grant still does.
    fn knows(&self, grant: &Grant) -> bool {
        self.spec.keys.iter().any(|key| key.name == grant.key)
            || (*grant.key == *SEQUENCE && !self.spec.sequence.is_empty())
    }
}

impl Knocks {
    /// No terms and no grants. `dates` tells the date, and `events` hears of grants.
    pub(super) fn new(dates: fn() -> SystemTime, events: Events) -> Self {
        Self {
            terms: ArcSwapOption::empty(),
            grants: RwLock::default(),
            granted: AtomicUsize::new(0),
            taken: Mutex::default(),
            progress: Mutex::default(),
            accepted: AtomicU64::new(0),
            falses: Default::default(),
            changes: watch::Sender::new(0),
            dates,
            events,
        }
    }

    /// Takes other terms. Grants stay, but for those of keys that are gone or have changed.
    pub(super) fn retune(&self, spec: Option<&KnockSpec>) {
        let before = self.terms.load_full();
        if before.as_ref().map(|terms| &terms.spec) == spec {
            return;
        }
        let terms = spec.map(|spec| Arc::new(Terms::new(spec)));
        self.terms.store(terms.clone());
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.clear();
        drop(progress);
        // Before the first terms, what is there was restored for them.
        let has_changed = |grant: &Grant| {
            let public = |terms: &Terms| {
                terms.spec.keys.iter().find(|key| key.name == grant.key).map(|key| key.public)
            };
            let (old, new) = (before.as_deref().map(public), terms.as_deref().map(public));
            before.is_some() && old != new
        };
        let stays =
            |grant: &Grant| terms.as_ref().is_some_and(|terms| terms.knows(grant)) && !has_changed(grant);
        if self.change(|grants| grants.retain(stays)) {
            self.tell_change();
            tracing::info!("grants of keys that were removed have ended");
        }
    }

    /// Whether a client was let in. Every client of a mapping with `knock = true` is asked this, so
    /// the answer allocates nothing.
    pub(super) fn has(&self, client: IpAddr, now: Instant) -> bool {
        self.granted.load(Relaxed) > 0
            && self.grants.read().unwrap_or_else(PoisonError::into_inner).has(client, now)
    }

    /// Whether any client is let in.
    pub(crate) fn any(&self) -> bool {
        self.granted.load(Relaxed) > 0
    }

    /// The grants in force; the one that ends first comes first.
    pub(crate) fn grants(&self, now: Instant) -> Vec<Grant> {
        let mut all = self.grants.read().unwrap_or_else(PoisonError::into_inner).all();
        all.retain(|grant| grant.ends > now);
        all
    }

    /// A datagram has come to the port of knocks.
    ///
    /// # Errors
    /// Why it is false. It is counted.
    pub(crate) fn knock(&self, datagram: &[u8], source: IpAddr, now: Instant) -> Result<(), False> {
        self.judge(datagram, canonical(source), now).inspect_err(|why| {
            self.falses[*why as usize].fetch_add(1, Relaxed);
        })
    }

    #[cfg(not(feature = "knock"))]
    #[expect(clippy::unused_self, reason = "the one that opens them needs it")]
    fn judge(&self, _: &[u8], _: IpAddr, _: Instant) -> Result<(), False> {
        Err(False::Malformed)
    }

    #[cfg(feature = "knock")]
    fn judge(&self, datagram: &[u8], source: IpAddr, now: Instant) -> Result<(), False> {
        let terms = self.terms.load();
        let (Some(terms), date) = (&*terms, (self.dates)()) else { return Err(False::Malformed) };
        let Some(lock) = &terms.lock else { return Err(False::Malformed) };
        let said = lock.look(datagram, date)?;
        let nonce = said.nonce();
        if self.taken().has(&nonce) {
            return Err(False::Replayed);
        }
        if !terms.per_client.take(ClientKey::of(source), now) || !terms.all.take(now) {
            return Err(False::TooMany);
        }
        let opened = lock.open(said)?;
        // Also where the address is wrong: no one else may try with it from another one.
        if !self.taken().enter(&nonce, said.time(), millis(date)) {
            return Err(False::Replayed);
        }
        self.tell_change();
        if opened.address.is_some_and(|wanted| wanted != source) {
            return Err(False::OtherAddress);
        }
        let key = terms.spec.keys.get(opened.key).ok_or(False::UnknownKey)?;
        self.grant(source, &key.name, terms.spec.open_for, now, date);
        Ok(())
    }

    /// A client has touched a port of the sequence. Returns whether it is let in by that.
    pub(crate) fn touch(&self, port: Port, source: IpAddr, now: Instant) -> bool {
        let terms = self.terms.load();
        let Some(terms) = &*terms else { return false };
        let source = canonical(source);
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let is_open = progress.touch(&terms.spec.sequence, ClientKey::of(source), port, now);
        drop(progress);
        if is_open {
            self.grant(source, &SEQUENCE.into(), terms.spec.open_for, now, (self.dates)());
        }
        is_open
    }

    fn grant(&self, client: IpAddr, key: &Arc<str>, length: Duration, now: Instant, date: SystemTime) {
        self.accepted.fetch_add(1, Relaxed);
        let is_new = self.change(|grants| grants.open(client, key, length, (now, date)));
        self.tell_change();
        let until = humantime::format_rfc3339_seconds(date + length);
        if is_new {
            tracing::info!(client.addr = %client, key = %key, %until, "knock accepted");
            self.events.emit(EventKind::KnockAccepted, || {
                let message = format_args!("the key {key} lets {client} in until {until}");
                Draft::new(message).client(client).reason(key.to_string())
            });
        } else {
            tracing::debug!(client.addr = %client, key = %key, %until, "knock accepted again");
        }
    }

    /// Ends the grant of a client before its time. Its sessions go on. Returns whether it had one.
    pub(crate) fn end(&self, client: IpAddr, now: Instant) -> bool {
        let client = canonical(client);
        let had = self.change(|grants| grants.end(client, now));
        if had {
            self.tell_change();
            tracing::info!(client.addr = %client, "grant ended by an operator");
            self.events.emit(EventKind::KnockEnded, || {
                Draft::new(format_args!("an operator ended the grant of {client}")).client(client)
            });
        }
        had
    }

    /// Removes grants that have ended. Returns when the next one ends.
    pub(crate) fn expire(&self, now: Instant) -> Option<Instant> {
        if self.granted.load(Relaxed) == 0 {
            return None;
        }
        if self.change(|grants| grants.expire(now)) {
            self.tell_change();
            self.events.emit(EventKind::KnockEnded, || Draft::new("the time of a knock is over"));
        }
        self.grants.read().unwrap_or_else(PoisonError::into_inner).first_end()
    }

    /// How many knocks were accepted.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// How many false knocks there were, by their reasons.
    pub(crate) fn falses(&self) -> impl Iterator<Item = (False, u64)> {
        False::ALL.iter().map(|why| (*why, self.falses[*why as usize].load(Relaxed)))
    }

    /// A number that changes with [`Knocks::snapshot`].
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Where it is kept.
    pub(crate) fn state(&self) -> Option<std::path::PathBuf> {
        self.terms.load().as_ref()?.spec.state.clone()
    }

    /// What outlives the process.
    pub(crate) fn snapshot(&self, now: Instant) -> KnockSnapshot {
        let mut taken = self.taken();
        taken.forget(millis((self.dates)()));
        let taken = taken.clone();
        let grants = self.grants(now).into_iter().map(|grant| GrantRecord {
            client: grant.client,
            key: grant.key,
            until_ms: millis(grant.until),
            knocks: grant.knocks,
        });
        KnockSnapshot { grants: grants.collect(), taken }
    }

    /// Takes back what an earlier process has saved. It may come before the terms.
    pub(crate) fn restore(&self, snapshot: KnockSnapshot, now: Instant) {
        let date = (self.dates)();
        self.taken().add(snapshot.taken, millis(date));
        let terms = self.terms.load_full();
        self.change(|grants| {
            for record in snapshot.grants {
                let left = Duration::from_millis(record.until_ms.saturating_sub(millis(date)));
                // A date of the far future is a damaged one.
                let longest = terms.as_ref().map_or(LONGEST, |terms| terms.spec.open_for);
                let left = left.min(longest);
                let GrantRecord { client, key, knocks, .. } = record;
                let grant =
                    Grant { client: canonical(client), key, ends: now + left, until: date + left, knocks };
                if !left.is_zero() && terms.as_ref().is_none_or(|terms| terms.knows(&grant)) {
                    grants.restore(grant);
                }
            }
        });
        self.tell_change();
    }

    fn tell_change(&self) {
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Grants) -> T) -> T {
        let mut grants = self.grants.write().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut grants);
        self.granted.store(grants.len(), Relaxed);
        changed
    }
}

/// The longest time of a grant.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Grants and taken knocks, as they are saved and handed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct KnockSnapshot {
    #[serde(deserialize_with = "lenient::each")]
    grants: Vec<GrantRecord>,
    taken: Taken,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct GrantRecord {
    client: IpAddr,
    key: Arc<str>,
    until_ms: u64,
    knocks: u64,
}

#[cfg(feature = "knock")]
#[cfg(test)]
mod tests;
