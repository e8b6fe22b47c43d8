//! The targets: whether they answer, in the protocol of the mapping.
//!
//! [`look()`] connects to each target as the daemon would, and [`judge`] says what that means. Pure
//! but for `look`, which sends as little as possible: a connection that closes, an empty datagram,
//! and the first message of TLS where the port is one of the web.

mod look;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde_json::Value;

use super::{
    finding::{Judged, Verdict},
    subject::Subject,
};
use crate::{mapping::Protocol, text::clean};

pub(super) use look::look;

/// A lookup that takes longer is felt by every client.
const SLOW_NAME: Duration = Duration::from_secs(1);

/// What was seen of a target.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// The target, as the configuration names it.
    target: String,
    /// The protocol in which it was asked.
    protocol: Protocol,
    /// How long its name took.
    lookup: Option<Duration>,
    /// What it did.
    did: Did,
}

/// What a target did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Did {
    /// Its name has no address, for this reason.
    NoAddress(String),
    /// Its address is a listener of this mapping, or of another one.
    Loops(SocketAddr, String),
    /// Its address is the router's external one, at a port that leads to the mapping itself.
    ComesBack(SocketAddr),
    /// It took the connection.
    Connected {
        /// What it answers to the start of TLS; `None` where that was not tried.
        speaks: Option<Speaks>,
    },
    /// It refused; whether it takes the other protocol on that port.
    Refused {
        /// The other protocol works there.
        other_works: bool,
    },
    /// It did not answer at all.
    Silent,
    /// There is no way to it, for this reason.
    Unreachable(String),
    /// UDP: nothing refuses there, and other ports of that machine do.
    Open,
    /// UDP: no answer, and none of other ports either.
    Untold,
    /// It has no address and port that can be tried from here.
    Untried,
}

/// What a target must not lead back to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Back<'a> {
    /// The mappings of this machine.
    pub(super) all: &'a [Subject],
    /// The router's external address.
    pub(super) external: Option<IpAddr>,
}

/// How a target answers the first message of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    /// With TLS.
    Tls,
    /// With HTTP in clear.
    Http,
    /// With something else, or not at all.
    Other,
}

/// What clients of a listener's port speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clients {
    Http,
    Tls,
    Any,
}

/// Judges what was seen of the targets of a mapping. Where the network of this machine is broken
/// (`lan_fails`), no target on another machine can be judged.
pub(super) fn judge(subject: &Subject, seen: &[Seen], lan_fails: bool) -> Judged {
    if seen.is_empty() {
        return Judged::unknown("it has no target that can be tried", "");
    }
    let parts: Vec<Judged> = seen.iter().map(|seen| one(subject, seen, lan_fails)).collect();
    let fails = |part: &&Judged| part.verdict == Verdict::Fail;
    let has_names = subject.term("hosts").is_some();
    let protocols_fail = subject.protocols().into_iter().any(|protocol| {
        let mut its = seen.iter().zip(&parts).filter(|(seen, _)| seen.protocol == protocol).peekable();
        its.peek().is_some() && its.all(|(_, part)| part.verdict == Verdict::Fail)
    });
    if protocols_fail || has_names || !parts.iter().any(|part| part.verdict == Verdict::Fail) {
        return Judged::of_parts(parts);
    }
    // Sessions go to the targets that work.
    let failing = parts.iter().find(fails).cloned();
    let works = parts.iter().filter(|part| part.verdict == Verdict::Ok).count();
    failing.map_or_else(
        || Judged::ok(""),
        |failing| Judged {
            verdict: Verdict::Ok,
            evidence: format!("{works} of {} targets answer; {}", parts.len(), failing.evidence),
            cure: failing.cure,
        },
    )
}

fn one(subject: &Subject, seen: &Seen, lan_fails: bool) -> Judged {
    let Seen { target, protocol, lookup, did } = seen;
    let target = clean(target);
    let asleep = subject.term("wake").is_some();
    let (host, port) = target.rsplit_once(':').unwrap_or((&target, ""));
    match did {
        Did::NoAddress(_) | Did::Silent | Did::Unreachable(_) if lan_fails => {
            Judged::unknown(format!("{target} does not answer while the network is broken: see lan"), "")
        }
        Did::NoAddress(why) => Judged::fail(
            format!("the name {host} has no address: {}", clean(why)),
            format!("write the address of the machine in place of {host}, or add the name to /etc/hosts"),
        ),
        Did::Loops(addr, of) => {
            let of = if *of == subject.name { "this mapping".to_owned() } else { clean(of) };
            Judged::fail(
                format!("{target} leads to {addr}, which is a listener of {of}"),
                "name the machine and the port where the service runs",
            )
        }
        Did::ComesBack(addr) => Judged::fail(
            format!("{addr} is the external address of the router, whose port leads back to this mapping"),
            "name the machine and the port where the service runs, by its address inside",
        ),
        Did::Refused { .. } | Did::Silent | Did::Unreachable(_) if asleep => {
            Judged::unknown(format!("{target} does not answer, and a client would start it"), "")
        }
        Did::Refused { other_works: true } => {
            let other = other(*protocol);
            Judged::fail(
                format!("{target} refuses {} and takes {}", upper(*protocol), upper(other)),
                format!("publish it as {}: write /{other} at the end of the spec", upper(other)),
            )
        }
        Did::Refused { .. } => Judged::fail(
            format!("{target} refuses {}: no program listens on that port there", upper(*protocol)),
            format!(
                "start the service on {host}, or correct the port {port}; it may listen on 127.0.0.1 alone"
            ),
        ),
        Did::Silent => Judged::fail(
            format!("{target} does not answer at all: packets to it are dropped"),
            format!("let {port}/{protocol} in at the firewall of {host}"),
        ),
        Did::Unreachable(why) => Judged::fail(
            format!("{target} cannot be reached: {}", clean(why)),
            format!("switch on {host}, or correct its address"),
        ),
        Did::Connected { speaks } => connected(subject, &target, *speaks, *lookup),
        Did::Open => Judged::ok(format!("{target} does not refuse UDP, other ports of {host} do")),
        Did::Untold => Judged::unknown(format!("{target} says nothing, which a UDP service may do"), ""),
        Did::Untried => Judged::unknown(format!("{target} cannot be tried from here"), ""),
    }
}

fn connected(subject: &Subject, target: &str, speaks: Option<Speaks>, lookup: Option<Duration>) -> Judged {
    match (clients(subject), speaks) {
        (Clients::Http, Some(Speaks::Tls)) => Judged::fail(
            format!("{target} speaks TLS, and clients of this port speak HTTP in clear"),
            "publish port 443 for it, or lead this port to the HTTP port of the target",
        ),
        (Clients::Tls, Some(Speaks::Http)) => Judged::fail(
            format!("{target} speaks HTTP in clear, and clients of this port speak TLS"),
            "lead this port to the HTTPS port of the target",
        ),
        _ => {
            let mut judged = Judged::ok(format!("{target} takes connections"));
            if let Some(took) = lookup.filter(|took| *took > SLOW_NAME) {
                judged.evidence += &format!("; looking its name up took {:.1} s", took.as_secs_f32());
                judged.cure = "write the address in place of the name, or mend the name server".to_owned();
            }
            judged
        }
    }
}

/// What clients speak, as far as the mapping shows.
fn clients(subject: &Subject) -> Clients {
    let has = |ports: &[u16]| subject.listeners.iter().any(|l| ports.contains(&l.port.get()));
    match subject.term("match").and_then(Value::as_str) {
        Some("http-host") => Clients::Http,
        Some("tls-sni") => Clients::Tls,
        _ if has(&[80, 8080]) => Clients::Http,
        _ if has(&[443, 8443]) => Clients::Tls,
        _ => Clients::Any,
    }
}

fn other(protocol: Protocol) -> Protocol {
    match protocol {
        Protocol::Tcp => Protocol::Udp,
        Protocol::Udp => Protocol::Tcp,
    }
}

fn upper(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}

#[cfg(test)]
mod tests;
