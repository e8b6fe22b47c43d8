//! The rules as plain values: what a mapping asks for ([`Policy`]) and what the guard does
//! ([`GuardSpec`]).

use std::{collections::BTreeSet, fmt, num::NonZeroU32, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;
use serde::Serialize;

/// The rules of a mapping for its clients: access, rates and caps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Access by address and country.
    pub access: AccessSpec,
    /// How often sessions may begin.
    pub rates: Rates,
    /// How many sessions there may be at once.
    pub caps: Caps,
    /// What a refused TCP client gets.
    pub refuse: Refuse,
    /// Only clients that knocked may enter. To all others, the mapping is silent.
    pub knock: bool,
}

/// Access by address and by country.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessSpec {
    /// The clients that may enter. `None` admits every client that is not denied.
    pub allow: Option<Entries>,
    /// The clients that may not enter.
    pub deny: Entries,
    /// The countries whose clients may enter. `None` admits every country.
    pub allow_countries: Option<BTreeSet<Country>>,
    /// The countries whose clients may not enter.
    pub deny_countries: BTreeSet<Country>,
}

/// Addresses as `allow`, `deny` and `exempt` name them. A clone shares them: each mapping has those
/// of `[defaults]`.
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
    /// Takes two letters, in either case, as a code. It does not check that the country exists.
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

/// What a refused TCP client gets. UDP is always silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Refuse {
    /// The connection is closed (FIN).
    #[default]
    Close,
    /// The connection is reset (RST).
    Reset,
    /// The client gets no answer: it waits.
    Drop,
}

/// The rules of the guard (`[guard]`), which bans misbehaving clients for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardSpec {
    /// More refusals of one client than this earn a ban; `burst` is not used.
    pub refusals: Rate,
    /// How long the first ban lasts. Each repeat doubles it, up to 30 days.
    pub ban: Duration,
    /// The clients that are never banned.
    pub exempt: Entries,
    /// Where bans are kept over a restart. `None` keeps them in memory only.
    pub state: Option<PathBuf>,
}
