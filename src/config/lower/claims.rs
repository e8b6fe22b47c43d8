//! The claims to ports. Finds two listeners that collide without comparing all with all.

use std::{collections::HashMap, net::IpAddr, num::NonZeroU16};

use crate::mapping::{ListenerKey, Protocol, Zone, takes};

/// The claim of one entry to a port.
#[derive(Clone, Copy)]
pub(super) struct Claim {
    /// The index of the entry.
    pub(super) entry: usize,
    /// Its mapping was given a name.
    pub(super) is_named: bool,
}

/// A table with a quick hasher: each listener is looked up several times.
type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Every port that is claimed.
///
/// Addresses are canonical since they were read, so equal sockets have equal keys.
#[derive(Default)]
pub(super) struct Claims {
    exact: Map<ListenerKey, Claim>,
    /// The wildcard of a port; where there is one, there is nothing else.
    wildcards: Map<(Protocol, NonZeroU16), (IpAddr, usize)>,
    /// The first claim of any kind on a port.
    any: Map<(Protocol, NonZeroU16), usize>,
    unnamed: Map<(Protocol, NonZeroU16), usize>,
    /// How many listeners were asked for.
    pub(super) asked: usize,
}

impl Claims {
    /// Takes the socket of `key`, unless it collides with a claim: then it is that claim's entry.
    ///
    /// The rule is [`crate::mapping::ListenAddr::collides_with`].
    pub(super) fn claim(&mut self, key: &ListenerKey, claim: Claim) -> Result<(), usize> {
        let port = (key.protocol, key.addr.port);
        let is_wildcard = key.addr.is_wildcard();
        let taken = if is_wildcard {
            self.any.get(&port).copied()
        } else {
            let wildcard = self.wildcards.get(&port).map(|(_, entry)| *entry);
            wildcard.or_else(|| self.exact.get(key).map(|c| c.entry))
        };
        if let Some(taken) = taken {
            return Err(taken);
        }
        self.exact.insert(key.clone(), claim);
        self.any.entry(port).or_insert(claim.entry);
        if is_wildcard {
            self.wildcards.insert(port, (key.addr.ip, claim.entry));
        }
        if !claim.is_named {
            self.unnamed.entry(port).or_insert(claim.entry);
        }
        Ok(())
    }

    /// Whether any listener has the port, at whatever address.
    pub(super) fn has_port(&self, protocol: Protocol, port: NonZeroU16) -> bool {
        self.any.contains_key(&(protocol, port))
    }

    /// The entry of a listener.
    pub(super) fn entry(&self, key: &ListenerKey) -> Option<usize> {
        self.exact.get(key).map(|c| c.entry)
    }

    /// The first entry without a name whose listener is called `name` by default.
    pub(super) fn default_name(&self, name: &str) -> Option<usize> {
        let (port, protocol) = name.split_once('/')?;
        let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(|p| p.as_str() == protocol)?;
        let spelled: NonZeroU16 = port.parse().ok().filter(|p: &NonZeroU16| p.to_string() == port)?;
        self.unnamed.get(&(protocol, spelled)).copied()
    }

    /// The listener that takes what is sent to `key`'s address, if that address is of this machine:
    /// one of just that address, or the wildcard.
    pub(super) fn taker(&self, key: &ListenerKey) -> Option<Taker> {
        if self.exact.contains_key(key) {
            return Some(Taker::Exact);
        }
        let (ip, _) = self.wildcards.get(&(key.protocol, key.addr.port))?;
        takes(*ip, key.addr.ip).then_some(Taker::Wildcard(*ip))
    }
}

/// How a listener takes what is sent to an address.
pub(super) enum Taker {
    /// It listens on that address.
    Exact,
    /// It listens on the wildcard given.
    Wildcard(IpAddr),
}

impl Taker {
    /// The key of that listener, for what was sent to `key`.
    pub(super) fn key(self, key: ListenerKey) -> ListenerKey {
        let mut key = key;
        if let Self::Wildcard(ip) = self {
            key.addr.ip = ip;
            key.addr.zone = None::<Zone>;
        }
        key
    }
}
