//! `portway check`: the plan as a table for people ([`table`]) and as JSON for programs
//! ([`json`](mod@json)).
//!
//! Rendering only: nothing here reads a configuration or prints anything. What is shown is what one
//! would write: the table leaves out what is as by default, JSON leaves out nothing (`json`); both
//! spell it alike (`spelling`).

mod json;
mod options;

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv6Addr},
};

pub use json::json;
use options::{guard, options};

use super::table::{Cell, Column, Table, Terminal};
use crate::{
    config::{ListenerPlan, Loaded, MappingPlan, Plan, Service, Spell as _},
    mapping::ListenerKey,
    policy::{GateInput, ListSpec},
    relay::tcp::{HostRoute, Route, TcpSpec},
    targets::{Target, Targets},
    text::Escaped,
};

const COLUMNS: [Column; 5] = [
    Column::words("MAPPING"),
    Column::words("PROTOCOL"),
    Column::words("LISTEN"),
    Column::words("TARGET"),
    Column::words("OPTIONS"),
];

/// The plan as a table that fits the terminal, then the warnings, then how much it is; ends with a
/// line break.
pub(super) fn table(loaded: &Loaded, terminal: Terminal) -> String {
    let listeners: Vec<_> = listeners(&loaded.plan).collect();
    let runs = runs(&listeners);
    let mut table = Table::new(&COLUMNS);
    for run in runs {
        table.row(row(run).map(Cell::words));
        hosts(run).into_iter().for_each(|row| table.row(row.map(Cell::words)));
    }
    let mut text = table.text(terminal);
    text.push_str(&gate(&loaded.gate));
    for warning in &loaded.warnings {
        let _ = write!(text, "\n{}\n", super::warned(warning));
    }
    let traps = listeners.iter().filter(|listener| listener.plan.service == Service::Trap).count();
    let doors = listeners.iter().filter(|listener| listener.mapping.is_none()).count() - traps;
    let mut counts = vec![
        plural(loaded.plan.mappings.len(), "mapping"),
        plural(listeners.len() - traps - doors, "listener"),
    ];
    if traps > 0 {
        counts.push(plural(traps, "trap"));
    }
    if doors > 0 {
        counts.push(plural(doors, "port") + " of knocks");
    }
    let _ = writeln!(text, "\n{}: ok", counts.join(", "));
    text
}

/// A paragraph with the lists and the guard, or nothing where there are none.
fn gate(gate: &GateInput) -> String {
    let mut text = String::new();
    for (name, set) in &gate.lists {
        let file = match gate.spec.lists.get(name) {
            Some(ListSpec::File(path)) => format!(", {}", Escaped(path.display())),
            _ => String::new(),
        };
        let _ = writeln!(text, "list @{}: {}{file}", name.0, entry_count(set.len()));
    }
    if let Some(path) = &gate.spec.geoip {
        let _ = writeln!(text, "countries: {}", Escaped(path.display()));
    }
    if let Some(spec) = &gate.spec.guard {
        let _ = writeln!(text, "guard: {}", guard(spec));
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

/// `1 mapping`, `2 mappings`.
pub(crate) fn plural(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// `1 entry`, `2 entries`.
pub(crate) fn entry_count(n: usize) -> String {
    format!("{n} {}", if n == 1 { "entry" } else { "entries" })
}

/// A listener, with what it shares with others of its mapping; a decoy has no mapping.
#[derive(Clone, Copy)]
struct Listener<'p> {
    key: &'p ListenerKey,
    plan: &'p ListenerPlan,
    mapping: Option<&'p MappingPlan>,
}

fn listeners(plan: &Plan) -> impl Iterator<Item = Listener<'_>> {
    plan.listeners.iter().map(|(key, listener)| Listener {
        key,
        plan: listener,
        mapping: plan.mapping_of(listener),
    })
}

/// Cuts the listeners where the next one does not go on as a range would.
fn runs<'s, 'p>(listeners: &'s [Listener<'p>]) -> Vec<&'s [Listener<'p>]> {
    let mut runs = Vec::new();
    let mut rest = listeners;
    while let [first, tail @ ..] = rest {
        let mut length = 1;
        let stride = tail.first().and_then(|second| stride(*first, *second));
        while let Some(next) = rest.get(length)
            && stride.is_some()
            && self::stride(rest[length - 1], *next) == stride
        {
            length += 1;
        }
        let (run, after) = rest.split_at(length);
        runs.push(run);
        rest = after;
    }
    runs
}

/// How far each target port goes on from one listener to its neighbour (0 or 1), or `None` where
/// they are no range.
fn stride(a: Listener<'_>, b: Listener<'_>) -> Option<Vec<u16>> {
    let (a_addr, b_addr) = (&a.key.addr, &b.key.addr);
    let is_next = a.key.protocol == b.key.protocol
        && (a_addr.ip, &a_addr.zone) == (b_addr.ip, &b_addr.zone)
        && a_addr.port.checked_add(1) == Some(b_addr.port);
    if a.plan.name != b.plan.name || !is_next || !have_same_terms(a, b) {
        return None;
    }
    let (mut from, mut to) = (a.plan.service.all_targets(), b.plan.service.all_targets());
    let mut strides = Vec::new();
    loop {
        match (from.next(), to.next()) {
            (None, None) => return Some(strides),
            (Some(from), Some(to)) if from.host == to.host => {
                let stride = to.port.get().checked_sub(from.port.get()).filter(|stride| *stride < 2);
                strides.push(stride?);
            }
            _ => return None,
        }
    }
}

/// Whether all but ports is alike: those on the router go on as those here do.
fn have_same_terms(a: Listener<'_>, b: Listener<'_>) -> bool {
    let goes_on =
        options::external_port(a).map(|port| port.checked_add(1)) == options::external_port(b).map(Some);
    let has_ipv6 = |l: Listener<'_>| l.plan.exposure.is_some_and(|exposure| exposure.ipv6);
    goes_on && has_ipv6(a) == has_ipv6(b) && a.mapping == b.mapping && options(a) == options(b)
}

/// The targets of clients that say no name.
fn targets(listener: &ListenerPlan) -> impl Iterator<Item = &Target> {
    listener.service.targets().into_iter().flat_map(Targets::all)
}

/// The names of a listener, with what they lead to.
fn names(listener: &ListenerPlan) -> impl Iterator<Item = (&str, &HostRoute)> {
    let names = match &listener.service {
        Service::Tcp(TcpSpec { route: Route::Names(names), .. }) => Some(&names.hosts),
        _ => None,
    };
    names.into_iter().flat_map(|hosts| hosts.iter())
}

fn row(run: &[Listener<'_>]) -> [String; 5] {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return Default::default() };
    let Listener { key, plan: listener, mapping } = *first;
    let listen =
        format!("{}{}", span(&key.addr, key.addr.port.get(), last.key.addr.port.get()), remark(key.addr.ip));
    let target = match (mapping, listener.service.targets(), last.plan.service.targets()) {
        (None, ..) => match listener.service {
            Service::Knock => "knocks".to_owned(),
            Service::Step => "sequence".to_owned(),
            _ => "trap".to_owned(),
        },
        (_, Some(first), Some(last)) => leads(first, last),
        // Clients that want another name than those below it.
        _ => "closed".to_owned(),
    };
    let mut options = options(*first);
    options.extend(options::router(*first, *last));
    [listener.name.to_string(), key.protocol.to_string(), listen, target, options.join(" ")]
}

/// The rows of the names of a run of listeners: the name, its targets, and what else it says.
fn hosts(run: &[Listener<'_>]) -> Vec<[String; 5]> {
    /// More are for `--json`.
    const SHOWN: usize = 50;
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return Vec::new() };
    let both = names(first.plan).zip(names(last.plan)).take(SHOWN);
    let row = |((name, first), (_, last)): ((&str, &HostRoute), (&str, &HostRoute))| {
        let leads = leads(&first.targets, &last.targets);
        [String::new(), String::new(), format!("  {name}"), leads, options::host(first).join(" ")]
    };
    let mut rows: Vec<_> = both.map(row).collect();
    let more = names(first.plan).count().saturating_sub(SHOWN);
    if more > 0 {
        let words = format!("  and {}", plural(more, "more name"));
        rows.push([String::new(), String::new(), words, String::new(), String::new()]);
    }
    rows
}

/// The targets of the first and the last listener of a run.
fn leads(first: &Targets, last: &Targets) -> String {
    let target = |(first, last): (&Target, &Target)| {
        let alone = Target::from(first.addr.clone());
        let more = first.brief().strip_prefix(&alone.brief()).unwrap_or_default().to_owned();
        span(&first.addr, first.addr.port.get(), last.addr.port.get()) + &more
    };
    first.all().zip(last.all()).map(target).collect::<Vec<_>>().join(", ")
}

/// An address with its last port, where that is another one.
fn span(first: &impl std::fmt::Display, first_port: u16, last_port: u16) -> String {
    if first_port == last_port { first.to_string() } else { format!("{first}-{last_port}") }
}

fn remark(ip: IpAddr) -> &'static str {
    match ip {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => " (every address)",
        IpAddr::V4(ip) if ip.is_unspecified() => " (every IPv4 address)",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
