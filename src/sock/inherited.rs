//! Listening sockets that this process was given: by a service manager, or by the portway that it
//! takes over from.
//!
//! Owns the bag of them. Each is found by what it is (its protocol and the address that it is bound
//! to), and never by its place or its name. A listener looks here before it binds, also at a later
//! reload. So a socket that nothing wanted stays here as long as the process lives, and a mapping
//! that is added later finds it.
//!
//! What is given out is a duplicate. The socket itself leaves the bag when its listener serves
//! ([`Inherited::note_used`]). So a plan that fails half-way changes nothing here. A socket of a
//! service manager never leaves the bag ([`Stays::Always`]): the manager holds it open anyhow, and
//! a mapping that is removed and comes back could not bind its port.
//!
//! A socket gets the options that a bound one would have. It knows neither where the sockets come
//! from nor which listeners there are.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6},
    num::NonZeroU16,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::net::sockopt::socket_cookie;
use socket2::{Domain, SockRef, Socket, Type};

use super::{
    bind::{BACKLOG, Bound, join_group, share},
    errno::lacks_ipv6,
    keepalive::set_keepalive,
    scope::scoped,
    stream::prepare,
};
use crate::mapping::{ListenAddr, Protocol, Timeout};

/// How long a socket stays in the bag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stays {
    /// Until a listener serves on it.
    UntilUsed,
    /// As long as the process lives: others hold it open as well.
    Always,
}

/// Why a descriptor is not a listening socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    /// It is something else.
    #[error("not a socket of TCP or UDP")]
    NoSocket,
    /// It is connected.
    #[error("a connected socket, not a listening one (with Accept=no, systemd passes the listening one)")]
    Connected,
    /// It has no port.
    #[error("a socket that is bound to no port")]
    Unbound,
}

/// A socket of the bag, as a person sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The address that it is bound to.
    pub addr: SocketAddr,
    /// Whether it takes IPv6 clients alone, on every address.
    only_v6: bool,
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let only = if self.only_v6 { " (IPv6 only)" } else { "" };
        write!(f, "{}/{}{only}", self.addr, self.protocol)
    }
}

/// The bag. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Inherited(Arc<Mutex<Vec<Entry>>>);

#[derive(Debug)]
struct Entry {
    socket: OwnedFd,
    what: Passed,
    cookie: u64,
    stays: Stays,
    /// A listener has it, or had it.
    is_used: bool,
}

impl Inherited {
    /// Puts a socket in. Returns what it is.
    ///
    /// # Errors
    /// It is not a listening socket; then it is closed.
    pub(crate) fn add(&self, socket: OwnedFd, stays: Stays) -> Result<Passed, Unfit> {
        let what = look_at(&socket)?;
        let cookie = socket_cookie(&socket).map_err(|_| Unfit::NoSocket)?;
        let mut entries = self.entries();
        // A service manager passes it again that was handed over as well.
        match entries.iter_mut().find(|entry| entry.cookie == cookie) {
            Some(known) if stays == Stays::Always => known.stays = stays,
            Some(_) => {}
            None => entries.push(Entry { socket, what: what.clone(), cookie, stays, is_used: false }),
        }
        drop(entries);
        Ok(what)
    }

    /// Duplicates of the sockets that no listener of `wanted` takes, and that have the port of one
    /// that finds none here: it is to be bound over them. Those of a service manager are left out:
    /// they stay.
    pub(crate) fn in_the_way<'a>(
        &self,
        wanted: impl Iterator<Item = (Protocol, &'a ListenAddr)>,
    ) -> Vec<((Protocol, NonZeroU16), Arc<dyn AsFd + Send + Sync>)> {
        let (mut taken, mut sought) = (Vec::new(), Vec::new());
        for (protocol, listen) in wanted {
            match self.find(listen, protocol) {
                Ok(Some((socket, _))) => taken.extend(socket_cookie(socket)),
                _ => sought.push((protocol, listen.port)),
            }
        }
        let entries = self.entries();
        let others =
            entries.iter().filter(|entry| entry.stays == Stays::UntilUsed && !taken.contains(&entry.cookie));
        let in_the_way = others.filter_map(|entry| {
            let port = (entry.what.protocol, NonZeroU16::new(entry.what.addr.port())?);
            let twin =
                || -> Option<Arc<dyn AsFd + Send + Sync>> { Some(Arc::new(entry.socket.try_clone().ok()?)) };
            sought.contains(&port).then(twin).flatten().map(|twin| (port, twin))
        });
        in_the_way.collect()
    }

    /// Duplicates of the sockets that stay, for the next process.
    pub(crate) fn that_stay(&self) -> Vec<OwnedFd> {
        let entries = self.entries();
        let staying = entries.iter().filter(|entry| entry.stays == Stays::Always);
        staying.filter_map(|entry| entry.socket.try_clone().ok()).collect()
    }

    /// A duplicate of the socket that a listener on `listen` wants; `None` where there is none.
    /// Every address is a dual-stack socket on `[::]`, or `0.0.0.0` where the machine has no IPv6.
    ///
    /// # Errors
    /// The system has no descriptor for it.
    fn find(&self, listen: &ListenAddr, protocol: Protocol) -> io::Result<Option<(OwnedFd, bool)>> {
        let entries = self.entries();
        if entries.is_empty() {
            return Ok(None);
        }
        let port = listen.port.get();
        let addr = match &listen.zone {
            Some(zone) => scoped(listen.ip, zone, port)?,
            None => SocketAddr::new(listen.ip, port),
        };
        let at = |addr| entries.iter().find(|entry| entry.what.suits(protocol, addr));
        let every_ipv4 = || {
            let addr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
            at(addr).filter(|_| listen.ip.is_ipv6() && listen.is_wildcard() && has_no_ipv6())
        };
        let found = at(addr).map(|entry| (entry, false)).or_else(|| every_ipv4().map(|entry| (entry, true)));
        found.map(|(entry, ipv4_only)| Ok((entry.socket.try_clone()?, ipv4_only))).transpose()
    }

    /// The socket for a TCP listener, which listens.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn tcp(&self, listen: &ListenAddr, keepalive: Timeout) -> io::Result<Option<Bound>> {
        let Some((socket, ipv4_only)) = self.find(listen, Protocol::Tcp)? else { return Ok(None) };
        let socket = Socket::from(socket);
        socket.set_nonblocking(true)?;
        prepare(&socket)?;
        set_keepalive(&socket, keepalive)?;
        // A socket that listens takes our backlog.
        socket.listen(BACKLOG)?;
        Ok(Some(Bound { socket: socket.into(), ipv4_only }))
    }

    /// The socket for a UDP listener.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn udp(&self, listen: &ListenAddr) -> io::Result<Option<Bound>> {
        let Some((socket, ipv4_only)) = self.find(listen, Protocol::Udp)? else { return Ok(None) };
        let socket = Socket::from(socket);
        socket.set_nonblocking(true)?;
        // A second program could take its datagrams.
        share(Protocol::Udp, &socket, false)?;
        let Some(addr) = socket.local_addr()?.as_socket() else { return Ok(None) };
        match join_group(&socket, addr) {
            // It has joined already.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            joined => joined?,
        }
        Ok(Some(Bound { socket: socket.into(), ipv4_only }))
    }

    /// Notes that a listener serves on `socket`, which came from here or not. One that stays only
    /// until then leaves the bag.
    pub(crate) fn note_used(&self, socket: impl AsFd) {
        let mut entries = self.entries();
        if entries.is_empty() {
            return;
        }
        let Ok(cookie) = socket_cookie(socket) else { return };
        entries.retain_mut(|entry| {
            let is_it = entry.cookie == cookie;
            entry.is_used |= is_it;
            !is_it || entry.stays == Stays::Always
        });
    }

    /// Closes the sockets that nothing has used, but for those that stay.
    pub(crate) fn close_left(&self) {
        self.entries().retain(|entry| entry.stays == Stays::Always);
    }

    /// The sockets that nothing has used yet.
    pub(crate) fn left(&self) -> Vec<Passed> {
        self.entries().iter().filter(|entry| !entry.is_used).map(|entry| entry.what.clone()).collect()
    }

    /// A panic in between leaves nothing half done.
    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Passed {
    /// Whether a listener of `protocol` on `addr` would be bound as this is.
    fn suits(&self, protocol: Protocol, addr: SocketAddr) -> bool {
        let is_there = match (self.addr, addr) {
            (SocketAddr::V6(one), SocketAddr::V6(other)) => is_same(one, other) && !self.only_v6,
            (one, other) => one == other,
        };
        self.protocol == protocol && is_there
    }
}

/// Whether both are the same place. The scope counts for a link-local address alone: the kernel
/// keeps no other.
fn is_same(one: SocketAddrV6, other: SocketAddrV6) -> bool {
    let scope = |addr: SocketAddrV6| if addr.ip().is_unicast_link_local() { addr.scope_id() } else { 0 };
    (one.ip(), one.port(), scope(one)) == (other.ip(), other.port(), scope(other))
}

fn look_at(socket: &OwnedFd) -> Result<Passed, Unfit> {
    let of = SockRef::from(socket);
    let protocol = match of.r#type().map_err(|_| Unfit::NoSocket)? {
        Type::STREAM => Protocol::Tcp,
        Type::DGRAM => Protocol::Udp,
        _ => return Err(Unfit::NoSocket),
    };
    let addr = of.local_addr().ok().and_then(|addr| addr.as_socket()).ok_or(Unfit::NoSocket)?;
    if of.peer_addr().is_ok() {
        return Err(Unfit::Connected);
    }
    if addr.port() == 0 {
        return Err(Unfit::Unbound);
    }
    let only_v6 = addr.is_ipv6() && addr.ip().is_unspecified() && of.only_v6().unwrap_or(false);
    Ok(Passed { protocol, addr, only_v6 })
}

/// Whether the machine does no IPv6 at all.
fn has_no_ipv6() -> bool {
    let bind = || {
        let any = SocketAddr::new(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), 0);
        Socket::new(Domain::IPV6, Type::DGRAM, None)?.bind(&any.into())
    };
    bind().is_err_and(|error: io::Error| lacks_ipv6(&error))
}

#[cfg(test)]
mod tests;
