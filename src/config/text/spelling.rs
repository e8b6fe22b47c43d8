//! Values as the configuration spells them, for every window that shows a plan.
//!
//! A [`Term`] is a key with its value. What shows a plan goes through its terms and knows no key by
//! name.

mod ways;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32, NonZeroU64},
    time::Duration,
};

use ipnet::IpNet;
use serde_json::{Value, json};
pub(crate) use ways::{Hosts, host_terms};

use crate::{
    config::text::amount::UNLIMITED,
    mapping::{Timeout, WhileDown},
    meter::SessionLines,
    policy::{Country, Entries, Limit, Rate, Refuse},
};

/// A key of a mapping and its value in a plan.
pub(crate) struct Term<'p> {
    /// The key.
    pub key: &'static str,
    /// The value.
    pub value: Box<dyn Spell + 'p>,
    /// The value is not the built-in one.
    pub differs: bool,
}

impl<'p> Term<'p> {
    /// A term that borrows its value from the plan.
    pub(crate) fn new<T: Spell + PartialEq>(key: &'static str, value: &'p T, built_in: &T) -> Self {
        Self { key, value: Box::new(value), differs: value != built_in }
    }

    /// A term whose value is made from the plan.
    pub(crate) fn owned<T: Spell + PartialEq + 'p>(key: &'static str, value: T, built_in: &T) -> Self {
        let differs = value != *built_in;
        Self { key, value: Box::new(value), differs }
    }
}

/// A value that the configuration can hold.
pub(crate) trait Spell {
    /// The value on one line. Of a long list it has the first entries and the number of the others.
    fn brief(&self) -> String;

    /// The whole value.
    fn json(&self) -> Value {
        self.brief().into()
    }

    /// The word for no value; without one, JSON has `null`.
    fn absent() -> Option<&'static str>
    where
        Self: Sized,
    {
        None
    }
}

impl<T: Spell> Spell for &T {
    fn brief(&self) -> String {
        (**self).brief()
    }

    fn json(&self) -> Value {
        (**self).json()
    }

    fn absent() -> Option<&'static str> {
        T::absent()
    }
}

impl<T: Spell> Spell for Option<T> {
    fn brief(&self) -> String {
        self.as_ref().map_or_else(|| T::absent().unwrap_or_default().to_owned(), T::brief)
    }

    fn json(&self) -> Value {
        self.as_ref().map_or_else(|| T::absent().into(), T::json)
    }
}

impl Spell for Duration {
    fn brief(&self) -> String {
        Timeout::After(*self).to_string()
    }
}

impl Spell for Timeout {
    fn brief(&self) -> String {
        self.to_string()
    }
}

impl Spell for IpAddr {
    fn brief(&self) -> String {
        self.to_string()
    }
}

impl Spell for NonZeroU32 {
    fn brief(&self) -> String {
        self.to_string()
    }

    fn json(&self) -> Value {
        self.get().into()
    }
}

impl Spell for Limit {
    fn brief(&self) -> String {
        match self {
            Self::Unlimited => UNLIMITED.into(),
            Self::AtMost(n) => n.brief(),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Unlimited => UNLIMITED.into(),
            Self::AtMost(n) => n.json(),
        }
    }
}

/// Bytes: `64KiB`, `10MB`, in the largest unit that fits exactly.
impl Spell for NonZeroU64 {
    fn brief(&self) -> String {
        const UNITS: [(u64, &str); 6] = [
            (1 << 30, "GiB"),
            (1_000_000_000, "GB"),
            (1 << 20, "MiB"),
            (1_000_000, "MB"),
            (1 << 10, "KiB"),
            (1000, "KB"),
        ];
        let bytes = self.get();
        let (each, unit) =
            UNITS.into_iter().find(|(each, _)| bytes.is_multiple_of(*each)).unwrap_or((1, "B"));
        format!("{}{unit}", bytes / each)
    }

    fn absent() -> Option<&'static str> {
        Some(UNLIMITED)
    }
}

/// `20/s`, `10/min`, `100/h`, without the burst.
impl Spell for Rate {
    fn brief(&self) -> String {
        let count = self.count;
        match self.per.as_secs() {
            1 => format!("{count}/s"),
            60 => format!("{count}/min"),
            3600 => format!("{count}/h"),
            seconds => format!("{count}/{seconds}s"),
        }
    }

    fn absent() -> Option<&'static str> {
        Some(UNLIMITED)
    }
}

impl Spell for Refuse {
    fn brief(&self) -> String {
        refuse(*self).to_owned()
    }
}

impl Spell for SessionLines {
    fn brief(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Spell for BTreeSet<Country> {
    fn brief(&self) -> String {
        few(self.iter().map(|code| code.as_str().to_owned()), self.len())
    }

    fn json(&self) -> Value {
        self.iter().map(Country::as_str).collect()
    }
}

impl Spell for Entries {
    fn brief(&self) -> String {
        few(entries(self), self.lists.len() + self.nets.len())
    }

    fn json(&self) -> Value {
        entries(self).collect()
    }
}

/// An opening on the router.
#[derive(PartialEq)]
pub(crate) struct Opening {
    pub(crate) external_port: NonZeroU16,
    pub(crate) ipv6: bool,
    pub(crate) while_down: WhileDown,
}

impl Spell for Opening {
    fn brief(&self) -> String {
        let ipv6 = if self.ipv6 { "+ipv6" } else { "" };
        let while_down = if self.while_down == WhileDown::Close { " while up" } else { "" };
        format!("{}{ipv6}{while_down}", self.external_port)
    }

    fn json(&self) -> Value {
        let mut value = json!({ "external_port": self.external_port, "ipv6": self.ipv6 });
        if self.while_down != WhileDown::default() {
            value["while_down"] = json!(self.while_down.as_str());
        }
        value
    }
}

/// The word of the key `refuse`.
pub(crate) const fn refuse(refuse: Refuse) -> &'static str {
    match refuse {
        Refuse::Close => "close",
        Refuse::Reset => "reset",
        Refuse::Drop => "drop",
    }
}

/// Each entry, the lists first.
fn entries(entries: &Entries) -> impl Iterator<Item = String> {
    let lists = entries.lists.iter().map(|list| format!("@{}", list.0));
    lists.chain(entries.nets.iter().map(net))
}

/// A network, or a single address.
fn net(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

/// The first few of `count`, and how many more there are. Each mapping may have a thousand: only
/// those shown are spelled.
fn few(all: impl Iterator<Item = String>, count: usize) -> String {
    const SHOWN: usize = 3;
    let mut shown: Vec<_> = all.take(SHOWN).collect();
    match count.saturating_sub(SHOWN) {
        0 => {}
        more => shown.push(format!("+{more}")),
    }
    shown.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_shown_in_the_largest_unit_that_fits() {
        for (bytes, text) in [
            (65_536, "64KiB"),
            (10_000_000, "10MB"),
            (1 << 30, "1GiB"),
            (1025, "1025B"),
            (2000, "2KB"),
            (1_024_000, "1000KiB"),
        ] {
            assert_eq!(NonZeroU64::new(bytes).brief(), text);
        }
        assert_eq!(None::<NonZeroU64>.brief(), "unlimited");
    }

    #[test]
    fn many_are_cut_and_counted() {
        let some = |n: usize| few((1..=n).map(|i| i.to_string()), n);
        assert_eq!([some(0), some(3), some(5)], ["", "1,2,3", "1,2,3,+2"]);
    }
}
