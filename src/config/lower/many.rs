//! Addresses that stand for many machines: broadcast and multicast. UDP can lead to them, TCP
//! cannot.

use std::{
    cell::OnceCell,
    collections::HashSet,
    net::{IpAddr, Ipv4Addr},
};

use crate::{
    config::{
        host::HostView,
        lower::listen_entry::ListenEntry,
        text::{Code, Diagnostics},
    },
    mapping::Host,
};

/// Tells these addresses from those of one machine.
pub(super) struct Many<'a> {
    host: &'a dyn HostView,
    /// What the machine said of its networks, if it was asked.
    broadcasts: OnceCell<HashSet<IpAddr>>,
}

impl<'a> Many<'a> {
    pub(super) fn new(host: &'a dyn HostView) -> Self {
        Self { host, broadcasts: OnceCell::new() }
    }

    /// What kind of address it is, or `None` for the address of one machine.
    pub(super) fn kind_of(&self, ip: IpAddr) -> Option<&'static str> {
        match ip {
            _ if ip.is_multicast() => Some("multicast"),
            IpAddr::V4(Ipv4Addr::BROADCAST) => Some("broadcast"),
            IpAddr::V4(ip) if ip.is_loopback() || ip.is_unspecified() => None,
            IpAddr::V4(_) if self.broadcasts.get_or_init(|| self.host.broadcasts()).contains(&ip) => {
                Some("broadcast")
            }
            _ => None,
        }
    }

    /// Notes a TCP mapping that listens on such an address, or leads to one.
    pub(super) fn refuse_for_tcp(&self, entry: &ListenEntry, diagnostics: &mut Diagnostics) {
        if !entry.protocols.has_tcp() {
            return;
        }
        if let Some(kind) = self.kind_of(entry.listen.ip) {
            let message = format!("TCP cannot listen on the {kind} address {}", entry.listen.ip);
            diagnostics
                .problem(Code::NotOneMachine, entry.span, message)
                .hint("listen on an address of this machine, or forward UDP alone");
        }
        for target in entry.all() {
            if let Host::Ip(ip, _) = target.spec.host
                && let Some(kind) = self.kind_of(ip)
            {
                let message = format!("TCP cannot connect to the {kind} address {ip}");
                diagnostics
                    .problem(Code::NotOneMachine, target.span, message)
                    .hint("lead to the address of one machine, or forward UDP alone");
            }
        }
    }
}
