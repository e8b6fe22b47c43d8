//! Where the listeners of an entry lead: targets, or names and their targets.

use std::{num::NonZeroU16, sync::Arc};

use crate::{
    config::{
        lower::listen_entry::{HostEntry, ListenEntry, NamesEntry},
        plan::Service,
    },
    mapping::Protocol,
    preface::hosts::HostTable,
    relay::{
        tcp::{HostRoute, Names, Route, TcpOptions, TcpSpec},
        udp::{UdpOptions, UdpSpec},
    },
    targets::Targets,
};

/// Where a listener leads. A clone shares it.
#[derive(Clone)]
pub(super) struct Ways {
    targets: Option<Targets>,
    names: Option<Arc<Names>>,
}

impl Ways {
    /// Those of every listener of an entry, where all lead to the same.
    pub(super) fn shared(entry: &ListenEntry) -> Option<Self> {
        let is_same = entry.all().all(|target| target.spec.ports.count() == 1);
        is_same.then(|| Self::of(entry, entry.listen.ports.first()))
    }

    /// Those of one listener.
    pub(super) fn of(entry: &ListenEntry, port: NonZeroU16) -> Self {
        let targets = Targets::new(entry.targets.iter().map(|target| entry.target(target, port)));
        let names = entry.names.as_deref().filter(|_| entry.protocols.has_tcp());
        let names = names.map(|names| Arc::new(self::names(entry, names, targets.clone(), port)));
        Self { targets, names }
    }

    /// What a listener does that leads there; nothing where it leads nowhere.
    pub(super) fn service(self, protocol: Protocol, tcp: &TcpOptions, udp: &UdpOptions) -> Option<Service> {
        Some(match (protocol, self.names) {
            (Protocol::Tcp, Some(names)) => {
                Service::Tcp(TcpSpec { route: Route::Names(names), options: tcp.clone() })
            }
            (Protocol::Tcp, None) => {
                Service::Tcp(TcpSpec { route: Route::Targets(self.targets?), options: tcp.clone() })
            }
            (Protocol::Udp, _) => Service::Udp(UdpSpec { targets: self.targets?, options: udp.clone() }),
        })
    }
}

/// The names of a listener.
fn names(entry: &ListenEntry, names: &NamesEntry, otherwise: Option<Targets>, port: NonZeroU16) -> Names {
    let table = || {
        let mut hosts = HostTable::default();
        for host in &names.hosts {
            if let Some(route) = route(entry, host, port) {
                // A name that the table does not take is noted where it is read.
                let _ = hosts.insert(&host.name, route);
            }
        }
        Arc::new(hosts)
    };
    let is_same = names.targets().all(|target| target.spec.ports.count() == 1);
    let hosts = if is_same { Arc::clone(names.shared.get_or_init(table)) } else { table() };
    Names { by: names.by, hosts, otherwise, asleep: names.asleep.clone() }
}

fn route(entry: &ListenEntry, host: &HostEntry, port: NonZeroU16) -> Option<HostRoute> {
    let targets = Targets::new(host.targets.iter().map(|target| entry.target(target, port)))?;
    let HostEntry { access, send_proxy, wake, .. } = host;
    Some(HostRoute { targets, access: access.clone().into(), send_proxy: *send_proxy, wake: wake.clone() })
}
