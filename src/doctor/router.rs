//! The home router: whether it leads the ports of a mapping to this machine.
//!
//! Pure. It compares what the router shows now with what the daemon remembers: the router may have
//! lost an opening since.

use std::net::IpAddr;

use super::{
    Daemon,
    finding::Judged,
    subject::{Listener, Subject},
};
use crate::{
    gateway::{Found, Holder, Seen, Survey, Verdict as External},
    status::view,
    text::clean,
};

/// Judges a mapping; `survey` is `None` where there is no way to the router.
pub(super) fn judge(subject: &Subject, survey: Option<&Survey>, listens: bool, daemon: &Daemon) -> Judged {
    let listeners: Vec<&Listener> = subject.listeners.iter().filter(|l| !l.is_local()).collect();
    if listeners.is_empty() {
        return Judged::unknown(
            "no listener is open for other machines, so none is opened on the router",
            "",
        );
    }
    let Some(survey) = survey else {
        return Judged::unknown("it cannot be asked: see lan", "");
    };
    let own = survey.way.own;
    if is_public(own) {
        return Judged::ok(format!("{own} is a public address itself: no router has to open a port"));
    }
    let found = match &survey.router {
        Ok(found) => found,
        Err(reason) => return missing(subject, survey, reason),
    };
    let each = listeners.into_iter().map(|listener| one(subject, listener, (survey, found), listens, daemon));
    Judged::of_parts(each.collect())
}

/// Whether the internet reaches an address without a router that translates.
pub(super) fn is_public(ip: IpAddr) -> bool {
    ip.is_ipv4() && External::of(Some(ip)).is_public()
}

fn by_hand(subject: &Subject, own: IpAddr) -> String {
    let forward = |listener: &Listener| {
        let external = subject.external_port(listener);
        format!("{} port {external} to {own} port {}", listener.protocol, listener.port)
    };
    let all: Vec<_> = subject.listeners.iter().map(forward).collect();
    format!("forward {} on the router's own pages", all.join(", and "))
}

fn missing(subject: &Subject, survey: &Survey, reason: &str) -> Judged {
    let by_hand = by_hand(subject, survey.way.own);
    let reason = clean(reason);
    if subject.is_exposed() {
        return Judged::fail(
            format!("the router {} does not open ports: {reason}", survey.way.gateway),
            format!("switch on UPnP (or PCP, NAT-PMP) on the router's own pages, or {by_hand}"),
        );
    }
    Judged::unknown(
        format!("the mapping does not ask for the router, and {} cannot be asked", survey.way.gateway),
        by_hand,
    )
}

fn one(
    subject: &Subject,
    listener: &Listener,
    (survey, found): (&Survey, &Found),
    listens: bool,
    daemon: &Daemon,
) -> Judged {
    let external = subject.external_port(listener);
    let port = format!("{external}/{}", listener.protocol);
    let is_its = |wanted: &crate::gateway::Wanted| {
        (wanted.protocol, wanted.port, wanted.external_port) == (listener.protocol, listener.port, external)
    };
    let seen = survey.seen.iter().find(|(wanted, _)| is_its(wanted)).map(|(_, seen)| seen);
    let opening = subject
        .openings
        .iter()
        .find(|opening| opening.protocol == Some(listener.protocol) && opening.listen == listener.text);
    let gateway = found.addr;
    if let Some(Seen::Taken(holder)) = seen {
        return taken(subject, listener, survey, &port, holder);
    }
    if !subject.is_exposed() {
        return Judged::unknown(
            format!("the mapping does not ask the router {gateway} for an opening"),
            format!("write `router = true` into the mapping, or {}", by_hand(subject, survey.way.own)),
        );
    }
    if survey.verdict.is_some_and(|verdict| !verdict.is_public()) {
        let evidence = format!("the router {gateway} has no public address to open a port on: see internet");
        return Judged::unknown(evidence, "");
    }
    if !listens || *daemon == Daemon::Absent {
        return Judged::unknown(format!("{port} is opened as soon as portway listens: see listener"), "");
    }
    match (opening.map(|opening| (&*opening.state, opening)), seen) {
        (Some(("denied", opening)), _) => denied(&port, opening, subject, survey),
        (Some(("conflict" | "failed", opening)), _) => {
            let why = clean(opening.error.as_deref().unwrap_or("it does not say why"));
            Judged::fail(
                format!("the router {gateway} does not open {port}: {why}"),
                "take another port there: router = { external_port = 30000 }",
            )
        }
        (_, Some(Seen::Free)) => Judged::fail(
            format!("the router {gateway} has lost the opening of {port}"),
            "restart portway to open it now; it opens it by itself at its next check ([router] check_every)",
        ),
        (Some(("open", _)), _) => Judged::ok(format!("the router {gateway} has opened {port}")),
        (_, Some(Seen::Unknown(why))) => Judged::unknown(
            format!("whether the router {gateway} has opened {port} cannot be seen: {}", clean(why)),
            "",
        ),
        _ => Judged::unknown(
            format!("the router {gateway} is being asked for {port}"),
            "try again in a moment",
        ),
    }
}

fn denied(port: &str, opening: &view::Opening, subject: &Subject, survey: &Survey) -> Judged {
    let why = clean(opening.error.as_deref().unwrap_or("it does not say why"));
    Judged::fail(
        format!("the router {} refuses to open {port}: {why}", survey.way.gateway),
        format!(
            "let this machine open that port on the router's own pages, take another one \
             (router = {{ external_port = 30000 }}), or {}",
            by_hand(subject, survey.way.own)
        ),
    )
}

/// The router leads the port to a machine.
fn taken(subject: &Subject, listener: &Listener, survey: &Survey, port: &str, holder: &Holder) -> Judged {
    let (gateway, own) = (survey.way.gateway, survey.way.own);
    let to = holder.addr;
    if to.ip() == own && to.port() == listener.port.get() {
        return Judged::ok(format!("the router {gateway} leads {port} to {to}"));
    }
    let is_ours = holder.text.starts_with(&format!("portway:{}@", subject.name));
    if to.ip() == own {
        return Judged::fail(
            format!("the router {gateway} leads {port} to {to}, which is another port of this machine"),
            format!(
                "correct that forward on the router's own pages: it has to lead to port {}",
                listener.port
            ),
        );
    }
    if is_ours {
        return Judged::fail(
            format!("the router {gateway} leads {port} to {to}, an old address: this machine is {own} now"),
            "remove that forward on the router's own pages, or restart the router; and give this \
             machine a fixed address there",
        );
    }
    Judged::fail(
        format!("the router {gateway} leads {port} to another machine: {}", clean(&holder.to_string())),
        "remove that forward on the router's own pages, or take another port there: \
         router = { external_port = 30000 }",
    )
}

#[cfg(test)]
mod tests;
