//! The new state of an opening, its next step, and the time of that step.
//!
//! Reads no answer of a router: `answers` does, and calls these functions. Each sets the next step
//! and its time, except `end`, which is final.

use std::{num::NonZeroU16, time::Duration};

use super::super::jitter::{about, wait_after};
use super::{
    Circumstances, Gone, Holder, Lease, MOST_MOVES, OnConflict, Open, REFUSED_FOR, State, Step, renewal,
};

/// The least time between two looks at a port that another machine holds.
const LEAST_WAIT_FOR_HOLDER: Duration = Duration::from_secs(1);
/// The least time until a renewal is tried again.
pub(super) const LEAST_WAIT_TO_RENEW: Duration = Duration::from_secs(5);

impl Lease {
    /// An entry is there and does what ours would do.
    pub(super) fn keep(&mut self, left: Option<Duration>, ours: bool, circumstances: &mut Circumstances<'_>) {
        let now = circumstances.now;
        if !matches!(self.state, State::Open(_)) {
            self.times_opened += 1;
        }
        self.failures = 0;
        let ends = left.map(|left| now + left);
        let before_the_end = left.map_or(renewal(None, circumstances.rng), |left| left * 9 / 10);
        self.state = State::Open(Open {
            lease: left,
            ends: ends.filter(|_| ours),
            settled: true,
            ours,
            renew_at: now + before_the_end,
            replace: ours && left.is_some(),
            visible: true,
        });
        self.rest(circumstances);
    }

    pub(super) fn settle(&mut self, circumstances: &mut Circumstances<'_>) {
        if let State::Open(open) = &mut self.state {
            open.settled = true;
        }
        self.failures = 0;
        self.rest(circumstances);
    }

    /// Waits for the next check or renewal, whichever is sooner.
    pub(super) fn rest(&mut self, circumstances: &mut Circumstances<'_>) {
        let State::Open(open) = &self.state else { return };
        let check_at = circumstances.now + circumstances.terms.check_every;
        let renews = open.ours && (!open.visible || open.renew_at <= check_at);
        let at = if renews { open.renew_at.max(circumstances.now) } else { check_at };
        // Look first where possible: the port may belong to another machine by now.
        let step = if renews && !open.visible { Step::Renew } else { Step::Check };
        self.go(step, at);
    }

    pub(super) fn add(&mut self, circumstances: &mut Circumstances<'_>) {
        if !matches!(&self.state, State::Open(open) if open.settled) {
            self.state = State::Wanted;
        }
        self.go(Step::Add, circumstances.now);
    }

    /// The entry is not as requested: repairs it once, then waits.
    pub(super) fn mismatch(&mut self, why: &str, step: Step, circumstances: &mut Circumstances<'_>) {
        if self.repaired {
            return self.fail(why.to_owned(), circumstances);
        }
        self.repaired = true;
        self.go(step, circumstances.now);
    }

    pub(super) fn conflict(
        &mut self,
        holder: Option<Holder>,
        left: Option<Duration>,
        circumstances: &mut Circumstances<'_>,
    ) {
        let terms = circumstances.terms;
        if self.may_move(circumstances) {
            return self.change_port(holder, circumstances);
        }
        self.give_up_other_port(holder.is_some());
        let wait = match &holder {
            Some(_) => left
                .map_or(terms.check_every, |left| terms.check_every.min(left + LEAST_WAIT_FOR_HOLDER))
                .max(LEAST_WAIT_FOR_HOLDER),
            None => {
                // The router does not report when the port gets free: retry about as often as ports
                // are checked.
                self.failures += 1;
                let most = about(circumstances.rng, terms.check_every, 20).max(LEAST_WAIT_TO_RENEW);
                wait_after(circumstances.rng, self.failures).min(most)
            }
        };
        self.state = State::Conflict(holder);
        self.go(Step::Scout, circumstances.now + wait);
    }

    /// Whether another port may replace the one that is held. Once open, a port is kept: clients
    /// find it again, and the router does not fill up with ports.
    fn may_move(&self, circumstances: &Circumstances<'_>) -> bool {
        circumstances.terms.on_conflict == OnConflict::AnyPort
            && self.want.key.pinhole.is_none()
            && self.moves < MOST_MOVES
            && (self.external_port == self.want.external_port || self.times_opened == 0)
    }

    /// Goes back to the wanted port when the other port, of an earlier run, is held by now. A shown
    /// entry of ours that the router does not let us close keeps its port, so that it is closed
    /// later.
    fn give_up_other_port(&mut self, is_shown: bool) {
        if self.times_opened == 0 && !(self.touched && is_shown) {
            self.external_port = self.want.external_port;
            self.moves = 0;
        }
    }

    /// Tries another port. If the router shows its entries, we choose the port: then we know it
    /// even if the answer gets lost. Other routers grant the same port to the same request.
    fn change_port(&mut self, holder: Option<Holder>, circumstances: &mut Circumstances<'_>) {
        self.moves += 1;
        let visible = holder.is_some();
        self.state = State::Conflict(holder);
        if !visible {
            return self.go(Step::AddAny, circumstances.now);
        }
        // The range that is for such uses (RFC 6335, section 6).
        let drawn = u16::try_from(circumstances.rng.u64(..) % 16_384).unwrap_or(0);
        self.external_port = NonZeroU16::MIN.saturating_add(49_151 + drawn);
        self.go(Step::Scout, circumstances.now);
    }

    pub(super) fn deny(&mut self, error: String, circumstances: &mut Circumstances<'_>) {
        self.state = State::Denied(error);
        let wait = about(circumstances.rng, REFUSED_FOR, 10);
        self.go(Step::Scout, circumstances.now + wait);
    }

    pub(super) fn fail(&mut self, error: String, circumstances: &mut Circumstances<'_>) {
        self.failures += 1;
        self.state = State::Failed(error);
        let wait = wait_after(circumstances.rng, self.failures);
        self.go(Step::Scout, circumstances.now + wait);
    }

    pub(super) fn end(&mut self, gone: Gone) {
        self.touched = false;
        self.state = State::Gone(gone);
    }
}
