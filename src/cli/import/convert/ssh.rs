//! Command lines of `ssh -L`, and `LocalForward` of an ssh_config.

use super::{
    model::{File, Imported, Mapping, Place, Target},
    shell,
    words::{listener, target, why},
};

/// Options of ssh that take the next word.
const WITH_VALUE: &str = "BbcEeFIiJlmOoPpQSWw";
/// Why other forwardings are lost.
const FIXED: &str = "portway listens here, and leads to fixed targets";

/// Reads every command of ssh, and the forwardings of its configuration.
pub(super) fn read(file: File<'_>, into: &mut Imported) {
    let mut block = Block::default();
    for (place, words) in shell::commands(file) {
        let value = words.get(1).map(String::as_str).unwrap_or_default();
        match words[0].to_ascii_lowercase().as_str() {
            "host" | "match" => {
                std::mem::take(&mut block).finish(into);
                value.clone_into(&mut block.alias);
            }
            "hostname" => block.name = value.replace("%h", &block.alias),
            "gatewayports" => block.is_gateway = value.eq_ignore_ascii_case("yes"),
            "localforward" => block.forwards.push((place, words[1..].join(":"))),
            "dynamicforward" | "remoteforward" => into.lose(place, words.join(" "), FIXED),
            _ => {
                if let Some(at) = words.iter().position(|word| is_ssh(word)) {
                    command(place, &words[at + 1..], "", into);
                }
            }
        }
    }
    block.finish(into);
}

/// What a configuration says of one host.
#[derive(Default)]
struct Block {
    alias: String,
    name: String,
    is_gateway: bool,
    forwards: Vec<(Place, String)>,
}

impl Block {
    fn finish(self, into: &mut Imported) {
        let server = if self.name.is_empty() { &self.alias } else { &self.name };
        for (place, spec) in &self.forwards {
            forward(*place, spec, (server, self.is_gateway), "", into);
        }
    }
}

/// Whether a word is the program.
pub(super) fn is_ssh(word: &str) -> bool {
    let program = word.rsplit('/').next().unwrap_or(word);
    matches!(program.trim_start_matches(['-', '@']), "ssh" | "autossh")
}

/// Takes in the forwardings of a command, without the program. `name` is what they could be called.
pub(super) fn command(place: Place, words: &[String], name: &str, into: &mut Imported) {
    let (mut forwards, mut server, mut is_gateway) = (Vec::new(), None, false);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(options) = word.strip_prefix('-') else {
            // What follows the server is a command there.
            if server.is_some() {
                break;
            }
            server = Some(word.clone());
            continue;
        };
        for (at, option) in options.char_indices() {
            let mut value = || {
                let rest = &options[at + option.len_utf8()..];
                if rest.is_empty() { words.next().cloned().unwrap_or_default() } else { rest.to_owned() }
            };
            match option {
                'L' => forwards.push(value()),
                'R' | 'D' => into.lose(place, format!("-{option} {}", value()), FIXED),
                'g' => {
                    is_gateway = true;
                    continue;
                }
                // Of autossh.
                'M' if words_are_autossh(options) => drop(value()),
                'o' => {
                    let value = value().to_ascii_lowercase().replace(' ', "=");
                    is_gateway |= value == "gatewayports=yes";
                }
                option if WITH_VALUE.contains(option) => drop(value()),
                _ => continue,
            }
            break;
        }
    }
    let server = server.unwrap_or_default();
    for spec in forwards {
        forward(place, &spec, (&server, is_gateway), name, into);
    }
}

/// `-M` of autossh stands alone before a number; that of ssh takes nothing.
fn words_are_autossh(options: &str) -> bool {
    options == "M" || options.strip_prefix('M').is_some_and(|port| port.parse::<u16>().is_ok())
}

/// `[BIND:]PORT:HOST:HOSTPORT`, by a server.
fn forward(place: Place, spec: &str, (server, is_gateway): (&str, bool), name: &str, into: &mut Imported) {
    let mut parts = split(spec);
    let what = format!("-L {spec}");
    let bind = match parts.len() {
        4 => parts.remove(0),
        _ if is_gateway => "*".to_owned(),
        _ => "127.0.0.1".to_owned(),
    };
    let [port, host, to] = &*parts else {
        let why = why(&what, "not a forwarding from a port to a port");
        return into.lose(place, what, why);
    };
    let server = server.rsplit('@').next().unwrap_or_default().trim_start_matches("ssh://");
    let is_server = matches!(host.as_str(), "localhost" | "127.0.0.1" | "[::1]" | "::1");
    let host = if is_server && !server.is_empty() { server } else { host };
    let (Some(listener), Some(target)) = (listener(&bind, port), target(host, to)) else {
        let what = format!("{what} {server}");
        let why = why(&what, "not understood");
        return into.lose(place, what, why);
    };
    let mut mapping = Mapping::at(place, format!("ssh -L {spec} {server}"), name);
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
