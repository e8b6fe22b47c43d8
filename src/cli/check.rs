//! `portway check`: the plan as a table for people and as JSON for programs.
//!
//! Rendering only: nothing here reads a configuration or prints anything.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    net::{IpAddr, Ipv6Addr},
};

use serde::Serialize;

use crate::{
    config::{ListenerKey, ListenerPlan, Loaded, Problem, Problems, Service},
    mapping::{ListenAddr, MappingName, Protocol, TargetAddr, Timeout},
    relay::{tcp::TcpOptions, udp::UdpOptions},
    target::Targets,
};

/// The plan as a table, then the warnings, then how much it is; ends with a line break.
pub fn table(loaded: &Loaded) -> String {
    let listeners: Vec<_> = loaded.plan.iter().collect();
    let runs = runs(&listeners);
    let mut rows = vec![["MAPPING", "PROTOCOL", "LISTEN", "TARGET", "OPTIONS"].map(String::from)];
    rows.extend(runs.iter().map(|run| row(run)));
    let mut text = aligned(&rows);
    for warning in &loaded.warnings {
        let hint = warning.hint.as_deref().map(|h| format!("\n    {h}")).unwrap_or_default();
        let _ = write!(text, "\nwarning: {}{hint}\n", warning.summary());
    }
    let mappings = mappings(&runs);
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    let count = listeners.len();
    let _ = writeln!(text, "\n{mappings} mapping{}, {count} listener{}: ok", plural(mappings), plural(count));
    text
}

type Listener<'p> = (&'p ListenerKey, &'p ListenerPlan);

/// How many mappings there are: the named ones by their names, the others as they are shown.
fn mappings(runs: &[&[Listener<'_>]]) -> usize {
    let named: BTreeSet<_> =
        runs.iter().filter(|r| !has_default_name(r[0])).map(|r| &r[0].1.mapping).collect();
    named.len() + runs.iter().filter(|r| has_default_name(r[0])).count()
}

fn has_default_name((key, listener): Listener<'_>) -> bool {
    listener.mapping == MappingName::default_for(key.addr.port.get(), key.protocol)
}

/// Cuts the listeners where the next one does not go on as a range would.
///
/// A few neighbours without a name are more likely mappings of their own than a range, and stay apart.
fn runs<'s, 'p>(listeners: &'s [Listener<'p>]) -> Vec<&'s [Listener<'p>]> {
    const SHORTEST_UNNAMED: usize = 4;
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
        if has_default_name(*first) && length < SHORTEST_UNNAMED {
            length = 1;
        }
        let (run, after) = rest.split_at(length);
        runs.push(run);
        rest = after;
    }
    runs
}

/// How far the target ports go on from one listener to its neighbour (0 or 1), or `None` where they are no range.
fn stride(a: Listener<'_>, b: Listener<'_>) -> Option<u16> {
    let same_name = match (has_default_name(a), has_default_name(b)) {
        (true, true) => true,
        (false, false) => a.1.mapping == b.1.mapping,
        _ => false,
    };
    let is_next = a.0.protocol == b.0.protocol
        && (a.0.addr.ip, &a.0.addr.zone) == (b.0.addr.ip, &b.0.addr.zone)
        && a.0.addr.port.checked_add(1) == Some(b.0.addr.port);
    if !same_name || !is_next || options(a.1) != options(b.1) {
        return None;
    }
    let (from, to) = (targets(a.1).collect::<Vec<_>>(), targets(b.1).collect::<Vec<_>>());
    let go = |n: u16| {
        from.len() == to.len()
            && from.iter().zip(&to).all(|(f, t)| f.host == t.host && f.port.checked_add(n) == Some(t.port))
    };
    [0, 1].into_iter().find(|n| go(*n))
}

fn targets(listener: &ListenerPlan) -> impl Iterator<Item = &TargetAddr> {
    listener.service.targets().into_iter().flat_map(Targets::iter)
}

fn row(run: &[Listener<'_>]) -> [String; 5] {
    let (Some(first), Some((last_key, last))) = (run.first(), run.last()) else { return Default::default() };
    let (key, listener) = *first;
    let name = if run.len() > 1 && has_default_name(*first) {
        format!("{}-{}/{}", key.addr.port, last_key.addr.port, key.protocol)
    } else {
        listener.mapping.to_string()
    };
    let listen =
        format!("{}{}", span(&key.addr, key.addr.port.get(), last_key.addr.port.get()), remark(key.addr.ip));
    let targets: Vec<_> = targets(listener)
        .zip(targets(last))
        .map(|(first, last)| span(first, first.port.get(), last.port.get()))
        .collect();
    [name, key.protocol.to_string(), listen, targets.join(", "), options(listener).join(" ")]
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

/// The options that differ from the built-in defaults, as they are written.
fn options(listener: &ListenerPlan) -> Vec<String> {
    let mut options = Vec::new();
    let mut add = |key: &str, differs: bool, value: String| {
        if differs {
            options.push(format!("{key}={value}"));
        }
    };
    let source = |ip: Option<IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
    match &listener.service {
        Service::Tcp(spec) => {
            let (is, usual) = (&spec.options, TcpOptions::default());
            let connect = Timeout::After(is.connect_timeout).to_string();
            add("connect_timeout", is.connect_timeout != usual.connect_timeout, connect);
            add("idle_timeout", is.idle_timeout != usual.idle_timeout, is.idle_timeout.to_string());
            let half_close = is.half_close_timeout.to_string();
            add("half_close_timeout", is.half_close_timeout != usual.half_close_timeout, half_close);
            add("keepalive", is.keepalive != usual.keepalive, is.keepalive.to_string());
            add("source", is.source != usual.source, source(is.source));
        }
        Service::Udp(spec) => {
            let (is, usual) = (&spec.options, UdpOptions::default());
            add("idle_timeout", is.idle_timeout != usual.idle_timeout, is.idle_timeout.to_string());
            add("source", is.source != usual.source, source(is.source));
        }
        Service::Trap => {}
    }
    options
}

/// Columns as wide as their widest cell; nothing trails.
fn aligned(rows: &[[String; 5]]) -> String {
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3, 4].map(width);
    let mut text = String::new();
    for row in rows {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

#[derive(Serialize)]
struct Report<'r> {
    ok: bool,
    mappings: Vec<Line<'r>>,
    warnings: Vec<&'r Problem>,
    problems: Vec<&'r Problem>,
}

/// A listener, with the options of its protocol.
#[derive(Serialize)]
struct Line<'r> {
    name: &'r MappingName,
    protocol: Protocol,
    listen: &'r ListenAddr,
    targets: Vec<&'r TargetAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_timeout: Option<String>,
    idle_timeout: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    half_close_timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keepalive: Option<String>,
    source: Option<IpAddr>,
}

/// The outcome as JSON, a listener an entry of `mappings`; ends with a line break.
pub fn json(result: &Result<Loaded, Problems>) -> String {
    let report = match result {
        Ok(loaded) => Report {
            ok: true,
            mappings: loaded.plan.iter().map(line).collect(),
            warnings: loaded.warnings.iter().collect(),
            problems: Vec::new(),
        },
        Err(problems) => Report {
            ok: false,
            mappings: Vec::new(),
            warnings: Vec::new(),
            problems: problems.iter().collect(),
        },
    };
    let text = serde_json::to_string_pretty(&report).expect("strings, numbers and flags have a JSON form");
    text + "\n"
}

fn line<'r>((key, listener): Listener<'r>) -> Line<'r> {
    let (name, protocol, listen) = (&listener.mapping, key.protocol, &key.addr);
    let targets = targets(listener).collect();
    match &listener.service {
        Service::Tcp(spec) => Line {
            name,
            protocol,
            listen,
            targets,
            connect_timeout: Some(Timeout::After(spec.options.connect_timeout).to_string()),
            idle_timeout: spec.options.idle_timeout.to_string(),
            half_close_timeout: Some(spec.options.half_close_timeout.to_string()),
            keepalive: Some(spec.options.keepalive.to_string()),
            source: spec.options.source,
        },
        Service::Udp(spec) => Line {
            name,
            protocol,
            listen,
            targets,
            connect_timeout: None,
            idle_timeout: spec.options.idle_timeout.to_string(),
            half_close_timeout: None,
            keepalive: None,
            source: spec.options.source,
        },
        Service::Trap => Line {
            name,
            protocol,
            listen,
            targets,
            connect_timeout: None,
            idle_timeout: Timeout::Never.to_string(),
            half_close_timeout: None,
            keepalive: None,
            source: None,
        },
    }
}

#[cfg(test)]
mod tests;
