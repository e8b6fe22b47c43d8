//! Puts placeholders in the place of addresses and host names, for a report that leaves the house.
//!
//! Owns which placeholder stands for what. The same address has the same placeholder in the whole
//! report. It says the family of the address and whether it is private (`private-v4-1`,
//! `public-v6-2`). Loopback and "every address" stay: they name no one. Names of mappings stay,
//! too.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

use serde_json::{Map, Value};

use crate::mapping::canonical;

/// The most host names that it looks for.
const MOST_NAMES: usize = 1000;

/// The placeholders so far.
#[derive(Debug, Default)]
pub(super) struct Anonymous {
    addresses: HashMap<IpAddr, String>,
    counts: HashMap<&'static str, usize>,
    /// Host names with their placeholders, the longest first.
    names: Vec<(String, String)>,
}

impl Anonymous {
    /// Hides addresses and these host names.
    pub(super) fn hiding(names: impl IntoIterator<Item = String>) -> Self {
        let mut names: Vec<_> = names.into_iter().filter(|name| name != "localhost").collect();
        names.sort_by_key(|name| (std::cmp::Reverse(name.len()), name.clone()));
        names.dedup();
        names.truncate(MOST_NAMES);
        let number = |(at, name): (usize, String)| (name, format!("host-{}", at + 1));
        Self { names: names.into_iter().enumerate().map(number).collect(), ..Self::default() }
    }

    /// The value with placeholders, in its keys too.
    pub(super) fn value(&mut self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(items) => items.into_iter().map(|item| self.value(item)).collect(),
            Value::Object(fields) => {
                let hidden: Map<_, _> =
                    fields.into_iter().map(|(key, value)| (self.text(&key), self.value(value))).collect();
                Value::Object(hidden)
            }
            other => other,
        }
    }

    /// The text with placeholders.
    pub(super) fn text(&mut self, text: &str) -> String {
        let named = self.without_names(text);
        let is_part = |c: char| c.is_ascii_hexdigit() || matches!(c, ':' | '.');
        let (mut hidden, mut rest) = (String::with_capacity(named.len()), &*named);
        while !rest.is_empty() {
            let run = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            let (token, after) = rest.split_at(run);
            self.token(token, &mut hidden);
            let plain = after.find(is_part).unwrap_or(after.len());
            // A letter before digits belongs to a word and not to an address.
            let (between, next) = after.split_at(plain);
            hidden.push_str(between);
            rest = next;
        }
        hidden
    }

    /// Adds a run of characters of which addresses consist.
    fn token(&mut self, token: &str, hidden: &mut String) {
        let whole = token.parse::<IpAddr>().ok().map(|ip| (ip, token.len()));
        // An address may stand before a port, and before the end of a sentence.
        let before_port = || {
            let (ip, _) = token.split_once(':')?;
            Some((IpAddr::V4(ip.parse::<Ipv4Addr>().ok()?), ip.len()))
        };
        let before_end = || {
            let ip = token.trim_end_matches(['.', ':']);
            Some((ip.parse().ok()?, ip.len()))
        };
        match whole.or_else(before_port).or_else(before_end) {
            Some((ip, len)) if !ip.is_loopback() && !ip.is_unspecified() => {
                hidden.push_str(&self.placeholder(ip));
                hidden.push_str(&token[len..]);
            }
            _ => hidden.push_str(token),
        }
    }

    fn placeholder(&mut self, ip: IpAddr) -> String {
        let ip = canonical(ip);
        if let Some(known) = self.addresses.get(&ip) {
            return known.clone();
        }
        let kind = match (ip, is_private(ip)) {
            (IpAddr::V4(_), true) => "private-v4",
            (IpAddr::V4(_), false) => "public-v4",
            (IpAddr::V6(_), true) => "private-v6",
            (IpAddr::V6(_), false) => "public-v6",
        };
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        let placeholder = format!("{kind}-{count}");
        self.addresses.insert(ip, placeholder.clone());
        placeholder
    }

    /// The text with placeholders for host names.
    fn without_names(&self, text: &str) -> String {
        let mut text = text.to_owned();
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        for (name, placeholder) in &self.names {
            let mut from = 0;
            while let Some(at) = text[from..].find(name.as_str()).map(|at| from + at) {
                let end = at + name.len();
                let is_inside = text[..at].chars().next_back().is_some_and(is_part)
                    || text[end..].chars().next().is_some_and(|c| is_part(c) && c != '.');
                if is_inside {
                    from = end;
                } else {
                    text.replace_range(at..end, placeholder);
                    from = at + placeholder.len();
                }
            }
        }
        text
    }
}

/// Whether the address means nothing outside its own network.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            ip.is_private() || ip.is_link_local() || shared
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_address_has_one_placeholder_that_says_its_kind() {
        let mut hide = Anonymous::default();
        let said = hide.value(json!({
            "client": "203.0.113.9:50312",
            "targets": ["10.0.0.5:80", "[2001:db8::5]:80", "fe80::1%eth0", "100.64.0.1"],
            "message": "tcp client 203.0.113.9:1 refused by 10.0.0.5. It was ::ffff:203.0.113.9",
            "allow": { "203.0.113.0/24": 1 },
        }));
        assert_eq!(
            said,
            json!({
                "client": "public-v4-2:50312",
                "targets": ["private-v4-1:80", "[public-v6-1]:80", "private-v6-1%eth0", "private-v4-2"],
                "message": "tcp client public-v4-2:1 refused by private-v4-1. It was public-v4-2",
                "allow": { "public-v4-1/24": 1 },
            })
        );
    }

    #[test]
    fn what_is_no_address_and_what_names_no_one_stays() {
        let mut hide = Anonymous::default();
        for text in [
            "127.0.0.1:80",
            "[::1]:80",
            "[::]:443 and 0.0.0.0:1",
            "2026-11-29T14:11:20.500Z",
            "version 0.1.0, dead beef: 12:30",
            "8080:80/tcp",
            "a: b.",
        ] {
            assert_eq!(hide.text(text), text);
        }
    }

    #[test]
    fn host_names_are_hidden_as_whole_words() {
        let mut hide = Anonymous::hiding(["lan".into(), "nas.lan".into(), "localhost".into()]);
        assert_eq!(
            hide.text("nas.lan:80, lan, plan, localhost, my-lan."),
            "host-1:80, host-2, plan, localhost, my-lan."
        );
    }
}
