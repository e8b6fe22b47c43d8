//! Warnings about a promise that can be kept, but that its author should think about twice.

use super::{HostView, lower::Entry, openings, problem::Notes};
use crate::{
    mapping::{PortSpan, publish::Protocols},
    policy::Policy,
};

/// Services that were not made for strangers, by their TCP ports.
const DELICATE: [(&str, &[u16]); 3] =
    [("Telnet", &[23]), ("Windows file sharing (SMB)", &[445, 139]), ("Remote Desktop (RDP)", &[3389])];

/// Notes what is worth a warning about an enabled entry, which `on_router` shall be open there.
pub(super) fn warn(entry: &Entry, policy: &Policy, on_router: bool, host: &dyn HostView, notes: &mut Notes) {
    let on_router = on_router && openings::is_reachable(entry.listen.ip);
    if !keeps_strangers_out(policy) {
        warn_of_strangers(entry, on_router, notes);
    }
    warn_of_ephemeral_ports(entry, host, notes);
}

/// Whether a policy names those who may enter, and not everyone by that.
fn keeps_strangers_out(policy: &Policy) -> bool {
    let access = &policy.access;
    let names_some =
        access.allow.as_ref().is_some_and(|allow| allow.nets.iter().all(|net| net.prefix_len() > 0));
    names_some || (access.allow.is_none() && access.allow_countries.is_some())
}

fn warn_of_strangers(entry: &Entry, on_router: bool, notes: &mut Notes) {
    let is_open = entry.listen.ip.is_unspecified() || on_router;
    if !is_open || entry.protocols == Protocols::Udp {
        return;
    }
    let to = if on_router { "to the internet" } else { "on every address of this machine" };
    let has = |span: PortSpan, port: u16| (span.first().get()..=span.last().get()).contains(&port);
    let spans = || std::iter::once(entry.listen.ports).chain(entry.targets.iter().map(|(t, _)| t.ports));
    for (service, ports) in DELICATE {
        if let Some(port) = ports.iter().find(|p| spans().any(|span| has(span, **p))) {
            notes
                .warning(entry.place, format!("{service}, port {port}, is open {to}"))
                .hint("say who may enter, by `allow`, or listen on one address only, such as 127.0.0.1 or that of a VPN");
        }
    }
}

/// Notes that the kernel may have given the port to somebody else.
pub(super) fn warn_of_ephemeral_ports(entry: &Entry, host: &dyn HostView, notes: &mut Notes) {
    let Some(kernel) = host.ephemeral_ports() else { return };
    let ports = entry.listen.ports;
    if ports.last().get() < *kernel.start() || ports.first().get() > *kernel.end() {
        return;
    }
    let (first, last) = (kernel.start(), kernel.end());
    let lie = if ports.count() == 1 {
        format!("port {ports} lies in")
    } else {
        format!("ports {ports} reach into")
    };
    notes
        .warning(entry.place, format!("{lie} the range that the kernel gives to outgoing traffic ({first}-{last})"))
        .hint(format!(
            "another program may have the port first; reserve it: sysctl -w net.ipv4.ip_local_reserved_ports={ports}"
        ));
}
