//! Openings by UPnP Internet Gateway Device, with the `igd-next` library.
//!
//! The library writes the requests that change something, reads their answers, and picks a free
//! port where the router cannot. The rest is ours, because routers in homes need more than the
//! library offers:
//! - *Search and description* ([`ssdp`], [`description`]): the library gives neither the router's
//!   name nor the number of its start. It waits for devices that never answer, and builds a tree
//!   out of a MiB from the network, which takes 200 MiB.
//! - *Transport* ([`http`]): a request must leave from the address that it opens, and in the
//!   spelling of the UPnP documents.
//! - *Looking* at one port: the library only reads the whole list.
//! - *Errors* ([`refusal`]): the library has four types for them, and loses codes. Our transport
//!   sees every code first.
//!
//! Owns the search, and what an answer means for an opening. Knows nothing of when an opening is
//! wanted or whose it is. Invariants: those of [`driver`](super::driver); a renewal never removes;
//! only what was requested is opened. Between calls it keeps the addresses of the router's
//! services, and no socket, so dropping it ends it.

mod description;
mod head;
mod http;
mod markup;
mod pinhole;
mod refusal;
mod reply;
mod ssdp;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU16,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use igd_next::{
    PortMappingEntry, PortMappingProtocol, RequestError,
    aio::{Gateway, Ipv6FirewallGateway},
};
use tokio::time::timeout;
use url::Url;

use self::{
    description::{Description, Service, actions},
    http::{Bound, get, host_and_path, is_bare, send_soap, sent_from},
    refusal::{refused, unheard},
    ssdp::{Responder, Search},
};
use super::{
    RouterProtocol,
    router::{CALL, Entry, Found, Granted, Health, Holder, MapRequest, RouterAddr, RouterError},
};
use crate::{mapping::Protocol, text::clean};

/// How many times a search is made.
const TRIES: usize = 2;

/// How long a description may take: the router may have a second one that comes sooner.
const DESCRIPTION: Duration = Duration::from_secs(2);

/// How long something may take that can be done without.
const ACTIONS: Duration = Duration::from_millis(800);

/// How long a call of several requests may take.
const SEVERAL: Duration = Duration::from_secs(6);

/// How long the routers of a network may take to answer.
#[cfg(feature = "api")]
const ROUTERS: Duration = Duration::from_millis(1800);

/// The most entries of a list that are looked at.
const MOST_ENTRIES: u32 = 256;

/// How many entries that cannot be read a list may have.
const MOST_BROKEN: usize = 16;

/// Other codes than 714 for a missing entry: bad arguments, action failed, bad index.
const NOT_FOUND: [u16; 3] = [402, 501, 713];

/// The most connections to the internet that are told apart.
const MOST_WAN: usize = 4;

/// The routers that answer on the network of an address of this machine, the gateway or not.
#[cfg(feature = "api")]
pub(super) async fn routers(own: Ipv4Addr) -> Vec<IpAddr> {
    ssdp::routers(own, ROUTERS).await.unwrap_or_default()
}

/// A router that speaks UPnP.
#[derive(Debug)]
pub(super) struct Upnp {
    at: RouterAddr,
    location: Url,
    gateway: Gateway<Bound>,
    boot_id: Mutex<Option<u32>>,
    /// The IPv6 firewall, which is found by a search of its own, when it is first wanted.
    firewall: Mutex<Option<Ipv6FirewallGateway<Bound>>>,
}

impl Upnp {
    /// Searches for the gateway, and reads its description.
    pub(super) async fn search(at: &RouterAddr) -> Result<(Self, Found), RouterError> {
        let mut why = RouterError::Lost(NO_ANSWER.into());
        for _ in 0..TRIES {
            match timeout(CALL, Self::try_search(at)).await {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(error)) => why = error,
                Err(_) => {}
            }
        }
        Err(why)
    }

    async fn try_search(at: &RouterAddr) -> Result<(Self, Found), RouterError> {
        let has_wan = |description: &Description| !description.wan.is_empty();
        let (answer, described) = find(at, at.own, has_wan).await?;
        let wan = &described.wan;
        let mut chosen = gateway(&answer, wan.first().ok_or_else(no_service)?);
        if wan.len() > 1 {
            // Some routers list the connections that are not in use, too.
            for service in wan.iter().take(MOST_WAN) {
                let candidate = gateway(&answer, service);
                let external = timeout(ACTIONS, sent_from(at.own, candidate.get_external_ip())).await;
                if external.is_ok_and(|told| told.is_ok_and(|ip| !ip.is_unspecified())) {
                    chosen = candidate;
                    break;
                }
            }
        }
        let service = wan.iter().find(|service| service.kind == chosen.service_type);
        let document = match service.and_then(|service| service.schema.as_deref()) {
            Some(schema) => timeout(ACTIONS, fetch(at.own, &answer, schema)).await.ok().and_then(Result::ok),
            None => None,
        };
        chosen.control_schema = actions(document.as_deref(), &chosen.service_type);
        let id = clean(&described.udn);
        let mut found = Found { model: clean(&described.model), ..at.found(RouterProtocol::Upnp) };
        if !id.is_empty() {
            found.id = id;
        }
        let upnp = Self {
            at: at.clone(),
            location: answer.location,
            gateway: chosen,
            boot_id: Mutex::new(answer.boot_id),
            firewall: Mutex::default(),
        };
        Ok((upnp, found))
    }

    /// Opens or renews a port; for an IPv6 address a pinhole.
    pub(super) async fn open(&self, request: &MapRequest) -> Result<Granted, RouterError> {
        if let SocketAddr::V6(internal) = request.internal {
            return self.open_pinhole(request, internal).await;
        }
        let port = request.external_port.get();
        let opened =
            self.gateway.add_port(protocol(request), port, request.internal, seconds(request), &request.text);
        sent_from(request.internal.ip(), opened).await.map_err(refused)?;
        Ok(Granted { external_port: request.external_port, lease: request.lease, pinhole: None })
    }

    /// Opens another port than the one asked for.
    pub(super) async fn any_port(&self, request: &MapRequest) -> Result<Granted, RouterError> {
        if request.internal.is_ipv6() {
            return self.open(request).await;
        }
        let opened =
            self.gateway.add_any_port(protocol(request), request.internal, seconds(request), &request.text);
        let opened =
            timeout(SEVERAL, sent_from(request.internal.ip(), opened)).await.map_err(|_| silent())?;
        let port = opened.map_err(|error| match error {
            // Here it means that no port is free (WANIPConnection:2 section 2.5.18).
            RequestError::ErrorCode(728, _) => RouterError::Conflict,
            error => refused(error),
        })?;
        let external_port =
            NonZeroU16::new(port).ok_or_else(|| RouterError::Failed("it opened port 0".into()))?;
        Ok(Granted { external_port, lease: request.lease, pinhole: None })
    }

    /// Closes what is open at the external port, or the pinhole.
    pub(super) async fn close(&self, request: &MapRequest) -> Result<(), RouterError> {
        let source = request.internal.ip();
        if let IpAddr::V6(own) = source {
            return self.close_pinhole(request, own).await;
        }
        let closed = self.gateway.remove_port(protocol(request), request.external_port.get());
        match sent_from(source, closed).await {
            Ok(()) | Err(RequestError::ErrorCode(714, _)) => Ok(()),
            Err(error) => Err(refused(error)),
        }
    }

    /// What the router has at the external port.
    pub(super) async fn look(&self, request: &MapRequest) -> Result<Entry, RouterError> {
        if request.internal.is_ipv6() {
            return Ok(Entry::Unknown);
        }
        let (port, protocol) = (request.external_port.to_string(), protocol(request).to_string());
        let key = [("NewRemoteHost", ""), ("NewExternalPort", &port), ("NewProtocol", &protocol)];
        match self.request(request.internal.ip(), "GetSpecificPortMappingEntry", &key).await {
            Ok(text) => Ok(entry(&text)),
            Err(RequestError::ErrorCode(714, _)) => Ok(Entry::Free),
            Err(error) if is_unknown(&error) => {
                timeout(SEVERAL, self.look_through(request)).await.unwrap_or(Ok(Entry::Unknown))
            }
            Err(RequestError::ErrorCode(code, _)) if NOT_FOUND.contains(&code) => {
                let listed = timeout(SEVERAL, self.look_through(request)).await.unwrap_or(Ok(Entry::Unknown));
                listed.map(|entry| if entry == Entry::Unknown { Entry::Free } else { entry })
            }
            Err(error) => Err(refused(error)),
        }
    }

    /// The same for a router that only has a list. An entry that cannot be read is passed over: it
    /// may be another program's, with a text that the router cut in a bad place.
    async fn look_through(&self, request: &MapRequest) -> Result<Entry, RouterError> {
        let wanted = |entry: &PortMappingEntry| {
            entry.protocol == protocol(request) && entry.external_port == request.external_port.get()
        };
        let mut broken = 0;
        for index in 0..MOST_ENTRIES {
            let listed = self.gateway.get_generic_port_mapping_entry(index);
            match sent_from(request.internal.ip(), listed).await {
                Ok(entry) if wanted(&entry) => {
                    let lease = entry.lease_duration;
                    let (client, port) = (&entry.internal_client, entry.internal_port);
                    return Ok(taken(client, port, &entry.port_mapping_description, lease));
                }
                Ok(_) => {}
                Err(RequestError::ErrorCode(713, _)) => return Ok(Entry::Free),
                Err(error) if is_bare(&error) => return Ok(Entry::Unknown),
                Err(RequestError::InvalidResponse(_)) if broken < MOST_BROKEN => broken += 1,
                // A router without a list, or with another end of it, has not said that the port is
                // free.
                Err(RequestError::ErrorCode(..) | RequestError::InvalidResponse(_)) => {
                    return Ok(Entry::Unknown);
                }
                Err(error) => return Err(refused(error)),
            }
        }
        Ok(Entry::Unknown)
    }

    /// The external address.
    pub(super) async fn health(&self) -> Result<Health, RouterError> {
        let boot_id = *self.boot_id.lock().unwrap_or_else(PoisonError::into_inner);
        let external = match self.request(self.at.own, "GetExternalIPAddress", &[]).await {
            Ok(text) => external(&text)?,
            // It is there, and does not say.
            Err(RequestError::ErrorCode(..)) => None,
            Err(error) => return Err(refused(error)),
        };
        Ok(Health { external, tells: true, epoch: None, boot_id })
    }

    /// Searches for the router again, and gives the number of its start.
    pub(super) async fn still_there(&self) -> Result<Option<u32>, RouterError> {
        let mut moved = None;
        for _ in 0..TRIES {
            let mut search = Search::start(&self.at, self.at.own, CALL).await.map_err(|e| unheard(&e))?;
            while let Some(answer) = search.next().await.map_err(|e| unheard(&e))? {
                if answer.location == self.location {
                    *self.boot_id.lock().unwrap_or_else(PoisonError::into_inner) = answer.boot_id;
                    return Ok(answer.boot_id);
                }
                moved = Some(answer.location);
            }
            if let Some(to) = moved {
                return Err(RouterError::Lost(format!("its description moved to {}", clean(to.as_str()))));
            }
        }
        Err(RouterError::Lost(NO_ANSWER.into()))
    }

    /// A request that the library does not know, or whose answer it does not give whole.
    async fn request(
        &self,
        source: IpAddr,
        action: &str,
        arguments: &[(&str, &str)],
    ) -> Result<String, RequestError> {
        let kind = &self.gateway.service_type;
        // Every value is a number or a word of ours: nothing in it needs escaping.
        let arguments: String =
            arguments.iter().map(|(name, value)| format!("<{name}>{value}</{name}>")).collect();
        let envelope = format!(
            "<?xml version=\"1.0\"?>\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>\
             <u:{action} xmlns:u=\"{kind}\">{arguments}</u:{action}></s:Body></s:Envelope>\n"
        );
        let header = format!("\"{kind}#{action}\"");
        let url = self.gateway.to_string();
        send_soap(source, &url, &header, &envelope).await
    }
}

const NO_ANSWER: &str = "no answer to the UPnP search";

fn no_service() -> RouterError {
    RouterError::Lost("it answers the UPnP search and describes no service that opens ports".into())
}

fn silent() -> RouterError {
    RouterError::Lost("it did not answer in time".into())
}

/// Searches from `own` for a router whose description suits.
async fn find(
    at: &RouterAddr,
    own: IpAddr,
    suits: impl Fn(&Description) -> bool,
) -> Result<(Responder, Description), RouterError> {
    let mut search = Search::start(at, own, CALL).await.map_err(|e| unheard(&e))?;
    let mut why = RouterError::Lost(NO_ANSWER.into());
    let mut tried = Vec::new();
    while let Some(answer) = search.next().await.map_err(|e| unheard(&e))? {
        // A router answers once for each thing that it is.
        if tried.contains(&answer.location) {
            continue;
        }
        tried.push(answer.location.clone());
        let path = &answer.location[url::Position::BeforePath..url::Position::AfterQuery];
        match timeout(DESCRIPTION, fetch(own, &answer, path)).await {
            Ok(Ok(document)) => {
                let description = Description::parse(&document, &answer.location, answer.addr);
                if suits(&description) {
                    return Ok((answer, description));
                }
                why = no_service();
            }
            Ok(Err(error)) => why = refused(error),
            Err(_) => why = silent(),
        }
    }
    Err(why)
}

/// Fetches a document of the router: a path, or a whole address on another port of it.
async fn fetch(own: IpAddr, answer: &Responder, target: &str) -> Result<String, RequestError> {
    match target.strip_prefix("http://") {
        None => get(own, answer.addr, target).await,
        Some(rest) => {
            let (to, path) = host_and_path(rest)?;
            get(own, to, path).await
        }
    }
}

fn gateway(answer: &Responder, service: &Service) -> Gateway<Bound> {
    Gateway {
        addr: answer.addr,
        root_url: answer.location.path().to_owned(),
        control_url: service.control.clone(),
        control_schema_url: String::new(),
        control_schema: Default::default(),
        service_type: service.kind.to_owned(),
        ipv6_firewall_control_url: None,
        provider: Bound,
    }
}

fn protocol(request: &MapRequest) -> PortMappingProtocol {
    match request.protocol {
        Protocol::Tcp => PortMappingProtocol::TCP,
        Protocol::Udp => PortMappingProtocol::UDP,
    }
}

/// The lease as the protocol has it: 0 is without end.
fn seconds(request: &MapRequest) -> u32 {
    request.lease.map_or(0, |lease| u32::try_from(lease.as_secs()).unwrap_or(u32::MAX).max(1))
}

/// Whether the router does not know the request, in whatever way it says so.
fn is_unknown(error: &RequestError) -> bool {
    matches!(error, RequestError::ErrorCode(401 | 602, _)) || is_bare(error)
}

/// The address of an answer about the external one; an empty element is a router that has none.
fn external(text: &str) -> Result<Option<IpAddr>, RouterError> {
    let told = markup::text(text, "NewExternalIPAddress");
    let told = told.ok_or_else(|| RouterError::Lost("it tells no address where it should".into()))?;
    Ok(told.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified()))
}

/// The entry of an answer to a look at one port.
fn entry(text: &str) -> Entry {
    let of = |name| markup::text(text, name).unwrap_or_default();
    let client = of("NewInternalClient");
    let (Ok(port), false) = (of("NewInternalPort").parse(), client.is_empty()) else { return Entry::Unknown };
    taken(&client, port, &of("NewPortMappingDescription"), of("NewLeaseDuration").parse().unwrap_or(0))
}

fn taken(client: &str, port: u16, text: &str, lease: u32) -> Entry {
    // Some routers put a name in the place of the address.
    let (client, text) = match client.trim().parse() {
        Ok(ip) => (ip, clean(text)),
        Err(_) => (Ipv4Addr::UNSPECIFIED.into(), clean(&format!("{client}: {text}"))),
    };
    let lease = (lease > 0).then(|| Duration::from_secs(lease.into()));
    Entry::Taken { holder: Holder { addr: SocketAddr::new(client, port), text }, lease }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    use super::*;
    use crate::gateway::{
        driver::Driver,
        lease::{Call, Done},
        questions::put,
    };

    const OWN: Ipv4Addr = Ipv4Addr::LOCALHOST;

    /// A router that has this one answer to everything.
    fn with(answer: &'static str) -> Driver {
        let listener = TcpListener::bind((OWN, 0)).expect("a port");
        let addr = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        let location: Url = format!("http://{addr}/root.xml").parse().expect("an address");
        let at = RouterAddr {
            gateway: OWN.into(),
            own: OWN.into(),
            search_port: None,
            gateway6: None,
            interface: 0,
        };
        let answer = Responder { location: location.clone(), addr, boot_id: None };
        let service = Service {
            kind: "urn:schemas-upnp-org:service:WANIPConnection:1",
            control: "/".into(),
            schema: None,
        };
        let mut gateway = gateway(&answer, &service);
        gateway.control_schema = actions(None, service.kind);
        let (boot_id, firewall) = (Mutex::default(), Mutex::default());
        Driver::Upnp(Box::new(Upnp { at, location, gateway, boot_id, firewall }))
    }

    fn request(internal: impl Into<IpAddr>) -> MapRequest {
        MapRequest {
            protocol: Protocol::Tcp,
            internal: (internal.into(), 8080).into(),
            external_port: NonZeroU16::MIN,
            lease: None,
            text: "portway:web@test".into(),
            nonce: [7; 12],
            pinhole: None,
        }
    }

    const NOTHING: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

    #[tokio::test]
    async fn an_address_that_this_machine_does_not_have_costs_one_opening_and_no_router() {
        let driver = with(NOTHING);
        // One of documentation (RFC 5737), which no machine has.
        let other = Ipv4Addr::new(192, 0, 2, 77);
        for call in [Call::Look(request(other)), Call::Open(request(other)), Call::Close(request(other))] {
            let failed = put(&driver, OWN.into(), &call).await;
            assert!(!matches!(failed, Err(RouterError::Lost(_))), "{call:?}: {failed:?}");
            let lost = put(&driver, other.into(), &call).await;
            assert!(matches!(lost, Err(RouterError::Lost(_))), "{call:?}: {lost:?}");
        }
    }

    #[tokio::test]
    async fn a_router_that_refuses_a_look_without_a_word_can_be_asked_to_open() {
        for status in ["404 Not Found", "500 Internal Server Error", "501 Not Implemented"] {
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let driver = with(answer.leak());
            let looked = put(&driver, OWN.into(), &Call::Look(request(OWN))).await;
            assert_eq!(looked, Ok(Done::Seen(Entry::Unknown)), "{status}");
            let opened = put(&driver, OWN.into(), &Call::Open(request(OWN))).await;
            assert!(
                matches!(opened, Err(RouterError::Lost(_))),
                "{status}: a router that refuses everything is lost: {opened:?}"
            );
        }
    }

    #[test]
    fn a_router_without_an_address_is_there_however_it_writes_that() {
        let answer = |inside: &str| external(&format!("<u:Response>{inside}</u:Response>"));
        for none in [
            "<NewExternalIPAddress/>",
            "<NewExternalIPAddress />",
            "<NewExternalIPAddress></NewExternalIPAddress>",
            "<NewExternalIPAddress> </NewExternalIPAddress>",
            "<NewExternalIPAddress>0.0.0.0</NewExternalIPAddress>",
        ] {
            assert_eq!(answer(none), Ok(None), "{none}");
        }
        let one = answer("<NewExternalIPAddress>11.22.33.1</NewExternalIPAddress>");
        assert_eq!(one, Ok(Some([11, 22, 33, 1].into())));
        assert!(matches!(answer(""), Err(RouterError::Lost(_))), "that does not answer the question");
    }
}
