//! What this machine can tell: its addresses, what listens on it, and its neighbours with names.
//!
//! Read from the kernel's tables. The names come from `getent`, which asks whatever the system
//! asks; after a second it is ended, and what has no name yet keeps its address. Nothing is sent to
//! a neighbour.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    net::{IpAddr, Ipv4Addr},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::config::{HostView, System};

/// How many neighbours are offered.
const MOST: usize = 12;
/// How long names may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// This machine's own addresses.
    pub(super) own: Vec<IpAddr>,
    /// The ports that programs on this machine listen on, TCP and UDP.
    pub(super) tcp: BTreeSet<u16>,
    pub(super) udp: BTreeSet<u16>,
    /// The neighbours, each with its name if it has one.
    pub(super) neighbours: Vec<(Ipv4Addr, Option<String>)>,
}

impl Found {
    /// Looks around.
    pub(super) fn look() -> Self {
        let mut own: Vec<IpAddr> = System.addresses().into_iter().collect();
        own.sort();
        let tcp = [procfs::net::tcp(), procfs::net::tcp6()].into_iter().flatten().flatten();
        let tcp = tcp.filter(|socket| socket.state == procfs::net::TcpState::Listen);
        let udp = [procfs::net::udp(), procfs::net::udp6()].into_iter().flatten().flatten();
        let udp = udp.filter(|socket| socket.remote_address.port() == 0);
        Self {
            tcp: tcp.map(|socket| socket.local_address.port()).collect(),
            udp: udp.map(|socket| socket.local_address.port()).collect(),
            neighbours: neighbours(&own),
            own,
        }
    }

    /// Whether a program here listens on the first of these ports.
    pub(super) fn listens(&self, ports: &str, protocol: &str) -> bool {
        let first = ports.split('-').next().and_then(|port| port.parse().ok());
        let on = if protocol == "udp" { &self.udp } else { &self.tcp };
        first.is_some_and(|port| on.contains(&port))
    }
}

/// The machines that this one spoke with lately, but for itself.
fn neighbours(own: &[IpAddr]) -> Vec<(Ipv4Addr, Option<String>)> {
    let entries = procfs::net::arp().unwrap_or_default().into_iter();
    let known = entries.filter(|entry| entry.hw_address.is_some_and(|address| address != [0; 6]));
    let all: BTreeSet<Ipv4Addr> = known.map(|entry| entry.ip_address).collect();
    let all: Vec<Ipv4Addr> =
        all.into_iter().filter(|ip| !own.contains(&IpAddr::from(*ip))).take(MOST).collect();
    let mut names = names(&all);
    all.into_iter().map(|ip| (ip, names.remove(&ip))).collect()
}

/// The names of addresses, as far as they come in time.
fn names(all: &[Ipv4Addr]) -> BTreeMap<Ipv4Addr, String> {
    if all.is_empty() {
        return BTreeMap::new();
    }
    let mut command = Command::new("getent");
    command.arg("hosts").args(all.iter().map(Ipv4Addr::to_string));
    let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    // Without the program, the addresses stand for themselves.
    let Ok(mut child) = started else { return BTreeMap::new() };
    let mut text = Vec::new();
    if let Some(mut out) = child.stdout.take() {
        let deadline = std::time::SystemTime::now() + PATIENCE;
        let mut part = [0; 4096];
        loop {
            // A clock that is set back makes it wait no longer than the time twice.
            let left =
                deadline.duration_since(std::time::SystemTime::now()).unwrap_or_default().min(PATIENCE);
            let Ok(left) = Timespec::try_from(left) else { break };
            let is_ready =
                poll(&mut [PollFd::new(&out, PollFlags::IN)], Some(&left)).is_ok_and(|ready| ready > 0);
            match if is_ready { out.read(&mut part) } else { Ok(0) } {
                Ok(0) | Err(_) => break,
                Ok(read) if text.len() < 64 * 1024 => text.extend_from_slice(&part[..read]),
                Ok(_) => break,
            }
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    read(&String::from_utf8_lossy(&text))
}

/// Lines such as `192.168.1.5   nas.lan nas`.
fn read(text: &str) -> BTreeMap<Ipv4Addr, String> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (ip, name) = (words.next()?.parse().ok()?, words.next()?);
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        is_name.then(|| (ip, name.to_owned()))
    };
    text.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_hosts() {
        let read = read("192.168.1.5      nas.lan nas\n192.168.1.6 bad\u{1b}name\nrubbish\n\n");
        assert_eq!(read, BTreeMap::from([(Ipv4Addr::new(192, 168, 1, 5), "nas.lan".to_owned())]));
    }
}
