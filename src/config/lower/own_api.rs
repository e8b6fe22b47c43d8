//! Mappings that would publish portway's own API, or take its port.
//!
//! The API trusts what comes from this machine. A mapping that leads to it would bring it clients
//! from everywhere, and each would have the address of this machine. A name is followed only where
//! it is `localhost`. The relay refuses a session whose name resolves to the API (`targets::own`).

use std::{
    cell::OnceCell,
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{
    config::{
        host::HostView,
        lower::{api::OwnService, claims::Claims, listen_entry::ListenEntry, loops::is_localhost},
        plan::Plan,
        text::{Code, Diagnostics, Span},
    },
    mapping::{Host, Protocol, TargetAddr, takes},
};

/// Notes every listener on a port of `services`, and every target that is one of them.
pub(super) fn refuse(
    plan: &Plan,
    claims: &Claims,
    entries: &[ListenEntry],
    services: &[OwnService],
    host: &dyn HostView,
    diagnostics: &mut Diagnostics,
) {
    if services.is_empty() {
        return;
    }
    let own = OnceCell::new();
    let is_local = |ip: IpAddr| ip.is_loopback() || own.get_or_init(|| host.addresses()).contains(&ip);
    let mut told: HashSet<Span> = HashSet::new();
    for key in plan.listeners.keys().filter(|key| key.protocol == Protocol::Tcp) {
        let Some(entry) = claims.entry(key).and_then(|i| entries.get(i)) else { continue };
        for OwnService { table, listen } in services {
            if key.addr.collides_with(&listen.value) && told.insert(entry.span) {
                let message = format!("{key} is the port of {table}, set at");
                diagnostics
                    .problem(Code::PortInUse, entry.span, message)
                    .also(listen.span)
                    .hint("choose another port for one of them");
            }
        }
        for lead in entry.leads(key.protocol) {
            let target = entry.addr_of(lead, key.addr.port);
            let found = services.iter().find(|service| is_reached(service, &target, is_local));
            if let Some(OwnService { table, listen }) = found
                && told.insert(lead.span)
            {
                let message = format!("the target {target} would publish portway's own {table}, set at");
                diagnostics.problem(Code::ExposedApi, lead.span, message).also(listen.span).hint(
                    "to reach it from other machines, set `listen` to an address of this machine; \
                     [api] then needs `tokens`",
                );
            }
        }
    }
}

/// Whether what is sent to `target` reaches `service`.
fn is_reached(service: &OwnService, target: &TargetAddr, is_local: impl Fn(IpAddr) -> bool) -> bool {
    let listen = &service.listen.value;
    let is_taken = |ip: IpAddr| takes(listen.ip, ip) && (!listen.is_wildcard() || is_local(ip));
    target.port == listen.port
        && match &target.host {
            Host::Ip(ip, _) => is_taken(*ip),
            Host::Name(name) if is_localhost(name) => {
                is_taken(Ipv4Addr::LOCALHOST.into()) || is_taken(Ipv6Addr::LOCALHOST.into())
            }
            Host::Name(_) | Host::Srv(_) => false,
        }
}
