//! rinetd.conf: a forwarding a line, with the clients that may enter before or behind it.

use super::{
    model::{File, Imported, Mapping, Place, Target, Value},
    words::{is_ports, listener, network, protocols_named, target, words, written},
};

/// Reads the file.
pub(super) fn read(file: File<'_>, into: &mut Imported) {
    let (mut allow, mut deny) = (Vec::new(), Vec::new());
    let mut mappings: Vec<Mapping> = Vec::new();
    for (place, line) in file.lines() {
        let words = words(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match &*words {
            [] => {}
            [word @ ("allow" | "deny"), pattern, ..] => {
                let Some(net) = pattern_of(pattern) else {
                    into.lose(place, line.trim(), "portway takes networks and addresses, no such pattern");
                    continue;
                };
                match mappings.last_mut() {
                    // Before the first forwarding they hold for all.
                    None if *word == "allow" => allow.push(net),
                    None => deny.push(net),
                    Some(mapping) => push(mapping, if *word == "allow" { "allow" } else { "deny" }, net),
                }
            }
            ["logfile" | "logcommon" | "pidlogfile", ..] => {
                into.lose(place, line.trim(), "portway logs to standard error; see [log] for a file");
            }
            [from, port, to, to_port, options @ ..] => {
                match forwarding(place, [from, port, to, to_port], options) {
                    Some(mapping) => mappings.push(mapping),
                    None => into.lose(place, line.trim(), "not understood"),
                }
            }
            _ => into.lose(place, line.trim(), "not understood"),
        }
    }
    for mut mapping in mappings {
        allow.iter().for_each(|net| push(&mut mapping, "allow", net.clone()));
        deny.iter().for_each(|net| push(&mut mapping, "deny", net.clone()));
        into.add(mapping);
    }
}

fn push(mapping: &mut Mapping, key: &'static str, net: String) {
    match mapping.keys.iter_mut().find(|(known, _)| *known == key) {
        Some((_, Value::Texts(nets))) if nets.contains(&net) => {}
        Some((_, Value::Texts(nets))) => nets.push(net),
        _ => mapping.set_texts(key, vec![net]),
    }
}

/// A line such as `0.0.0.0 80/tcp 10.0.0.5 80/tcp [timeout=72]`.
fn forwarding(place: Place, [from, port, to, to_port]: [&str; 4], options: &[&str]) -> Option<Mapping> {
    let (port, protocol) = port_of(port)?;
    let (to_port, to_protocol) = port_of(to_port)?;
    let mut mapping = Mapping::at(place, format!("{from} {port} to {to} {to_port}"), "");
    let protocols = protocols_named(protocol)?;
    if protocols_named(to_protocol)? != protocols {
        mapping.lose(place, format!("{protocol} to {to_protocol}"), "portway does not change the protocol");
    }
    mapping.protocols = protocols;
    match listener(from, port) {
        Some(listener) => mapping.listen.push(listener),
        None => mapping.lose(place, from, "portway listens on addresses, not on names"),
    }
    mapping.targets.push(Target::at(target(to, to_port)?));
    let options = options.concat();
    for option in options.trim_matches(['[', ']']).split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("timeout", seconds)) => {
                let time = seconds.parse::<u64>().ok().and_then(|s| written(s.saturating_mul(1000)));
                mapping.set_text("idle_timeout", time);
            }
            Some(("src", source)) => mapping.set_text("source", Some(source.to_owned())),
            Some(("keepalive", "off")) => mapping.set_text("keepalive", Some("never".to_owned())),
            Some(("keepalive", _)) => {}
            _ => mapping.lose(place, option, "portway has no such option"),
        }
    }
    Some(mapping)
}

/// A port and its protocol.
fn port_of(text: &str) -> Option<(&str, &str)> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let is_name = !port.is_empty() && port.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    (is_ports(port) && !port.contains('-') || is_name && port.parse::<u32>().is_err())
        .then_some((port, protocol))
}

/// The network of a pattern such as `192.168.1.*`.
fn pattern_of(pattern: &str) -> Option<String> {
    if let Some(net) = network(pattern) {
        return Some(net);
    }
    let parts: Vec<&str> = pattern.split('.').collect();
    let fixed = parts.iter().position(|part| *part == "*")?;
    let stars_end = parts[fixed..].iter().all(|part| *part == "*");
    if !stars_end || parts.len() > 4 || pattern.contains('?') {
        return None;
    }
    let mut all: Vec<&str> = parts[..fixed].to_vec();
    all.resize(4, "0");
    network(&format!("{}/{}", all.join("."), fixed * 8))
}
