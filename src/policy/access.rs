//! Decides on a client by address and country.
//!
//! Owns [`Access`], an [`AccessSpec`] ready to be asked, and [`Side`], one side of it: entries of
//! the mapping itself and the named lists of the daemon. A changed list file replaces a list for
//! all its users. Knows no clock, and of a client only its address.
//!
//! The rules, in the order in which they decide:
//!
//! 1. The most specific entry that matches the client decides, of `allow`, `deny` and every list
//!    that they name. Of two that are as long, `deny` does. An entry is more specific than a
//!    country.
//! 2. Without such an entry, a client whose country is in `deny_countries` is refused.
//! 3. With `allow_countries`, the client enters if its country is one of them, and is refused
//!    otherwise. An address without a country (private, loopback, link-local, or unknown to the
//!    database) is refused: name it in `allow`.
//! 4. With `allow` and without `allow_countries`, it is refused; with neither, it enters.
//!
//! An entry matches the address that a client comes from. If that contains an IPv4 address (NAT64,
//! 6to4, Teredo), `deny` and `deny_countries` also match that one: its /32 is as specific as the
//! whole IPv6 address. `allow` does not, because a network between portway and the client could
//! write any IPv4 address into it.

pub(super) mod entry;
pub(super) mod set;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use arc_swap::ArcSwap;

use self::set::IpSet;
use super::{AccessSpec, Countries, Country, Entries, ListName, Refusal};
use crate::mapping::ipv4_inside;

/// How many bits an IPv6 address has more than an IPv4 address.
const V6_BITS_MORE: u8 = 96;

/// A named list as everyone shares it: its content can be replaced at any time.
pub(super) type List = ArcSwap<IpSet>;

/// An [`AccessSpec`], ready to be asked.
#[derive(Debug)]
pub(super) struct Access {
    allow: Option<Side>,
    deny: Side,
    allow_countries: Option<BTreeSet<Country>>,
    deny_countries: BTreeSet<Country>,
}

impl Access {
    /// Prepares `spec`; `list` finds a named list.
    pub(super) fn new(spec: &AccessSpec, list: impl Fn(&ListName) -> Arc<List>) -> Self {
        Self {
            allow: spec.allow.as_ref().map(|entries| Side::new(entries, &list)),
            deny: Side::new(&spec.deny, &list),
            allow_countries: spec.allow_countries.clone(),
            deny_countries: spec.deny_countries.clone(),
        }
    }

    /// Whether `client` (canonical) may enter. The countries are asked for only where they decide.
    pub(super) fn decide(
        &self,
        client: IpAddr,
        countries: impl FnOnce() -> Option<Arc<Countries>>,
    ) -> Result<(), Refusal> {
        let denied = self.deny.longest(client).max(self.denied_inside(client));
        let allowed = self.allow.as_ref().and_then(|allow| allow.longest(client));
        match (allowed, denied) {
            (None, None) => self.without_entry(client, countries),
            // `None` is less than any length, and a tie is a refusal.
            (allowed, denied) if denied >= allowed => Err(Refusal::Denied),
            _ => Ok(()),
        }
    }

    /// The entry of `deny` for the IPv4 address inside an IPv6 one, as long as it would be there.
    fn denied_inside(&self, client: IpAddr) -> Option<u8> {
        let length = self.deny.longest(inside(client)?)?;
        Some(length + V6_BITS_MORE)
    }

    fn without_entry(
        &self,
        client: IpAddr,
        countries: impl FnOnce() -> Option<Arc<Countries>>,
    ) -> Result<(), Refusal> {
        let by_default = if self.allow.is_some() { Err(Refusal::Denied) } else { Ok(()) };
        if self.allow_countries.is_none() && (self.deny_countries.is_empty() || by_default.is_err()) {
            return by_default;
        }
        let countries = countries();
        let is_in = |ip: IpAddr, set: &BTreeSet<Country>| {
            let country = countries.as_ref().and_then(|countries| countries.country(ip));
            country.is_some_and(|country| set.contains(&country))
        };
        let is_denied = |ip| is_in(ip, &self.deny_countries);
        match &self.allow_countries {
            _ if is_denied(client) || inside(client).is_some_and(is_denied) => Err(Refusal::Country),
            Some(allowed) if is_in(client, allowed) => Ok(()),
            Some(_) => Err(Refusal::Country),
            None => by_default,
        }
    }
}

/// Access to a part of a mapping, such as one of its host names. It is prepared when the first
/// client asks, and shared by its clones from then on.
#[derive(Clone, Debug, Default)]
pub struct PartAccess {
    spec: AccessSpec,
    ready: OnceLock<Arc<Access>>,
}

impl PartAccess {
    /// What the configuration says.
    pub(crate) fn spec(&self) -> &AccessSpec {
        &self.spec
    }

    /// Ready to be asked; `None` where every client may enter. `list` finds a named list.
    pub(super) fn access(&self, list: impl Fn(&ListName) -> Arc<List>) -> Option<&Access> {
        let AccessSpec { allow, deny, allow_countries, deny_countries } = &self.spec;
        let is_open = allow.is_none()
            && (deny.nets.is_empty() && deny.lists.is_empty())
            && allow_countries.is_none()
            && deny_countries.is_empty();
        (!is_open).then(|| &**self.ready.get_or_init(|| Access::new(&self.spec, list).into()))
    }
}

impl From<AccessSpec> for PartAccess {
    fn from(spec: AccessSpec) -> Self {
        Self { spec, ready: OnceLock::new() }
    }
}

impl PartialEq for PartAccess {
    fn eq(&self, other: &Self) -> bool {
        self.spec == other.spec
    }
}

impl Eq for PartAccess {}

/// The IPv4 address that is the owner of an IPv6 address.
fn inside(client: IpAddr) -> Option<IpAddr> {
    match client {
        IpAddr::V6(ip) => ipv4_inside(ip).map(IpAddr::from),
        IpAddr::V4(_) => None,
    }
}

/// Entries, ready to be asked.
#[derive(Debug, Default)]
pub(super) struct Side {
    nets: IpSet,
    lists: Vec<Arc<List>>,
}

impl Side {
    /// Prepares `entries`; `list` finds a named list.
    pub(super) fn new(entries: &Entries, list: impl Fn(&ListName) -> Arc<List>) -> Self {
        Self { nets: entries.nets.iter().copied().collect(), lists: entries.lists.iter().map(list).collect() }
    }

    /// The length of the longest prefix that has `client` (canonical), of all entries and lists.
    pub(super) fn longest(&self, client: IpAddr) -> Option<u8> {
        let listed = self.lists.iter().filter_map(|list| list.load().longest(client)).max();
        self.nets.longest(client).max(listed)
    }
}

#[cfg(test)]
mod tests;
