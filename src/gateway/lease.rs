//! One opening on the router: what to ask next, and what the answers mean.
//!
//! A pure state machine. Time is an argument; it sends nothing. It says which [`Call`] is due and
//! when, is given the [`Answer`], and knows in which [`State`] the opening is.
//!
//! ```text
//!            ┌────────────── gone ──────────────┐
//!            ▼                                  │
//! Wanted ─ look ─ open ─ look (kept?) ─► Open ─ look, every check ─┐
//!   ▲       │       │        └ no: close, open once more; then Failed
//!   │       ▼       ▼                           └ at half the lease: open again, look
//!   └─ Conflict  Denied (an hour)  Failed (5 s … 10 min)
//!
//! leave: ─ look ─ close ─► Gone
//! ```
//!
//! An opening that the router granted twice and does not find is open and not visible: some routers
//! cannot look up what they have, and say so by the same codes as "there is none". It is renewed
//! unseen, and closed unseen at the end.
//!
//! Invariants: a place on the router is looked at before it is asked for, and an entry is closed
//! only right after it was seen to be ours (by machine and text), so nothing that others made is
//! overwritten or removed, as far as the router can tell what is there. A renewal asks for what is
//! there already and never closes it first. What may be open because of us is known (`touched`)
//! from before the request is sent until it is seen to be gone.

mod answers;
mod consequences;

use std::{net::IpAddr, num::NonZeroU16, time::Duration};

use fastrand::Rng;
use tokio::time::Instant;

use super::{
    jitter::about,
    router::{Entry, Granted, MapRequest, RouterError},
    want::Want,
};
use crate::gateway::OnConflict;

/// The shortest and the longest time until a renewal.
const SOONEST_RENEWAL: Duration = Duration::from_secs(60);
const LATEST_RENEWAL: Duration = Duration::from_secs(1800);
/// How often an opening without end is renewed all the same: "permanent" is seven days on many
/// routers.
const PERMANENT_RENEWAL: Duration = Duration::from_secs(3600);
/// How long a refusal is respected.
const REFUSED_FOR: Duration = Duration::from_secs(3600);
/// How many other ports are tried where any will do.
const MOST_MOVES: u32 = 8;
/// How many looks at a place may fail before it is asked for unseen: some routers open ports and
/// cannot tell.
const MOST_UNSEEN: u32 = 3;
/// Tries to take an opening back from a router that does not answer.
const TRIES_TO_CLOSE: u32 = 3;
/// How long to wait between these tries.
const NEXT_TRY_TO_CLOSE: Duration = Duration::from_secs(5);

/// What the configuration says about openings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LeaseTerms {
    /// The lease that is asked for.
    pub(super) lease: Duration,
    /// What to do about a port that another machine holds.
    pub(super) on_conflict: OnConflict,
    /// How often an opening is looked at.
    pub(super) check_every: Duration,
}

/// What was learnt about one router.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Habits {
    /// It only keeps openings without end (UPnP 725).
    pub(super) permanent_only: bool,
    /// It shows openings with a lease as if they had none.
    pub(super) hides_leases: bool,
}

/// All that a decision depends on besides the lease itself.
pub(super) struct Circumstances<'a> {
    pub(super) now: Instant,
    pub(super) terms: &'a LeaseTerms,
    pub(super) habits: &'a mut Habits,
    /// Addresses that this machine had before: what they hold with our text was opened by us.
    pub(super) formers: &'a [IpAddr],
    pub(super) rng: &'a mut Rng,
}

/// A request to the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Open it, or renew it.
    Open(MapRequest),
    /// Open it at any port.
    AnyPort(MapRequest),
    /// See what is there.
    Look(MapRequest),
    /// Take it back.
    Close(MapRequest),
}

impl Call {
    /// Whether it changes something on the router.
    pub(super) fn is_write(&self) -> bool {
        !matches!(self, Self::Look(_))
    }

    /// What it is about.
    pub(super) fn request(&self) -> &MapRequest {
        match self {
            Self::Open(request) | Self::AnyPort(request) | Self::Look(request) | Self::Close(request) => {
                request
            }
        }
    }
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// To [`Call::Open`] and [`Call::AnyPort`].
    Granted(Result<Granted, RouterError>),
    /// To [`Call::Look`].
    Seen(Result<Entry, RouterError>),
    /// To [`Call::Close`].
    Closed(Result<(), RouterError>),
}

impl Answer {
    /// The words of a router that did not answer.
    pub(super) fn lost(&self) -> Option<&str> {
        match self {
            Self::Granted(Err(RouterError::Lost(why)))
            | Self::Seen(Err(RouterError::Lost(why)))
            | Self::Closed(Err(RouterError::Lost(why))) => Some(why),
            _ => None,
        }
    }
}

/// The holder of a port that we want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// The machine it leads to.
    pub(super) client: IpAddr,
    /// The port of that machine.
    pub(super) port: u16,
    /// The text beside it.
    pub(super) text: String,
}

/// How an opening is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Asked for, or about to be.
    Wanted,
    /// There.
    Open(Open),
    /// Another machine has the port, as far as the router reports.
    Conflict(Option<Holder>),
    /// The router refuses it, and will for a while.
    Denied(String),
    /// It did not work this time.
    Failed(String),
    /// On its way out.
    Leaving,
    /// Out.
    Gone(Gone),
}

/// An opening that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Open {
    /// What was granted; `None` without end.
    pub(super) lease: Option<Duration>,
    /// When it ends, as far as is known.
    pub(super) ends: Option<Instant>,
    /// Whether it was seen to be there, or the router cannot tell.
    pub(super) settled: bool,
    /// Whether we opened it. Another program's that leads to the same place does as well; it is
    /// only looked at.
    pub(super) ours: bool,
    /// When it has to be renewed.
    renew_at: Instant,
    /// Whether it has to be closed and opened then, because the router does not prolong it or has
    /// lost half of it.
    replace: bool,
    /// Whether the router shows what it has, so that a look tells something.
    visible: bool,
}

impl Open {
    /// Whether the router shows it.
    pub(super) fn is_visible(&self) -> bool {
        self.visible
    }
}

/// How an opening ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// It was never there, or no longer.
    Nothing,
    /// Taken back.
    Closed,
    /// It is still there and ends by itself.
    Left(String),
}

/// The step that is next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// See what is at the port, before it is requested.
    Scout,
    /// MapRequest for it.
    Add,
    /// MapRequest for any port.
    AddAny,
    /// See what is at the port that was just refused.
    SeeHolder,
    /// Take back what we opened from an address that we no longer have.
    Evict(Holder),
    /// See whether the router keeps what it granted; with what was left before, if this was a
    /// renewal.
    Verify(Option<Duration>),
    /// See whether it is still there.
    Check,
    /// MapRequest for what is there already.
    Renew,
    /// Close it, to open it again.
    Replace,
    /// See whether it is still ours, before it is taken back for good.
    Part,
    /// Take it back for good.
    Close,
}

/// One opening.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    want: Want,
    state: State,
    step: Step,
    at: Instant,
    external_port: NonZeroU16,
    nonce: [u8; 12],
    pinhole: Option<u16>,
    /// The text that the router shows, where it is not the one it was given.
    shown: Option<String>,
    touched: bool,
    /// The same, before the request that is under way.
    was_touched: bool,
    /// Failures in a row.
    failures: u32,
    /// Whether a mismatch was repaired already, since the last time all was well.
    repaired: bool,
    /// How many looks before asking came to nothing, in a row.
    unseen: u32,
    /// The router granted it and did not find it afterwards: what a look does not find may be open
    /// all the same.
    hidden: bool,
    /// How many ports were tried in place of the one wanted.
    moves: u32,
    /// How often it was opened where nothing was.
    times_opened: u32,
}

/// What is kept of an opening over a restart, less its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) external_port: NonZeroU16,
    pub(super) nonce: [u8; 12],
    pub(super) pinhole: Option<u16>,
    /// The text that the router shows.
    pub(super) text: String,
    /// Whether the router granted it and did not find it afterwards.
    pub(super) hidden: bool,
}

impl Lease {
    /// An opening that is to be there.
    pub(super) fn wanted(want: Want, now: Instant) -> Self {
        let external_port = want.external_port;
        Self {
            want,
            state: State::Wanted,
            step: Step::Scout,
            at: now,
            external_port,
            nonce: nonce(),
            pinhole: None,
            shown: None,
            touched: false,
            was_touched: false,
            failures: 0,
            repaired: false,
            unseen: 0,
            hidden: false,
            moves: 0,
            times_opened: 0,
        }
    }

    /// The same, which was opened before: it is known again by what was kept.
    pub(super) fn adopted(want: Want, kept: Kept, now: Instant) -> Self {
        let shown = (kept.text != want.text).then_some(kept.text);
        // A port that was taken once in place of the wanted one is kept for good.
        let moves = if kept.external_port == want.external_port { 0 } else { MOST_MOVES };
        let Kept { external_port, nonce, pinhole, hidden, .. } = kept;
        let fresh = Self::wanted(want, now);
        Self { external_port, nonce, pinhole, shown, hidden, moves, touched: true, ..fresh }
    }

    /// What is kept of it.
    pub(super) fn kept(&self) -> Kept {
        let text = self.shown.as_ref().unwrap_or(&self.want.text).clone();
        Kept {
            external_port: self.external_port,
            nonce: self.nonce,
            pinhole: self.pinhole,
            text,
            hidden: self.hidden,
        }
    }

    pub(super) fn want(&self) -> &Want {
        &self.want
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// The port on the router.
    pub(super) fn external_port(&self) -> NonZeroU16 {
        self.external_port
    }

    /// Whether something of ours may be on the router.
    pub(super) fn is_touched(&self) -> bool {
        self.touched
    }

    /// How often it was opened where nothing was: a renewal does not count.
    pub(super) fn times_opened(&self) -> u32 {
        self.times_opened
    }

    /// When the next request is due; never, for one that is gone.
    pub(super) fn due(&self) -> Instant {
        self.at
    }

    /// Whether the next request changes something, or must be followed at once by one that does.
    pub(super) fn leads_to_write(&self) -> bool {
        match &self.step {
            Step::Verify(_) | Step::SeeHolder => false,
            Step::Check => {
                matches!(&self.state, State::Open(open) if open.ours && open.renew_at <= self.at)
            }
            _ => true,
        }
    }

    /// What the router has to be asked next.
    pub(super) fn call(&self, terms: &LeaseTerms, habits: Habits) -> Call {
        let request = self.request(terms, habits);
        match &self.step {
            Step::Scout | Step::SeeHolder | Step::Verify(_) | Step::Check | Step::Part => Call::Look(request),
            Step::Add | Step::Renew => Call::Open(request),
            Step::AddAny => Call::AnyPort(request),
            Step::Evict(_) | Step::Replace | Step::Close => Call::Close(request),
        }
    }

    fn request(&self, terms: &LeaseTerms, habits: Habits) -> MapRequest {
        MapRequest {
            protocol: self.want.protocol(),
            internal: self.want.internal,
            external_port: self.external_port,
            lease: (!habits.permanent_only).then_some(terms.lease),
            text: self.want.text.clone(),
            nonce: self.nonce,
            pinhole: self.pinhole,
        }
    }

    /// Notes that the request is about to be sent: from here on something may be open because of
    /// us.
    pub(super) fn sending(&mut self) {
        if matches!(self.step, Step::Add | Step::AddAny) {
            self.was_touched = self.touched;
            self.touched = true;
        }
    }

    /// Takes it out: what may be open is taken back.
    pub(super) fn leave(&mut self, now: Instant) {
        if !self.touched {
            self.state = State::Gone(Gone::Nothing);
            return;
        }
        self.state = State::Leaving;
        self.failures = 0;
        self.go(Step::Part, now);
    }

    /// The router may have forgotten it: it was restarted, or was away.
    pub(super) fn doubt(&mut self, now: Instant) {
        let State::Open(open) = &self.state else { return };
        let step = match &self.step {
            Step::Verify(before) => Step::Verify(*before),
            _ if open.visible => Step::Check,
            _ => Step::Renew,
        };
        self.go(step, now);
    }

    /// The router is another one than before, or as good as that: whatever it refused, it is asked
    /// again.
    pub(super) fn try_again(&mut self, now: Instant) {
        match &self.state {
            State::Open(_) => self.doubt(now),
            State::Conflict(_) | State::Denied(_) | State::Failed(_) => self.go(Step::Scout, now),
            State::Wanted | State::Leaving | State::Gone(_) => {}
        }
    }

    /// Closes it and opens it again: the router lost a part of it while it closed another one.
    pub(super) fn renovate(&mut self, now: Instant) {
        if let State::Open(open) = &mut self.state
            && open.ours
            && open.visible
        {
            open.replace = true;
            open.renew_at = now;
            self.go(Step::Check, now);
        }
    }

    /// Notes that it has ended, if its time is over.
    pub(super) fn lapse(&mut self, now: Instant) {
        if let State::Open(Open { ends: Some(ends), .. }) = self.state
            && ends <= now
        {
            self.state = State::Failed("its lease ended, and the router did not prolong it".to_owned());
            self.go(Step::Scout, now);
        }
    }

    fn go(&mut self, step: Step, at: Instant) {
        self.step = step;
        self.at = at;
    }
}

/// A new nonce of PCP. It must be unpredictable: it is the right to close the opening (RFC 6887
/// section 11.1).
fn nonce() -> [u8; 12] {
    let mut nonce = [0; 12];
    // Up to 256 bytes come whole (getrandom(2)). Only a kernel without this call fails.
    if rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty()).is_err() {
        Rng::new().fill(&mut nonce);
    }
    nonce
}

/// When an opening with this lease has to be renewed: at half of it, give or take a tenth.
fn renewal(lease: Option<Duration>, rng: &mut Rng) -> Duration {
    let Some(lease) = lease else { return about(rng, PERMANENT_RENEWAL, 10) };
    let half = (lease / 2).clamp(SOONEST_RENEWAL, LATEST_RENEWAL).min(lease * 2 / 3);
    about(rng, half, 10)
}

#[cfg(test)]
mod tests;
