//! What the router's answers mean for an opening.
//!
//! One place reads the answer to each [`Step`]. `Lease::relation` alone decides whose an entry is.
//! The new state and the next step are set in `consequences`.

use std::{num::NonZeroU16, time::Duration};

use tokio::time::Instant;

use super::super::{OnConflict, jitter::wait_after};
use super::{
    Answer, Context, Done, Entry, Gone, Granted, Holder, Lease, MOST_UNSEEN, NEXT_TRY_TO_CLOSE, Open,
    RouterError, Sight, State, Step, TRIES_TO_CLOSE, Trace, consequences::LEAST_WAIT_TO_RENEW, renewal,
};

const LEADS_ELSEWHERE: &str = "the router leads it to another machine than was asked for";
const FIXED_PORTS: &str = "this router only opens a port under its own number: leave external_port out, or set on_conflict = \"any-port\"";
/// A renewal that adds at most this has failed.
const NOT_RAISED: Duration = Duration::from_secs(5);
const TOO_SHORT: &str = "the router grants it for less than five seconds";
/// A shorter lease is refused: it would be renewed all the time.
const LEAST_LEASE: Duration = Duration::from_secs(5);

/// To which machine and program an entry belongs.
#[derive(Clone, Copy)]
enum Relation {
    /// No entry, or none that the router shows.
    Unclaimed,
    /// Ours: our address and our text.
    Ours,
    /// Another program's, which leads to our address and port.
    SamePlace,
    /// Ours, from a former address of this machine.
    Former,
    /// Another machine's or program's.
    Foreign,
}

impl Lease {
    /// Takes the answer to the request that was last asked for with [`Lease::call`].
    pub(in super::super) fn answered(&mut self, answer: Answer, cx: &mut Context<'_>) {
        match (self.step, answer) {
            (_, Err(RouterError::Lost(why))) => {
                self.unanswered(format!("no answer from the router: {why}"), cx);
            }
            (Step::Look | Step::SeeHolder | Step::Verify, Ok(Done::Seen(entry))) => self.saw(entry, cx),
            (Step::Look | Step::SeeHolder | Step::Verify, Err(error)) => self.saw_nothing(&error, cx),
            (Step::Add | Step::Renew | Step::AddAny, Ok(Done::Granted(granted))) => {
                self.granted(&granted, cx);
            }
            (Step::Add | Step::AddAny, Err(error)) => self.not_granted(&error, cx),
            (Step::Renew, Err(error)) => self.not_renewed(&error, cx),
            (Step::Close, Ok(Done::Closed)) => match self.state {
                State::Leaving => self.end(Gone::Closed),
                _ => self.add(cx),
            },
            (Step::Close, Err(error)) => self.not_closed(&error, cx),
            (step, answer) => {
                debug_assert!(false, "{answer:?} does not answer {step:?}");
                self.fail("an answer to another question".to_owned(), cx);
            }
        }
    }

    /// The router does not answer. What was open may still be open.
    fn unanswered(&mut self, why: String, cx: &mut Context<'_>) {
        if self.is_touched() {
            self.trace = Trace::Left;
        }
        match &self.state {
            State::Leaving => {
                self.failures += 1;
                if self.failures >= TRIES_TO_CLOSE {
                    return self.end(Gone::Left(why));
                }
                self.go(Step::Look, cx.now + NEXT_TRY_TO_CLOSE);
            }
            State::Open(open) if self.step != Step::Close && open.settled => {
                self.failures += 1;
                let wait = wait_after(cx.rng, self.failures);
                self.go(self.check(), cx.now + wait);
            }
            _ => self.fail(why, cx),
        }
    }

    /// A look told what is at the port, or that the router cannot tell.
    fn saw(&mut self, entry: Entry, cx: &mut Context<'_>) {
        self.unseen = 0;
        let sight = &mut self.mark.sight;
        match (&entry, *sight) {
            (Entry::Taken { .. }, _) | (Entry::Free, Sight::Blind) => *sight = Sight::Shown,
            (Entry::Unknown, Sight::Shown) => *sight = Sight::Blind,
            _ => {}
        }
        match (self.step, &self.state) {
            (Step::Verify, _) => self.verified(entry, cx),
            (Step::SeeHolder, _) => self.saw_holder(entry, cx),
            (_, State::Open(_)) => self.checked(entry, cx),
            (_, State::Leaving) => self.parting(&entry, cx),
            _ => self.scouted(entry, cx),
        }
    }

    /// A look failed. This does not mean that the router cannot be looked at.
    fn saw_nothing(&mut self, error: &RouterError, cx: &mut Context<'_>) {
        match (self.step, &self.state) {
            (Step::Verify, _) => self.settle(cx),
            (Step::SeeHolder, _) => self.saw_holder(Entry::Unknown, cx),
            (_, State::Leaving) => self.parting(&Entry::Unknown, cx),
            (_, State::Open(open)) => {
                self.unseen += 1;
                // After some failed looks, an opening that is due is renewed without one.
                let is_due = self.is_touched() && open.renew_at <= cx.now;
                match is_due && self.unseen >= MOST_UNSEEN {
                    true => self.go(Step::Renew, cx.now),
                    false => self.go(Step::Look, cx.now + cx.settings.check_every),
                }
            }
            _ => {
                self.unseen += 1;
                match self.unseen < MOST_UNSEEN {
                    true => self.fail(error.to_string(), cx),
                    false => self.scouted(Entry::Unknown, cx),
                }
            }
        }
    }

    fn parting(&mut self, entry: &Entry, cx: &Context<'_>) {
        match (self.relation(entry, cx), entry) {
            (Relation::Ours, _) | (_, Entry::Unknown) => self.go(Step::Close, cx.now),
            (_, Entry::Free) if self.mark.sight == Sight::Hidden => self.go(Step::Close, cx.now),
            _ => self.end(Gone::Nothing),
        }
    }

    fn scouted(&mut self, entry: Entry, cx: &mut Context<'_>) {
        match (self.relation(&entry, cx), entry) {
            (Relation::Ours, _) | (_, Entry::Free | Entry::Unknown) => self.go(Step::Add, cx.now),
            (relation, Entry::Taken { holder, lease: left }) => self.in_the_way(relation, holder, left, cx),
        }
    }

    /// After the router reported that the port is taken.
    fn saw_holder(&mut self, entry: Entry, cx: &mut Context<'_>) {
        match (self.relation(&entry, cx), entry) {
            (Relation::Ours, Entry::Taken { holder, lease: left }) if holder.addr == self.want.internal => {
                // The router refuses to renew what is there: it ends with its lease.
                self.trace = Trace::Left;
                self.keep(left, cx);
            }
            (Relation::Ours, _) => {
                self.want_again();
                self.go(Step::Close, cx.now);
            }
            (relation, Entry::Taken { holder, lease: left }) => self.in_the_way(relation, holder, left, cx),
            (_, Entry::Free) => {
                self.trace = Trace::Nothing;
                self.conflict(None, None, cx);
            }
            (_, Entry::Unknown) => self.conflict(None, None, cx),
        }
    }

    /// An entry that is not ours is at the port.
    fn in_the_way(
        &mut self,
        relation: Relation,
        holder: Holder,
        left: Option<Duration>,
        cx: &mut Context<'_>,
    ) {
        match relation {
            Relation::Former if !self.repaired => {
                self.repaired = true;
                self.state = State::Conflict(Some(holder));
                self.go(Step::Close, cx.now);
            }
            Relation::Former => self.conflict(Some(holder), left, cx),
            Relation::SamePlace => {
                self.trace = Trace::Nothing;
                self.keep(left, cx);
            }
            Relation::Unclaimed | Relation::Ours | Relation::Foreign => {
                self.trace = Trace::Nothing;
                self.conflict(Some(holder), left, cx);
            }
        }
    }

    fn not_closed(&mut self, error: &RouterError, cx: &mut Context<'_>) {
        match &self.state {
            State::Leaving => self.end(Gone::Left(error.to_string())),
            State::Conflict(holder) => self.conflict(holder.clone(), None, cx),
            _ => self.fail(error.to_string(), cx),
        }
    }

    fn granted(&mut self, granted: &Granted, cx: &mut Context<'_>) {
        let now = cx.now;
        let open = if let State::Open(open) = &self.state { Some(open) } else { None };
        let left_before = self.left(now);
        let settled = open.is_some_and(|open| open.settled);
        self.times_opened += u32::from(open.is_none());
        self.trace = Trace::Left;
        self.mark.external_port = granted.external_port;
        self.mark.pinhole = granted.pinhole.or(self.mark.pinhole);
        if granted.lease.is_some_and(|lease| lease < LEAST_LEASE) {
            return self.fail(TOO_SHORT.to_owned(), cx);
        }
        self.state = State::Open(Open {
            lease: granted.lease,
            ends: granted.lease.map(|lease| now + lease),
            settled,
            renew_at: now + renewal(granted.lease, cx.rng),
            replace: false,
            left_before,
        });
        self.go(Step::Verify, now);
    }

    /// What is left of the lease of an open one.
    fn left(&self, now: Instant) -> Option<Duration> {
        let State::Open(Open { ends: Some(ends), .. }) = &self.state else { return None };
        Some(ends.saturating_duration_since(now))
    }

    fn not_granted(&mut self, error: &RouterError, cx: &mut Context<'_>) {
        if self.trace == Trace::Requested {
            self.trace = Trace::Nothing;
        }
        let now = cx.now;
        match error {
            RouterError::Conflict => self.go(Step::SeeHolder, now),
            RouterError::OnlyPermanent if !cx.habits.permanent_only => {
                cx.habits.permanent_only = true;
                self.add(cx);
            }
            RouterError::SamePort => self.same_port_only(cx),
            RouterError::Denied(_) => self.deny(error.to_string(), cx),
            RouterError::OnlyPermanent | RouterError::Failed(_) | RouterError::Lost(_) => {
                self.fail(error.to_string(), cx);
            }
        }
    }

    /// The router opens a port only under its own number. This helps only if any port may be used.
    fn same_port_only(&mut self, cx: &mut Context<'_>) {
        let own = NonZeroU16::new(self.want.internal.port());
        let may_move = cx.settings.on_conflict == OnConflict::AnyPort;
        match own.filter(|own| may_move && *own != self.mark.external_port) {
            Some(own) => {
                self.mark.external_port = own;
                self.go(Step::Look, cx.now);
            }
            None => self.deny(FIXED_PORTS.to_owned(), cx),
        }
    }

    /// A renewal failed. As long as enough of the lease is left, it is tried again.
    fn not_renewed(&mut self, error: &RouterError, cx: &mut Context<'_>) {
        let left = self.left(cx.now).filter(|left| *left > LEAST_WAIT_TO_RENEW);
        match (error, left, &mut self.state) {
            (RouterError::Failed(_) | RouterError::Lost(_), Some(left), State::Open(open)) => {
                open.renew_at = cx.now + (left / 8).max(LEAST_WAIT_TO_RENEW);
                self.rest(cx);
            }
            _ => self.not_granted(error, cx),
        }
    }

    fn verified(&mut self, entry: Entry, cx: &mut Context<'_>) {
        let own = self.want.internal;
        match entry {
            Entry::Unknown => self.settle(cx),
            Entry::Free if self.is_shown() && !self.repaired => {
                self.repaired = true;
                self.go(Step::Add, cx.now);
            }
            Entry::Free => {
                self.mark.sight = Sight::Hidden;
                self.repaired = false;
                self.settle(cx);
            }
            Entry::Taken { holder, lease: left } if holder.addr == own => {
                self.mark.text = holder.text;
                self.lease_seen(left, cx);
            }
            Entry::Taken { holder, .. } if holder.addr.ip() == own.ip() => self.mismatch(cx),
            Entry::Taken { holder, .. } if holder.text == self.want.text => {
                self.fail(LEADS_ELSEWHERE.to_owned(), cx);
            }
            Entry::Taken { holder, lease: left } => {
                self.trace = Trace::Nothing;
                self.conflict(Some(holder), left, cx);
            }
        }
    }

    /// The entry is ours. Checks whether its lease is as granted.
    fn lease_seen(&mut self, shown: Option<Duration>, cx: &mut Context<'_>) {
        let now = cx.now;
        let State::Open(open) = &mut self.state else { return };
        match (open.lease, shown) {
            (Some(_), None) if !cx.habits.hides_leases => {
                if !self.repaired {
                    self.repaired = true;
                    return self.go(Step::Close, now);
                }
                // Twice: that is how this router shows them.
                cx.habits.hides_leases = true;
            }
            (Some(lease), Some(left)) => {
                open.ends = Some(now + left);
                let not_raised = open.left_before.is_some_and(|before| left <= before + NOT_RAISED);
                // Some routers always show the lease that was asked for, however much of it is
                // over.
                if not_raised && left < lease * 9 / 10 {
                    open.replace = true;
                    open.renew_at = now + left.saturating_sub(lease.min(left * 2) / 10);
                } else if left < LEAST_LEASE {
                    return self.fail(TOO_SHORT.to_owned(), cx);
                } else if left < lease * 9 / 10 {
                    // It grants less than it says.
                    open.lease = Some(left);
                    open.renew_at = now + renewal(open.lease, cx.rng);
                }
            }
            (None, Some(left)) => open.ends = Some(now + left),
            (_, None) => {}
        }
        self.repaired = false;
        self.settle(cx);
    }

    fn checked(&mut self, entry: Entry, cx: &mut Context<'_>) {
        let now = cx.now;
        let (relation, is_ours) = (self.relation(&entry, cx), self.is_touched());
        let State::Open(open) = &mut self.state else { return };
        match (relation, entry) {
            (_, Entry::Unknown) => self.rest(cx),
            (_, Entry::Free) => {
                self.trace = Trace::Nothing;
                self.state = State::Wanted;
                self.go(Step::Add, now);
            }
            (Relation::Ours, Entry::Taken { holder, .. }) if holder.addr != self.want.internal => {
                self.mismatch(cx);
            }
            (Relation::Ours, _) if is_ours && open.renew_at <= now => {
                let step = if open.replace { Step::Close } else { Step::Renew };
                self.go(step, now);
            }
            (Relation::Ours, Entry::Taken { lease: None, .. })
                if is_ours && open.lease.is_some() && !cx.habits.hides_leases =>
            {
                self.repaired = true;
                self.go(Step::Close, now);
            }
            (Relation::Ours, Entry::Taken { lease: left, .. }) => {
                if let Some(left) = left.filter(|_| is_ours) {
                    open.ends = Some(now + left);
                    if !open.replace {
                        // A lease that turns out shorter than it was granted.
                        open.renew_at = open.renew_at.min(now + left * 3 / 4);
                    }
                }
                self.failures = 0;
                self.rest(cx);
            }
            (relation, Entry::Taken { holder, lease: left }) => self.in_the_way(relation, holder, left, cx),
        }
    }

    fn relation(&self, entry: &Entry, cx: &Context<'_>) -> Relation {
        let Entry::Taken { holder, .. } = entry else { return Relation::Unclaimed };
        let own = self.want.internal;
        let our_text = holder.text == self.want.text || holder.text == self.mark.text;
        match holder.addr.ip() == own.ip() {
            true if our_text => Relation::Ours,
            true if holder.addr.port() == own.port() => Relation::SamePlace,
            false if our_text && cx.formers.contains(&holder.addr.ip()) => Relation::Former,
            _ => Relation::Foreign,
        }
    }
}
