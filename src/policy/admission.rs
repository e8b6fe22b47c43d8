//! Decides on every client of a mapping, and counts its sessions.
//!
//! Owns the places of the live sessions ([`Permit`]), the state of the rates, and the count of
//! refusals. The checks run in this order:
//!
//! 1. Is the client banned? 2. Do the lists and countries allow it? 3. With `knock = true`: has it
//!    knocked? 4. Its own rate. 5. The mapping's rate. 6. Its own cap. 7. The mapping's cap.
//! 8. With UDP, its rate of datagrams, for the one that it came with.
//!
//! The client's own limits come first. So a client that floods gets that reason, commits an
//! offence, and is banned in the end, however full it has made the mapping. A refused client gets
//! back what earlier checks took: only real sessions count against a rate, and refused attempts use
//! up nothing. If the table of clients is full, the share of its networks decides on a newcomer.
//! Such a refusal has the reason of a full mapping, because the client did not cause it.
//!
//! TCP and UDP count apart, each with the whole of the caps and session rates. The sender of a
//! datagram may be forged, and forged datagrams must not use up the places of the real client's
//! connections.
//!
//! The policy can change while sessions live ([`Admission::retune`]): they stay counted, and an
//! unchanged rate keeps its state. It logs nothing. The relay knows the session and writes a line
//! for each refusal, and a [`Summary`] now and then.

mod record;
mod summary;

use std::{net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
pub(crate) use record::{RatesRecord, RefusalsRecord};
pub(crate) use summary::Summary;
use tokio::time::Instant;

use self::summary::Refusals;
use super::{
    Gate, Permit, Policy, Rate, Rates, Refusal, Refuse,
    access::{Access, PartAccess},
    quota::Quota,
    rate::{CLIENTS, ClientLimiter, Crowded, Limiter},
};
use crate::mapping::{ClientKey, Protocol, canonical};

/// Decides on the clients of a mapping, over all its listeners.
#[derive(Debug)]
pub struct Admission {
    gate: Arc<Gate>,
    terms: ArcSwap<AdmissionTerms>,
    quotas: ByProtocol<Arc<Quota>>,
    refusals: Refusals,
}

/// A [`Policy`], ready to be applied.
#[derive(Debug)]
struct AdmissionTerms {
    access: Access,
    sessions: ByProtocol<SessionRates>,
    datagrams_per_client: Option<Arc<ClientLimiter>>,
    refuse: Refuse,
    /// Only clients that knocked may enter.
    knock: bool,
}

/// The rates of new sessions of one protocol.
#[derive(Debug)]
struct SessionRates {
    of_all: Option<Arc<Limiter>>,
    per_client: Option<Arc<ClientLimiter>>,
}

/// Something that TCP has, and UDP.
#[derive(Debug)]
struct ByProtocol<T> {
    tcp: T,
    udp: T,
}

impl<T> ByProtocol<T> {
    fn of(&self, protocol: Protocol) -> &T {
        match protocol {
            Protocol::Tcp => &self.tcp,
            Protocol::Udp => &self.udp,
        }
    }
}

impl Admission {
    /// An admission without sessions.
    pub fn new(policy: &Arc<Policy>, gate: &Arc<Gate>) -> Arc<Self> {
        Arc::new(Self {
            terms: ArcSwap::from_pointee(AdmissionTerms::new(policy, gate, None)),
            quotas: ByProtocol { tcp: Quota::new(&policy.caps), udp: Quota::new(&policy.caps) },
            gate: gate.clone(),
            refusals: Refusals::default(),
        })
    }

    /// Takes a changed policy. Live sessions stay and stay counted. [`Admission::recheck`] says
    /// which of them must end.
    pub fn retune(&self, policy: &Arc<Policy>) {
        let before = self.terms.load_full();
        self.terms.store(Arc::new(AdmissionTerms::new(policy, &self.gate, Some(&before))));
        self.quotas.tcp.retune(&policy.caps);
        self.quotas.udp.retune(&policy.caps);
    }

    /// Lets a client in, or says why not; the refusal is counted. A refused TCP client has
    /// committed an offence. A UDP client comes with a datagram, which counts as one that
    /// [`Admission::datagrams`] was asked about.
    ///
    /// # Errors
    /// Why it may not enter.
    pub fn admit(
        self: &Arc<Self>,
        client: IpAddr,
        protocol: Protocol,
        now: Instant,
    ) -> Result<Permit, Refusal> {
        self.admit_or_make_way(client, protocol, now, &mut |_| false)
    }

    /// The same, but before a cap refuses, it calls `make_way` with the refusal. `true` means that
    /// a session has given its place back, so the cap is checked once more.
    ///
    /// # Errors
    /// Why it may not enter.
    pub fn admit_or_make_way(
        self: &Arc<Self>,
        client: IpAddr,
        protocol: Protocol,
        now: Instant,
        make_way: &mut dyn FnMut(Refusal) -> bool,
    ) -> Result<Permit, Refusal> {
        let client = canonical(client);
        let terms = self.terms.load();
        let quota = self.quotas.of(protocol);
        self.may_be_here(&terms, client, now)
            .and_then(|()| self.has_knocked(&terms, client, now))
            .and_then(|()| terms.enter(quota, ClientKey::of(client), protocol, now, make_way))
            .inspect_err(|refusal| {
                self.refusals.count(*refusal, 1);
                // The sender of a datagram may be forged: a ban for it would be a weapon.
                if protocol == Protocol::Tcp && refusal.is_offence() {
                    self.gate.guard().offence(client, now);
                }
            })
    }

    /// A permit for a session that another process admitted and hands over. It counts against the
    /// caps, which cannot refuse it, and takes nothing of a rate.
    pub fn take_over(&self, client: IpAddr, protocol: Protocol) -> Permit {
        self.quotas.of(protocol).take_over(ClientKey::of(canonical(client)))
    }

    /// Lets a peer in that comes for clients and says which one: it may not be banned. The client
    /// is admitted later. A refusal is counted.
    ///
    /// # Errors
    /// That it is banned.
    pub fn admit_peer(&self, peer: IpAddr, now: Instant) -> Result<(), Refusal> {
        if self.gate.guard().keeps_out(canonical(peer), now) {
            self.refusals.count(Refusal::Banned, 1);
            return Err(Refusal::Banned);
        }
        Ok(())
    }

    /// Lets an admitted TCP client into a part of the mapping, or says why not. The refusal counts
    /// as one of [`Admission::admit`]: the client has used up nothing.
    ///
    /// # Errors
    /// Why it may not enter.
    pub fn admit_to(&self, part: &PartAccess, client: IpAddr, now: Instant) -> Result<(), Refusal> {
        let client = canonical(client);
        let Some(access) = part.access(|name| self.gate.list(name)) else { return Ok(()) };
        access.decide(client, || self.gate.countries()).inspect_err(|refusal| {
            self.terms.load().sessions.tcp.give_back(ClientKey::of(client));
            self.refusals.count(*refusal, 1);
            if refusal.is_offence() {
                self.gate.guard().offence(client, now);
            }
        })
    }

    /// How many of `datagrams` that a client inside has sent may pass; the others are counted as
    /// refused.
    pub fn datagrams(&self, client: IpAddr, datagrams: u32, now: Instant) -> u32 {
        let terms = self.terms.load();
        let Some(limiter) = &terms.datagrams_per_client else { return datagrams };
        let passed = limiter.take_up_to(ClientKey::of(client), datagrams, now);
        if passed < datagrams {
            self.refusals.count(Refusal::DatagramRate, u64::from(datagrams - passed));
        }
        passed
    }

    /// Whether [`Admission::datagrams`] can refuse any.
    pub fn limits_datagrams(&self) -> bool {
        self.terms.load().datagrams_per_client.is_some()
    }

    /// Whether a client inside may stay: bans, lists and countries, never rates. Not counted as a
    /// refusal.
    ///
    /// # Errors
    /// Why it may not.
    pub fn recheck(&self, client: IpAddr, now: Instant) -> Result<(), Refusal> {
        self.may_be_here(&self.terms.load(), canonical(client), now)
    }

    /// Whether a client inside a part of the mapping may stay there; see [`Admission::recheck`].
    ///
    /// # Errors
    /// Why it may not.
    pub fn recheck_in(&self, part: &PartAccess, client: IpAddr) -> Result<(), Refusal> {
        match part.access(|name| self.gate.list(name)) {
            Some(access) => access.decide(canonical(client), || self.gate.countries()),
            None => Ok(()),
        }
    }

    /// What a refused TCP client gets.
    pub fn refuse(&self) -> Refuse {
        self.terms.load().refuse
    }

    /// What was refused since the last summary, if anything was, and if that one is a minute ago:
    /// to be asked after a refusal, and once a minute, so that the last ones are told, too. The
    /// last summary, at the end of the daemon, does not wait.
    pub fn summary(&self, now: Instant, is_last: bool) -> Option<Summary> {
        self.refusals.summary(now, is_last)
    }

    /// Whether there are refusals that no summary has told yet.
    pub fn refusals(&self) -> impl Iterator<Item = (Refusal, u64)> {
        Refusal::ALL.into_iter().map(|refusal| (refusal, self.refusals.of(refusal)))
    }

    /// Whether a summary is due, now or later.
    pub fn unsaid(&self) -> bool {
        self.refusals.unsaid()
    }

    /// What decides on new clients alone: a session goes on when its grant has ended.
    fn has_knocked(&self, terms: &AdmissionTerms, client: IpAddr, now: Instant) -> Result<(), Refusal> {
        match !terms.knock || self.gate.knocks().has(client, now) {
            true => Ok(()),
            false => Err(Refusal::NoKnock),
        }
    }

    /// What can end a session that lives, too.
    fn may_be_here(&self, terms: &AdmissionTerms, client: IpAddr, now: Instant) -> Result<(), Refusal> {
        if self.gate.guard().keeps_out(client, now) {
            return Err(Refusal::Banned);
        }
        terms.access.decide(client, || self.gate.countries())
    }
}

impl AdmissionTerms {
    /// Prepares `policy`; the limiters of `before` go on where their rates are the same.
    fn new(policy: &Policy, gate: &Gate, before: Option<&Self>) -> Self {
        let rates = &policy.rates;
        let sessions = |protocol| SessionRates::new(rates, before.map(|before| before.sessions.of(protocol)));
        let datagrams_per_client = before.and_then(|before| before.datagrams_per_client.clone());
        Self {
            access: Access::new(&policy.access, |name| gate.list(name)),
            sessions: ByProtocol { tcp: sessions(Protocol::Tcp), udp: sessions(Protocol::Udp) },
            datagrams_per_client: client_limiter(
                rates.datagrams_per_client,
                datagrams_per_client,
                Crowded::Replace,
            ),
            // Whatever `[defaults]` says: an answer would show that something is here.
            refuse: if policy.knock { Refuse::Drop } else { policy.refuse },
            knock: policy.knock,
        }
    }

    /// Checks rates and caps. A refused client has used up nothing.
    fn enter(
        &self,
        quota: &Arc<Quota>,
        client: ClientKey,
        protocol: Protocol,
        now: Instant,
        make_way: &mut dyn FnMut(Refusal) -> bool,
    ) -> Result<Permit, Refusal> {
        let rates = self.sessions.of(protocol);
        rates.take(client, now)?;
        let or_make_way = |refusal| if make_way(refusal) { quota.enter(client) } else { Err(refusal) };
        let place = quota.enter(client).or_else(or_make_way);
        let entered = place.and_then(|permit| match &self.datagrams_per_client {
            Some(rate) if protocol == Protocol::Udp && !rate.take(client, now) => Err(Refusal::DatagramRate),
            _ => Ok(permit),
        });
        entered.inspect_err(|_| rates.give_back(client))
    }
}

impl SessionRates {
    fn new(rates: &Rates, before: Option<&Self>) -> Self {
        let of_all = before.and_then(|before| before.of_all.clone());
        let per_client = before.and_then(|before| before.per_client.clone());
        Self {
            of_all: rates.new_sessions.map(|rate| {
                of_all.filter(|old| old.rate() == rate).unwrap_or_else(|| Limiter::new(rate).into())
            }),
            per_client: client_limiter(rates.new_sessions_per_client, per_client, Crowded::Share),
        }
    }

    /// Takes what one session needs, all of it or nothing.
    fn take(&self, client: ClientKey, now: Instant) -> Result<(), Refusal> {
        if let Some(own) = &self.per_client
            && !own.take(client, now)
        {
            return Err(if own.knows(client) { Refusal::ClientRate } else { Refusal::Rate });
        }
        if self.of_all.as_ref().is_none_or(|rate| rate.take(now)) {
            return Ok(());
        }
        if let Some(own) = &self.per_client {
            own.give_back(client);
        }
        Err(Refusal::Rate)
    }

    /// Uncounts a session that came to nothing.
    fn give_back(&self, client: ClientKey) {
        if let Some(rate) = &self.of_all {
            rate.give_back();
        }
        if let Some(rate) = &self.per_client {
            rate.give_back(client);
        }
    }
}

/// The earlier limiter if its rate is the same. In a crowd, newcomers share the session rates of
/// their networks, so that a flood of addresses does not hold back newcomers from other networks.
/// Datagrams of a live flow have no such share: their client may have been quiet, and is then
/// forgotten like a newcomer.
fn client_limiter(
    rate: Option<Rate>,
    before: Option<Arc<ClientLimiter>>,
    crowded: Crowded,
) -> Option<Arc<ClientLimiter>> {
    let rate = rate?;
    let kept = before.filter(|old| old.rate() == rate);
    Some(kept.unwrap_or_else(|| ClientLimiter::new(rate, CLIENTS, crowded).into()))
}

#[cfg(test)]
mod tests;
