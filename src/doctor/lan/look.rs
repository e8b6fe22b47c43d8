//! What the kernel and the router show of the local network.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    time::{sleep, timeout},
};

use super::{super::program::said, Fits, Lan, SMALLEST};
use crate::{
    gateway::{self, RouterSettings},
    job,
    sock::interfaces::Interface,
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
const A_CLIENT: &str = "8.8.8.8";
/// How long a program may take.
const PATIENCE: Duration = Duration::from_secs(5);
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
    };
    let is_marked = MARKS.iter().any(|mark| Path::new(mark).exists());
    lan.is_container = is_marked && is_of_all_processes() && has_own_network(&lan);
    let Ok(way) = &lan.way else { return lan };
    let (gateway, own) = (way.gateway, way.own);
    lan.mtu = lan.interface().and_then(mtu);
    lan.replies_by = replies_by(own).await;
    lan.answers = answers(gateway).await;
    if lan.answers != Some(false)
        && let Some(mtu) = lan.mtu.filter(|mtu| *mtu >= SMALLEST)
    {
        lan.fits = fits(gateway, mtu).await;
    }
    lan
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

/// The interface by which the answers to a client leave.
async fn replies_by(own: IpAddr) -> Option<String> {
    let ask = move || said("ip", &["-4", "route", "get", A_CLIENT, "from", &own.to_string()]).ok();
    let text = job::run_within(PATIENCE, "portway-route", ask).await.ok()??;
    let mut words = text.split_whitespace().skip_while(|word| *word != "dev");
    words.nth(1).map(str::to_owned)
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
