//! The questions, on a terminal.
//!
//! Owns how a question looks and how an answer is read. An answer that cannot be is asked for
//! again. At the end of input, and after too many such answers, there is no answer: the caller
//! stops, and nothing is written. Ctrl-C ends the program as any other.

use std::{
    io::{BufRead as _, Read as _},
    net::IpAddr,
};

use super::{
    super::say,
    file::{Answers, Who},
    found::Found,
    presets::{self, Preset},
};
use crate::policy::parse_net;

/// So many answers that cannot be end it.
const MOST_TRIES: usize = 5;
/// The longest answer.
const LONGEST: u64 = 1000;

/// A line of standard input; nothing at its end.
fn line() -> Option<String> {
    let mut line = String::new();
    let read = std::io::stdin().lock().take(LONGEST).read_line(&mut line).ok()?;
    (read > 0).then(|| line.trim().to_owned())
}

/// Asks until the answer is one.
fn ask<T>(question: &str, default: &str, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
    for _ in 0..MOST_TRIES {
        say(&if default.is_empty() { question.to_owned() } else { format!("{question} [{default}]") });
        let answer = line()?;
        match read(if answer.is_empty() { default } else { &answer }) {
            Ok(value) => return Some(value),
            Err(cure) => say(&format!("  {cure}")),
        }
    }
    None
}

/// One of several, by its number or by `other`.
fn choose<T>(
    question: &str,
    choices: &[String],
    default: usize,
    by_number: impl Fn(usize) -> T,
    other: impl Fn(&str) -> Result<T, String>,
) -> Option<T> {
    let lines = choices.iter().enumerate().map(|(at, choice)| format!("  {:2}  {choice}", at + 1));
    say(&format!("\n{question}\n{}", lines.collect::<Vec<_>>().join("\n")));
    ask("Number", &default.to_string(), |answer| match answer.parse::<usize>() {
        Ok(number) if (1..=choices.len()).contains(&number) => Ok(by_number(number - 1)),
        Ok(_) => Err(format!("use a number from 1 to {}", choices.len())),
        Err(_) => other(answer),
    })
}

/// What to expose.
pub(super) fn preset() -> Option<&'static Preset> {
    let choices: Vec<String> = presets::ALL.iter().map(|preset| preset.title.to_owned()).collect();
    let other =
        |word: &str| presets::named(word).ok_or_else(|| "use a number, or a name such as minecraft".into());
    choose("What do you want to expose?", &choices, 1, |at| &presets::ALL[at], other)
}

/// The port and the protocol of something else.
pub(super) fn port() -> Option<(String, String)> {
    ask("\nWhich port, as in 8080, 5000-5010/udp or 9000/tcp+udp?", "", super::port)
}

/// The machine where it runs.
pub(super) fn host(preset: &Preset, found: &Found) -> Option<String> {
    let ports = preset.ports.first().filter(|ports| found.listens(ports.ports, ports.protocol));
    let own =
        found.own.iter().filter(|ip| ip.is_ipv4()).map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    let own = if own.is_empty() { String::new() } else { format!(" ({own})") };
    let here = match ports {
        Some(ports) => format!("this machine{own}: something listens on port {} here", ports.ports),
        None => format!("this machine{own}"),
    };
    let mut choices = vec![here];
    choices.extend(found.neighbours.iter().map(|(ip, name)| match name {
        Some(name) => format!("{ip}  {name}"),
        None => ip.to_string(),
    }));
    let by_number = |at: usize| match at {
        0 => "127.0.0.1".to_owned(),
        at => found.neighbours[at - 1].0.to_string(),
    };
    choose("Where does it run? Type a number, an address or a name.", &choices, 1, by_number, super::host)
}

/// Which clients may enter.
pub(super) fn who(preset: &Preset) -> Option<Who> {
    let choices = [
        "everyone on the internet".to_owned(),
        "only the networks at home (and a VPN that has such an address)".to_owned(),
        "these and some addresses that I name".to_owned(),
    ];
    let default = if preset.is_delicate { 2 } else { 1 };
    let at = choose("Who may come?", &choices, default, |at| at, |_| Err("use 1, 2 or 3".to_owned()))?;
    match at {
        0 => Some(Who::Everyone),
        1 => Some(Who::Home),
        _ => ask("Addresses or networks, with commas, as in 203.0.113.7, 198.51.100.0/24", "", |answer| {
            clients(answer.split(',').map(str::trim).filter(|client| !client.is_empty())).map(Who::These)
        }),
    }
}

/// Addresses and networks, at least one.
pub(super) fn clients<'t>(texts: impl Iterator<Item = &'t str>) -> Result<Vec<String>, String> {
    let texts: Vec<String> = texts.map(str::to_owned).collect();
    for text in &texts {
        parse_net(text)?;
    }
    if texts.is_empty() { Err("name at least one address".to_owned()) } else { Ok(texts) }
}

/// Whether to open the port on the router.
pub(super) fn router(answers: &Answers) -> Option<bool> {
    let default = if answers.who == Who::Home { "n" } else { "y" };
    ask("\nOpen the port on the home router (UPnP, PCP or NAT-PMP)? y or n", default, |answer| {
        match answer.to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(true),
            "n" | "no" => Ok(false),
            _ => Err("use y or n".to_owned()),
        }
    })
}
