//! Warnings about a promise that can be kept, but that its author should think about twice.

use super::{HostView, lower::Entry, problem::Notes};
use crate::mapping::{PortSpan, publish::Protocols};

/// Services that were not made for strangers, by their TCP ports.
const DELICATE: [(&str, &[u16]); 3] =
    [("Telnet", &[23]), ("Windows file sharing (SMB)", &[445, 139]), ("Remote Desktop (RDP)", &[3389])];

/// Notes what is worth a warning about an enabled entry.
pub(super) fn warn(entry: &Entry, host: &dyn HostView, notes: &mut Notes) {
    warn_of_strangers(entry, notes);
    warn_of_ephemeral_ports(entry, host, notes);
}

fn warn_of_strangers(entry: &Entry, notes: &mut Notes) {
    if !entry.listen.ip.is_unspecified() || entry.protocols == Protocols::Udp {
        return;
    }
    let has = |span: PortSpan, port: u16| (span.first().get()..=span.last().get()).contains(&port);
    let spans = || std::iter::once(entry.listen.ports).chain(entry.targets.iter().map(|(t, _)| t.ports));
    for (service, ports) in DELICATE {
        if let Some(port) = ports.iter().find(|p| spans().any(|span| has(span, **p))) {
            notes
                .warning(entry.place, format!("{service}, port {port}, is open on every address of this machine"))
                .hint("listen on one address only, such as 127.0.0.1 or that of a VPN, or keep strangers out by a firewall");
        }
    }
}

fn warn_of_ephemeral_ports(entry: &Entry, host: &dyn HostView, notes: &mut Notes) {
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
