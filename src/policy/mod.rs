//! Who may enter: lists, countries, rates, caps and bans.
//!
//! Owns the terms of a mapping ([`Policy`], a plain value), why a client was refused ([`Refusal`]), and the decision
//! itself: [`Admission`] is a mapping's doorkeeper, [`Gate`] what all of them share (lists, countries, the [`Guard`]
//! and its bans). Nothing here touches a socket, and every client is known by its canonical address.
//!
//! The order of the questions: is the client banned; do the lists and countries allow it; does a rate; does a cap. Only
//! the first two can end a session that lives ([`Admission::recheck`]).

mod access;
mod admission;
mod country;
mod gate;
mod guard;
mod quota;
mod rate;
mod shards;

use std::{collections::BTreeSet, fmt, num::NonZeroU32, path::PathBuf, sync::Arc, time::Duration};

pub use access::set::IpSet;
pub(crate) use access::{
    entry::{host_bits, parse_net},
    set::ListError,
};
pub use admission::Admission;
pub(crate) use admission::Summary;
pub(crate) use country::Countries;
pub use gate::{Gate, GateInput};
pub(crate) use gate::{GateSpec, ListSpec};
pub(crate) use guard::{Guard, GuardSnapshot, Restored};
use ipnet::IpNet;
pub(crate) use quota::Permit;
use serde::Serialize;

/// The terms of a mapping: who may enter, how often, how many at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Who, by address and country.
    pub access: AccessSpec,
    /// How often.
    pub rates: Rates,
    /// How many at once.
    pub caps: Caps,
    /// How a refused TCP client is told.
    pub refuse: Refuse,
}

/// Who may enter, by address and by country.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessSpec {
    /// Who may; everyone who is not denied where it is `None`.
    pub allow: Option<Entries>,
    /// Who may not.
    pub deny: Entries,
    /// The countries whose clients may; any where it is `None`.
    pub allow_countries: Option<BTreeSet<Country>>,
    /// The countries whose clients may not.
    pub deny_countries: BTreeSet<Country>,
}

/// Addresses as `allow`, `deny` and `exempt` name them. A clone shares them: each mapping has those of `[defaults]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// Networks and single addresses.
    pub nets: Arc<[IpNet]>,
    /// Named lists (`"@office"`, without the `@`).
    pub lists: Arc<[ListName]>,
}

/// The name of a list of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ListName(pub Arc<str>);

/// An ISO 3166-1 code of two capital letters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Country([u8; 2]);

impl Country {
    /// Takes two letters, in either case, as a code. Whether there is such a country is not looked at.
    pub fn new(text: &str) -> Option<Self> {
        match *text.as_bytes() {
            [a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() => {
                Some(Self([a.to_ascii_uppercase(), b.to_ascii_uppercase()]))
            }
            _ => None,
        }
    }

    /// The code.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("??")
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// So many in such a time, and so many at once after a quiet time (a token bucket, as GCRA).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many …
    pub count: NonZeroU32,
    /// … in this time.
    pub per: Duration,
    /// How many at once after a quiet time.
    pub burst: NonZeroU32,
}

/// How often; `None` is without limit. Sessions of TCP and flows of UDP count apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// New sessions of the mapping.
    pub new_sessions: Option<Rate>,
    /// New sessions of one client.
    pub new_sessions_per_client: Option<Rate>,
    /// Datagrams of one client.
    pub datagrams_per_client: Option<Rate>,
}

/// A number that may be unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// No limit (`"unlimited"`).
    Unlimited,
    /// At most so many.
    AtMost(NonZeroU32),
}

/// How many sessions at once. Those of TCP and the flows of UDP count apart: so many of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Of the mapping, over all its listeners.
    pub sessions: Limit,
    /// Of one client with the mapping.
    pub sessions_per_client: Limit,
}

impl Default for Caps {
    fn default() -> Self {
        let at_most = |n| NonZeroU32::new(n).map_or(Limit::Unlimited, Limit::AtMost);
        Self { sessions: at_most(10_000), sessions_per_client: at_most(256) }
    }
}

/// How a refused TCP client is told. UDP is always silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Refuse {
    /// The connection is closed (FIN).
    #[default]
    Close,
    /// The connection is reset (RST).
    Reset,
    /// Nothing is said: the client waits.
    Drop,
}

/// The guard's terms (`[guard]`): who misbehaves is banned for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardSpec {
    /// More refusals of one client than this earn a ban; `burst` is not used.
    pub refusals: Rate,
    /// How long the first ban lasts; each repeat doubles it, up to 30 days.
    pub ban: Duration,
    /// Who is never banned.
    pub exempt: Entries,
    /// Where bans are kept over a restart; in memory only where it is `None`.
    pub state: Option<PathBuf>,
}

/// Why a client was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// It is banned.
    Banned,
    /// A `deny` entry has it, or no `allow` entry does.
    Denied,
    /// Its country is denied, or not among those allowed.
    Country,
    /// The mapping takes no more new sessions for the moment.
    Rate,
    /// The client has started too many sessions in too short a time.
    ClientRate,
    /// The mapping has as many sessions as it may.
    Full,
    /// The client has as many sessions as it may.
    ClientFull,
    /// The client sends too many datagrams.
    DatagramRate,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::Banned,
        Self::Denied,
        Self::Country,
        Self::Rate,
        Self::ClientRate,
        Self::Full,
        Self::ClientFull,
        Self::DatagramRate,
    ];

    /// The word of log lines and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Banned => "banned",
            Self::Denied => "denied",
            Self::Country => "country",
            Self::Rate => "rate",
            Self::ClientRate => "client-rate",
            Self::Full => "full",
            Self::ClientFull => "client-full",
            Self::DatagramRate => "datagram-rate",
        }
    }

    /// Whether it is the client's own doing, and so an offence when it comes from a connection (a source that is not
    /// forged). That a mapping is full is not.
    pub const fn is_offence(self) -> bool {
        matches!(self, Self::Denied | Self::Country | Self::ClientRate | Self::ClientFull)
    }
}
