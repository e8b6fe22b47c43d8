//! Command lines of socat: a listening address and a connecting one.

use super::{
    model::{File, Imported, Mapping, Place, Target, Value},
    shell,
    words::{duration, host_and_port, ip, is_ports, listener, network, target, why, written},
};
use crate::mapping::publish::Protocols;

/// Reads every command of socat.
pub(super) fn read(file: File<'_>, into: &mut Imported) {
    for (place, words) in shell::commands(file) {
        let Some(at) = words.iter().position(|word| is_socat(word)) else { continue };
        let arguments = &words[at + 1..];
        // A script also installs socat, and looks for it.
        if !arguments.iter().any(|word| word.contains(':')) {
            continue;
        }
        if let Some(mapping) = command(place, arguments, into) {
            into.add(mapping);
        }
    }
}

/// Whether a word is the program.
pub(super) fn is_socat(word: &str) -> bool {
    word.rsplit('/').next().is_some_and(|program| program.trim_start_matches(['-', '@', '+']) == "socat")
}

/// The mapping of a command, without the program.
pub(super) fn command(place: Place, words: &[String], into: &mut Imported) -> Option<Mapping> {
    let mut timeout = None;
    let mut addresses = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-T" => timeout = words.next().and_then(|seconds| seconds.parse::<u64>().ok()),
            "-b" | "-t" | "-L" | "-W" | "-lf" | "-lp" | "-r" | "-R" => {
                words.next();
            }
            option if option.starts_with('-') && option.len() > 1 => {
                timeout = option.strip_prefix("-T").and_then(|seconds| seconds.parse().ok()).or(timeout);
            }
            address => addresses.push(address),
        }
    }
    let what = format!("socat {}", addresses.join(" "));
    let [first, second] = &*addresses else {
        into.lose(place, what, "not a command of socat with two addresses");
        return None;
    };
    let (from, to) = if is_listener(first) { (first, second) } else { (second, first) };
    if !is_listener(from) {
        let why = why(&what, "it listens nowhere");
        into.lose(place, what, why);
        return None;
    }
    let mut mapping = Mapping::at(place, what, "");
    listen(&mut mapping, from);
    connect(&mut mapping, to);
    if let Some(time) = timeout {
        mapping.set_text("idle_timeout", written(time.saturating_mul(1000)));
    }
    Some(mapping)
}

/// The parts of an address: its keyword in capitals, its parameters, its options.
fn parts(address: &str) -> (String, &str, Vec<(&str, &str)>) {
    let (head, options) = address.split_once(',').unwrap_or((address, ""));
    let (keyword, parameters) = head.split_once(':').unwrap_or((head, ""));
    let options = options.split(',').filter(|option| !option.is_empty());
    let options = options.map(|option| option.split_once('=').unwrap_or((option, "")));
    (keyword.to_ascii_uppercase(), parameters, options.collect())
}

fn is_listener(address: &str) -> bool {
    let (keyword, ..) = parts(address);
    keyword.ends_with("-LISTEN") || keyword.ends_with("-L") || keyword.ends_with("-RECVFROM")
}

fn listen(mapping: &mut Mapping, address: &str) {
    let place = mapping.place;
    let (keyword, port, options) = parts(address);
    let family = if keyword.contains('4') { "0.0.0.0" } else { "" };
    mapping.protocols = match keyword.split(['4', '6', '-']).next() {
        Some("TCP") => Protocols::Tcp,
        Some("UDP") => Protocols::Udp,
        _ => return mapping.lose(place, keyword, "portway listens on TCP and UDP, without TLS"),
    };
    let bind = options.iter().find(|(key, _)| *key == "bind").map_or(family, |(_, value)| value);
    match listener(bind, port) {
        Some(listener) => mapping.listen.push(listener),
        None => mapping.lose(place, address, why(address, "not an address to listen on")),
    }
    for (key, value) in options {
        match key.to_ascii_lowercase().as_str() {
            "ipv6-v6only" | "ipv6only" if value != "0" && ip(bind).is_none() => {
                mapping.lose(place, key, "portway listens on IPv4, too, unless an IPv6 address is named");
            }
            // What portway does anyway.
            "fork" | "reuseaddr" | "so-reuseaddr" | "reuseport" | "bind" | "nodelay" | "tcp-nodelay"
            | "keepalive" | "so-keepalive" | "backlog" | "pf" | "ipv6-v6only" | "ipv6only" => {}
            "max-children" => match value.parse::<u64>() {
                Ok(most) if most > 0 => mapping.set("max_sessions", Value::Number(most)),
                _ => mapping.lose(place, format!("{key}={value}"), why(value, "not a number")),
            },
            "range" => match network(value.trim_matches(['[', ']'])) {
                Some(net) => mapping.set_texts("allow", vec![net]),
                None => mapping.lose(place, format!("{key}={value}"), why(value, "not a network")),
            },
            "su" | "su-d" | "user" | "setuid" => mapping.lose(place, key, "see `portway run --user`"),
            _ => mapping.lose(place, key, "portway has no such option"),
        }
    }
}

fn connect(mapping: &mut Mapping, address: &str) {
    let place = mapping.place;
    let (keyword, to, options) = parts(address);
    let protocol = match keyword.split(['4', '6', '-', ':']).next() {
        Some("TCP") => Protocols::Tcp,
        Some("UDP") => Protocols::Udp,
        _ => return mapping.lose(place, keyword, "portway leads to TCP and UDP ports alone"),
    };
    if protocol != mapping.protocols && !mapping.listen.is_empty() {
        mapping.lose(place, address, "portway does not change the protocol");
        return;
    }
    match host_and_port(to).filter(|(_, port)| is_ports(port)).and_then(|(host, port)| target(host, port)) {
        Some(target) => mapping.targets.push(Target::at(target)),
        None => mapping.lose(place, to, why(to, "not a target")),
    }
    for (key, value) in options {
        match key.to_ascii_lowercase().as_str() {
            "nodelay" | "tcp-nodelay" | "keepalive" | "so-keepalive" | "pf" | "reuseaddr" | "sp" => {}
            "bind" | "sourceport" => {
                mapping.set_text("source", ip(value).map(|ip| ip.to_string()));
            }
            "connect-timeout" => mapping.set_text("connect_timeout", duration(value, 1000)),
            _ => mapping.lose(place, key, "portway has no such option"),
        }
    }
}
