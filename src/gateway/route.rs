//! Where the home router is: the default route, the interface toward it, and this machine's own
//! addresses.
//!
//! Owns the reading of the kernel's tables. Knows nothing of router protocols. Parsers are pure and
//! pass over lines that they do not understand; [`router_addr`] and [`global_addresses`] read a few
//! small files and block for well under a millisecond. Nothing is kept: ask again to notice a
//! change.
//!
//! The tables are those of the calling thread's network, `/proc/thread-self`, as everywhere else in
//! the kernel.
//!
//! Without an interface given, tunnels and the bridges of containers are passed over: behind a VPN
//! that took the default route, the home router is still on another interface. A container bridge
//! does not lead to the internet.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    num::NonZeroU16,
};

use nix::net::if_::if_nametoindex;

use super::router::RouterAddr;

/// What the names of interfaces that do not lead to a home router start with: tunnels, containers,
/// and virtual machines.
const NOT_HOME: &str = "tun tap utun wg vpn ppp ipsec xfrm gre sit tailscale zt nebula nordlynx proton \
                        docker br- veth virbr vnet lxc lxd cni podman";

/// Why a home router cannot be found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoRoute {
    /// The machine has no network yet, or it is one without a gateway.
    #[error("no default route{}: is the network up? else set [router] gateway", on(.0.as_deref()))]
    NoDefault(Option<String>),
    /// Only tunnels and container bridges have one.
    #[error(
        "the only default route is through {0}, which does not look like a home network: set [router] interface or gateway"
    )]
    OnlyThrough(String),
    /// The gateway cannot be reached.
    #[error("no way to the gateway {gateway}: {error}")]
    Unreachable {
        /// The gateway.
        gateway: IpAddr,
        /// What the kernel says.
        error: String,
    },
    /// The kernel's tables cannot be read.
    #[error("read the routes: {0}")]
    Unreadable(String),
}

fn on(interface: Option<&str>) -> String {
    interface.map(|name| format!(" on {name}")).unwrap_or_default()
}

/// Finds the router as `[router] gateway` and `interface` say, both of which may be left open.
///
/// # Errors
///
/// See [`NoRoute`].
pub(super) fn router_addr(
    gateway: Option<(IpAddr, Option<NonZeroU16>)>,
    interface: Option<&str>,
) -> Result<RouterAddr, NoRoute> {
    let routes = fs::read_to_string("/proc/thread-self/net/route").map(|text| ipv4_routes(&text));
    let routes = routes.map_err(|e| NoRoute::Unreadable(e.to_string()))?;
    // A machine without IPv6 has no such file.
    let routes6 = fs::read_to_string("/proc/thread-self/net/ipv6_route").map(|text| ipv6_defaults(&text));
    let routes6 = routes6.unwrap_or_default();
    let (address, search_port, via) = match gateway {
        Some((address, port)) => (address, port, interface.or_else(|| on_link(&routes, address))),
        None => {
            let route = default_route(&routes, interface)?;
            (IpAddr::V4(route.gateway), None, Some(route.interface.as_str()))
        }
    };
    let default6 = routes6.iter().filter(|route| via == Some(route.interface.as_str()));
    let gateway6 = match address {
        IpAddr::V6(ip) => Some(ip),
        IpAddr::V4(_) => default6.min_by_key(|route| route.metric).map(|route| route.gateway),
    };
    let index = via.and_then(|name| if_nametoindex(name).ok()).unwrap_or(0);
    let mut router_addr =
        RouterAddr { gateway: address, own: address, search_port, gateway6, interface: index };
    // No port is reached: connecting a datagram socket only asks the kernel which way it would go.
    router_addr.own = source_toward(router_addr.gateway_at(9))
        .map_err(|e| NoRoute::Unreachable { gateway: address, error: e.to_string() })?;
    Ok(router_addr)
}

/// The address of this machine that a datagram to `to` would leave from.
///
/// # Errors
///
/// The kernel's, if it has no route.
pub(super) fn source_toward(to: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

/// This machine's IPv6 addresses that the internet can reach and that stay: global, not temporary,
/// not ULA, not deprecated; those of one interface (its index), or of all where it is 0. None where
/// the kernel has no list: a machine without IPv6 has no such file.
pub(super) fn global_addresses(interface: u32) -> Vec<Ipv6Addr> {
    let list = fs::read_to_string("/proc/thread-self/net/if_inet6");
    list.map(|text| stable_globals(&text, interface)).unwrap_or_default()
}

/// An IPv4 route.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Route {
    interface: String,
    destination: Ipv4Addr,
    mask: Ipv4Addr,
    /// Unspecified where the destination is on the link itself.
    gateway: Ipv4Addr,
    metric: u32,
}

/// An IPv6 default route.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Default6 {
    interface: String,
    gateway: Ipv6Addr,
    metric: u32,
}

const UP: u32 = 1;
const GATEWAY: u32 = 2;
const REJECT: u32 = 0x200;

/// The routes of `/proc/net/route`: a head line, then name, destination, gateway, flags, …, metric,
/// mask, the addresses as the machine has them in memory.
fn ipv4_routes(text: &str) -> Vec<Route> {
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let address = |at: usize| {
            let number = u32::from_str_radix(fields.get(at)?, 16).ok()?;
            Some(Ipv4Addr::from(number.to_ne_bytes()))
        };
        let flags = u32::from_str_radix(fields.get(3)?, 16).ok()?;
        (flags & UP != 0 && flags & REJECT == 0).then_some(())?;
        Some(Route {
            interface: (*fields.first()?).to_owned(),
            destination: address(1)?,
            gateway: address(2)?,
            metric: fields.get(6)?.parse().ok()?,
            mask: address(7)?,
        })
    };
    text.lines().skip(1).filter_map(route).collect()
}

/// The default routes of `/proc/net/ipv6_route`: destination, its length, source, its length,
/// gateway, metric, two counters, flags, name, all numbers in hexadecimal.
fn ipv6_defaults(text: &str) -> Vec<Default6> {
    let default = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok();
        let flags = number(8)?;
        let usable = flags & (UP | GATEWAY) == UP | GATEWAY && flags & REJECT == 0;
        (usable && number(1)? == 0 && fields.first()?.bytes().all(|b| b == b'0')).then_some(())?;
        let gateway = ipv6(fields.get(4)?)?;
        Some(Default6 { interface: (*fields.get(9)?).to_owned(), gateway, metric: number(5)? })
    };
    text.lines().filter_map(default).collect()
}

fn ipv6(hex: &str) -> Option<Ipv6Addr> {
    (hex.len() == 32).then(|| u128::from_str_radix(hex, 16).ok().map(Ipv6Addr::from)).flatten()
}

/// The default route to take: that of the interface, or the best of a home network.
fn default_route<'a>(routes: &'a [Route], interface: Option<&str>) -> Result<&'a Route, NoRoute> {
    let defaults = || {
        let is_default = |route: &&Route| route.destination.is_unspecified() && route.mask.is_unspecified();
        // Without a gateway it is a point-to-point link, with no router to ask.
        routes.iter().filter(is_default).filter(|route| !route.gateway.is_unspecified())
    };
    let fits = |route: &&Route| match interface {
        Some(name) => route.interface == name,
        None => is_home(&route.interface),
    };
    if let Some(best) = defaults().filter(fits).min_by_key(|route| route.metric) {
        return Ok(best);
    }
    match (interface, defaults().next()) {
        (None, Some(other)) => Err(NoRoute::OnlyThrough(other.interface.clone())),
        _ => Err(NoRoute::NoDefault(interface.map(str::to_owned))),
    }
}

/// Whether a home network may be at an interface of that name.
fn is_home(name: &str) -> bool {
    // The loopback alone: other names may start with these letters.
    name != "lo" && !NOT_HOME.split(' ').any(|prefix| name.starts_with(prefix))
}

/// The interface with the address on its own network; the most specific network counts.
fn on_link(routes: &[Route], address: IpAddr) -> Option<&str> {
    let IpAddr::V4(address) = address else { return None };
    let holds = |route: &&Route| {
        route.gateway.is_unspecified()
            && (address.to_bits() & route.mask.to_bits()) == route.destination.to_bits()
    };
    let best = routes.iter().filter(holds).max_by_key(|route| route.mask.to_bits().count_ones());
    best.map(|route| route.interface.as_str())
}

/// The addresses of `/proc/net/if_inet6` that are global and stay: address, index, length, scope,
/// flags, name, all in hexadecimal. The flags are those of linux/if_addr.h.
fn stable_globals(text: &str, interface: u32) -> Vec<Ipv6Addr> {
    const TEMPORARY: u32 = 0x01;
    const DAD_FAILED: u32 = 0x08;
    const DEPRECATED: u32 = 0x20;
    const TENTATIVE: u32 = 0x40;
    let address = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok();
        let address = ipv6(fields.first()?)?;
        let here = interface == 0 || number(1)? == interface;
        let stays = number(4)? & (TEMPORARY | DAD_FAILED | DEPRECATED | TENTATIVE) == 0;
        // Global unicast is 2000::/3 (RFC 4291 section 2.4 and IANA's registry); this leaves out
        // fc00::/7 and fe80::/10.
        let global = address.segments()[0] & 0xe000 == 0x2000;
        (here && stays && global).then_some(address)
    };
    text.lines().filter_map(address).collect()
}

#[cfg(test)]
mod tests;
