//! Our own listeners, as destinations of a dial: a session that leads to one of them loops.
//!
//! The configuration refuses a loop that it can see. A name may come to lead here later, or an
//! address may become ours, so each candidate is compared with what listens at this moment. Almost
//! all differ in the port, and cost one lookup in a table. A wildcard listener also needs to know
//! whether the address belongs to this machine. The kernel's routes say so, and the answer is kept
//! for [`KEPT`].
//!
//! Portway's own API is such a destination, too. It trusts clients of this machine, and a session
//! would bring it others.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::{
    mapping::{ListenAddr, Protocol, canonical_socket, takes},
    sock::leads_here,
};

/// How long the kernel's answer is used again.
const KEPT: Duration = Duration::from_secs(2);
/// The most answers that are kept.
const MOST: usize = 256;

/// What listens now, by protocol and port.
type Listening = HashMap<(Protocol, u16), Vec<IpAddr>>;

/// The listeners of this daemon.
#[derive(Debug, Default)]
pub(super) struct OwnListeners {
    listening: ArcSwap<Listening>,
    /// Those of the API, which no mapping has.
    services: ArcSwap<Listening>,
    /// Whether an address (with its scope, and port 0) is of this machine, and when the kernel said
    /// so.
    local: Mutex<HashMap<SocketAddr, (Instant, bool)>>,
}

impl OwnListeners {
    /// Notes what listens.
    pub(super) fn are<'a>(&self, all: impl Iterator<Item = (Protocol, &'a ListenAddr)>) {
        self.listening.store(by_port(all).into());
    }

    /// Notes where the API listens, or will.
    pub(super) fn services_are<'a>(&self, all: impl Iterator<Item = &'a ListenAddr>) {
        self.services.store(by_port(all.map(|addr| (Protocol::Tcp, addr))).into());
    }

    /// Whether a listener of a mapping takes what is sent to `addr`, or the API does.
    pub(super) fn taker(&self, protocol: Protocol, addr: SocketAddr) -> Option<Own> {
        if self.take(&self.listening.load(), protocol, addr) {
            return Some(Own::Listener);
        }
        self.take(&self.services.load(), protocol, addr).then_some(Own::Api)
    }

    fn take(&self, listening: &Listening, protocol: Protocol, addr: SocketAddr) -> bool {
        let Some(own) = listening.get(&(protocol, addr.port())) else { return false };
        let to = addr.ip();
        own.iter().any(|own| {
            // Another machine may have the same address on another link.
            takes(*own, to) && self.is_local(canonical_socket(addr))
        })
    }

    fn is_local(&self, addr: SocketAddr) -> bool {
        if addr.ip().is_loopback() {
            return true;
        }
        let (mut key, now) = (addr, Instant::now());
        key.set_port(0);
        let mut local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, is_local)) = local.get(&key).filter(|(at, _)| now < *at + KEPT) {
            return *is_local;
        }
        if local.len() >= MOST {
            local.clear();
        }
        // Where the kernel cannot say, the connection will not come about either.
        let is_local = leads_here(addr).unwrap_or(false);
        local.insert(key, (now, is_local));
        is_local
    }
}

/// What of portway takes what is sent to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// A listener of a mapping, or a decoy.
    Listener,
    /// The API.
    Api,
}

fn by_port<'a>(all: impl Iterator<Item = (Protocol, &'a ListenAddr)>) -> Listening {
    let mut listening = Listening::new();
    for (protocol, addr) in all {
        listening.entry((protocol, addr.port.get())).or_default().push(addr.ip);
    }
    listening
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(text: &str) -> ListenAddr {
        let addr: SocketAddr = text.parse().unwrap();
        ListenAddr { ip: addr.ip(), zone: None, port: addr.port().try_into().unwrap() }
    }

    #[tokio::test]
    async fn a_listener_takes_its_own_address_and_a_wildcard_those_of_this_machine() {
        let own = OwnListeners::default();
        let takes = |protocol, addr: &str| own.taker(protocol, addr.parse().unwrap()).is_some();
        assert!(!takes(Protocol::Tcp, "127.0.0.1:80"));
        let all = [listen("127.0.0.9:80"), listen("[::]:81"), listen("0.0.0.0:82")];
        own.are(all.iter().map(|addr| (Protocol::Tcp, addr)));
        for taken in ["127.0.0.9:80", "[::ffff:127.0.0.9]:80", "127.0.0.1:81", "[::1]:81", "127.0.0.1:82"] {
            assert!(takes(Protocol::Tcp, taken), "{taken}");
            assert!(!takes(Protocol::Udp, taken), "{taken}");
        }
        for free in ["127.0.0.1:80", "127.0.0.9:83", "[::1]:82", "192.0.2.1:81", "192.0.2.1:82"] {
            assert!(!takes(Protocol::Tcp, free), "{free}");
        }
        own.are(std::iter::empty());
        assert!(!takes(Protocol::Tcp, "127.0.0.9:80"));
    }

    #[tokio::test]
    async fn the_api_takes_its_own_address_whatever_the_mappings_listen_on() {
        let own = OwnListeners::default();
        own.services_are([listen("127.0.0.1:7678"), listen("[::]:9678")].iter());
        own.are(std::iter::once((Protocol::Tcp, &listen("127.0.0.1:80"))));
        let taker = |protocol, addr: &str| own.taker(protocol, addr.parse().unwrap());
        assert_eq!(taker(Protocol::Tcp, "127.0.0.1:80"), Some(Own::Listener));
        for addr in ["127.0.0.1:7678", "[::ffff:127.0.0.1]:7678", "[::1]:9678", "127.0.0.7:9678"] {
            assert_eq!(taker(Protocol::Tcp, addr), Some(Own::Api), "{addr}");
            assert_eq!(taker(Protocol::Udp, addr), None, "{addr}");
        }
        assert_eq!(taker(Protocol::Tcp, "127.0.0.2:7678"), None);
        own.services_are(std::iter::empty());
        assert_eq!(taker(Protocol::Tcp, "127.0.0.1:7678"), None);
    }
}
