//! The search for a UPnP router: SSDP, over datagrams.
//!
//! Owns the question, the reading of answers, and whose answers count. Knows nothing of
//! descriptions. Invariants: only the gateway's answers count, and only those that name a
//! description on the gateway itself; a search ends at its deadline however many datagrams arrive;
//! no datagram can panic.
//!
//! The gateway is asked alone first, for one thing that it may be after the other: what floods the
//! socket with answers to all of them at once hides the good one. Its answer comes from where the
//! question went, so that a firewall which lets only answers in still passes it, and no other
//! device has a say. A second later the questions go to the multicast group too, for routers that
//! listen nowhere else. (UPnP Device Architecture 2.0, section 1.3.)

#[cfg(feature = "api")]
use std::num::NonZeroU16;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    net::UdpSocket,
    time::{Instant, timeout_at},
};
use url::{Host, Url};

use super::head::Head;
use crate::gateway::router::RouterAddr;

const PORT: u16 = 1900;
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xc);

/// The time between two questions.
const PAUSE: Duration = Duration::from_millis(150);

/// How long the gateway may take before the group is asked.
const ALONE: Duration = Duration::from_secs(1);

/// The longest datagram that is read whole. Answers have some 400 bytes.
const LONGEST: usize = 2048;

/// The most routers of a network that are told apart.
#[cfg(feature = "api")]
const MOST_ROUTERS: usize = 4;

const TARGETS: [&str; 4] = [
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];

const TARGETS6: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
];

/// What the gateway answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Responder {
    /// Where its description is.
    pub(super) location: Url,
    /// The same, to connect to.
    pub(super) addr: SocketAddr,
    /// A number that changes with each start of the router.
    pub(super) boot_id: Option<u32>,
}

/// One question: its time, its receiver, its search target.
#[derive(Clone, Copy, Debug)]
struct Question {
    when: Instant,
    to: SocketAddr,
    target: &'static str,
}

/// A search that is under way.
#[derive(Debug)]
pub(super) struct Search<'a> {
    socket: UdpSocket,
    at: &'a RouterAddr,
    own: IpAddr,
    /// The questions that are still to be asked, the last one first.
    agenda: Vec<Question>,
    deadline: Instant,
}

impl<'a> Search<'a> {
    /// Asks the gateway from `own`, in the family of that address.
    pub(super) async fn start(at: &'a RouterAddr, own: IpAddr, limit: Duration) -> io::Result<Self> {
        let port = at.search_port.map_or(PORT, Into::into);
        let (gateway, group) = match (own, at.gateway6) {
            (IpAddr::V4(_), _) => (at.gateway_at(port), SocketAddr::from((GROUP, PORT))),
            (IpAddr::V6(_), Some(gateway)) => (at.scoped(gateway, port), at.scoped(GROUP6, PORT)),
            (IpAddr::V6(_), None) => return Err(io::Error::other("the router has no known IPv6 address")),
        };
        let socket = UdpSocket::bind((own, 0)).await?;
        if let IpAddr::V4(own) = own {
            SockRef::from(&socket).set_multicast_if_v4(&own)?;
        }
        let now = Instant::now();
        let targets = if own.is_ipv4() { &TARGETS[..] } else { &TARGETS6 };
        let asked = |to: SocketAddr, from: Instant| {
            let times = (0..).map(move |nth| from + PAUSE * nth);
            targets.iter().zip(times).map(move |(target, when)| Question { when, to, target })
        };
        let mut agenda: Vec<_> = asked(gateway, now).collect();
        if at.search_port.is_none() {
            agenda.extend(asked(group, now + ALONE));
        }
        agenda.reverse();
        let mut search = Self { socket, at, own, agenda, deadline: now + limit };
        // A first send that fails ends the search. Later failures do not: answers may still come.
        search.ask(now).await?;
        Ok(search)
    }

    /// The next answer of the gateway; `None` when the time is over.
    pub(super) async fn next(&mut self) -> io::Result<Option<Responder>> {
        let mut datagram = [0; LONGEST];
        while let Some((len, from)) = self.receive(&mut datagram).await? {
            if let Some(answer) = parse(&datagram[..len]).and_then(|answer| self.trusted(answer, from)) {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    /// The next datagram, whoever sends it, while the questions go on; `None` when the time is
    /// over.
    async fn receive(&mut self, datagram: &mut [u8]) -> io::Result<Option<(usize, SocketAddr)>> {
        loop {
            let now = Instant::now();
            if now >= self.deadline {
                return Ok(None);
            }
            let _ = self.ask(now).await;
            let until = self.agenda.last().map_or(self.deadline, |next| next.when.min(self.deadline));
            if let Ok(received) = timeout_at(until, self.socket.recv_from(datagram)).await {
                return received.map(Some);
            }
        }
    }

    /// Asks what is due.
    async fn ask(&mut self, now: Instant) -> io::Result<()> {
        while let Some(Question { to, target, .. }) = self.agenda.pop_if(|next| next.when <= now) {
            let host = SocketAddr::new(to.ip(), to.port());
            let question = format!(
                "M-SEARCH * HTTP/1.1\r\nHOST: {host}\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: {target}\r\n\r\n"
            );
            self.socket.send_to(question.as_bytes(), to).await?;
        }
        Ok(())
    }

    /// The answer with an address to connect to, if it is the gateway's and leads to the gateway.
    ///
    /// Over IPv6 a router answers from its link-local address and names its global one, which must
    /// then be in the network of the address that asked.
    fn trusted(&self, mut answer: Responder, from: SocketAddr) -> Option<Responder> {
        let named = answer.addr.ip();
        match (self.own, from.ip(), named) {
            (IpAddr::V4(_), _, _) if from.ip() == self.at.gateway && named == self.at.gateway => Some(answer),
            (IpAddr::V6(own), IpAddr::V6(from), IpAddr::V6(named)) => {
                let same_network = own.segments()[..4] == named.segments()[..4];
                (Some(from) == self.at.gateway6 && (named == from || same_network)).then(|| {
                    answer.addr = self.at.scoped(named, answer.addr.port());
                    answer
                })
            }
            _ => None,
        }
    }
}

/// The devices on the network of `own` that say that they are routers, and have their description
/// on themselves. All answers until the limit count, the gateway's or not.
#[cfg(feature = "api")]
pub(super) async fn routers(own: Ipv4Addr, limit: Duration) -> io::Result<Vec<IpAddr>> {
    let at = RouterAddr {
        gateway: GROUP.into(),
        own: own.into(),
        search_port: NonZeroU16::new(PORT),
        gateway6: None,
        interface: 0,
    };
    let mut search = Search::start(&at, own.into(), limit).await?;
    let mut found = Vec::new();
    let mut datagram = [0; LONGEST];
    while found.len() < MOST_ROUTERS
        && let Some((len, from)) = search.receive(&mut datagram).await?
    {
        let answer = parse(&datagram[..len]).map(|answer| answer.addr.ip());
        if answer == Some(from.ip()) && !found.contains(&from.ip()) {
            found.push(from.ip());
        }
    }
    Ok(found)
}

/// Reads an answer: a status, and two fields that count.
fn parse(datagram: &[u8]) -> Option<Responder> {
    let head = Head::parse(&String::from_utf8_lossy(datagram)).filter(|head| head.status == 200)?;
    let location = head.values("LOCATION").find_map(|value| Url::parse(value).ok())?;
    let boot_id = head.values("BOOTID.UPNP.ORG").find_map(|value| value.parse().ok());
    let addr = addr_of(&location)?;
    Some(Responder { location, addr, boot_id })
}

/// Where a plain `http` address with an IP for its host leads.
pub(super) fn addr_of(url: &Url) -> Option<SocketAddr> {
    let plain = url.scheme() == "http" && url.username().is_empty() && url.password().is_none();
    let ip = match url.host()? {
        Host::Ipv4(ip) => IpAddr::V4(ip),
        Host::Ipv6(ip) => IpAddr::V6(ip),
        Host::Domain(_) => return None,
    };
    let port = url.port_or_known_default()?;
    (plain && port != 0).then(|| SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<(String, Option<u32>)> {
        parse(text.as_bytes()).map(|answer| (answer.location.to_string(), answer.boot_id))
    }

    #[test]
    fn an_answer_is_read_however_its_lines_are_written() {
        let location = "http://192.168.1.1:5000/rootDesc.xml";
        for answer in [
            format!("HTTP/1.1 200 OK\r\nLOCATION: {location}\r\nBOOTID.UPNP.ORG: 17\r\n\r\n"),
            format!("HTTP/1.0 200 Fine\nlocation:{location}\nbootid.upnp.org:17\n"),
            format!("HTTP/1.1 200 OK\r\nLOCATION:\r\n  {location}\r\nBOOTID.UPNP.ORG:\r\n\t17\r\n\r\n"),
            format!(
                "HTTP/1.1  200\r\nST: x\r\nno colon\r\n: \r\nBootId.Upnp.Org : 17\r\nLocation :  {location} "
            ),
        ] {
            assert_eq!(read(&answer), Some((location.to_owned(), Some(17))), "{answer:?}");
        }
        let odd = format!("HTTP/1.1 200 OK\r\nLOCATION: {location}\r\nBOOTID.UPNP.ORG: soon\r\n");
        assert_eq!(read(&odd), Some((location.to_owned(), None)));
    }

    #[test]
    fn an_answer_that_leads_nowhere_is_none() {
        for location in [
            "https://192.168.1.1/",
            "file:///etc/passwd",
            "http://router.lan/",
            "http://a@192.168.1.1/",
            "http://192.168.1.1:0/",
            "http://[::1/",
            "http:///",
            "",
            "rootDesc.xml",
        ] {
            assert_eq!(read(&format!("HTTP/1.1 200 OK\r\nLOCATION: {location}\r\n\r\n")), None, "{location}");
        }
        for answer in ["", "HTTP/1.1 200 OK\r\n", "NOTIFY * HTTP/1.1\r\nLOCATION: http://192.168.1.1/\r\n"] {
            assert_eq!(read(answer), None, "{answer}");
        }
    }

    proptest! {
        #[test]
        fn no_datagram_is_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..LONGEST)) {
            parse(&bytes);
        }

        #[test]
        fn no_head_line_is_too_odd(
            name in "(?i)(location|bootid\\.upnp\\.org|\\PC{0,8})",
            value in "(http://)?[0-9.\\[\\]:/@%\\PC]{0,40}",
        ) {
            parse(format!("HTTP/1.1 200 OK\r\n{name}:{value}\r\n\r\n").as_bytes());
        }
    }
}
