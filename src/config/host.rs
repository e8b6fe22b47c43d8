//! What the configuration asks the machine, and the machine as it is: the process's environment,
//! the services database, the addresses, the kernel's settings.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    ops::RangeInclusive,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};

use crate::{mapping::Protocol, state::files};

/// What the configuration must know of the machine; [`System`] is the real one.
pub trait HostView {
    /// The value of an environment variable.
    fn env(&self, name: &str) -> Option<String>;
    /// The port of a service, by the system's services database.
    fn service(&self, name: &str, protocol: Protocol) -> Option<u16>;
    /// This machine's own addresses, but for loopback and for those that mean something only
    /// together with an interface.
    fn addresses(&self) -> HashSet<IpAddr>;
    /// The broadcast addresses of this machine's networks.
    fn broadcasts(&self) -> HashSet<IpAddr>;
    /// The ports that the kernel gives to outgoing connections.
    fn ephemeral_ports(&self) -> Option<RangeInclusive<u16>>;
}

/// The services that are known without a services database, as in a container made from scratch.
const WELL_KNOWN: &str = "\
    ftp 21/tcp\nssh 22/tcp\ntelnet 23/tcp\nsmtp 25/tcp mail\ndomain 53/tcp\ndomain 53/udp\ntftp 69/udp\n\
    http 80/tcp www\nhttp 80/udp\nkerberos 88/tcp\nkerberos 88/udp\npop3 110/tcp\nntp 123/udp\nimap2 143/tcp imap\n\
    snmp 161/udp\nldap 389/tcp\nldap 389/udp\nhttps 443/tcp\nhttps 443/udp\nmicrosoft-ds 445/tcp\n\
    submissions 465/tcp smtps\nsyslog 514/udp\nsubmission 587/tcp\nldaps 636/tcp\nimaps 993/tcp\npop3s 995/tcp\n\
    openvpn 1194/tcp\nopenvpn 1194/udp\nmqtt 1883/tcp\nnfs 2049/tcp\nnfs 2049/udp\nmysql 3306/tcp\n\
    ms-wbt-server 3389/tcp rdp\nms-wbt-server 3389/udp rdp\npostgresql 5432/tcp\nsip 5060/tcp\nsip 5060/udp\n\
    xmpp-client 5222/tcp\namqp 5672/tcp\nredis 6379/tcp\nhttp-alt 8080/tcp webcache\nhttp-alt 8080/udp\n\
    secure-mqtt 8883/tcp\nrtsp 554/tcp\nrtsp 554/udp\n";

/// The real machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl HostView for System {
    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn service(&self, name: &str, protocol: Protocol) -> Option<u16> {
        Services::of_system().port(name, protocol)
    }

    /// The addresses of the interfaces. A trial bind is not a test: hosts that share addresses
    /// allow a bind to any address, and the bind would take a port for a moment.
    fn addresses(&self) -> HashSet<IpAddr> {
        // Without them, a loop over another address than loopback is not found beforehand.
        let interfaces = getifaddrs().into_iter().flatten();
        interfaces
            .filter_map(|interface| ip_of(&interface.address?))
            .filter(|ip| is_told_apart(*ip))
            .collect()
    }

    /// An address that is also one of this machine's own is none: a network of one address has such
    /// a "broadcast" address.
    fn broadcasts(&self) -> HashSet<IpAddr> {
        let interfaces: Vec<_> = getifaddrs().into_iter().flatten().collect();
        let own: HashSet<IpAddr> = interfaces.iter().filter_map(|i| ip_of(i.address.as_ref()?)).collect();
        let broadcasts = interfaces.iter().filter_map(|i| ip_of(i.broadcast.as_ref()?));
        broadcasts.filter(|ip| !ip.is_unspecified() && !own.contains(ip)).collect()
    }

    fn ephemeral_ports(&self) -> Option<RangeInclusive<u16>> {
        let text = files::read_text(Path::new("/proc/sys/net/ipv4/ip_local_port_range"), 256).ok()?;
        let mut ports = text.split_ascii_whitespace().map(str::parse);
        Some(ports.next()?.ok()?..=ports.next()?.ok()?)
    }
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
    v4.or_else(|| Some(address.as_sockaddr_in6()?.ip().into()))
}

/// Whether an address is of this machine alone, whichever interface it is met on.
fn is_told_apart(ip: IpAddr) -> bool {
    let is_link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    !ip.is_loopback() && !is_link_local
}

/// A services database, as services(5) describes it.
#[derive(Debug)]
struct Services(HashMap<(String, Protocol), u16>);

impl Services {
    /// The database as it is now; it is read again only when it has changed.
    fn of_system() -> Arc<Self> {
        const DATABASE: &str = "/etc/services";
        /// More is something else.
        const MOST: u64 = 16 << 20;
        type Stamp = Option<SystemTime>;
        // A file of the whole machine. Only a load of the configuration comes here.
        static LAST: Mutex<Option<(Stamp, Arc<Services>)>> = Mutex::new(None);
        let stamp: Stamp = std::fs::metadata(DATABASE).and_then(|m| m.modified()).ok();
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((of, services)) if *of == stamp => services.clone(),
            _ => {
                let text = files::read_text(Path::new(DATABASE), MOST);
                let text = text.unwrap_or_else(|_| WELL_KNOWN.to_owned());
                let services = Arc::new(Self::parse(&text));
                *last = Some((stamp, services.clone()));
                services
            }
        }
    }

    /// Reads lines of `name port/protocol alias...`; the first one of a name counts, others are
    /// passed over.
    fn parse(text: &str) -> Self {
        let mut services = HashMap::new();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or("").split_ascii_whitespace();
            let (Some(name), Some(port)) = (words.next(), words.next()) else { continue };
            let Some((port, protocol)) = port.split_once('/') else { continue };
            let protocol = match protocol {
                "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                _ => continue,
            };
            let Ok(port) = port.parse() else { continue };
            for name in std::iter::once(name).chain(words) {
                services.entry((name.to_owned(), protocol)).or_insert(port);
            }
        }
        Self(services)
    }

    fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        self.0.get(&(name.to_owned(), protocol)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_read_with_aliases_and_comments() {
        let services = Services::parse(
            "# a comment\nhttp\t80/tcp\twww www-http # web\nbad\nbad2 x/tcp\nbad3 80\nbig 99999/tcp\nsctp 9/sctp\n\
             syslog 514/udp\nhttp 81/tcp\n",
        );
        assert_eq!(services.port("http", Protocol::Tcp), Some(80));
        assert_eq!(services.port("www-http", Protocol::Tcp), Some(80));
        assert_eq!(services.port("http", Protocol::Udp), None);
        assert_eq!(services.port("syslog", Protocol::Udp), Some(514));
        assert_eq!(services.port("big", Protocol::Tcp), None);
        assert_eq!(services.0.len(), 4);
    }

    #[test]
    fn well_known_services_need_no_database() {
        let services = Services::parse(WELL_KNOWN);
        assert_eq!(services.port("https", Protocol::Tcp), Some(443));
        assert_eq!(services.port("domain", Protocol::Udp), Some(53));
        assert_eq!(services.port("www", Protocol::Tcp), Some(80));
        assert_eq!(services.port("rtsp", Protocol::Tcp), Some(554));
    }

    #[test]
    fn an_address_that_leads_here_is_an_own_one_and_no_other_is() {
        let own = System.addresses();
        assert!(!own.contains(&"203.0.113.77".parse().unwrap()));
        assert!(!own.contains(&"127.0.0.1".parse().unwrap()), "loopback needs no asking");
        // The kernel reaches an address of its own from just that address.
        for ip in &own {
            // One of IPv6 that was just given to an interface cannot be bound for a moment.
            let Ok(socket) = std::net::UdpSocket::bind((*ip, 0)) else { continue };
            socket.connect((*ip, 9)).unwrap();
            assert_eq!(socket.local_addr().unwrap().ip(), *ip);
        }
        // And the other way round: what it uses to reach others is one.
        let any = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        if any.connect("192.0.2.1:9").is_ok() {
            let used = any.local_addr().unwrap().ip();
            assert!(used.is_loopback() || own.contains(&used), "{used} is missing in {own:?}");
        }
    }

    #[test]
    fn a_link_local_address_is_none_without_its_interface() {
        for (ip, told_apart) in [
            ("fe80::1", false),
            ("::1", false),
            ("127.0.0.9", false),
            ("169.254.0.9", true),
            ("2001:db8::1", true),
        ] {
            assert_eq!(is_told_apart(ip.parse().unwrap()), told_apart, "{ip}");
        }
    }
}
