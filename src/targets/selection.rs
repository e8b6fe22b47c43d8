//! How a mapping chooses among its targets: the keys `balance`, `health`, `on_down`, `slow_start`.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

/// How the sessions of a mapping are spread over its targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Which target is the next one.
    pub balance: Balance,
    /// How targets are probed; `None` learns only from sessions.
    pub health: Option<Health>,
    /// What becomes of the sessions of a target that went down.
    pub on_down: OnDown,
    /// For how long a target that came back gets less than its share; `None` gives it all at once.
    pub slow_start: Option<Duration>,
}

/// Which target a new session goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Balance {
    /// By turns, as the weights say.
    #[default]
    RoundRobin,
    /// The one with the fewest sessions for its weight.
    LeastSessions,
    /// By the client's address: a client keeps its target.
    ClientHash,
    /// The first that works, in the order given.
    First,
}

impl Balance {
    /// The word for it in the interface.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::LeastSessions => "least-sessions",
            Self::ClientHash => "client-hash",
            Self::First => "first",
        }
    }
}

/// How targets are probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    /// The time between two probes of a target.
    pub interval: Duration,
    /// The time that a probe may take.
    pub timeout: Duration,
    /// So many good probes in a row mean that a target is back.
    pub rise: NonZeroU32,
    /// So many failed probes in a row mean that it is down.
    pub fall: NonZeroU32,
    /// What a probe sends; UDP needs it.
    pub send: Option<Arc<[u8]>>,
    /// What the answer must contain; `None` takes any answer (UDP) or a connection (TCP).
    pub expect: Option<Arc<[u8]>>,
}

/// What becomes of the sessions of a target that went down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnDown {
    /// They go on.
    #[default]
    Keep,
    /// They end.
    Close,
}

impl OnDown {
    /// The word for it in the interface.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Close => "close",
        }
    }
}
