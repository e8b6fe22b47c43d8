//! What a UPnP router says of itself: its description, and the arguments of its actions.
//!
//! Owns the reading of both documents. Knows nothing of how they come. Invariant: an address taken
//! from a description leads to the machine that gave it, whatever the description says.

use std::{collections::HashMap, net::SocketAddr};

use url::Url;

use super::{markup, ssdp::addr_of};

/// The most services that are looked at. Real descriptions have a dozen.
const MOST_SERVICES: usize = 64;

/// The services that open ports, the newest first: the newer one of a router knows more.
const WAN: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];

const FIREWALL: &str = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1";

/// A router's description, as far as it concerns openings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Description {
    /// Its unique device name; empty if it has none.
    pub(super) udn: String,
    /// Its model, else its friendly name, else empty; as the router wrote it.
    pub(super) model: String,
    /// Its connections to the internet.
    pub(super) wan: Vec<Service>,
    /// Where its IPv6 firewall is controlled.
    pub(super) firewall: Option<String>,
}

/// A connection to the internet, with addresses as the library wants them: a path, or a whole
/// address on another port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    /// The type, one of a few.
    pub(super) kind: &'static str,
    /// Where requests go.
    pub(super) control: String,
    /// Where its actions are described.
    pub(super) schema: Option<String>,
}

impl Description {
    /// Reads the description found at `location`, which leads to `addr`.
    pub(super) fn parse(document: &str, location: &Url, addr: SocketAddr) -> Self {
        // The first of each belongs to the router itself, the others to the devices inside it.
        let first = |name| markup::text(document, name).filter(|text| !text.is_empty());
        let base = first("URLBase").and_then(|base| location.join(&base).ok());
        // A base on another machine is a mistake or a trick; the location was checked.
        let base = base.filter(|base| addr_of(base).is_some_and(|base| base.ip() == addr.ip()));
        let base = base.as_ref().unwrap_or(location);
        let mut wan = Vec::new();
        let mut firewall = None;
        for service in markup::contents(document, "service").take(MOST_SERVICES) {
            let target = |name| markup::text(service, name).and_then(|text| resolve(base, &text, addr));
            let Some(kind) = markup::text(service, "serviceType") else { continue };
            let Some(control) = target("controlURL") else { continue };
            if kind == FIREWALL {
                firewall = firewall.or(Some(control));
            } else if let Some(kind) = WAN.into_iter().find(|known| *known == kind) {
                wan.push(Service { kind, control, schema: target("SCPDURL") });
            }
        }
        wan.sort_by_key(|service| WAN.iter().position(|known| *known == service.kind));
        let model = first("modelName").or_else(|| first("friendlyName"));
        Self { udn: first("UDN").unwrap_or_default(), model: model.unwrap_or_default(), wan, firewall }
    }
}

/// A reference as the library wants it, if it leads to the same machine.
fn resolve(base: &Url, reference: &str, addr: SocketAddr) -> Option<String> {
    if reference.is_empty() {
        return None;
    }
    let url = base.join(reference).ok()?;
    let to = addr_of(&url)?;
    if to.ip() != addr.ip() {
        return None;
    }
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    Some(if to.port() == addr.port() { path.to_owned() } else { format!("http://{to}{path}") })
}

/// The arguments of each action that is used, in the order that `document` has them. Where it is
/// silent, or leaves out half of what is needed, those of the standard are more likely to work.
pub(super) fn actions(document: Option<&str>, kind: &str) -> HashMap<String, Vec<String>> {
    let described = document.map(described).unwrap_or_default();
    let mut actions = HashMap::new();
    for (name, standard) in STANDARD {
        let own = described.get(name);
        // The one that a router need not have: what lists the others says so.
        let optional = name == ADD_ANY && (kind != WAN[0] || described.contains_key("AddPortMapping"));
        if own.is_none() && optional {
            continue;
        }
        let own = own.filter(|own| own.len() == standard.len()).cloned();
        let arguments = own.unwrap_or_else(|| standard.iter().map(|&name| name.to_owned()).collect());
        actions.insert(name.to_owned(), arguments);
    }
    actions
}

/// The actions of a document that are used, each with the arguments that are known.
fn described(document: &str) -> HashMap<String, Vec<String>> {
    let action = |action| {
        let name = markup::text(action, "name")?;
        let (_, known) = STANDARD.into_iter().find(|(standard, _)| *standard == name)?;
        let arguments = markup::contents(action, "argument").filter_map(|argument| {
            let incoming = markup::text(argument, "direction").as_deref() == Some("in");
            markup::text(argument, "name").filter(|name| incoming && known.contains(&name.as_str()))
        });
        Some((name, arguments.take(known.len()).collect()))
    };
    markup::contents(document, "action").filter_map(action).collect()
}

const ADD_ANY: &str = "AddAnyPortMapping";

/// The arguments by the standard (WANIPConnection:1 section 2.4, WANIPConnection:2 section 2.5).
const STANDARD: [(&str, &[&str]); 5] = [
    ("AddPortMapping", &MAPPING),
    (ADD_ANY, &MAPPING),
    ("DeletePortMapping", &KEY),
    ("GetSpecificPortMappingEntry", &KEY),
    ("GetGenericPortMappingEntry", &["NewPortMappingIndex"]),
];

const KEY: [&str; 3] = ["NewRemoteHost", "NewExternalPort", "NewProtocol"];

const MAPPING: [&str; 8] = [
    "NewRemoteHost",
    "NewExternalPort",
    "NewProtocol",
    "NewInternalPort",
    "NewInternalClient",
    "NewEnabled",
    "NewPortMappingDescription",
    "NewLeaseDuration",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(document: &str) -> Description {
        let location: Url = "http://192.168.1.1:5000/dir/root.xml".parse().expect("an address");
        Description::parse(document, &location, addr_of(&location).expect("an address"))
    }

    fn service(kind: &str, control: &str) -> String {
        format!("<service><serviceType>{kind}</serviceType><controlURL>{control}</controlURL></service>")
    }

    fn control(url: &str) -> Option<String> {
        read(&service(WAN[1], url)).wan.pop().map(|service| service.control)
    }

    #[test]
    fn the_name_and_the_services_are_those_of_the_router() {
        let inner = service(WAN[2], "/ppp") + &service(WAN[0], "/ip2") + &service(WAN[1], "/ip1");
        let document = format!(
            "<root><device><friendlyName>Box</friendlyName><modelName>Model &amp; 7</modelName><UDN>uuid:1</UDN>
             <deviceList><device><friendlyName>WAN</friendlyName><UDN>uuid:2</UDN>{inner}{}
             <service><serviceType>urn:other</serviceType><controlURL>/o</controlURL></service>
             </device></deviceList></device></root>",
            service(FIREWALL, "/fw")
        );
        let described = read(&document);
        assert_eq!((described.udn.as_str(), described.model.as_str()), ("uuid:1", "Model & 7"));
        let kinds: Vec<&str> = described.wan.iter().map(|service| service.control.as_str()).collect();
        assert_eq!(kinds, ["/ip2", "/ip1", "/ppp"]);
        assert_eq!(described.firewall.as_deref(), Some("/fw"));
    }

    #[test]
    fn an_address_leads_to_the_router_or_nowhere() {
        for (url, target) in [
            ("/ctl", "/ctl"),
            ("ctl?a=1&amp;b=2", "/dir/ctl?a=1&b=2"),
            ("http://192.168.1.1:5000/x", "/x"),
            ("http://192.168.1.1/x", "http://192.168.1.1:80/x"),
            ("//192.168.1.1:99/x", "http://192.168.1.1:99/x"),
        ] {
            assert_eq!(control(url).as_deref(), Some(target), "{url}");
        }
        for url in [
            "",
            "http://192.168.1.2:5000/x",
            "//10.0.0.1/",
            "https://192.168.1.1:5000/x",
            "file:///etc/passwd",
            "http://192.168.1.1:0/",
            "http://a@192.168.1.1:5000/",
            "http://router.lan/",
            "http://[::1]/",
            "http://",
        ] {
            assert_eq!(control(url), None, "{url}");
        }
    }

    #[test]
    fn a_base_on_another_machine_is_passed_over() {
        let with_base =
            |base: &str| read(&format!("<URLBase>{base}</URLBase>{}", service(WAN[1], "ctl"))).wan;
        assert_eq!(with_base("http://192.168.1.1:99/up/")[0].control, "http://192.168.1.1:99/up/ctl");
        assert_eq!(with_base("http://192.0.2.99/up/")[0].control, "/dir/ctl");
        assert_eq!(with_base("mailto:x")[0].control, "/dir/ctl");
    }

    fn argument(name: &str, direction: &str) -> String {
        format!("<argument><name>{name}</name><direction>{direction}</direction></argument>")
    }

    #[test]
    fn the_router_says_in_which_order_it_wants_arguments() {
        let order = ["NewProtocol", "NewExternalPort", "NewRemoteHost"];
        let arguments: String = order.iter().map(|name| argument(name, "in")).collect();
        let document = format!(
            "<action><name>DeletePortMapping</name>{arguments}{}</action><action><name>AddPortMapping</name></action>",
            argument("NewOther", "out")
        );
        let known = actions(Some(&document), WAN[0]);
        assert_eq!(known["DeletePortMapping"], order);
        assert_eq!(known["AddPortMapping"], MAPPING, "half an action is a mistake of the router's");
        assert!(!known.contains_key(ADD_ANY), "it lists its actions, and this is none of them");
    }

    #[test]
    fn without_a_description_the_standard_holds() {
        assert_eq!(actions(None, WAN[0])[ADD_ANY], MAPPING);
        assert!(!actions(None, WAN[1]).contains_key(ADD_ANY), "the first version has no such action");
        assert_eq!(actions(Some("<html>not found"), WAN[1])["DeletePortMapping"], KEY);
    }

    #[test]
    fn no_name_of_the_routers_gets_into_a_request() {
        let arguments: String =
            ["NewProtocol", "x><y", "NewEnabled"].iter().map(|name| argument(name, "in")).collect();
        let known =
            actions(Some(&format!("<action><name>DeletePortMapping</name>{arguments}</action>")), WAN[1]);
        assert_eq!(known["DeletePortMapping"], KEY);
    }

    proptest! {
        #[test]
        fn no_description_is_too_odd(
            document in "(</?(service|serviceType|controlURL|URLBase|UDN)>|http://|192\\.168\\.1\\.1|[/:@?#%<>&;.a]|urn:schemas-upnp-org:service:WANIPConnection:1){0,40}",
        ) {
            for service in read(&document).wan {
                prop_assert!(service.control.starts_with('/') || service.control.starts_with("http://192.168.1.1:"));
            }
            actions(Some(&document), WAN[0]);
        }
    }
}
