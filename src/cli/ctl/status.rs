//! `portway status`: the daemon and its mappings at a glance, and one mapping in full.

use std::fmt::Write as _;

use clap::Args;
use serde_json::Value;

use super::{
    Daemon, Failed, Outcome,
    human::{ago, bytes, clock, count, rate, span},
    router::openings,
    summary, warned,
};
use crate::{
    api::client::Ask,
    cli::table::{Cell, Colour, Column, Table, Terminal},
    help,
    status::view::{self, Listener, ListenerState, Mapping, MappingOrigin, TargetState},
    text::{Escaped, escaped},
};

/// What is shown.
#[derive(Debug, Args)]
pub(in crate::cli) struct Status {
    /// A mapping, to see all of it
    name: Option<String>,
}

/// Shows the daemon, or one mapping.
pub(super) async fn status(args: Status, daemon: &Daemon) -> Result<Outcome, Failed> {
    if let Some(name) = &args.name {
        let ask = Ask::get("/v1/mappings").step(name);
        return daemon.show(&ask, |mapping| one(mapping, daemon.terminal)).await;
    }
    let answer = daemon.client.ask(&Ask::get("/v1/status")).await?;
    if daemon.json {
        return daemon.shown(&answer, |_: &Value| String::new());
    }
    let mappings: view::Mappings = daemon.client.ask(&Ask::get("/v1/mappings")).await?.read()?;
    Ok(Outcome::done(all(&answer.read()?, &mappings.mappings, daemon.terminal)))
}

fn all(status: &view::Status, mappings: &[Mapping], terminal: Terminal) -> String {
    let mut text = daemon(status, terminal);
    if !mappings.is_empty() {
        text.push('\n');
        text.push_str(&table(mappings, terminal));
    }
    if !status.not_ready.is_empty() {
        text.push_str("\nnot ready:\n");
        for listener in &status.not_ready {
            let _ = writeln!(text, "  {}", Escaped(listener));
        }
    }
    text + &wakes(&status.wakes) + &warned(&status.warnings)
}

/// How it is with the targets that sessions start.
fn wakes(wakes: &[view::Wake]) -> String {
    let mut text = String::new();
    for wake in wakes {
        let start = if text.is_empty() { "\nstarted by sessions:\n" } else { "" };
        let _ =
            write!(text, "{start}  {} of {}: {}", Escaped(&wake.what), Escaped(&wake.mapping), wake.state);
        let _ = match (wake.since_ms, wake.retry_ms, wake.sessions) {
            (Some(since), ..) => write!(text, " for {}", span(since)),
            (_, Some(retry), _) => write!(text, ", again in {} at the soonest", span(retry)),
            (_, _, 0) => Ok(()),
            (_, _, sessions) => write!(text, ", {}", count(sessions as u64, "session")),
        };
        if let Some(error) = &wake.error {
            let _ = write!(text, ": {}", Escaped(error));
        }
        text.push('\n');
    }
    text
}

/// The lines about the daemon itself.
fn daemon(status: &view::Status, terminal: Terminal) -> String {
    let ready = match status.ready {
        true => Colour::Good.mark("ready"),
        false => Colour::Bad.mark("not ready"),
    };
    let mut text = Colour::paint(
        &format!("portway {}, {ready}, up {}", Escaped(&status.version), span(status.uptime_ms)),
        terminal.colour,
    );
    let _ = writeln!(text, " (process {})", status.pid);
    let descriptors = status.descriptors;
    let _ = writeln!(
        text,
        "{}, {}, {}, {}, {}\ndescriptors: {} of {}",
        count(status.mappings as u64, "mapping"),
        count(status.listeners as u64, "listener"),
        count(status.sessions as u64, "session"),
        count(status.flows as u64, "flow"),
        count(status.bans as u64, "ban"),
        descriptors.open,
        descriptors.limit,
    );
    text.push_str(&grants(&status.grants));
    if let Some(external) = &status.external {
        let _ = writeln!(text, "external address: {}", Escaped(external));
    }
    if let Some(reload) = &status.last_reload {
        let when = ago(&reload.at).map_or_else(|| escaped(&reload.at), |ago| format!("{ago} ago"));
        let _ = writeln!(text, "last reload: {}, {when}", Escaped(&reload.outcome));
        for problem in &reload.problems {
            let _ = writeln!(text, "  {}", Escaped(help::behind(&summary(problem), problem.help.as_deref())));
        }
    }
    text
}

/// The clients that are let in by a knock, a line each.
fn grants(grants: &[view::Grant]) -> String {
    let line = |grant: &view::Grant| {
        let (client, key) = (Escaped(&grant.client), Escaped(&grant.key));
        format!("let in by a knock: {client} with the key {key}, until {}\n", clock(&grant.until))
    };
    grants.iter().map(line).collect()
}

const COLUMNS: [Column; 8] = [
    Column::words("MAPPING"),
    Column::words("STATE"),
    Column::words("LISTEN"),
    Column::words("TARGET"),
    Column::number("SESSIONS"),
    Column::number("IN"),
    Column::number("OUT"),
    Column::number("RATE"),
];

/// A row for each mapping.
fn table(mappings: &[Mapping], terminal: Terminal) -> String {
    let mut table = Table::new(&COLUMNS);
    for mapping in mappings {
        let (state, colour) = state(mapping);
        let listeners: Vec<_> = mapping.listeners.iter().map(listener).collect();
        let targets: Vec<_> = mapping.targets.iter().map(|target| target.address.clone()).collect();
        let both = mapping.rate_in.zip(mapping.rate_out).map(|(a, b)| a.saturating_add(b));
        table.row([
            Cell::of(&mapping.name),
            Cell::of(state).coloured(colour),
            Cell::of(few(&listeners)),
            Cell::of(few(&targets)),
            Cell::of(mapping.sessions),
            Cell::of(bytes(mapping.bytes_in)),
            Cell::of(bytes(mapping.bytes_out)),
            Cell::some(both.map(rate)),
        ]);
    }
    table.text(terminal)
}

/// The first one, and how many more there are.
pub(in crate::cli) fn few(all: &[String]) -> String {
    match all {
        [] => String::new(),
        [one] => one.clone(),
        [first, second] => format!("{first}, {second}"),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}

/// The state of a mapping: that of its listeners and targets.
pub(in crate::cli) fn state(mapping: &Mapping) -> (String, Colour) {
    if mapping.paused {
        return ("paused".to_owned(), Colour::Pale);
    }
    if !mapping.enabled {
        return ("disabled".to_owned(), Colour::Pale);
    }
    let (all, is) =
        (mapping.listeners.len(), |state| mapping.listeners.iter().filter(move |l| l.state == state).count());
    for state in [ListenerState::Failed, ListenerState::Waiting, ListenerState::Closed] {
        let count = is(state);
        if count > 0 {
            let word = listeners_state(state);
            let colour = if state == ListenerState::Closed { Colour::Pale } else { Colour::Bad };
            let text = if count == all { word.to_owned() } else { format!("{count} of {all} {word}") };
            return (text, colour);
        }
    }
    let down = mapping.targets.iter().filter(|target| target.state == TargetState::Down).count();
    match (down, mapping.targets.len()) {
        (0, _) => ("listening".to_owned(), Colour::Good),
        (down, all) if down == all => ("target down".to_owned(), Colour::Bad),
        (down, all) => (format!("{down} of {all} targets down"), Colour::Pale),
    }
}

/// The word for a state.
pub(in crate::cli) fn listeners_state(state: ListenerState) -> &'static str {
    match state {
        ListenerState::Listening => "listening",
        ListenerState::Waiting => "waiting",
        ListenerState::Failed => "failed",
        ListenerState::Closed => "closed",
    }
}

/// A listener with its protocol: `0.0.0.0:80/tcp`.
pub(in crate::cli) fn listener(listener: &Listener) -> String {
    match listener.protocol {
        Some(protocol) => format!("{}/{protocol}", listener.listen),
        None => listener.listen.clone(),
    }
}

/// One mapping in full.
fn one(mapping: &Mapping, terminal: Terminal) -> String {
    let (state, colour) = state(mapping);
    let mut text =
        Colour::paint(&format!("{}: {}\n", Escaped(&mapping.name), colour.mark(&state)), terminal.colour);
    let place = mapping.place.as_deref().map(|place| format!(", {}", Escaped(place))).unwrap_or_default();
    let _ = writeln!(text, "from: {}{place}", origin(mapping.origin));
    if let Some(until) = &mapping.until {
        let _ = writeln!(text, "until: {} (UTC)", clock(until));
    }
    let _ = writeln!(text, "sessions: {} live, {} since the start", mapping.sessions, mapping.sessions_total);
    let rates = |rate_of: Option<u64>| rate_of.map(|n| format!(" ({})", rate(n))).unwrap_or_default();
    let _ = writeln!(
        text,
        "bytes: {}{} in, {}{} out",
        bytes(mapping.bytes_in),
        rates(mapping.rate_in),
        bytes(mapping.bytes_out),
        rates(mapping.rate_out)
    );
    if !mapping.refused.is_empty() {
        let refused = mapping.refused.iter().map(|(reason, count)| format!("{} {count}", Escaped(reason)));
        let _ = writeln!(text, "refused: {}", refused.collect::<Vec<_>>().join(", "));
    }
    if let Some(all) = &mapping.grants {
        text += &match all.len() {
            0 => "no client has knocked\n".to_owned(),
            _ => grants(all),
        };
    }
    text +=
        &format!("\n{}\n{}", listeners(&mapping.listeners, terminal), targets(&mapping.targets, terminal));
    if let Some(leases) = mapping.router.as_deref().filter(|leases| !leases.is_empty()) {
        text += &format!("\n{}", openings(leases, terminal));
    }
    let policy = mapping.policy.iter().filter(|(_, value)| !is_nothing(value));
    let policy: Vec<_> = policy.map(|(key, value)| (key, brief(value))).collect();
    if !policy.is_empty() {
        let mut table = Table::new(&POLICY);
        policy.into_iter().for_each(|(key, value)| table.row([Cell::of(key), Cell::of(value)]));
        text += &format!("\n{}", table.text(terminal));
    }
    text
}

fn origin(origin: MappingOrigin) -> &'static str {
    match origin {
        MappingOrigin::File => "a configuration file",
        MappingOrigin::Managed => "`portway add`",
        MappingOrigin::CommandLine => "the command line",
        MappingOrigin::Docker => "a container",
    }
}

const POLICY: [Column; 2] = [Column::words("KEY"), Column::words("VALUE")];
const LISTENERS: [Column; 4] =
    [Column::words("LISTEN"), Column::words("STATE"), Column::words("REASON"), Column::value("HOLDER")];
const TARGETS: [Column; 5] = [
    Column::words("TARGET"),
    Column::words("STATE"),
    Column::number("SESSIONS"),
    Column::value("SINCE"),
    Column::words("LAST ERROR"),
];

fn listeners(listeners: &[Listener], terminal: Terminal) -> String {
    let mut table = Table::new(&LISTENERS);
    for one in listeners {
        let colour = match one.state {
            ListenerState::Listening => Colour::Good,
            ListenerState::Waiting | ListenerState::Failed => Colour::Bad,
            ListenerState::Closed => Colour::Pale,
        };
        table.row([
            Cell::of(listener(one)),
            Cell::of(listeners_state(one.state)).coloured(colour),
            Cell::some(one.error.as_ref()),
            Cell::some(one.holder.as_ref()),
        ]);
    }
    table.text(terminal)
}

fn targets(targets: &[view::Target], terminal: Terminal) -> String {
    let mut table = Table::new(&TARGETS);
    for target in targets {
        let (state, colour) = match target.state {
            TargetState::Up => ("up", Colour::Good),
            TargetState::Down => ("down", Colour::Bad),
            TargetState::Paused => ("paused", Colour::Pale),
        };
        let weight = target.weight.map(|weight| format!(", weight {weight}")).unwrap_or_default();
        let backup = if target.backup { ", backup" } else { "" };
        table.row([
            Cell::of(&target.address),
            Cell::of(format!("{state}{weight}{backup}")).coloured(colour),
            Cell::of(target.sessions),
            Cell::some(target.since.as_deref().map(clock)),
            Cell::some(target.last_error.as_ref()),
        ]);
    }
    table.text(terminal)
}

/// Whether a key has no value.
fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

/// The value of a key as one writes it.
fn brief(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(brief).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
