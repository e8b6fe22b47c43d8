//! What the router's answers mean for an opening.
//!
//! One place reads the answer to each [`Step`]. `Lease::relation` alone decides whose an entry is.
//! The new state and the next step are set in `consequences`.

use std::{num::NonZeroU16, time::Duration};

use super::super::jitter::wait_after;
use super::{
    Answer, Circumstances, Entry, Gone, Granted, Holder, Lease, MOST_UNSEEN, NEXT_TRY_TO_CLOSE, OnConflict,
    Open, RouterError, State, Step, TRIES_TO_CLOSE, consequences::LEAST_WAIT_TO_RENEW, renewal,
};

const NOT_KEPT: &str = "the router says yes, but does not keep the opening as asked for";
const LEADS_ELSEWHERE: &str = "the router leads it to another machine than was asked for";
const FIXED_PORTS: &str = "this router only opens a port under its own number: leave external_port out, or set on_conflict = \"any-port\"";
/// A renewal that adds at most this has failed.
const NOT_RAISED: Duration = Duration::from_secs(5);
const TOO_SHORT: &str = "the router grants it for less than five seconds";
/// A shorter lease is refused: it would be renewed all the time.
const LEAST_LEASE: Duration = Duration::from_secs(5);

/// To which machine and program an entry belongs.
enum Relation {
    /// No entry, or none that the router shows.
    Unclaimed,
    /// Ours: our address and our text.
    Ours,
    /// Another program's, which leads to our address and port.
    SamePlace(Option<Duration>),
    /// Ours, from a former address of this machine.
    Former(Holder, Option<Duration>),
    /// Another machine's or program's.
    Foreign(Holder, Option<Duration>),
}

impl Lease {
    /// Takes the answer to the request that was last asked for with [`Lease::call`].
    pub(in super::super) fn answered(&mut self, answer: Answer, circumstances: &mut Circumstances<'_>) {
        if let Some(why) = answer.lost() {
            let why = format!("no answer from the router: {why}");
            return self.unanswered(why, circumstances);
        }
        if matches!(answer, Answer::Seen(Ok(_))) {
            self.unseen = 0;
        }
        match (self.step.clone(), answer) {
            (Step::Scout, Answer::Seen(seen)) => self.scouted(seen, circumstances),
            (Step::Add | Step::Renew | Step::AddAny, Answer::Granted(Ok(granted))) => {
                self.granted(&granted, circumstances);
            }
            (Step::Add | Step::AddAny, Answer::Granted(Err(error))) => {
                self.not_granted(&error, circumstances);
            }
            (Step::Renew, Answer::Granted(Err(error))) => self.not_renewed(&error, circumstances),
            (Step::SeeHolder, Answer::Seen(seen)) => self.saw_holder(&known(seen), circumstances),
            (Step::Evict(holder), Answer::Closed(done)) => self.evicted(holder, &done, circumstances),
            (Step::Verify(before), Answer::Seen(seen)) => self.verified(seen, before, circumstances),
            (Step::Check, Answer::Seen(Ok(seen))) => self.checked(seen, circumstances),
            (Step::Check, Answer::Seen(Err(_))) => self.not_checked(circumstances),
            (Step::Replace, Answer::Closed(done)) => match done {
                Ok(()) => self.add(circumstances),
                Err(error) => self.fail(error.to_string(), circumstances),
            },
            (Step::Part, Answer::Seen(seen)) => self.parting(&known(seen), circumstances),
            (Step::Close, Answer::Closed(Ok(()))) => self.end(Gone::Closed),
            (Step::Close, Answer::Closed(Err(error))) => self.end(Gone::Left(error.to_string())),
            (step, answer) => {
                debug_assert!(false, "{answer:?} does not answer {step:?}");
                self.fail("an answer to another question".to_owned(), circumstances);
            }
        }
    }

    /// The router does not answer. What was open may still be open.
    fn unanswered(&mut self, why: String, circumstances: &mut Circumstances<'_>) {
        match &mut self.state {
            State::Leaving => {
                self.failures += 1;
                if self.failures >= TRIES_TO_CLOSE {
                    return self.end(Gone::Left(why));
                }
                self.go(Step::Part, circumstances.now + NEXT_TRY_TO_CLOSE);
            }
            State::Open(open) if self.step != Step::Replace && open.settled => {
                self.failures += 1;
                let wait = wait_after(circumstances.rng, self.failures);
                let step = if open.visible { Step::Check } else { Step::Renew };
                self.go(step, circumstances.now + wait);
            }
            _ => self.fail(why, circumstances),
        }
    }

    fn parting(&mut self, seen: &Entry, circumstances: &Circumstances<'_>) {
        match (self.relation(seen, circumstances), seen) {
            (Relation::Ours, _) | (_, Entry::Unknown) => self.go(Step::Close, circumstances.now),
            (_, Entry::Free) if self.hidden => self.go(Step::Close, circumstances.now),
            _ => self.end(Gone::Nothing),
        }
    }

    fn scouted(&mut self, seen: Result<Entry, RouterError>, circumstances: &mut Circumstances<'_>) {
        if let Err(error) = &seen {
            self.unseen += 1;
            if self.unseen < MOST_UNSEEN {
                return self.fail(error.to_string(), circumstances);
            }
        }
        match self.relation(&known(seen), circumstances) {
            Relation::Unclaimed | Relation::Ours => self.go(Step::Add, circumstances.now),
            relation => self.in_the_way(relation, circumstances),
        }
    }

    /// After the router reported that the port is taken.
    fn saw_holder(&mut self, seen: &Entry, circumstances: &mut Circumstances<'_>) {
        match (self.relation(seen, circumstances), seen) {
            (Relation::Ours, Entry::Taken { lease, port, .. }) if *port == self.want.internal.port() => {
                // The router refuses to renew what is there: it ends with its lease.
                self.touched = true;
                self.keep(*lease, true, circumstances);
            }
            (Relation::Ours, _) => self.go(Step::Replace, circumstances.now),
            (Relation::Unclaimed, seen) => {
                self.touched &= *seen == Entry::Unknown;
                self.conflict(None, None, circumstances);
            }
            (relation, _) => self.in_the_way(relation, circumstances),
        }
    }

    fn in_the_way(&mut self, relation: Relation, circumstances: &mut Circumstances<'_>) {
        self.touched = matches!(relation, Relation::Former(..)) && self.touched;
        match relation {
            Relation::Former(holder, _) if !self.repaired => {
                self.repaired = true;
                self.state = State::Conflict(Some(holder.clone()));
                self.go(Step::Evict(holder), circumstances.now);
            }
            Relation::Former(holder, left) | Relation::Foreign(holder, left) => {
                self.conflict(Some(holder), left, circumstances);
            }
            Relation::SamePlace(left) => self.keep(left, false, circumstances),
            Relation::Unclaimed | Relation::Ours => self.go(Step::Scout, circumstances.now),
        }
    }

    fn evicted(
        &mut self,
        holder: Holder,
        done: &Result<(), RouterError>,
        circumstances: &mut Circumstances<'_>,
    ) {
        match done {
            Ok(()) => self.add(circumstances),
            Err(_) => self.conflict(Some(holder), None, circumstances),
        }
    }

    fn granted(&mut self, granted: &Granted, circumstances: &mut Circumstances<'_>) {
        let now = circumstances.now;
        let before = match &self.state {
            State::Open(Open { ends: Some(ends), .. }) => Some(ends.saturating_duration_since(now)),
            _ => None,
        };
        let was_open = matches!(&self.state, State::Open(open) if open.settled);
        let visible = !matches!(&self.state, State::Open(open) if !open.visible);
        if !matches!(self.state, State::Open(_)) {
            self.times_opened += 1;
        }
        self.touched = true;
        self.external_port = granted.external_port;
        self.pinhole = granted.pinhole.or(self.pinhole);
        if granted.lease.is_some_and(|lease| lease < LEAST_LEASE) {
            return self.fail(TOO_SHORT.to_owned(), circumstances);
        }
        self.state = State::Open(Open {
            lease: granted.lease,
            ends: granted.lease.map(|lease| now + lease),
            settled: was_open,
            ours: true,
            renew_at: now + renewal(granted.lease, circumstances.rng),
            replace: false,
            visible,
        });
        self.go(Step::Verify(before), now);
    }

    fn not_granted(&mut self, error: &RouterError, circumstances: &mut Circumstances<'_>) {
        self.touched = self.was_touched;
        let now = circumstances.now;
        match error {
            RouterError::Conflict => self.go(Step::SeeHolder, now),
            RouterError::OnlyPermanent if !circumstances.habits.permanent_only => {
                circumstances.habits.permanent_only = true;
                self.add(circumstances);
            }
            RouterError::SamePort => self.same_port_only(circumstances),
            RouterError::Denied(_) => self.deny(error.to_string(), circumstances),
            RouterError::OnlyPermanent | RouterError::Failed(_) | RouterError::Lost(_) => {
                self.fail(error.to_string(), circumstances);
            }
        }
    }

    /// The router opens a port only under its own number. This helps only if any port may be used.
    fn same_port_only(&mut self, circumstances: &mut Circumstances<'_>) {
        let own = NonZeroU16::new(self.want.internal.port());
        let may_move = circumstances.terms.on_conflict == OnConflict::AnyPort;
        match own.filter(|own| may_move && *own != self.external_port) {
            Some(own) => {
                self.external_port = own;
                self.go(Step::Scout, circumstances.now);
            }
            None => self.deny(FIXED_PORTS.to_owned(), circumstances),
        }
    }

    fn not_renewed(&mut self, error: &RouterError, circumstances: &mut Circumstances<'_>) {
        let now = circumstances.now;
        let left = match &self.state {
            State::Open(Open { ends, .. }) => ends.map(|ends| ends.saturating_duration_since(now)),
            _ => None,
        };
        match error {
            RouterError::Conflict => self.go(Step::SeeHolder, now),
            RouterError::OnlyPermanent | RouterError::SamePort => self.not_granted(error, circumstances),
            RouterError::Denied(_) => self.deny(error.to_string(), circumstances),
            RouterError::Failed(_) | RouterError::Lost(_) => {
                let Some(left) = left else { return self.fail(error.to_string(), circumstances) };
                if left <= LEAST_WAIT_TO_RENEW {
                    return self.fail(error.to_string(), circumstances);
                }
                if let State::Open(open) = &mut self.state {
                    open.renew_at = now + (left / 8).max(LEAST_WAIT_TO_RENEW);
                }
                self.rest(circumstances);
            }
        }
    }

    fn verified(
        &mut self,
        seen: Result<Entry, RouterError>,
        before: Option<Duration>,
        circumstances: &mut Circumstances<'_>,
    ) {
        let State::Open(open) = &mut self.state else { return };
        let own = self.want.internal;
        // One failed look does not mean that the router cannot be looked at.
        let Ok(seen) = seen else { return self.settle(circumstances) };
        match seen {
            Entry::Unknown => {
                open.visible = false;
                self.settle(circumstances);
            }
            Entry::Free if !self.hidden && !self.repaired => {
                self.repaired = true;
                self.go(Step::Add, circumstances.now);
            }
            Entry::Free => {
                self.hidden = true;
                self.repaired = false;
                open.visible = false;
                self.settle(circumstances);
            }
            Entry::Taken { client, port, text, lease } if client == own.ip() && port == own.port() => {
                self.hidden = false;
                open.visible = true;
                self.shown = (text != self.want.text).then_some(text);
                self.lease_seen(lease, before, circumstances);
            }
            Entry::Taken { client, .. } if client == own.ip() => {
                self.mismatch(NOT_KEPT, Step::Replace, circumstances);
            }
            Entry::Taken { text, .. } if text == self.want.text => {
                self.fail(LEADS_ELSEWHERE.to_owned(), circumstances);
            }
            Entry::Taken { client, port, text, lease } => {
                self.touched = false;
                self.conflict(Some(Holder { client, port, text }), lease, circumstances);
            }
        }
    }

    /// The entry is ours. Checks whether its lease is as granted.
    fn lease_seen(
        &mut self,
        shown: Option<Duration>,
        before: Option<Duration>,
        circumstances: &mut Circumstances<'_>,
    ) {
        let now = circumstances.now;
        let State::Open(open) = &mut self.state else { return };
        match (open.lease, shown) {
            (Some(_), None) if !circumstances.habits.hides_leases => {
                if !self.repaired {
                    self.repaired = true;
                    return self.go(Step::Replace, now);
                }
                // Twice: that is how this router shows them.
                circumstances.habits.hides_leases = true;
            }
            (Some(lease), Some(left)) => {
                open.ends = Some(now + left);
                let not_raised = before.is_some_and(|before| left <= before + NOT_RAISED);
                // Some routers always show the lease that was asked for, however much of it is
                // over.
                if not_raised && left < lease * 9 / 10 {
                    open.replace = true;
                    open.renew_at = now + left.saturating_sub(lease.min(left * 2) / 10);
                } else if left < LEAST_LEASE {
                    return self.fail(TOO_SHORT.to_owned(), circumstances);
                } else if left < lease * 9 / 10 {
                    // It grants less than it says.
                    open.lease = Some(left);
                    open.renew_at = now + renewal(open.lease, circumstances.rng);
                }
            }
            (None, Some(left)) => open.ends = Some(now + left),
            (_, None) => {}
        }
        self.repaired = false;
        self.settle(circumstances);
    }

    fn checked(&mut self, seen: Entry, circumstances: &mut Circumstances<'_>) {
        let now = circumstances.now;
        let relation = self.relation(&seen, circumstances);
        let State::Open(open) = &mut self.state else { return };
        match (relation, seen) {
            (_, Entry::Unknown) => {
                open.visible = false;
                self.rest(circumstances);
            }
            (_, Entry::Free) => {
                self.touched = false;
                self.state = State::Wanted;
                self.add(circumstances);
            }
            (Relation::Ours, Entry::Taken { port, .. }) if port != self.want.internal.port() => {
                self.mismatch(NOT_KEPT, Step::Replace, circumstances);
            }
            (Relation::Ours, _) if open.ours && open.renew_at <= now => {
                let step = if open.replace { Step::Replace } else { Step::Renew };
                self.go(step, now);
            }
            (Relation::Ours, Entry::Taken { lease: None, .. })
                if open.ours && open.lease.is_some() && !circumstances.habits.hides_leases =>
            {
                self.repaired = true;
                self.go(Step::Replace, now);
            }
            (Relation::Ours, Entry::Taken { lease, .. }) => {
                if let Some(left) = lease.filter(|_| open.ours) {
                    open.ends = Some(now + left);
                    if !open.replace {
                        // A lease that turns out shorter than it was granted.
                        open.renew_at = open.renew_at.min(now + left * 3 / 4);
                    }
                }
                self.failures = 0;
                self.rest(circumstances);
            }
            (Relation::SamePlace(_), _) => {
                self.failures = 0;
                self.touched = false;
                open.ours = false;
                open.ends = None;
                self.rest(circumstances);
            }
            (relation, _) => self.in_the_way(relation, circumstances),
        }
    }

    /// A look failed. After some failed looks, an opening that is due is renewed without one.
    fn not_checked(&mut self, circumstances: &mut Circumstances<'_>) {
        let now = circumstances.now;
        self.unseen += 1;
        match &self.state {
            State::Open(open) if open.ours && open.renew_at <= now && self.unseen >= MOST_UNSEEN => {
                self.go(Step::Renew, now);
            }
            _ => self.go(Step::Check, now + circumstances.terms.check_every),
        }
    }

    fn relation(&self, seen: &Entry, circumstances: &Circumstances<'_>) -> Relation {
        let Entry::Taken { client, port, text, lease } = seen else { return Relation::Unclaimed };
        let own = self.want.internal;
        let our_text = *text == self.want.text || self.shown.as_ref() == Some(text);
        let holder = || Holder { client: *client, port: *port, text: text.clone() };
        match *client == own.ip() {
            true if our_text => Relation::Ours,
            true if *port == own.port() => Relation::SamePlace(*lease),
            false if our_text && circumstances.formers.contains(client) => Relation::Former(holder(), *lease),
            _ => Relation::Foreign(holder(), *lease),
        }
    }
}

/// A router that answers a look with an error cannot tell what is there.
fn known(seen: Result<Entry, RouterError>) -> Entry {
    seen.unwrap_or(Entry::Unknown)
}
