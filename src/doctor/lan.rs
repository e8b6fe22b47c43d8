//! The local network: whether packets of this machine get to the home router and back.
//!
//! [`look()`] reads the kernel's tables and sends a few small datagrams, none of which passes the
//! router; [`judge`] says what that means.

mod look;

use std::net::IpAddr;

use super::{finding::Judged, subject::Subject};
use crate::{
    gateway::{NoWay, Way},
    sock::interfaces::Interface,
};

pub(super) use look::look;

/// The smallest size that every network must carry (RFC 8200 section 5).
const SMALLEST: u32 = 1280;
/// The usual size of a packet.
const USUAL: u32 = 1500;

/// What was seen of the network.
#[derive(Clone, Debug)]
pub(super) struct Lan {
    /// The way to the router.
    pub(super) way: Result<Way, NoWay>,
    /// All interfaces but loopback.
    interfaces: Vec<Interface>,
    /// The interface that replies to clients of the internet leave by, where that is known.
    replies_by: Option<String>,
    /// Whether the router answers on the link.
    answers: Option<bool>,
    /// The largest packet of the interface.
    mtu: Option<u32>,
    /// A packet of that size does not reach the router; the largest that was seen to.
    fits: Option<Fits>,
    /// This is a container with a network of its own.
    is_container: bool,
    /// There is a default route of IPv6.
    has_ipv6: bool,
    /// A router that answers elsewhere than the default route leads, which leads to none.
    elsewhere: Option<Elsewhere>,
}

/// A router that the default route does not lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Elsewhere {
    /// The router.
    router: IpAddr,
    /// The address of this machine toward it.
    own: IpAddr,
    /// The interface toward it.
    interface: String,
}

/// What a test of the packet size has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fits {
    /// Packets of the size of the interface arrive.
    All,
    /// Only those up to this size do.
    UpTo(u32),
}

impl Lan {
    /// The interface toward the router.
    pub(super) fn interface(&self) -> Option<&str> {
        self.of_way().map(|interface| &*interface.name)
    }

    /// The address of this machine toward the router.
    pub(super) fn own(&self) -> Option<IpAddr> {
        self.way.as_ref().ok().map(|way| way.own)
    }

    /// The machine at the end of the default route answers as a router does.
    pub(super) fn confirm_router(&mut self) {
        if self.answers != Some(false) {
            self.elsewhere = None;
        }
    }

    fn of_way(&self) -> Option<&Interface> {
        let own = self.own()?;
        self.interfaces.iter().find(|interface| interface.addresses.contains(&own))
    }
}

/// Judges what was seen.
pub(super) fn judge(lan: &Lan, subject: &Subject) -> Judged {
    let way = match &lan.way {
        Ok(way) => way,
        Err(no_way) => return without_way(lan, no_way, subject),
    };
    let interface = lan.of_way();
    let name = interface.map_or("its interface", |interface| &*interface.name);
    let Way { gateway, own } = way;
    if let Some(interface) = interface.filter(|interface| !interface.is_up || !interface.has_link) {
        return no_link(interface);
    }
    if lan.answers == Some(false) || lan.elsewhere.is_some() {
        return wrong_gateway(lan, *gateway, name);
    }
    if let Some(other) = lan.replies_by.as_deref().filter(|other| interface.is_some() && *other != name) {
        return Judged::fail(
            format!("clients come in by {name}, and the answers to them leave by {other}"),
            answers_by(&gateway.to_string(), &own.to_string(), name),
        );
    }
    size(lan, name).unwrap_or_else(|| {
        let words = format!("{name} has {own}, and the router is {gateway}");
        if lan.is_container {
            let ports: Vec<_> =
                subject.listeners.iter().map(|l| format!("-p {0}:{0}/{1}", l.port, l.protocol)).collect();
            let cure = format!(
                "publish the ports of the container ({}), or run it with `network_mode: host`",
                ports.join(" ")
            );
            return Judged::unknown(format!("{words}: this is a container with a network of its own"), cure);
        }
        Judged::ok(words)
    })
}

/// The commands by which answers leave by the interface that clients come in by.
fn answers_by(router: &str, own: &str, interface: &str) -> String {
    format!(
        "ip route add default via {router} dev {interface} table 100 && ip rule add from {own} table 100 && \
         ip rule add from {own} table main suppress_prefixlength 0"
    )
}

/// The default route leads to a machine that is off, or that is no router.
fn wrong_gateway(lan: &Lan, gateway: IpAddr, interface: &str) -> Judged {
    let evidence = if lan.answers == Some(false) {
        format!("the router {gateway} does not answer on {interface}")
    } else {
        format!("{gateway}, where the default route leads, does not answer as a router does")
    };
    match &lan.elsewhere {
        Some(Elsewhere { router, interface, .. }) => Judged::fail(
            format!("{evidence}, and a router answers at {router}"),
            format!(
                "`ip route replace default via {router} dev {interface}`, and correct the gateway where the \
                 address of this machine is set"
            ),
        ),
        None => Judged::fail(
            evidence,
            format!(
                "look whether the router is on, and whether {gateway} is its address (`ip route`): \
                 `ip route replace default via ADDRESS dev {interface}` names another one"
            ),
        ),
    }
}

/// A machine without a way to a router.
fn without_way(lan: &Lan, no_way: &NoWay, subject: &Subject) -> Judged {
    if lan.is_container {
        return Judged::fail(
            format!("this container has no way out of its network: {}", no_way.reason),
            "run it with `network_mode: host`, or in a network that is not internal",
        );
    }
    let found = lan.elsewhere.as_ref();
    let seen = found.map(|found| format!("; a router answers at {}", found.router)).unwrap_or_default();
    if let Some(tunnel) = &no_way.only_through {
        let or = |text: Option<String>, else_: &str| text.unwrap_or_else(|| else_.to_owned());
        let router = or(found.map(|found| found.router.to_string()), "ROUTER");
        let interface = or(found.map(|found| found.interface.clone()), "INTERFACE");
        let own = or(found.map(|found| found.own.to_string()), "ADDRESS");
        return Judged::fail(
            format!("the only default route leads through {tunnel}, not to a home router{seen}"),
            format!(
                "ip route add default via {router} dev {interface} metric 1000 && {}",
                answers_by(&router, &own, &interface)
            ),
        );
    }
    let broken = |interface: &&Interface| !interface.is_up || !interface.has_link;
    if let Some(interface) = lan.interfaces.iter().find(broken) {
        return no_link(interface);
    }
    let is_ipv4 = |ip: &IpAddr| matches!(ip, IpAddr::V4(ip) if !ip.is_link_local());
    let has_ipv4 = lan.interfaces.iter().any(|interface| interface.addresses.iter().any(is_ipv4));
    if lan.has_ipv6 && !has_ipv4 {
        let cure = "write router = { ipv6 = true }, and give the IPv6 address to your clients";
        let evidence = "this machine has IPv6 alone: there is no IPv4 default route";
        return if subject.wants_ipv6() { Judged::ok(evidence) } else { Judged::fail(evidence, cure) };
    }
    let evidence = format!("this machine has no way out: {}{seen}", no_way.reason);
    let route = match found {
        Some(Elsewhere { router, interface, .. }) => {
            format!("`ip route add default via {router} dev {interface}`")
        }
        None => "`ip route add default via ROUTER`".to_owned(),
    };
    Judged::fail(evidence, format!("ask for the network again (DHCP), or write the route: {route}"))
}

fn no_link(interface: &Interface) -> Judged {
    let name = &interface.name;
    if interface.is_up {
        return Judged::fail(
            format!("{name} has no link"),
            "plug the cable in at both ends, or join the Wi-Fi again; is the router on?",
        );
    }
    Judged::fail(format!("{name} is switched off"), format!("ip link set {name} up"))
}

/// What is wrong with the size of packets.
fn size(lan: &Lan, name: &str) -> Option<Judged> {
    let mtu = lan.mtu?;
    let cure = |mtu| format!("ip link set dev {name} mtu {mtu}");
    if mtu < SMALLEST {
        let evidence = format!("{name} carries packets up to {mtu} bytes (MTU), less than networks need");
        return Some(Judged::fail(evidence, cure(USUAL)));
    }
    match lan.fits? {
        Fits::All => None,
        Fits::UpTo(size) => Some(Judged::fail(
            format!("packets of {mtu} bytes (the MTU of {name}) do not reach the router, those of {size} do"),
            cure(size),
        )),
    }
}

#[cfg(test)]
mod tests;
