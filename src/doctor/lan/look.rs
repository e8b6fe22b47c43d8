//! What the kernel and the router show of the local network.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    time::{sleep, timeout},
};

use super::{super::router::is_public, Elsewhere, Fits, Lan, SMALLEST};
use crate::{
    gateway::{self, RouterSettings, Way},
    sock::{hops, interfaces::Interface, leaves_by},
};

/// The port of `discard`, which hardly any router serves: it refuses.
const DISCARD: u16 = 9;
/// How often the table of neighbours is looked at, and how long it takes between.
const LOOKS: usize = 35;
const BETWEEN: Duration = Duration::from_millis(100);
/// How long a refusal of the router may take.
const REFUSAL: Duration = Duration::from_millis(400);
/// A router that limits its refusals has one more after so long (Linux: `icmp_ratelimit`).
const REFILL: Duration = Duration::from_millis(1100);
/// The headers of IPv4 and UDP.
const HEADERS: u32 = 28;
/// Sizes that networks have: DSL, tunnels, the smallest.
const SIZES: [u32; 4] = [1500, 1492, 1420, SMALLEST];
/// A client somewhere on the internet.
const A_CLIENT: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);
/// The most networks in which a router is looked for.
const MOST_NETWORKS: usize = 4;
/// Files that container engines make in their containers.
const MARKS: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];

/// Looks at the network.
pub(in crate::doctor) async fn look(settings: &RouterSettings) -> Lan {
    let mut lan = Lan {
        way: gateway::way(settings),
        interfaces: Interface::all(),
        replies_by: None,
        answers: None,
        mtu: None,
        fits: None,
        is_container: false,
        has_ipv6: has_ipv6(),
        elsewhere: None,
    };
    let is_marked = MARKS.iter().any(|mark| Path::new(mark).exists());
    lan.is_container = is_marked && is_of_all_processes() && has_own_network(&lan);
    let Ok(Way { gateway, own }) = lan.way else {
        lan.elsewhere = elsewhere(&lan.interfaces).await;
        return lan;
    };
    lan.mtu = lan.interface().and_then(mtu);
    lan.replies_by = leaves_by(own, A_CLIENT.into()).ok();
    lan.answers = answers(gateway).await;
    let answers = lan.answers != Some(false);
    if answers && let Some(mtu) = lan.mtu.filter(|mtu| *mtu >= SMALLEST) {
        lan.fits = fits(gateway, mtu).await;
    }
    // A rented machine has no home router, and its gateway may not answer.
    if !is_public(own) && (!answers || !passes_on(own).await) {
        lan.elsewhere = elsewhere(&lan.interfaces).await.filter(|found| found.router != gateway);
    }
    lan
}

/// Whether the machine at the end of the default route passes datagrams on, as a router does: it
/// says so of one that may go no further.
async fn passes_on(own: IpAddr) -> bool {
    let IpAddr::V4(own) = own else { return true };
    for _ in 0..2 {
        if let Ok(Some(_)) = hops::router_at(1, own, A_CLIENT, REFUSAL).await {
            return true;
        }
        sleep(REFILL).await;
    }
    false
}

/// The router that answers first on the networks of these interfaces.
async fn elsewhere(interfaces: &[Interface]) -> Option<Elsewhere> {
    let works = |interface: &&Interface| interface.is_up && interface.has_link;
    for interface in interfaces.iter().filter(works).take(MOST_NETWORKS) {
        let usual = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => (!ip.is_link_local()).then_some(*ip),
            IpAddr::V6(_) => None,
        };
        let Some(own) = interface.addresses.iter().find_map(usual) else { continue };
        if let Some(router) = gateway::routers(own).await.into_iter().next() {
            return Some(Elsewhere { router, own: own.into(), interface: interface.name.clone() });
        }
    }
    None
}

/// Whether all processes that can be seen have this network: then the container was given it, and
/// no program inside made it.
fn is_of_all_processes() -> bool {
    let network = |process: &Path| fs::read_link(process.join("ns/net")).ok();
    let own = network(Path::new("/proc/thread-self"));
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|process| network(&process.path())).all(|other| Some(other) == own)
}

/// Whether the interface is one half of a pair, whose other half is in another network.
fn has_own_network(lan: &Lan) -> bool {
    let number = |name: &str, file: &str| {
        let text = fs::read_to_string(format!("/sys/class/net/{name}/{file}")).ok()?;
        text.trim().parse::<u32>().ok()
    };
    let names = lan.interfaces.iter().map(|interface| &*interface.name);
    let mut pairs = names.map(|name| (number(name, "ifindex"), number(name, "iflink")));
    lan.interfaces.is_empty() || pairs.any(|(own, link)| own != link)
}

fn mtu(interface: &str) -> Option<u32> {
    fs::read_to_string(format!("/sys/class/net/{interface}/mtu")).ok()?.trim().parse().ok()
}

fn has_ipv6() -> bool {
    let routes = fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default();
    let nowhere = "0".repeat(32);
    routes.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_default = fields.first() == Some(&&*nowhere) && fields.get(1) == Some(&"00");
        is_default && fields.get(4) != Some(&&*nowhere) && fields.get(9) != Some(&"lo")
    })
}

/// Whether the router answers on the link, as the table of neighbours shows.
async fn answers(gateway: IpAddr) -> Option<bool> {
    // Something has to be sent, so that the kernel asks.
    let _ = refuses(gateway, 0, Duration::ZERO).await;
    let mut last = None;
    for _ in 0..LOOKS {
        last = neighbour(gateway);
        if last != Some(false) {
            return last;
        }
        sleep(BETWEEN).await;
    }
    last
}

/// Whether the kernel knows the link address of a neighbour; `None` where it does not ask.
fn neighbour(ip: IpAddr) -> Option<bool> {
    const COMPLETE: u32 = 2;
    let table = fs::read_to_string("/proc/thread-self/net/arp").ok()?;
    let ip = ip.to_string();
    let line = table.lines().find(|line| line.split_whitespace().next() == Some(&*ip))?;
    let flags = line.split_whitespace().nth(2)?.strip_prefix("0x")?;
    Some(u32::from_str_radix(flags, 16).ok()? & COMPLETE != 0)
}

/// The largest packets that reach the router; `None` where it does not refuse datagrams.
async fn fits(gateway: IpAddr, mtu: u32) -> Option<Fits> {
    let arrives = async |size: u32| refuses(gateway, size.saturating_sub(HEADERS), REFUSAL).await;
    if !arrives(HEADERS).await {
        return None;
    }
    if arrives(mtu).await {
        return Some(Fits::All);
    }
    // Perhaps the router has refused enough for a moment: then it refuses small ones no more, too.
    let again = async |size: u32| {
        sleep(REFILL).await;
        arrives(size).await
    };
    if again(mtu).await {
        return Some(Fits::All);
    }
    if !arrives(HEADERS).await {
        return None;
    }
    if again(mtu).await {
        return Some(Fits::All);
    }
    for size in SIZES.into_iter().filter(|size| *size < mtu) {
        if again(size).await {
            return Some(Fits::UpTo(size));
        }
    }
    None
}

/// Whether the router refuses a datagram with so many bytes.
async fn refuses(gateway: IpAddr, bytes: u32, limit: Duration) -> bool {
    let send = async || -> io::Result<UdpSocket> {
        let any: IpAddr = if gateway.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(SocketAddr::new(gateway, DISCARD)).await?;
        socket.send(&vec![0; bytes as usize]).await?;
        Ok(socket)
    };
    let Ok(socket) = send().await else { return false };
    let heard = timeout(limit, socket.recv(&mut [0; 8])).await;
    matches!(heard, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused)
}
