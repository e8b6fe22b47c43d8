//! Command lines of `ssh -L`, and `LocalForward` of an ssh_config.

use super::{
    model::{File, Imported, Mapping, Place, Target},
    socat::joined,
    words::{listener, target, words},
};

/// Options of ssh that take the next word.
const WITH_VALUE: &str = "BbcEeFIiJlmOoPpQSWw";

/// Reads every line that has a command of ssh, or a forwarding of its configuration.
pub(super) fn read(file: File<'_>, into: &mut Imported) {
    let mut server = String::new();
    for (place, line) in joined(file) {
        let words = words(&line);
        match words.first().map(|word| word.to_ascii_lowercase()).as_deref() {
            Some("host") => server = words.get(1).cloned().unwrap_or_default(),
            Some("localforward") => {
                let spec = words[1..].join(":");
                forward(place, &spec, &server, into);
            }
            Some("dynamicforward" | "remoteforward") => {
                into.lose(place, line.trim(), "portway listens here, and leads to fixed targets");
            }
            _ => {
                if let Some(at) = words.iter().position(|word| is_ssh(word)) {
                    command(place, &words[at + 1..], into);
                }
            }
        }
    }
}

/// Whether a word is the program.
pub(super) fn is_ssh(word: &str) -> bool {
    let program = word.rsplit('/').next().unwrap_or(word);
    matches!(program.trim_start_matches(['-', '@']), "ssh" | "autossh")
}

fn command(place: Place, words: &[String], into: &mut Imported) {
    let (mut forwards, mut server) = (Vec::new(), None);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(options) = word.strip_prefix('-') else {
            server = server.or(Some(word.clone()));
            continue;
        };
        for (at, option) in options.char_indices() {
            let mut value = || {
                let rest = &options[at + option.len_utf8()..];
                if rest.is_empty() { words.next().cloned().unwrap_or_default() } else { rest.to_owned() }
            };
            match option {
                'L' => forwards.push(value()),
                'R' | 'D' => {
                    let what = format!("-{option} {}", value());
                    let why = "portway listens here, and leads to fixed targets";
                    into.lose(place, what, why);
                }
                // Of autossh.
                'M' if words_are_autossh(options) => drop(value()),
                option if WITH_VALUE.contains(option) => drop(value()),
                _ => continue,
            }
            break;
        }
    }
    let server = server.unwrap_or_default();
    for spec in forwards {
        forward(place, &spec, &server, into);
    }
}

/// `-M` of autossh stands alone before a number; that of ssh takes nothing.
fn words_are_autossh(options: &str) -> bool {
    options == "M" || options.strip_prefix('M').is_some_and(|port| port.parse::<u16>().is_ok())
}

/// `[BIND:]PORT:HOST:HOSTPORT`.
fn forward(place: Place, spec: &str, server: &str, into: &mut Imported) {
    let mut parts = split(spec);
    let what = format!("-L {spec}");
    let bind = if parts.len() == 4 { parts.remove(0) } else { "127.0.0.1".to_owned() };
    let [port, host, to] = &*parts else {
        return into.lose(place, what, "not a forwarding from a port to a port");
    };
    let server = server.rsplit('@').next().unwrap_or_default().trim_start_matches("ssh://");
    let is_server = matches!(host.as_str(), "localhost" | "127.0.0.1" | "[::1]" | "::1");
    let host = if is_server && !server.is_empty() { server } else { host };
    let (Some(listener), Some(target)) = (listener(&bind, port), target(host, to)) else {
        return into.lose(place, what, "not understood");
    };
    let mut mapping = Mapping::at(place, format!("ssh -L {spec} {server}"), "");
    mapping.listen.push(listener);
    mapping.targets.push(Target::at(target));
    mapping.lose(
        place,
        "the encryption",
        "portway connects to the target directly: it has to be reachable from here, over a network that you trust",
    );
    into.add(mapping);
}

/// The parts between colons, but for those in brackets.
fn split(spec: &str) -> Vec<String> {
    let (mut parts, mut part, mut is_inside) = (Vec::new(), String::new(), false);
    for c in spec.chars() {
        match c {
            '[' => is_inside = true,
            ']' => is_inside = false,
            ':' if !is_inside => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    parts.push(part);
    parts
}
