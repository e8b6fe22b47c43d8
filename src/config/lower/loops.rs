//! Listeners that lead to themselves, straight or by way of others: one client would keep them busy
//! without end.
//!
//! Every listener is a node, and a target that another listener of this machine takes is an edge. A
//! name is followed only where it is `localhost`: others are known to the resolver alone. The relay
//! refuses a session that leads straight back. A way back over another machine ends at the caps of
//! the mapping, so a name is a warning where a cap is lifted.

use std::{
    cell::OnceCell,
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use foldhash::fast::RandomState;

use crate::{
    config::{
        host::HostView,
        lower::{
            claims::{Claims, Taker},
            listen_entry::{ListenEntry, TargetEntry},
            many::Many,
        },
        plan::Plan,
        text::{Code, Diagnostics, Span},
    },
    mapping::{Host, ListenAddr, ListenerKey, Protocol, TargetAddr},
    policy::{Caps, Limit},
};

/// Notes every target that leads back, and warns of those that may.
pub(super) fn refuse(
    plan: &Plan,
    claims: &Claims,
    entries: &[ListenEntry],
    host: &dyn HostView,
    diagnostics: &mut Diagnostics,
) {
    let (many, own, told) = (Many::new(host), OnceCell::new(), HashSet::new());
    let mut search = Search { plan, claims, entries, host, many, diagnostics, own, told };
    let mut visited = HashSet::with_capacity_and_hasher(plan.listeners.len(), RandomState::default());
    for key in plan.listeners.keys() {
        search.from(key.clone(), &mut visited);
    }
    search.warn_of_names();
}

struct Search<'a> {
    plan: &'a Plan,
    claims: &'a Claims,
    entries: &'a [ListenEntry],
    host: &'a dyn HostView,
    many: Many<'a>,
    diagnostics: &'a mut Diagnostics,
    /// What the machine said of its addresses, if it was asked.
    own: OnceCell<HashSet<IpAddr>>,
    /// The targets that were noted: one note for a range.
    told: HashSet<Span>,
}

/// A listener on the current path, and where it leads.
struct Step {
    key: ListenerKey,
    edges: std::vec::IntoIter<Edge>,
}

struct Edge {
    to: ListenerKey,
    target: TargetAddr,
    span: Span,
}

impl Search<'_> {
    /// Walks depth first; a listener is on the path, done, or not yet met.
    fn from(&mut self, start: ListenerKey, done: &mut HashSet<ListenerKey, RandomState>) {
        if !done.insert(start.clone()) {
            return;
        }
        let first = self.step(start.clone());
        if first.edges.len() == 0 {
            return;
        }
        let mut on_path = HashMap::from([(start, 0)]);
        let mut path = vec![first];
        while let Some(last) = path.last_mut() {
            let Some(edge) = last.edges.next() else {
                on_path.remove(&last.key);
                path.pop();
                continue;
            };
            if let Some(at) = on_path.get(&edge.to) {
                self.note(&path[*at..], &edge);
            } else if done.insert(edge.to.clone()) {
                on_path.insert(edge.to.clone(), path.len());
                path.push(self.step(edge.to));
            }
        }
    }

    fn step(&self, key: ListenerKey) -> Step {
        let entry = self.claims.entry(&key).and_then(|i| self.entries.get(i));
        let mut edges = Vec::new();
        for (entry, lead) in
            entry.into_iter().flat_map(|entry| entry.leads(key.protocol).map(move |l| (entry, l)))
        {
            // Most targets have a port that nothing here listens on.
            if !self
                .claims
                .has_port(key.protocol, lead.spec.counterpart_port(entry.listen.ports, key.addr.port))
            {
                continue;
            }
            let target = entry.addr_of(lead, key.addr.port);
            for to in self.takers(key.protocol, &target) {
                edges.push(Edge { to, target: target.clone(), span: lead.span });
            }
        }
        Step { key, edges: edges.into_iter() }
    }

    /// The listeners that take what is sent to a target.
    fn takers(&self, protocol: Protocol, target: &TargetAddr) -> Vec<ListenerKey> {
        let (ips, zone) = match &target.host {
            Host::Ip(ip, zone) => (vec![*ip], zone.clone()),
            Host::Name(name) if is_localhost(name) => {
                (vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()], None)
            }
            Host::Name(_) | Host::Srv(_) => return Vec::new(),
        };
        let mut found = Vec::new();
        for ip in ips {
            let addr = ListenAddr { ip, zone: zone.clone(), port: target.port };
            let key = ListenerKey { protocol, addr };
            match self.claims.taker(&key) {
                Some(taker @ Taker::Exact) => found.push(taker.key(key)),
                Some(taker @ Taker::Wildcard(_)) if self.is_local(ip) => found.push(taker.key(key)),
                Some(Taker::Wildcard(_)) | None => {}
            }
        }
        found.dedup();
        found
    }

    /// Warns of names that may come to lead back to a listener whose sessions nothing limits.
    fn warn_of_names(&mut self) {
        let ports: HashSet<_> = self.plan.listeners.keys().map(|key| (key.protocol, key.addr.port)).collect();
        for (key, listener) in &self.plan.listeners {
            let Some(entry) = self.claims.entry(key).and_then(|i| self.entries.get(i)) else { continue };
            let is_name = |lead: &TargetEntry| !matches!(lead.spec.host, Host::Ip(..));
            if key.addr.ip.is_loopback() || !entry.leads(key.protocol).any(is_name) {
                continue;
            }
            let Some(mapping) = self.plan.mapping_of(listener) else { continue };
            let Caps { sessions, sessions_per_client } = mapping.policy.caps;
            let cap = match (sessions, sessions_per_client) {
                (_, Limit::Unlimited) => "max_sessions_per_client",
                (Limit::Unlimited, _) => "max_sessions",
                _ => continue,
            };
            for lead in entry.leads(key.protocol) {
                let target = entry.addr_of(lead, key.addr.port);
                let leads_back = match target.host {
                    Host::Name(_) => ports.contains(&(key.protocol, target.port)),
                    // Its records may name any port.
                    Host::Srv(_) => true,
                    Host::Ip(..) => false,
                };
                if leads_back && self.told.insert(lead.span) {
                    let message =
                        format!("the name in {target} may lead back here, over this machine or another");
                    self.diagnostics
                        .warning(Code::PossibleLoop, lead.span, message)
                        .hint(format!("one client could then take every session; set `{cap}` to a number"));
                }
            }
        }
    }

    /// Whether a wildcard takes what is sent there. What is sent to all machines comes back to this
    /// one, too.
    fn is_local(&self, ip: IpAddr) -> bool {
        ip.is_loopback()
            || self.many.kind_of(ip).is_some()
            || self.own.get_or_init(|| self.host.addresses()).contains(&ip)
    }

    /// Notes that `edge`, which leaves the end of `path`, leads to its start.
    fn note(&mut self, path: &[Step], edge: &Edge) {
        const SHOWN: usize = 4;
        if !self.told.insert(edge.span) {
            return;
        }
        let target = &edge.target;
        let message = if path.len() == 1 {
            format!("the target {target} is this listener itself")
        } else {
            let mut way: Vec<_> = path.iter().take(SHOWN).map(|s| s.key.to_string()).collect();
            if path.len() > SHOWN {
                way.push("...".into());
            }
            way.push(edge.to.to_string());
            format!("the target {target} leads back in a circle: {}", way.join(" -> "))
        };
        let last = path.iter().filter_map(|step| self.claims.entry(&step.key)).max();
        self.diagnostics
            .problem(Code::Loop, edge.span, message)
            .circle(last.and_then(|last| self.entries.get(last)).map(|entry| entry.span))
            .hint("lead to another port, or to another machine");
    }
}

/// Whether a name is `localhost`.
pub(super) fn is_localhost(name: &str) -> bool {
    name.trim_end_matches('.').eq_ignore_ascii_case("localhost")
}
