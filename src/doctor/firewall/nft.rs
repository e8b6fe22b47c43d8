//! Rules as `nft -j list ruleset` gives them (libnftables-json(5)).
//!
//! Pure. What is not understood becomes a test or an action that says so.

use std::{collections::HashMap, net::IpAddr};

use ipnet::IpNet;
use serde_json::Value;

use super::rules::{Action, Chain, Hook, Rule, Ruleset, Test};
use crate::text::clean_start;

/// How much of a rule is shown.
const SHOWN: usize = 200;

/// The elements of named sets, by family, table and name.
type Sets<'j> = HashMap<(&'j str, &'j str, &'j str), &'j Value>;

/// Reads the list.
///
/// # Errors
/// Not JSON, or of another form.
pub(super) fn parse(json: &str) -> Result<Ruleset, String> {
    let all: Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let items = all.get("nftables").and_then(Value::as_array).ok_or("it has no list `nftables`")?;
    let mut rules = Ruleset::default();
    let mut sets = Sets::new();
    for item in items {
        if let Some(set) = item.get("set").or_else(|| item.get("map")) {
            let elements = set.get("elem").unwrap_or(&Value::Null);
            sets.insert((word(set, "family"), word(set, "table"), word(set, "name")), elements);
        } else if let Some(chain) = item.get("chain") {
            rules.chains.push(chain_of(chain));
        }
    }
    for rule in items.iter().filter_map(|item| item.get("rule")) {
        let (family, table, name) = (word(rule, "family"), word(rule, "table"), word(rule, "chain"));
        let is_its =
            |chain: &&mut Chain| chain.family == family && chain.table == table && chain.name == name;
        if let Some(chain) = rules.chains.iter_mut().find(is_its) {
            chain.rules.extend(rules_of(rule, &sets));
            // Only iptables uses these names in these tables with its own extensions.
            chain.is_of_iptables |= is_of_iptables(family, table, name);
        }
    }
    for chain in &mut rules.chains {
        chain.is_of_iptables |= is_of_iptables(&chain.family, &chain.table, &chain.name);
    }
    Ok(rules)
}

/// The names that `iptables-nft` gives to its tables and chains.
fn is_of_iptables(family: &str, table: &str, chain: &str) -> bool {
    ["ip", "ip6"].contains(&family)
        && ["filter", "nat", "mangle", "raw", "security"].contains(&table)
        && ["INPUT", "PREROUTING", "FORWARD", "OUTPUT", "POSTROUTING"].contains(&chain)
}

fn word<'j>(value: &'j Value, key: &str) -> &'j str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn chain_of(chain: &Value) -> Chain {
    let hook = chain.get("hook").and_then(Value::as_str).map(|name| Hook {
        name: name.to_owned(),
        kind: word(chain, "type").to_owned(),
        priority: chain.get("prio").and_then(Value::as_i64).unwrap_or(0),
        drops: word(chain, "policy") == "drop",
    });
    Chain {
        family: word(chain, "family").to_owned(),
        table: word(chain, "table").to_owned(),
        name: word(chain, "name").to_owned(),
        hook,
        rules: Vec::new(),
        is_of_iptables: false,
    }
}

/// A rule, or one for each pair of its verdict map.
fn rules_of(rule: &Value, sets: &Sets<'_>) -> Vec<Rule> {
    let (family, table, chain) = (word(rule, "family"), word(rule, "table"), word(rule, "chain"));
    let handle = rule.get("handle").and_then(Value::as_u64);
    let set = |name: &str| sets.get(&(family, table, name)).copied();
    let mut tests = Vec::new();
    let mut words = Vec::new();
    let mut rules = Vec::new();
    let mut action = Action::Nothing;
    for part in rule.get("expr").and_then(Value::as_array).into_iter().flatten() {
        let Some((kind, value)) = part.as_object().and_then(|part| part.iter().next()) else { continue };
        words.push(shown(kind, value));
        match &**kind {
            "match" => tests.extend(test(value, &set)),
            "vmap" => {
                for (test, action) in pairs(value, &set) {
                    let tests = tests.iter().cloned().chain([test]).collect();
                    rules.push(Rule { tests, action, text: String::new(), removal: None });
                }
            }
            "counter" | "log" | "comment" | "notrack" | "mangle" | "set" | "ct helper" | "masquerade"
            | "snat" => {}
            _ => match verdict(kind, value) {
                Some(done) => action = done,
                // A limit, a meter, a match of iptables.
                None => tests.push(Test::Foreign),
            },
        }
    }
    rules.push(Rule { tests, action, text: String::new(), removal: None });
    let place = format!("{family} {table} {chain}");
    let text = format!("`{}` in chain {place}", clean_start(&words.join(" "), SHOWN));
    let removal = handle.map(|handle| format!("nft delete rule {place} handle {handle}"));
    for rule in &mut rules {
        rule.text.clone_from(&text);
        rule.removal.clone_from(&removal);
    }
    rules
}

fn verdict(kind: &str, value: &Value) -> Option<Action> {
    let target = || word(value, "target").to_owned();
    Some(match kind {
        "accept" => Action::Accept,
        "drop" => Action::Drop,
        "reject" => Action::Reject,
        "return" => Action::Return,
        "continue" => Action::Nothing,
        "jump" => Action::Jump(target()),
        "goto" => Action::Goto(target()),
        "dnat" | "redirect" => Action::Redirect,
        "queue" | "tproxy" => Action::Foreign,
        _ => return None,
    })
}

/// The pairs of a verdict map as tests with their actions.
fn pairs<'j>(map: &'j Value, set: &impl Fn(&str) -> Option<&'j Value>) -> Vec<(Test, Action)> {
    let data = map.get("data").unwrap_or(&Value::Null);
    let named = data.as_str().and_then(|name| set(name.trim_start_matches('@')));
    let elements = named.or_else(|| data.get("set")).unwrap_or(&Value::Null);
    let key = map.get("key").unwrap_or(&Value::Null);
    let pair = |element: &'j Value| {
        let (value, done) = (element.get(0)?, element.get(1)?);
        let (kind, rest) = done.as_object()?.iter().next()?;
        Some((values(key, value, set), verdict(kind, rest).unwrap_or(Action::Foreign)))
    };
    elements.as_array().into_iter().flatten().filter_map(pair).collect()
}

/// What a match tests; nothing where it holds for every packet.
fn test<'j>(value: &'j Value, set: &impl Fn(&str) -> Option<&'j Value>) -> Option<Test> {
    let (left, right) = (value.get("left")?, value.get("right")?);
    let test = values(left, right, set);
    Some(match word(value, "op") {
        "==" | "in" | "" => test,
        "!=" => Test::Not(Box::new(test)),
        "<=" | "<" | ">=" | ">" => compared(left, word(value, "op"), right).unwrap_or(Test::Foreign),
        _ => Test::Foreign,
    })
}

/// A comparison of the port.
fn compared(left: &Value, op: &str, right: &Value) -> Option<Test> {
    let port = u16::try_from(right.as_u64()?).ok()?;
    if word(left.get("payload")?, "field") != "dport" {
        return None;
    }
    let test = Test::To(vec![match op {
        "<=" => (0, port),
        "<" => (0, port.checked_sub(1)?),
        ">=" => (port, u16::MAX),
        _ => (port.checked_add(1)?, u16::MAX),
    }]);
    let protocol = word(left.get("payload")?, "protocol");
    Some(if protocol == "th" { test } else { Test::with_protocol(protocol, test) })
}

/// The test that what `left` names has one of the values of `right`.
fn values<'j>(left: &'j Value, right: &'j Value, set: &impl Fn(&str) -> Option<&'j Value>) -> Test {
    let mut all = Vec::new();
    let known = flat(right, set, &mut all);
    let texts = || -> Vec<String> { all.iter().filter_map(|value| text(value)).collect() };
    let meta = left.get("meta").map(|meta| word(meta, "key"));
    let payload = left.get("payload").map(|payload| (word(payload, "protocol"), word(payload, "field")));
    let ct = left.get("ct").map(|ct| word(ct, "key"));
    let fib = left.get("fib");
    if !known && payload.is_none_or(|(_, field)| field != "dport") {
        return Test::Foreign;
    }
    let nets = || -> Option<Vec<IpNet>> { all.iter().map(|value| net(value)).collect() };
    match (meta, payload, ct) {
        (Some("iifname" | "iif" | "iifgroup"), ..) => Test::In(texts()),
        (Some("oifname" | "oif"), ..) => Test::Foreign,
        (Some("l4proto"), ..) => Test::Protocol(texts()),
        (Some("nfproto"), ..) => Test::Family(texts()),
        (Some("protocol"), ..) => Test::Family(
            texts().iter().map(|word| if word == "ip6" { "ipv6" } else { "ipv4" }.to_owned()).collect(),
        ),
        (_, Some((protocol @ ("tcp" | "udp" | "th" | "sctp" | "dccp" | "udplite"), "dport")), _) => {
            let ports: Vec<_> = all.iter().filter_map(|value| ports(value)).collect();
            // Names of services stand for numbers that are not known here.
            let test = if known && ports.len() == all.len() { Test::To(ports) } else { Test::Foreign };
            // The header itself is a test of the protocol.
            if protocol == "th" { test } else { Test::with_protocol(protocol, test) }
        }
        (_, Some(("tcp", "flags")), _) => Test::Foreign,
        (_, Some(("ip" | "ip6", "protocol" | "nexthdr")), _) => Test::Protocol(texts()),
        (_, Some(("ip" | "ip6", "saddr")), _) => nets().map_or(Test::Foreign, Test::From),
        (_, Some(("ip" | "ip6", "daddr")), _) => nets().map_or(Test::Foreign, Test::ToNet),
        (_, Some(("icmp" | "icmpv6", _)), _) => Test::Never,
        (_, _, Some("state")) => Test::State(texts()),
        (_, _, Some("status")) if texts().iter().all(|word| word == "dnat" || word == "snat") => Test::Never,
        _ if fib.is_some_and(|fib| word(fib, "result") == "type") && texts() == ["local"] => {
            Test::ToThisMachine
        }
        _ => Test::Foreign,
    }
}

impl Test {
    /// A test that only packets of this protocol can pass.
    fn with_protocol(protocol: &str, test: Self) -> Self {
        // Both have to hold: neither the other protocol nor another value.
        let other = Self::Not(Box::new(Self::Protocol(vec![protocol.to_owned()])));
        Self::Neither(Box::new(other), Box::new(Self::Not(Box::new(test))))
    }
}

/// Collects the values of sets and lists. False where one is not known.
fn flat<'j>(value: &'j Value, set: &impl Fn(&str) -> Option<&'j Value>, all: &mut Vec<&'j Value>) -> bool {
    match value {
        Value::Array(list) => list.iter().all(|value| flat(value, set, all)),
        Value::Object(object) => {
            if let Some(list) = object.get("set") {
                return flat(list, set, all);
            }
            if let Some(element) = object.get("elem") {
                return flat(element.get("val").unwrap_or(element), set, all);
            }
            all.push(value);
            object.contains_key("range") || object.contains_key("prefix")
        }
        Value::String(name) if name.starts_with('@') => match set(&name[1..]) {
            // A set without elements contains nothing.
            Some(Value::Null) => true,
            Some(elements) => flat(elements, set, all),
            None => false,
        },
        Value::Null => false,
        other => {
            all.push(other);
            true
        }
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn ports(value: &Value) -> Option<(u16, u16)> {
    let port = |value: &Value| u16::try_from(value.as_u64()?).ok();
    match value.get("range") {
        Some(range) => Some((port(range.get(0)?)?, port(range.get(1)?)?)),
        None => port(value).map(|port| (port, port)),
    }
}

fn net(value: &Value) -> Option<IpNet> {
    if let Some(prefix) = value.get("prefix") {
        let addr: IpAddr = word(prefix, "addr").parse().ok()?;
        let length = u8::try_from(prefix.get("len")?.as_u64()?).ok()?;
        return IpNet::new(addr, length).ok();
    }
    value.as_str()?.parse::<IpAddr>().ok().map(IpNet::from)
}

/// A part of a rule, about as one would write it.
fn shown(kind: &str, value: &Value) -> String {
    match kind {
        "match" => {
            let (left, right) = (value.get("left"), value.get("right"));
            let op = match word(value, "op") {
                "==" | "in" => String::new(),
                op => format!("{op} "),
            };
            let (left, right) = (left.map(side).unwrap_or_default(), right.map(side).unwrap_or_default());
            format!("{left} {op}{right}")
        }
        "vmap" => {
            let (key, data) = (value.get("key"), value.get("data"));
            format!("{} vmap {}", key.map(side).unwrap_or_default(), data.map(side).unwrap_or_default())
        }
        "jump" | "goto" => format!("{kind} {}", word(value, "target")),
        "redirect" => match value.get("port") {
            Some(port) => format!("redirect to :{}", side(port)),
            None => kind.to_owned(),
        },
        "xt" | "dnat" | "limit" => format!("{kind} {value}"),
        _ => kind.to_owned(),
    }
}

/// One side of a match.
fn side(value: &Value) -> String {
    let all = |list: &Value, between: &str| -> String {
        let words: Vec<_> = list.as_array().into_iter().flatten().map(side).collect();
        words.join(between)
    };
    if let Some(meta) = value.get("meta") {
        return word(meta, "key").to_owned();
    }
    if let Some(ct) = value.get("ct") {
        return format!("ct {}", word(ct, "key"));
    }
    if let Some(payload) = value.get("payload") {
        return format!("{} {}", word(payload, "protocol"), word(payload, "field"));
    }
    if let Some(range) = value.get("range") {
        return all(range, "-");
    }
    if let Some(prefix) = value.get("prefix") {
        let length = prefix.get("len").map(side).unwrap_or_default();
        return format!("{}/{length}", word(prefix, "addr"));
    }
    if let Some(set) = value.get("set") {
        return format!("{{ {} }}", all(set, ", "));
    }
    if value.is_array() {
        return all(value, " ");
    }
    if let Some((verdict, target)) = value.as_object().and_then(|object| object.iter().next()) {
        return shown(verdict, target);
    }
    text(value).unwrap_or_else(|| value.to_string())
}
