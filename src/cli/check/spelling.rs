//! Values as one would write them in the configuration.

use std::num::NonZeroU64;

use ipnet::IpNet;

use crate::policy::{Entries, Limit, Rate, Refuse};

pub(super) const UNLIMITED: &str = "unlimited";

/// `1 mapping`, `2 mappings`.
pub(super) fn plural(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// `1 entry`, `2 entries`.
pub(super) fn entry_count(n: usize) -> String {
    format!("{n} {}", if n == 1 { "entry" } else { "entries" })
}

/// `20/s`, `10/min`, `100/h`.
pub(super) fn rate(rate: Option<Rate>) -> String {
    let Some(Rate { count, per, .. }) = rate else { return UNLIMITED.into() };
    match per.as_secs() {
        1 => format!("{count}/s"),
        60 => format!("{count}/min"),
        3600 => format!("{count}/h"),
        seconds => format!("{count}/{seconds}s"),
    }
}

/// `64KiB`, `10MB`: the largest unit that fits exactly.
pub(super) fn size(bytes: Option<NonZeroU64>) -> String {
    const UNITS: [(u64, &str); 6] = [
        (1 << 30, "GiB"),
        (1_000_000_000, "GB"),
        (1 << 20, "MiB"),
        (1_000_000, "MB"),
        (1 << 10, "KiB"),
        (1000, "KB"),
    ];
    let Some(bytes) = bytes.map(NonZeroU64::get) else { return UNLIMITED.into() };
    let (each, unit) = UNITS.into_iter().find(|(each, _)| bytes % each == 0).unwrap_or((1, "B"));
    format!("{}{unit}", bytes / each)
}

/// `100`, or `unlimited`.
pub(super) fn limit(limit: Limit) -> String {
    match limit {
        Limit::Unlimited => UNLIMITED.into(),
        Limit::AtMost(n) => n.to_string(),
    }
}

/// The word of the key `refuse`.
pub(super) const fn refuse(refuse: Refuse) -> &'static str {
    match refuse {
        Refuse::Close => "close",
        Refuse::Reset => "reset",
        Refuse::Drop => "drop",
    }
}

/// Each entry, the lists first.
pub(super) fn entries(entries: &Entries) -> impl Iterator<Item = String> {
    let lists = entries.lists.iter().map(|list| format!("@{}", list.0));
    lists.chain(entries.nets.iter().map(net))
}

/// A network, or a single address.
pub(super) fn net(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

/// The first few of `count`, and how many more there are. Each mapping may have a thousand: only those shown are spelled.
pub(super) fn few(all: impl Iterator<Item = String>, count: usize) -> String {
    const SHOWN: usize = 3;
    let mut shown: Vec<_> = all.take(SHOWN).collect();
    match count.saturating_sub(SHOWN) {
        0 => {}
        more => shown.push(format!("+{more}")),
    }
    shown.join(",")
}

/// The first few entries.
pub(super) fn few_entries(all: &Entries) -> String {
    few(entries(all), all.lists.len() + all.nets.len())
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
            assert_eq!(size(NonZeroU64::new(bytes)), text);
        }
        assert_eq!(size(None), "unlimited");
    }

    #[test]
    fn many_are_cut_and_counted() {
        let some = |n: usize| few((1..=n).map(|i| i.to_string()), n);
        assert_eq!([some(0), some(3), some(5)], ["", "1,2,3", "1,2,3,+2"]);
    }
}
