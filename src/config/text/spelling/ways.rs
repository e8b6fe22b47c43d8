//! The spelling of what a listener leads to, and how.

use std::sync::Arc;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::{Spell, Term, few, net};
use crate::{
    config::text::bytes,
    policy::Entries,
    preface::{Match, hosts::HostTable, proxy::SendProxy},
    relay::tcp::{Asleep, HostRoute},
    targets::{Balance, Health, OnDown, Target, Targets},
    wake::{Start, WakeSpec},
};

impl Spell for bool {
    fn brief(&self) -> String {
        self.to_string()
    }

    fn json(&self) -> Value {
        (*self).into()
    }
}

impl Spell for SendProxy {
    fn brief(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Spell for Arc<[IpNet]> {
    fn brief(&self) -> String {
        few(self.iter().map(net), self.len())
    }

    fn json(&self) -> Value {
        self.iter().map(net).collect()
    }
}

impl Spell for Balance {
    fn brief(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Spell for OnDown {
    fn brief(&self) -> String {
        self.as_str().to_owned()
    }
}

/// The interval on one line.
impl Spell for Health {
    fn brief(&self) -> String {
        self.interval.brief()
    }

    fn json(&self) -> Value {
        let Self { interval, timeout, rise, fall, send, expect } = self;
        let bytes = |bytes: &Option<Arc<[u8]>>| bytes.as_deref().map(bytes::spelled);
        json!({
            "interval": interval.brief(), "timeout": timeout.brief(), "rise": rise, "fall": fall,
            "send": bytes(send), "expect": bytes(expect),
        })
    }
}

impl Spell for Match {
    fn brief(&self) -> String {
        self.as_str().to_owned()
    }

    fn absent() -> Option<&'static str> {
        Some("none")
    }
}

impl Spell for Asleep {
    fn brief(&self) -> String {
        format!("{:?}", self.motd)
    }

    fn json(&self) -> Value {
        let (on, most) = self.players;
        json!({ "motd": &*self.motd, "players": format!("{on}/{most}") })
    }

    fn absent() -> Option<&'static str> {
        Some("close")
    }
}

impl Spell for Arc<WakeSpec> {
    fn brief(&self) -> String {
        match &self.start {
            Start::Command { start, .. } => format!("command:{}", start.first().map_or("", |word| word)),
            Start::Unit(unit) => format!("unit:{unit}"),
            Start::Container(name) => format!("docker:{name}"),
            Start::Machine(mac) => format!("mac:{}", address(mac)),
        }
    }

    fn json(&self) -> Value {
        let WakeSpec { start, wait, stop_after } = &**self;
        let mut wake = match start {
            Start::Command { start, stop } => json!({ "command": start, "stop_command": stop }),
            Start::Unit(unit) => json!({ "unit": unit }),
            Start::Container(name) => json!({ "docker": name }),
            Start::Machine(mac) => json!({ "mac": address(mac) }),
        };
        wake["wait"] = wait.brief().into();
        wake["stop_after"] = stop_after.map_or("never".to_owned(), |after| after.brief()).into();
        wake
    }
}

/// A hardware address.
fn address(mac: &[u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A target: its address, or a table where it has more than that.
impl Spell for Target {
    fn brief(&self) -> String {
        let Self { addr, weight, backup } = self;
        let weight = if weight.get() == 1 { String::new() } else { format!("weight {weight}") };
        let words: Vec<&str> =
            [&*weight, if *backup { "backup" } else { "" }].into_iter().filter(|w| !w.is_empty()).collect();
        if words.is_empty() { addr.to_string() } else { format!("{addr} ({})", words.join(", ")) }
    }

    fn json(&self) -> Value {
        let Self { addr, weight, backup } = self;
        if weight.get() == 1 && !*backup {
            addr.to_string().into()
        } else {
            json!({ "address": addr, "weight": weight, "backup": backup })
        }
    }
}

impl Spell for Targets {
    fn brief(&self) -> String {
        few(self.all().map(Spell::brief), self.iter().count())
    }

    fn json(&self) -> Value {
        self.all().map(Spell::json).collect()
    }
}

/// The names on a port.
#[derive(PartialEq)]
pub(crate) struct Hosts<'p>(pub(crate) &'p HostTable<HostRoute>);

impl Spell for Hosts<'_> {
    fn brief(&self) -> String {
        few(self.0.iter().map(|(name, _)| name.to_owned()), self.0.iter().count())
    }

    fn json(&self) -> Value {
        self.0.iter().map(|(name, route)| (name.to_owned(), host(route))).collect::<Map<_, _>>().into()
    }
}

/// What a name leads to: its targets, or a table where it says more than that.
fn host(route: &HostRoute) -> Value {
    let terms = host_terms(route);
    if terms.is_empty() {
        return route.targets.json();
    }
    let mut keys = Map::new();
    keys.insert("targets".to_owned(), route.targets.json());
    keys.extend(terms.into_iter().map(|term| (term.key.to_owned(), term.value.json())));
    keys.into()
}

/// The keys that a name says itself, but for its targets.
pub(crate) fn host_terms(route: &HostRoute) -> Vec<Term<'_>> {
    let HostRoute { targets: _, access, send_proxy, wake } = route;
    let access = access.spec();
    let terms = [
        Term::new("allow", &access.allow, &None),
        Term::new("deny", &access.deny, &Entries::default()),
        Term::new("send_proxy", send_proxy, &None),
        Term::new("wake", wake, &None),
    ];
    terms.into_iter().filter(|term| term.differs).collect()
}
