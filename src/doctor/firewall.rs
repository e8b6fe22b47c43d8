//! The firewall of this machine: whether its rules let a new client of the internet in.
//!
//! Portway relays in user space, so a client only has to get in: the hooks `prerouting` and
//! `input`. The rules come as `nft` and `iptables-save` give them ([`nft`], [`iptables`]) and are
//! walked for one imagined packet ([`rules`]). A rule that is not understood makes the verdict
//! unknown where it could change it, and is the evidence. Knows no other hop.

mod iptables;
mod nft;
mod rules;

use std::{net::IpAddr, path::Path, time::Duration};

use super::{
    finding::Judged,
    program::{Fault, said},
    subject::{Listener, Subject},
};
use crate::{job, text::clean_start};
use rules::{Culprit, Outcome, Packet, Ruleset};

/// How long the programs that list the rules may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of what a program says is repeated.
const SHOWN: usize = 160;

/// The rules, and which program makes them.
#[derive(Debug)]
pub(super) struct Firewall {
    rules: Ruleset,
    keeper: Keeper,
}

/// The program that is in charge of the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeper {
    Ufw,
    Firewalld,
    None,
}

/// Why the rules cannot be read, and what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unread {
    evidence: String,
    cure: String,
}

/// Reads the rules.
pub(super) async fn look() -> Result<Firewall, Unread> {
    let read = job::run_within(PATIENCE, "portway-rules", read).await;
    read.unwrap_or_else(|error| {
        Err(Unread { evidence: format!("the rules cannot be read: {error}"), cure: String::new() })
    })
}

fn read() -> Result<Firewall, Unread> {
    let listed = said("nft", &["-j", "list", "ruleset"]);
    let mut rules = match listed {
        Ok(text) => nft::parse(&text).map_err(|reason| Unread {
            evidence: format!("the list of rules is not understood: {}", clean_start(&reason, SHOWN)),
            cure: "look yourself: `nft list ruleset`".to_owned(),
        })?,
        Err(Fault::Missing) => {
            return Err(Unread {
                evidence: "the program `nft`, which lists the rules, is not installed".to_owned(),
                cure: "install it, such as by `apt install nftables`, and run doctor again".to_owned(),
            });
        }
        Err(Fault::Failed(words)) if rustix::process::geteuid().is_root() => {
            let evidence = format!("`nft -j list ruleset` fails: {}", clean_start(&words, SHOWN));
            return Err(Unread { evidence, cure: "look yourself: `nft list ruleset`".to_owned() });
        }
        Err(Fault::Failed(_)) => {
            return Err(Unread {
                evidence: "only root may read the rules".to_owned(),
                cure: "run it as root: `sudo portway doctor`".to_owned(),
            });
        }
    };
    // Matches of iptables are only names in the list of nft. Its own list has them whole.
    for (family, program) in [("ip", "iptables-save"), ("ip6", "ip6tables-save")] {
        if rules.has_foreign_matches(family)
            && let Ok(text) = said(program, &[])
        {
            rules.replace(family, iptables::parse(family, &text));
        }
    }
    if Path::new("/proc/net/ip_tables_names").exists()
        && let Ok(text) = said("iptables-legacy-save", &[])
    {
        rules.add(iptables::parse("ip", &text));
    }
    let keeper = keeper(&rules);
    Ok(Firewall { rules, keeper })
}

fn keeper(rules: &Ruleset) -> Keeper {
    if rules.has_chain(|chain| chain.starts_with("ufw-") || chain.starts_with("ufw6-")) {
        Keeper::Ufw
    } else if rules.has_table("firewalld") {
        Keeper::Firewalld
    } else {
        Keeper::None
    }
}

/// Judges the rules for the listeners of a mapping.
pub(super) fn judge(
    subject: &Subject,
    firewall: &Result<Firewall, Unread>,
    interface: Option<&str>,
    own: Option<IpAddr>,
    client: IpAddr,
) -> Judged {
    let firewall = match firewall {
        Ok(firewall) => firewall,
        Err(unread) => return Judged::unknown(&*unread.evidence, &*unread.cure),
    };
    let listeners = subject.listeners.iter().filter(|listener| !listener.is_local());
    let parts: Vec<Judged> =
        listeners.map(|listener| one(listener, firewall, interface, own, client)).collect();
    if parts.is_empty() {
        return Judged::ok("no client of another machine has to pass it");
    }
    Judged::of_parts(parts)
}

fn one(
    listener: &Listener,
    Firewall { rules, keeper }: &Firewall,
    interface: Option<&str>,
    own: Option<IpAddr>,
    client: IpAddr,
) -> Judged {
    let packet = Packet {
        protocol: listener.protocol,
        port: listener.port.get(),
        interface: interface.map(str::to_owned),
        from: client,
        to: own,
    };
    let what = listener.port_text();
    let who = match keeper {
        Keeper::Ufw => " (made by ufw)",
        Keeper::Firewalld => " (made by firewalld)",
        Keeper::None => "",
    };
    match rules.walk(&packet) {
        Outcome::Passes if rules.is_empty() => Judged::ok("no rule stands in the way: there are none"),
        Outcome::Passes => Judged::ok(format!("the rules let {what} in")),
        Outcome::Unclear(rule) => Judged::unknown(
            format!("whether the rules let {what} in depends on one that is not understood: {rule}"),
            "try it from outside, such as over mobile data",
        ),
        Outcome::Dropped(culprit) => Judged::fail(
            format!("{} {what}{who}: {}", culprit.does, culprit.rule),
            allowing(listener, &culprit, *keeper),
        ),
        Outcome::Taken(culprit) => Judged::fail(
            format!("a rule sends {what} elsewhere before portway gets it{who}: {}", culprit.rule),
            culprit.removal.unwrap_or_else(|| "remove that rule".to_owned()),
        ),
    }
}

/// The line that lets a port in.
fn allowing(listener: &Listener, culprit: &Culprit, keeper: Keeper) -> String {
    let (port, protocol) = (listener.port, listener.protocol);
    match keeper {
        Keeper::Ufw if culprit.is_of_iptables => format!("ufw allow {port}/{protocol}"),
        Keeper::Firewalld if culprit.table == "firewalld" => {
            format!("firewall-cmd --add-port={port}/{protocol} && firewall-cmd --runtime-to-permanent")
        }
        _ if culprit.is_of_iptables => {
            let program = if culprit.family == "ip6" { "ip6tables" } else { "iptables" };
            let table = match &*culprit.table {
                "filter" => String::new(),
                table => format!(" -t {table}"),
            };
            format!("{program}{table} -I {} -p {protocol} --dport {port} -j ACCEPT", culprit.base)
        }
        _ => {
            let Culprit { family, table, base, .. } = culprit;
            format!("nft insert rule {family} {table} {base} {protocol} dport {port} accept")
        }
    }
}

#[cfg(test)]
mod tests;
