//! Rules of `iptables-save`, and of command lines of iptables, that change the destination.
//!
//! All other rules are no port mappings: they are passed over in silence.

use super::{
    dnat::Dnat,
    model::{File, Imported, Loss, Place},
    shell,
    words::{network, why},
};

const INTERFACE: &str = "listen on the address of an interface, to listen there alone";

/// Reads the rules.
pub(super) fn read(file: File<'_>, into: &mut Imported) {
    for (place, words) in shell::commands(file) {
        if words.iter().any(|word| matches!(word.as_str(), "-D" | "--delete")) {
            continue;
        }
        let is_output = words.windows(2).any(|pair| pair[0] == "-A" && pair[1] == "OUTPUT");
        let Some(at) = words.iter().position(|word| matches!(word.as_str(), "-j" | "--jump")) else {
            continue;
        };
        match words.get(at + 1).map(String::as_str) {
            Some("DNAT" | "REDIRECT") if is_output => {
                into.lose(place, words.join(" "), "it is for programs of this machine, not for clients");
            }
            Some("DNAT" | "REDIRECT") => rule(place, &words.join(" "), &words, into),
            Some("TPROXY") => into.lose(place, words.join(" "), "portway has `transparent` for that"),
            _ => {}
        }
    }
}

fn rule(place: Place, line: &str, words: &[String], into: &mut Imported) {
    let mut rule = Dnat::default();
    let (mut words, mut is_not) = (words.iter().map(String::as_str), false);
    while let Some(word) = words.next() {
        if word == "!" {
            is_not = true;
            continue;
        }
        let is_not = std::mem::take(&mut is_not);
        let mut value = || words.next().unwrap_or_default();
        match word {
            "-p" | "--protocol" => match value() {
                "tcp" | "6" => rule.tcp = true,
                "udp" | "17" => rule.udp = true,
                other => {
                    return into.lose(place, line, format!("{other}: portway forwards TCP and UDP"));
                }
            },
            "--dport" | "--destination-port" | "--dports" | "--destination-ports" if !is_not => {
                rule.ports.extend(value().split(',').map(|ports| ports.replace(':', "-")));
            }
            "-s" | "--source" | "--src" => {
                let value = value();
                let Some(nets) = value.split(',').map(network).collect::<Option<Vec<_>>>() else {
                    return into.lose(place, line, format!("{value}: {}", why(value, "not a network")));
                };
                if is_not { rule.deny.extend(nets) } else { rule.allow.extend(nets) }
            }
            "-d" | "--destination" | "--dst" if !is_not => {
                let value = value();
                let net = network(value).filter(|net| !net.contains('/'));
                if net.is_none() {
                    let why = "portway listens on one address or on every one";
                    rule.losses.push(Loss::new(place, format!("-d {value}"), why));
                }
                rule.destination = net;
            }
            "-i" | "--in-interface" => {
                let what = format!("-i {}", value());
                // Docker's own rules leave out their own bridge.
                if !is_not {
                    rule.losses.push(Loss::new(place, what, INTERFACE));
                }
            }
            "--to-destination" | "--to" => to(&mut rule, value()),
            "--to-ports" | "--to-port" => rule.to_ports = Some(value().to_owned()),
            "--comment" => value().clone_into(&mut rule.comment),
            "-m" | "--match" | "-A" | "--append" | "-I" | "--insert" | "-t" | "--table" | "-j" | "--jump" => {
                value();
            }
            "--dst-type" | "--ctstate" | "--state" => {
                value();
            }
            option if option.starts_with('-') && option != "-w" => {
                let not = if is_not { "! " } else { "" };
                rule.losses.push(Loss::new(place, format!("{not}{option}"), "portway has no such condition"));
            }
            _ => {}
        }
    }
    rule.add(place, line, into);
}

/// `10.0.0.5:80`, `10.0.0.5`, `[::1]:80`, `:80`.
fn to(rule: &mut Dnat, text: &str) {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => match text.rsplit_once(':').filter(|(host, _)| !host.contains(':')) {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    rule.to = Some(host.to_owned()).filter(|host| !host.is_empty());
    rule.to_ports = port.map(str::to_owned);
}
