//! Rules as `iptables-save` and `ip6tables-save` give them.
//!
//! Pure. What is not understood becomes a test or an action that says so.

use ipnet::IpNet;

use super::rules::{Action, Chain, Hook, Rule, Test};
use crate::text::clean;

/// Reads the chains of all tables.
pub(super) fn parse(family: &str, text: &str) -> Vec<Chain> {
    let mut chains: Vec<Chain> = Vec::new();
    let mut table = "";
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some(first) if first.starts_with('*') => table = &first[1..],
            Some(first) if first.starts_with(':') => {
                let name = &first[1..];
                let drops = words.next() == Some("DROP");
                chains.push(Chain {
                    family: family.to_owned(),
                    table: table.to_owned(),
                    name: name.to_owned(),
                    hook: hook(table, name, drops),
                    rules: Vec::new(),
                    is_of_iptables: true,
                });
            }
            Some("-A") => {
                let Some(name) = words.next() else { continue };
                let is_its = |chain: &&mut Chain| chain.table == table && chain.name == name;
                if let Some(chain) = chains.iter_mut().find(is_its) {
                    chain.rules.push(rule(family, table, line));
                }
            }
            _ => {}
        }
    }
    chains
}

/// Where the built-in chains stand, with the priorities of the kernel.
fn hook(table: &str, name: &str, drops: bool) -> Option<Hook> {
    let hook = match name {
        "INPUT" => "input",
        "PREROUTING" => "prerouting",
        "FORWARD" | "OUTPUT" | "POSTROUTING" => "other",
        _ => return None,
    };
    let priority = match table {
        "raw" => -300,
        "mangle" => -150,
        "nat" => -100,
        "security" => 50,
        _ => 0,
    };
    let kind = if table == "nat" { "nat" } else { "filter" };
    Some(Hook { name: hook.to_owned(), kind: kind.to_owned(), priority, drops })
}

fn rule(family: &str, table: &str, line: &str) -> Rule {
    let words = split(line);
    let mut words = words.iter().map(String::as_str).skip(2).peekable();
    let (mut tests, mut action, mut negated) = (Vec::new(), Action::Nothing, false);
    while let Some(word) = words.next() {
        if word == "!" {
            negated = true;
            continue;
        }
        let mut value = || words.next().unwrap_or_default();
        let test = match word {
            "-p" => Some(Test::Protocol(vec![value().to_owned()])),
            "-i" => Some(Test::In(vec![value().to_owned()])),
            "-s" => Some(net(value()).map_or(Test::Foreign, |net| Test::From(vec![net]))),
            "-d" => Some(net(value()).map_or(Test::Foreign, |net| Test::ToNet(vec![net]))),
            "--dport" | "--dports" => Some(ports(value()).map_or(Test::Foreign, Test::To)),
            "--ctstate" | "--state" => Some(Test::State(value().split(',').map(str::to_owned).collect())),
            "--icmp-type" | "--icmpv6-type" => {
                value();
                Some(Test::Never)
            }
            "--dst-type" => Some(if value() == "LOCAL" { Test::ToThisMachine } else { Test::Never }),
            // The name of the extension says nothing by itself, but for those without options.
            "-m" => match value() {
                "tcp" | "udp" | "conntrack" | "state" | "multiport" | "comment" | "addrtype" | "icmp"
                | "icmp6" | "set" | "mark" | "limit" | "hashlimit" | "recent" | "hl" | "rt" | "pkttype" => {
                    None
                }
                _ => Some(Test::Foreign),
            },
            "--comment" => {
                value();
                None
            }
            "-j" | "-g" => {
                action = verdict(word, value());
                None
            }
            // The options of an action.
            _ if action != Action::Nothing || word == "LOG" => None,
            _ if word.starts_with('-') => Some(Test::Foreign),
            _ => None,
        };
        if let Some(test) = test {
            tests.push(if negated { Test::Not(Box::new(test)) } else { test });
            negated = false;
        }
    }
    let program = if family == "ip6" { "ip6tables" } else { "iptables" };
    let removal = line.strip_prefix("-A ").map(|rest| format!("{program} -t {table} -D {rest}"));
    Rule { tests, action, text: format!("`{}`", clean(line)), removal: removal.map(|line| clean(&line)) }
}

/// The words of a line; quotes keep spaces together.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut is_quoted) = (Vec::new(), String::new(), false);
    for c in line.chars() {
        match c {
            '"' => is_quoted = !is_quoted,
            ' ' if !is_quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

fn verdict(option: &str, target: &str) -> Action {
    match (option, target) {
        (_, "ACCEPT") => Action::Accept,
        (_, "DROP") => Action::Drop,
        (_, "REJECT") => Action::Reject,
        (_, "RETURN") => Action::Return,
        (_, "DNAT" | "REDIRECT") => Action::Redirect,
        (_, "NFQUEUE" | "TPROXY" | "QUEUE") => Action::Foreign,
        (
            _,
            "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "CT" | "MASQUERADE" | "SNAT" | "TCPMSS" | "NOTRACK"
            | "TRACE",
        ) => Action::Nothing,
        ("-g", name) => Action::Goto(name.to_owned()),
        (_, name) => Action::Jump(name.to_owned()),
    }
}

fn net(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))
}

fn ports(text: &str) -> Option<Vec<(u16, u16)>> {
    let one = |part: &str| match part.split_once(':') {
        Some((from, to)) => Some((from.parse().unwrap_or(0), to.parse().unwrap_or(u16::MAX))),
        None => part.parse().ok().map(|port| (port, port)),
    };
    text.split(',').map(one).collect()
}
