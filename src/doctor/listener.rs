//! The listeners: whether portway takes clients at the port.
//!
//! [`look`] asks the kernel who has the ports, and [`judge`] says what that and the daemon's word
//! mean.

use std::net::UdpSocket;

use super::{
    Daemon,
    finding::Judged,
    subject::{Listener, Subject},
};
use crate::{
    mapping::{ListenAddr, ListenerKey},
    sock::interfaces::Interface,
    status::view::ListenerState,
    supervisor::holders,
    text::clean,
};

/// What the kernel says of a listener.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// The program that has its port.
    holder: Option<String>,
    /// Its address is one of this machine.
    is_here: bool,
    /// The addresses of this machine.
    own: Vec<String>,
}

/// Looks at the listeners of a mapping, in their order.
pub(super) fn look(subject: &Subject) -> Vec<Seen> {
    let key = |listener: &Listener| ListenerKey {
        protocol: listener.protocol,
        addr: ListenAddr { ip: listener.ip, zone: None, port: listener.port },
    };
    let keys: Vec<ListenerKey> = subject.listeners.iter().map(key).collect();
    let own = Interface::all().into_iter().flat_map(|interface| interface.addresses);
    let own: Vec<String> = own.filter(|ip| ip.is_ipv4()).map(|ip| ip.to_string()).collect();
    let seen = subject.listeners.iter().zip(holders(&keys));
    seen.map(|(listener, holder)| Seen {
        holder,
        // A link-local address needs its zone: the kernel cannot be asked without.
        is_here: is_link_local(listener) || UdpSocket::bind((listener.ip, 0)).is_ok(),
        own: own.clone(),
    })
    .collect()
}

fn is_link_local(listener: &Listener) -> bool {
    matches!(listener.ip, std::net::IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// Judges the listeners of a mapping.
pub(super) fn judge(subject: &Subject, daemon: &Daemon, seen: &[Seen]) -> Judged {
    let name = clean(&subject.name);
    if !subject.enabled {
        return Judged::fail("the mapping is disabled", "take `enabled = false` out of it, and reload");
    }
    if subject.paused {
        return Judged::fail("the mapping is paused", format!("portway resume {name}"));
    }
    if subject.listeners.is_empty() {
        return Judged::unknown("it has no listener", "");
    }
    let each = subject.listeners.iter().zip(seen);
    Judged::of_parts(each.map(|(listener, seen)| one(listener, daemon, seen)).collect())
}

fn one(listener: &Listener, daemon: &Daemon, seen: &Seen) -> Judged {
    let what = format!("{}/{}", listener.text, listener.protocol);
    if !seen.is_here {
        let own = if seen.own.is_empty() { "none".to_owned() } else { seen.own.join(", ") };
        return Judged::fail(
            format!("{what} waits: this machine does not have that address, it has {own}"),
            "listen on every address: leave the address out of the spec",
        );
    }
    let listens = match (listener.state, daemon) {
        (Some(ListenerState::Listening), _) => true,
        (Some(_), _) => {
            let holder = listener.holder.clone().or_else(|| seen.holder.clone());
            return closed(&what, holder.as_deref(), listener.error.as_deref());
        }
        (None, Daemon::Absent) => match seen.holder.as_deref() {
            Some(holder) if holder.starts_with("portway ") => true,
            Some(holder) => return closed(&what, Some(holder), None),
            None => {
                return Judged::fail(
                    format!("nothing listens on {what}: portway does not run"),
                    "start it: `systemctl start portway`, or `portway run` with the configuration",
                );
            }
        },
        (None, Daemon::Hidden(reason)) => match seen.holder.as_deref() {
            None => return Judged::fail(format!("nothing listens on {what}"), "look at `portway status`"),
            Some(holder) => {
                let evidence = format!("{} has {what}; the daemon cannot be asked: {reason}", clean(holder));
                return Judged::unknown(evidence, "run doctor as root");
            }
        },
        (None, Daemon::Runs) => {
            return Judged::fail(
                format!("the running daemon does not have {what}: it has another configuration"),
                "portway reload",
            );
        }
    };
    if listens && listener.is_local() {
        return Judged::fail(
            format!("{what} is open for programs of this machine alone"),
            "listen on every address: leave the address out of the spec",
        );
    }
    Judged::ok(format!("{what} is open"))
}

/// A listener that does not listen.
fn closed(what: &str, holder: Option<&str>, error: Option<&str>) -> Judged {
    if let Some(holder) = holder {
        let holder = clean(holder);
        let pid = holder.rsplit_once("(pid ").and_then(|(_, pid)| pid.strip_suffix(')'));
        let stop = pid.map_or_else(|| "stop it".to_owned(), |pid| format!("stop it: `kill {pid}`"));
        return Judged::fail(
            format!("{what} waits: {holder} has the port"),
            format!("{stop}; or listen on another port"),
        );
    }
    let error = error.map_or_else(|| "it is closed".to_owned(), clean);
    Judged::fail(format!("{what} does not listen: {error}"), "look at `portway status` and at the log")
}

#[cfg(test)]
mod tests;
