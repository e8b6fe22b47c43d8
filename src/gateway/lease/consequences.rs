//! The new state of an opening, its next step, and the time of that step.
//!
//! Reads no answer of a router: `answers` does, and calls these functions. Each sets the next step
//! and its time, except `end`, which is final.

use std::{num::NonZeroU16, time::Duration};

use super::super::{
    OnConflict,
    jitter::{about, wait_after},
};
use super::{
    Context, Gone, Holder, Lease, MOST_MOVES, Open, REFUSED_FOR, Sight, State, Step, Trace, renewal,
};

const NOT_KEPT: &str = "the router says yes, but does not keep the opening as asked for";
/// The least time between two looks at a port that another machine holds.
const LEAST_WAIT_FOR_HOLDER: Duration = Duration::from_secs(1);
/// The least time until a renewal is tried again.
pub(super) const LEAST_WAIT_TO_RENEW: Duration = Duration::from_secs(5);

impl Lease {
    /// An entry is there and does what ours would do.
    pub(super) fn keep(&mut self, left: Option<Duration>, cx: &mut Context<'_>) {
        let now = cx.now;
        self.times_opened += u32::from(!matches!(self.state, State::Open(_)));
        self.failures = 0;
        let ends = left.map(|left| now + left);
        let before_the_end = left.map_or(renewal(None, cx.rng), |left| left * 9 / 10);
        self.state = State::Open(Open {
            lease: left,
            ends: ends.filter(|_| self.is_touched()),
            settled: true,
            renew_at: now + before_the_end,
            replace: self.is_touched() && left.is_some(),
            left_before: None,
        });
        self.rest(cx);
    }

    pub(super) fn settle(&mut self, cx: &mut Context<'_>) {
        if let State::Open(open) = &mut self.state {
            open.settled = true;
        }
        self.failures = 0;
        self.rest(cx);
    }

    /// Waits for the next check or renewal, whichever is sooner.
    pub(super) fn rest(&mut self, cx: &mut Context<'_>) {
        let State::Open(open) = &self.state else { return };
        let check_at = cx.now + cx.settings.check_every;
        // Look first where possible: the port may belong to another machine by now.
        let step = self.check();
        let renews = step == Step::Renew || self.is_touched() && open.renew_at <= check_at;
        let at = if renews { open.renew_at.max(cx.now) } else { check_at };
        self.go(step, at);
    }

    pub(super) fn add(&mut self, cx: &mut Context<'_>) {
        self.want_again();
        self.go(Step::Add, cx.now);
    }

    /// What is open stays so while it is replaced.
    pub(super) fn want_again(&mut self) {
        if !matches!(&self.state, State::Open(open) if open.settled) {
            self.state = State::Wanted;
        }
    }

    /// The entry is not as requested: replaces it once, then waits.
    pub(super) fn mismatch(&mut self, cx: &mut Context<'_>) {
        if self.repaired {
            return self.fail(NOT_KEPT.to_owned(), cx);
        }
        self.repaired = true;
        self.go(Step::Close, cx.now);
    }

    pub(super) fn conflict(&mut self, holder: Option<Holder>, left: Option<Duration>, cx: &mut Context<'_>) {
        let check_every = cx.settings.check_every;
        if self.may_move(holder.is_some(), cx) {
            return self.change_port(holder, cx);
        }
        self.give_up_other_port();
        let wait = match &holder {
            Some(_) => left
                .map_or(check_every, |left| check_every.min(left + LEAST_WAIT_FOR_HOLDER))
                .max(LEAST_WAIT_FOR_HOLDER),
            None => {
                // The router does not report when the port gets free: retry about as often as ports
                // are checked.
                self.failures += 1;
                let most = about(cx.rng, check_every, 20).max(LEAST_WAIT_TO_RENEW);
                wait_after(cx.rng, self.failures).min(most)
            }
        };
        self.state = State::Conflict(holder);
        self.go(Step::Look, cx.now + wait);
    }

    /// Whether another port may replace the one that is held. Once open, a port is kept: clients
    /// find it again, and the router does not fill up with ports.
    fn may_move(&self, is_seen: bool, cx: &Context<'_>) -> bool {
        cx.settings.on_conflict == OnConflict::AnyPort
            && self.want.key.pinhole.is_none()
            && self.moves < MOST_MOVES
            && (self.mark.external_port == self.want.external_port || self.times_opened == 0)
            && (is_seen || self.leaves_nothing())
    }

    /// Whether a change of the port leaves no entry of ours behind that could be closed later. A
    /// router without a list has none: it refuses the port only where we do not have it.
    fn leaves_nothing(&self) -> bool {
        !self.is_touched() || self.mark.sight == Sight::Blind
    }

    /// Goes back to the wanted port when the other port, of an earlier run, is held by now.
    fn give_up_other_port(&mut self) {
        if self.times_opened == 0 && self.leaves_nothing() {
            self.mark.external_port = self.want.external_port;
            self.moves = 0;
        }
    }

    /// Tries another port. If the router shows its entries, we choose the port: then we know it
    /// even if the answer gets lost. Other routers grant the same port to the same request.
    fn change_port(&mut self, holder: Option<Holder>, cx: &mut Context<'_>) {
        self.moves += 1;
        let visible = holder.is_some();
        self.state = State::Conflict(holder);
        if !visible {
            return self.go(Step::AddAny, cx.now);
        }
        // The range that is for such uses (RFC 6335, section 6).
        let drawn = u16::try_from(cx.rng.u64(..) % 16_384).unwrap_or(0);
        self.mark.external_port = NonZeroU16::MIN.saturating_add(49_151 + drawn);
        self.go(Step::Look, cx.now);
    }

    pub(super) fn deny(&mut self, error: String, cx: &mut Context<'_>) {
        self.state = State::Denied(error);
        let wait = about(cx.rng, REFUSED_FOR, 10);
        self.go(Step::Look, cx.now + wait);
    }

    pub(super) fn fail(&mut self, error: String, cx: &mut Context<'_>) {
        self.failures += 1;
        self.state = State::Failed(error);
        let wait = wait_after(cx.rng, self.failures);
        self.go(Step::Look, cx.now + wait);
    }

    pub(super) fn end(&mut self, gone: Gone) {
        self.trace = Trace::Nothing;
        self.state = State::Gone(gone);
    }
}
