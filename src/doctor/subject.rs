//! A mapping as the doctor needs it, from the daemon or from the configuration.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
};

use serde_json::{Map, Value};

use crate::{
    config::About,
    gateway::Wanted,
    mapping::Protocol,
    status::view::{self, ListenerState},
};

/// The most listeners of a mapping that are looked at. A range has more, and all are alike.
const MOST: usize = 8;

/// A mapping.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// Its name.
    pub(crate) name: String,
    /// False where its file says `enabled = false`.
    pub(crate) enabled: bool,
    /// An operator has paused it.
    pub(crate) paused: bool,
    /// Its first listeners.
    pub(crate) listeners: Vec<Listener>,
    /// Its targets.
    pub(crate) targets: Vec<String>,
    /// Its keys with their values.
    pub(crate) terms: Map<String, Value>,
    /// What the daemon says of its openings on the router.
    pub(crate) openings: Vec<view::Opening>,
}

/// A listener of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    /// TCP or UDP.
    pub(crate) protocol: Protocol,
    /// Its address.
    pub(crate) ip: IpAddr,
    /// Its port.
    pub(crate) port: NonZeroU16,
    /// Address and port as text.
    pub(crate) text: String,
    /// What the daemon says of it; `None` without one.
    pub(crate) state: Option<ListenerState>,
    /// Why it does not listen.
    pub(crate) error: Option<String>,
    /// The process that has its port.
    pub(crate) holder: Option<String>,
}

impl Listener {
    /// Whether only programs of this machine reach it.
    pub(crate) fn is_local(&self) -> bool {
        self.ip.to_canonical().is_loopback()
    }

    /// `9080/tcp`.
    pub(crate) fn port_text(&self) -> String {
        format!("{}/{}", self.port, self.protocol)
    }
}

impl Subject {
    /// A mapping as the daemon shows it.
    pub(crate) fn of_view(view: view::Mapping) -> Self {
        let listener = |listener: &view::Listener| {
            let (ip, port) = address(&listener.listen)?;
            Some(Listener {
                protocol: listener.protocol?,
                ip,
                port,
                text: listener.listen.clone(),
                state: Some(listener.state),
                error: listener.error.clone(),
                holder: listener.holder.clone(),
            })
        };
        Self {
            listeners: view.listeners.iter().filter_map(listener).take(MOST).collect(),
            targets: view.targets.iter().take(MOST).map(|target| target.address.clone()).collect(),
            name: view.name,
            enabled: view.enabled,
            paused: view.paused,
            terms: view.policy,
            openings: view.router.unwrap_or_default(),
        }
    }

    /// A mapping of a configuration that does not run.
    pub(crate) fn of_plan(name: &str, about: &About) -> Self {
        let listeners = about.listeners.iter().take(MOST).map(|key| Listener {
            protocol: key.protocol,
            ip: key.addr.ip,
            port: key.addr.port,
            text: key.addr.to_string(),
            state: None,
            error: None,
            holder: None,
        });
        Self {
            name: name.to_owned(),
            enabled: about.enabled,
            paused: about.paused,
            listeners: listeners.collect(),
            targets: about.targets.iter().take(MOST).map(ToString::to_string).collect(),
            terms: about.options(),
            openings: Vec::new(),
        }
    }

    /// Whether it is the other one: the same name on the same listeners.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let keys = |subject: &Self| -> Vec<(Protocol, IpAddr, NonZeroU16)> {
            subject.listeners.iter().map(|l| (l.protocol, l.ip, l.port)).collect()
        };
        self.name == other.name && keys(self) == keys(other)
    }

    /// A value of one of its keys, also where the key has one a protocol.
    pub(crate) fn term(&self, key: &str) -> Option<&Value> {
        self.terms.get(key).filter(|value| !value.is_null())
    }

    /// Whether `router` is set.
    pub(crate) fn is_exposed(&self) -> bool {
        self.term("router").is_some_and(|value| value.as_bool() != Some(false))
    }

    /// Whether it wants pinholes in the router's IPv6 firewall.
    pub(crate) fn wants_ipv6(&self) -> bool {
        self.term("router").is_some_and(|router| router.get("ipv6") == Some(&Value::Bool(true)))
    }

    /// The port on the router for a listener.
    pub(crate) fn external_port(&self, listener: &Listener) -> NonZeroU16 {
        let said = |opening: &&view::Opening| {
            opening.protocol == Some(listener.protocol) && opening.listen == listener.text
        };
        let opening = self.openings.iter().find(said).and_then(|o| NonZeroU16::new(o.external_port));
        let planned = || {
            // One port for each protocol is a table of both.
            let router = self.term("router")?;
            let router = router.get(listener.protocol.as_str()).unwrap_or(router);
            let first = u16::try_from(router.get("external_port")?.as_u64()?).ok()?;
            let offset = listener.port.get().checked_sub(self.listeners.first()?.port.get())?;
            NonZeroU16::new(first.checked_add(offset)?)
        };
        opening.or_else(planned).unwrap_or(listener.port)
    }

    /// Its protocols.
    pub(crate) fn protocols(&self) -> Vec<Protocol> {
        let has = |protocol| self.listeners.iter().any(|listener| listener.protocol == protocol);
        [Protocol::Tcp, Protocol::Udp].into_iter().filter(|protocol| has(*protocol)).collect()
    }

    /// What should be open on the router.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = Wanted> + '_ {
        let open = self.listeners.iter().filter(|listener| !listener.is_local());
        open.map(|listener| Wanted {
            protocol: listener.protocol,
            port: listener.port,
            external_port: self.external_port(listener),
        })
    }
}

/// The address and the port of a listener; a zone does not matter here.
fn address(text: &str) -> Option<(IpAddr, NonZeroU16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = host.split('%').next().unwrap_or(host);
    let ip = host.parse().or_else(|_| host.parse::<Ipv6Addr>().map(IpAddr::V6)).ok()?;
    Some((ip, port.parse().ok()?))
}

/// A target as an address, or as a name and a port; `None` for a name without a port (SRV).
pub(super) fn target(text: &str) -> Option<Result<SocketAddr, (String, u16)>> {
    if let Ok(addr) = text.parse() {
        return Some(Ok(addr));
    }
    let (host, port) = text.rsplit_once(':')?;
    Some(Err((host.to_owned(), port.parse().ok()?)))
}

#[cfg(test)]
impl Subject {
    /// A mapping that listens.
    pub(in crate::doctor) fn example(name: &str, listens: &[(Protocol, &str)], targets: &[&str]) -> Self {
        let listener = |(protocol, text): &(Protocol, &str)| {
            let (ip, port) = address(text).unwrap();
            let state = Some(ListenerState::Listening);
            Listener {
                protocol: *protocol,
                ip,
                port,
                text: (*text).to_owned(),
                state,
                error: None,
                holder: None,
            }
        };
        Self {
            name: name.to_owned(),
            enabled: true,
            paused: false,
            listeners: listens.iter().map(listener).collect(),
            targets: targets.iter().map(|target| (*target).to_owned()).collect(),
            terms: Map::new(),
            openings: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_listener_is_read_with_or_without_a_zone() {
        for (text, ip, port) in
            [("0.0.0.0:80", "0.0.0.0", 80), ("[::]:9080", "::", 9080), ("[fe80::1%eth0]:22", "fe80::1", 22)]
        {
            assert_eq!(address(text), Some((ip.parse().unwrap(), NonZeroU16::new(port).unwrap())), "{text}");
        }
        assert_eq!((address("80"), address("[::]:0"), address("x:1")), (None, None, None));
    }

    #[test]
    fn the_external_port_is_that_of_the_daemon_else_that_of_the_configuration() {
        let mut subject =
            Subject::example("web", &[(Protocol::Tcp, "[::]:80"), (Protocol::Tcp, "[::]:81")], &[]);
        let port = |subject: &Subject, at: usize| subject.external_port(&subject.listeners[at]).get();
        assert_eq!((port(&subject, 1), subject.is_exposed()), (81, false));
        subject.terms.insert("router".to_owned(), serde_json::json!({ "external_port": 30_000 }));
        assert_eq!((port(&subject, 0), port(&subject, 1), subject.is_exposed()), (30_000, 30_001, true));
        let opening = view::Opening {
            protocol: Some(Protocol::Tcp),
            listen: "[::]:81".to_owned(),
            external_port: 40_000,
            ..view::Opening::default()
        };
        subject.openings.push(opening);
        assert_eq!((port(&subject, 0), port(&subject, 1)), (30_000, 40_000));
    }
}
