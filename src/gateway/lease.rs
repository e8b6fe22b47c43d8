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
//! An opening that the router granted twice and does not find is open and hidden: some routers
//! cannot look up what they have, and answer with the same codes as for a free port. Such an
//! opening is renewed without a look, and closed without a look at the end.
//!
//! A [`Step`] is the next request. The [`State`] says why: a look before a request, at what is
//! open, or before the end.
//!
//! Invariants: a port of the router is looked at before it is requested, and an entry is closed
//! only right after it was seen to be ours (by machine and text), so nothing that others made is
//! overwritten or removed, as far as the router can tell what is there. A renewal requests what is
//! there already and never closes it first. [`Trace`] says what may be open because of us, from
//! before the request is sent until it is seen to be gone.

mod answers;
mod consequences;

use std::{net::IpAddr, num::NonZeroU16, time::Duration};

use fastrand::Rng;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    RouterSettings,
    jitter::about,
    router::{Entry, Granted, Holder, MapRequest, RouterError},
    want::Want,
};

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

/// What was learnt about one router.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Habits {
    /// It only keeps openings without end (UPnP 725).
    pub(super) permanent_only: bool,
    /// It shows openings with a lease as if they had none.
    pub(super) hides_leases: bool,
}

/// All that a decision depends on besides the lease itself.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) settings: &'a RouterSettings,
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

/// The answer to a [`Call`].
pub(super) type Answer = Result<Done, RouterError>;

/// What the router did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// To [`Call::Open`] and [`Call::AnyPort`].
    Granted(Granted),
    /// To [`Call::Look`].
    Seen(Entry),
    /// To [`Call::Close`].
    Closed,
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
    /// When it has to be renewed.
    renew_at: Instant,
    /// Whether it has to be closed and opened then, because the router does not prolong it or has
    /// lost half of it.
    replace: bool,
    /// What was left of the lease before the last renewal.
    left_before: Option<Duration>,
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

/// The request that is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// See what is at the port: before a request, of an open one, or before the end.
    Look,
    /// See what is at the port that was just refused.
    SeeHolder,
    /// See whether the router keeps what it granted.
    Verify,
    /// Request the port.
    Add,
    /// Request what is there already.
    Renew,
    /// Request any port.
    AddAny,
    /// Close it: for good when leaving; to open it again when open; to evict a former address of
    /// this machine when in conflict.
    Close,
}

/// Whether something of ours may be on the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trace {
    /// Nothing. An open port without a trace is another program's that leads to the same address
    /// and port; it is only looked at.
    Nothing,
    /// A request is under way, and nothing was there before.
    Requested,
    /// Something may be there.
    Left,
}

/// What a look at the port tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "bool", into = "bool")]
pub(super) enum Sight {
    /// The router shows its entries.
    #[default]
    Shown,
    /// The router granted the port twice and did not find it: a port that looks free may be ours.
    Hidden,
    /// The router cannot be looked at.
    Blind,
}

impl From<bool> for Sight {
    fn from(hidden: bool) -> Self {
        if hidden { Self::Hidden } else { Self::Shown }
    }
}

impl From<Sight> for bool {
    fn from(sight: Sight) -> Self {
        sight == Sight::Hidden
    }
}

/// By what an opening is found again on the router, also after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) external_port: NonZeroU16,
    pub(super) nonce: [u8; 12],
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pinhole: Option<u16>,
    /// The text that the router shows, which need not be the one it was given.
    #[serde(rename = "shown")]
    pub(super) text: String,
    #[serde(rename = "hidden", default)]
    pub(super) sight: Sight,
}

/// One opening.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    want: Want,
    mark: Mark,
    state: State,
    step: Step,
    at: Instant,
    trace: Trace,
    /// Failures in a row.
    failures: u32,
    /// Whether a mismatch was repaired already, since the last time all was well.
    repaired: bool,
    /// How many looks before a request failed, in a row.
    unseen: u32,
    /// How many ports were tried in place of the one wanted.
    moves: u32,
    /// How often it was opened where nothing was.
    times_opened: u32,
}

impl Lease {
    /// An opening that is to be there.
    pub(super) fn wanted(want: Want, now: Instant) -> Self {
        let (external_port, text) = (want.external_port, want.text.clone());
        let mark = Mark { external_port, nonce: nonce(), pinhole: None, text, sight: Sight::Shown };
        Self {
            want,
            mark,
            state: State::Wanted,
            step: Step::Look,
            at: now,
            trace: Trace::Nothing,
            failures: 0,
            repaired: false,
            unseen: 0,
            moves: 0,
            times_opened: 0,
        }
    }

    /// The same, which was opened before.
    pub(super) fn adopted(want: Want, mark: Mark, now: Instant) -> Self {
        // A port that was taken once in place of the wanted one is kept for good.
        let moves = if mark.external_port == want.external_port { 0 } else { MOST_MOVES };
        Self { mark, moves, trace: Trace::Left, ..Self::wanted(want, now) }
    }

    /// By what it is found again.
    pub(super) fn mark(&self) -> &Mark {
        &self.mark
    }

    pub(super) fn want(&self) -> &Want {
        &self.want
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// The port on the router.
    pub(super) fn external_port(&self) -> NonZeroU16 {
        self.mark.external_port
    }

    /// Whether something of ours may be on the router.
    pub(super) fn is_touched(&self) -> bool {
        self.trace != Trace::Nothing
    }

    /// Whether a look at the port tells what is there.
    pub(super) fn is_shown(&self) -> bool {
        self.mark.sight == Sight::Shown
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
        match (self.step, &self.state) {
            (Step::Verify | Step::SeeHolder, _) => false,
            (Step::Look, State::Open(open)) => self.is_touched() && open.renew_at <= self.at,
            _ => true,
        }
    }

    /// What the router has to be asked next.
    pub(super) fn call(&self, settings: &RouterSettings, habits: Habits) -> Call {
        let request = MapRequest {
            protocol: self.want.protocol(),
            internal: self.want.internal,
            external_port: self.mark.external_port,
            lease: (!habits.permanent_only).then_some(settings.lease),
            text: self.want.text.clone(),
            nonce: self.mark.nonce,
            pinhole: self.mark.pinhole,
        };
        match self.step {
            Step::Look | Step::SeeHolder | Step::Verify => Call::Look(request),
            Step::Add | Step::Renew => Call::Open(request),
            Step::AddAny => Call::AnyPort(request),
            Step::Close => Call::Close(request),
        }
    }

    /// Notes that the request is about to be sent: from here on something may be open because of
    /// us.
    pub(super) fn sending(&mut self) {
        if matches!(self.step, Step::Add | Step::AddAny) && !self.is_touched() {
            self.trace = Trace::Requested;
        }
    }

    /// Takes it out: what may be open is taken back.
    pub(super) fn leave(&mut self, now: Instant) {
        if !self.is_touched() {
            self.state = State::Gone(Gone::Nothing);
            return;
        }
        self.state = State::Leaving;
        self.failures = 0;
        self.go(Step::Look, now);
    }

    /// The router may have forgotten it: it was restarted, or was away.
    pub(super) fn doubt(&mut self, now: Instant) {
        if matches!(self.state, State::Open(_)) {
            self.go(if self.step == Step::Verify { Step::Verify } else { self.check() }, now);
        }
    }

    /// How an open one is checked: with a look where one tells something.
    fn check(&self) -> Step {
        if self.is_touched() && !self.is_shown() { Step::Renew } else { Step::Look }
    }

    /// The router is another one than before, or as good as that: whatever it refused, it is asked
    /// again.
    pub(super) fn try_again(&mut self, now: Instant) {
        match &self.state {
            State::Open(_) => self.doubt(now),
            State::Conflict(_) | State::Denied(_) | State::Failed(_) => self.go(Step::Look, now),
            State::Wanted | State::Leaving | State::Gone(_) => {}
        }
    }

    /// Closes it and opens it again: the router lost a part of it while it closed another one.
    pub(super) fn renovate(&mut self, now: Instant) {
        let is_seen = self.is_touched() && self.is_shown();
        if let State::Open(open) = &mut self.state
            && is_seen
        {
            open.replace = true;
            open.renew_at = now;
            self.go(Step::Look, now);
        }
    }

    /// Notes that it has ended, if its time is over.
    pub(super) fn lapse(&mut self, now: Instant) {
        if let State::Open(Open { ends: Some(ends), .. }) = self.state
            && ends <= now
        {
            self.state = State::Failed("its lease ended, and the router did not prolong it".to_owned());
            self.go(Step::Look, now);
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
