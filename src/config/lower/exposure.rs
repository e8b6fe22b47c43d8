//! Warnings about a promise that can be kept, but that its author should think about twice.

use std::{cell::OnceCell, collections::HashSet, net::IpAddr};

use crate::{
    config::{
        host::HostView,
        lower::{listen_entry::ListenEntry, openings},
        text::{Code, Diagnostics, Span},
    },
    mapping::PortSpan,
    policy::Policy,
};

/// Services that were not made for strangers, by their TCP ports.
const DELICATE: [(&str, &[u16]); 5] = [
    ("Telnet", &[23]),
    ("Windows file sharing (SMB)", &[445, 139]),
    ("a camera (RTSP)", &[554]),
    ("Remote Desktop (RDP)", &[3389]),
    ("Remote Desktop (VNC)", &[5900]),
];
/// Services that answer a datagram with a larger one, by their UDP ports. The sender of a datagram
/// can be forged, so the answers flood a third party (CISA alert TA14-017A lists the factors).
const AMPLIFYING: [(&str, u16); 5] =
    [("DNS", 53), ("NTP", 123), ("LDAP", 389), ("SSDP", 1900), ("memcached", 11211)];
const CLOSE_IT: &str =
    "limit the clients with `allow`, or listen on one address only, such as 127.0.0.1 or that of a VPN";

/// This machine's addresses, looked up once.
pub(super) struct OwnAddresses<'a> {
    host: &'a dyn HostView,
    known: OnceCell<HashSet<IpAddr>>,
}

impl<'a> OwnAddresses<'a> {
    pub(super) fn new(host: &'a dyn HostView) -> Self {
        Self { host, known: OnceCell::new() }
    }

    /// Warns of an address that this machine does not have. `what` it is for comes first, `cure`
    /// last.
    pub(super) fn warn_of_foreign(
        &self,
        ip: IpAddr,
        span: Span,
        what: &str,
        cure: &'static str,
        diagnostics: &mut Diagnostics,
    ) {
        let is_link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_link_local {
            return;
        }
        let known = self.known.get_or_init(|| self.host.addresses());
        // A machine without any address could not be asked.
        if !known.is_empty() && !known.contains(&ip) {
            let message = format!("{what} {ip} is not an address of this machine now");
            diagnostics.warning(Code::ForeignAddress, span, message).hint(cure);
        }
    }

    /// The same for the address that an entry listens on.
    pub(super) fn warn_of_listener(&self, entry: &ListenEntry, diagnostics: &mut Diagnostics) {
        const CURE: &str = "portway waits until the address appears; compare with `ip addr`";
        self.warn_of_foreign(entry.listen.ip, entry.span, "the listen address", CURE, diagnostics);
    }
}

/// Notes what is worth a warning about an enabled entry, which is open on the router if
/// `on_router`.
pub(super) fn warn(
    entry: &ListenEntry,
    policy: &Policy,
    on_router: bool,
    host: &dyn HostView,
    diagnostics: &mut Diagnostics,
) {
    let on_router = on_router && openings::is_reachable(entry.listen.ip);
    if !keeps_strangers_out(policy) {
        warn_of_strangers(entry, on_router, diagnostics);
    }
    warn_of_other_ports(entry, diagnostics);
    warn_of_ephemeral_ports(entry, host, diagnostics);
}

/// Whether a policy lets in named clients only, or those that knocked.
fn keeps_strangers_out(policy: &Policy) -> bool {
    let access = &policy.access;
    let names_some =
        access.allow.as_ref().is_some_and(|allow| allow.nets.iter().all(|net| net.prefix_len() > 0));
    policy.knock || names_some || (access.allow.is_none() && access.allow_countries.is_some())
}

fn warn_of_strangers(entry: &ListenEntry, on_router: bool, diagnostics: &mut Diagnostics) {
    let is_open = entry.listen.ip.is_unspecified() || on_router;
    if !is_open {
        return;
    }
    let to = if on_router { "to the internet" } else { "on every address of this machine" };
    let ranges = || std::iter::once(entry.listen.ports).chain(entry.all().map(|t| t.spec.ports));
    let has = |port: u16| ranges().any(|range| contains(range, port));
    for (service, ports) in DELICATE.iter().filter(|_| entry.protocols.has_tcp()) {
        if let Some(port) = ports.iter().find(|port| has(**port)) {
            diagnostics
                .warning(Code::ExposedService, entry.span, format!("{service}, port {port}, is open {to}"))
                .hint(CLOSE_IT);
        }
    }
    for (service, port) in AMPLIFYING.iter().filter(|(_, port)| entry.protocols.has_udp() && has(*port)) {
        let message =
            format!("{service} over UDP, port {port}, is open {to}: attackers use it to flood others");
        diagnostics.warning(Code::ExposedService, entry.span, message).hint(CLOSE_IT);
    }
}

/// Notes a protocol that needs more ports than the one it begins at.
fn warn_of_other_ports(entry: &ListenEntry, diagnostics: &mut Diagnostics) {
    let leads_to = |port| entry.all().any(|target| contains(target.spec.ports, port));
    if entry.protocols.has_udp() && leads_to(69) {
        let message = "a TFTP server (port 69) answers from other ports: those answers are lost";
        diagnostics
            .warning(Code::UnsuitedService, entry.span, message)
            .hint("use a TFTP server that answers from port 69, or HTTP");
    }
    if entry.protocols.has_tcp() && leads_to(21) {
        let message = "an FTP server (port 21) opens other ports for data: those are not forwarded";
        diagnostics
            .warning(Code::UnsuitedService, entry.span, message)
            .hint("set a range of passive ports on the server and publish that range too, or use SFTP");
    }
}

fn contains(range: PortSpan, port: u16) -> bool {
    (range.first().get()..=range.last().get()).contains(&port)
}

/// Warns that the kernel may have given the port to another program.
pub(super) fn warn_of_ephemeral_ports(
    entry: &ListenEntry,
    host: &dyn HostView,
    diagnostics: &mut Diagnostics,
) {
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
    diagnostics
        .warning(Code::EphemeralPort, entry.span, format!("{lie} the range that the kernel gives to outgoing traffic ({first}-{last})"))
        .hint(format!(
            "another program may have the port first; reserve it: sysctl -w net.ipv4.ip_local_reserved_ports={ports}"
        ));
}
