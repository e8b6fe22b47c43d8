//! What is to be open on the router: derived from the live listeners and the addresses of this
//! machine.
//!
//! Pure. Owns the rule which address of this machine an opening leads to, the text that the router
//! shows beside it, and the reasons why a listener cannot be open at all. [`RouterPorts`] owns the
//! rule that no two openings share a port.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
};

use super::ports::{PortRefusal, RouterPorts};
use crate::mapping::{ListenerKey, LiveSet, MappingName, Protocol, canonical};

/// The longest text beside an opening; some routers refuse longer ones, or cut them in the middle
/// of an entity.
const LONGEST_TEXT: usize = 48;
const LONGEST_HOST: usize = 15;

/// Why nothing is opened for IPv6.
const NO_PINHOLE: &str = "it listens on no IPv6 address that the internet can reach and that stays: temporary, deprecated \
                          and local ones do not count";

/// What tells one opening from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// The listener it is for.
    pub(crate) listener: ListenerKey,
    /// The address that the router's IPv6 firewall lets through, unspecified where there is none to
    /// let through; `None` for a port of the router's IPv4 address.
    pub(crate) pinhole: Option<Ipv6Addr>,
}

/// An opening that is to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Want {
    /// What it is for.
    pub(super) key: Key,
    /// The mapping of that listener.
    pub(super) mapping: MappingName,
    /// Where it leads to.
    pub(super) internal: SocketAddr,
    /// The port on the router; for a pinhole, the port of the listener.
    pub(super) external_port: NonZeroU16,
    /// The text beside it.
    pub(super) text: String,
}

impl Want {
    /// TCP or UDP.
    pub(super) fn protocol(&self) -> Protocol {
        self.key.listener.protocol
    }
}

/// An exposed listener that cannot be open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unfit {
    /// What it would have been for.
    pub(super) key: Key,
    /// The mapping of that listener.
    pub(super) mapping: MappingName,
    /// Why not, and what would help.
    pub(super) reason: &'static str,
}

/// The addresses of this machine, as far as they matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Own {
    /// The one from which the router is reached.
    pub(super) toward_router: IpAddr,
    /// The global ones of IPv6, which are neither temporary nor ULA.
    pub(super) global: Vec<Ipv6Addr>,
    /// The name of this machine.
    pub(super) host: String,
}

/// Everything that is to be open, and what cannot be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wants {
    /// By what it is for.
    pub(super) wants: BTreeMap<Key, Want>,
    /// What cannot be open.
    pub(super) unfit: Vec<Unfit>,
}

impl Wants {
    /// What is to be open for `live`.
    pub(super) fn of(live: &LiveSet, own: &Own) -> Self {
        let mut all = Self::default();
        let mut ports = RouterPorts::default();
        for (key, live) in live {
            let Some(exposure) = live.exposure else { continue };
            let text = text(&live.mapping, &own.host);
            let external_port = exposure.external_port.unwrap_or(key.addr.port);
            if exposure.ipv6 {
                if key.addr.ip.is_ipv6() && pinholes(key, own).next().is_none() {
                    let key = Key { listener: key.clone(), pinhole: Some(Ipv6Addr::UNSPECIFIED) };
                    all.unfit.push(Unfit { key, mapping: live.mapping.clone(), reason: NO_PINHOLE });
                }
                for ip in pinholes(key, own) {
                    let key = Key { listener: key.clone(), pinhole: Some(ip) };
                    let (internal, external_port) = (internal(ip.into(), &key), key.listener.addr.port);
                    let (mapping, text) = (live.mapping.clone(), text.clone());
                    all.add(Want { key, mapping, internal, external_port, text }, &mut ports);
                }
            }
            let key = Key { listener: key.clone(), pinhole: None };
            match client(&key.listener, own, exposure.ipv6) {
                Ok(Some(ip)) => {
                    let (internal, mapping) = (internal(ip, &key), live.mapping.clone());
                    all.add(Want { key, mapping, internal, external_port, text }, &mut ports);
                }
                Ok(None) => {}
                Err(reason) => all.unfit.push(Unfit { key, mapping: live.mapping.clone(), reason }),
            }
        }
        all
    }

    fn add(&mut self, want: Want, ports: &mut RouterPorts<()>) {
        let port = (want.protocol(), want.external_port, want.key.pinhole);
        let reason = match ports.take(port, ()) {
            Ok(()) => {
                self.wants.insert(want.key.clone(), want);
                return;
            }
            Err(PortRefusal::Taken(())) => {
                "another mapping asks for the same port of the router; give one of them another external_port"
            }
            Err(PortRefusal::TooMany) => "more than 64 openings; expose fewer listeners",
        };
        self.unfit.push(Unfit { key: want.key, mapping: want.mapping, reason });
    }
}

fn internal(ip: IpAddr, key: &Key) -> SocketAddr {
    SocketAddr::new(ip, key.listener.addr.port.get())
}

/// The address that a port of the router's IPv4 address leads to; `None` where pinholes are all
/// there can be.
fn client(listener: &ListenerKey, own: &Own, has_pinholes: bool) -> Result<Option<IpAddr>, &'static str> {
    let wanted = canonical(listener.addr.ip);
    let ip = if listener.addr.is_wildcard() { canonical(own.toward_router) } else { wanted };
    match ip {
        IpAddr::V4(ip) if ip.is_loopback() && !own.toward_router.is_loopback() => {
            Err("it listens on this machine alone; listen on every address, or on that of the network")
        }
        IpAddr::V4(_) => Ok(Some(ip)),
        IpAddr::V6(_) if has_pinholes => Ok(None),
        IpAddr::V6(_) if listener.addr.is_wildcard() => {
            Err("the router is reached by IPv6 alone; set router = { ipv6 = true }")
        }
        IpAddr::V6(_) => Err("it listens on an IPv6 address; set router = { ipv6 = true }"),
    }
}

/// The addresses of a listener for which the router's IPv6 firewall needs a pinhole.
fn pinholes<'a>(listener: &'a ListenerKey, own: &'a Own) -> impl Iterator<Item = Ipv6Addr> + 'a {
    let every = listener.addr.ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    own.global.iter().copied().filter(move |ip| every || listener.addr.ip == IpAddr::V6(*ip))
}

/// `portway:<mapping>@<host>`: by it an opening is known as ours again.
fn text(mapping: &MappingName, host: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let host = host.split('.').next().unwrap_or_default();
    let mut host: String = host.chars().map(plain).take(LONGEST_HOST).collect();
    if host.is_empty() {
        host.push_str("host");
    }
    let room = LONGEST_TEXT - "portway:@".len() - host.len();
    let mapping = mapping.as_str();
    format!("portway:{}@{host}", &mapping[..mapping.len().min(room)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::{Exposure, ListenAddr, LiveListener};

    fn own() -> Own {
        Own {
            toward_router: "192.168.77.2".parse().unwrap(),
            global: vec!["2001:db8:77::2".parse().unwrap(), "2001:db8:77::3".parse().unwrap()],
            host: "nas.fritz.box".to_owned(),
        }
    }

    fn listener(ip: &str, port: u16) -> ListenerKey {
        let addr = ListenAddr { ip: ip.parse().unwrap(), zone: None, port: NonZeroU16::new(port).unwrap() };
        ListenerKey { protocol: Protocol::Tcp, addr }
    }

    fn live(ip: &str, port: u16, exposure: Exposure) -> (ListenerKey, LiveListener) {
        let mapping = MappingName::new("web").unwrap();
        (listener(ip, port), LiveListener { mapping, exposure: Some(exposure) })
    }

    fn of(live: &[(ListenerKey, LiveListener)]) -> Wants {
        Wants::of(&live.iter().cloned().collect(), &own())
    }

    fn internals(wants: &Wants) -> Vec<String> {
        wants.wants.values().map(|w| w.internal.to_string()).collect()
    }

    #[test]
    fn a_wildcard_leads_to_the_address_toward_the_router_and_an_address_to_itself() {
        let wants = of(&[
            live("::", 80, Exposure::default()),
            live("0.0.0.0", 81, Exposure::default()),
            live("192.168.77.9", 82, Exposure::default()),
        ]);
        let mut found = internals(&wants);
        found.sort();
        assert_eq!(found, ["192.168.77.2:80", "192.168.77.2:81", "192.168.77.9:82"]);
        assert!(wants.unfit.is_empty());
        assert!(wants.wants.values().all(|w| w.text == "portway:web@nas"));
    }

    #[test]
    fn what_is_live_but_not_exposed_is_not_wanted() {
        let (key, mut plain) = live("::", 80, Exposure::default());
        plain.exposure = None;
        assert_eq!(of(&[(key, plain)]), Wants::default());
    }

    #[test]
    fn a_pinhole_for_each_global_address_of_a_wildcard_and_for_one_listened_on() {
        let ipv6 = Exposure { external_port: None, ipv6: true, ..Exposure::default() };
        let wants = of(&[live("::", 80, ipv6), live("2001:db8:77::3", 81, ipv6)]);
        let mut found = internals(&wants);
        found.sort();
        let expected =
            ["192.168.77.2:80", "[2001:db8:77::2]:80", "[2001:db8:77::3]:80", "[2001:db8:77::3]:81"];
        assert_eq!(found, expected);
        assert!(wants.unfit.is_empty());
    }

    #[test]
    fn a_missing_address_for_a_pinhole_is_reported_beside_what_is_open() {
        let ipv6 = Exposure { external_port: None, ipv6: true, ..Exposure::default() };
        let none = Own { global: Vec::new(), ..own() };
        let of = |live: &[(ListenerKey, LiveListener)]| Wants::of(&live.iter().cloned().collect(), &none);
        let wants = of(&[live("::", 80, ipv6), live("2001:db8:77::9", 81, ipv6), live("0.0.0.0", 82, ipv6)]);
        assert_eq!(internals(&wants), ["192.168.77.2:82", "192.168.77.2:80"]);
        let told: Vec<u16> = wants.unfit.iter().map(|unfit| unfit.key.listener.addr.port.get()).collect();
        assert_eq!((told, wants.unfit[0].reason), (vec![80, 81], NO_PINHOLE));
        let places: Vec<&Key> =
            wants.wants.keys().chain(wants.unfit.iter().map(|unfit| &unfit.key)).collect();
        assert!(places.iter().enumerate().all(|(nth, key)| !places[..nth].contains(key)), "{places:?}");
    }

    #[test]
    fn one_port_of_the_router_is_wanted_once() {
        let elsewhere = Exposure { external_port: NonZeroU16::new(80), ipv6: false, ..Exposure::default() };
        let wants = of(&[live("::", 80, Exposure::default()), live("::", 8080, elsewhere)]);
        assert_eq!((wants.wants.len(), wants.unfit.len()), (1, 1));
        assert!(wants.unfit[0].reason.contains("same port"), "{wants:?}");
    }

    #[test]
    fn a_listener_that_no_router_can_reach_is_told_why() {
        let wants = of(&[
            live("127.0.0.1", 80, Exposure::default()),
            live("2001:db8:77::3", 80, Exposure::default()),
        ]);
        assert_eq!((wants.wants.len(), wants.unfit.len()), (0, 2));
    }

    #[test]
    fn no_more_than_sixty_four_are_asked_for() {
        let many: Vec<_> = (1000..1100).map(|port| live("::", port, Exposure::default())).collect();
        let wants = of(&many);
        assert_eq!((wants.wants.len(), wants.unfit.len()), (64, 36));
    }

    #[test]
    fn the_text_is_short_plain_ascii_whatever_the_names_are() {
        let long = MappingName::new(&"m".repeat(64)).unwrap();
        for host in ["", "nas", "a-very-long-host-name-of-a-machine.example.org", "küche", "<&>\"\n"] {
            let text = text(&long, host);
            assert!(text.len() <= 48 && text.bytes().all(|c| c.is_ascii_graphic()), "{text}");
            assert!(!text.contains(['<', '&', '>', '"']), "{text}");
        }
    }
}
