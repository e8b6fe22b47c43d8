use proptest::prelude::*;

use super::*;

fn services(name: &str, protocol: Protocol) -> Option<u16> {
    match (name, protocol) {
        ("https", Protocol::Tcp) => Some(443),
        ("http-alt", _) => Some(8080),
        ("syslog", Protocol::Udp) => Some(514),
        ("shell", Protocol::Tcp) => Some(514),
        ("domain", _) => Some(53),
        _ => None,
    }
}

fn read(text: &str) -> Result<Publish, SpecError> {
    Publish::parse(text, &services)
}

/// Every listener of a spec as `protocol listen target`.
fn expanded(text: &str) -> Vec<String> {
    read(text).unwrap().expand().map(|(p, l, t)| format!("{p} {l} {t}")).collect()
}

/// The offending text, the message and the hint.
fn refused(text: &str) -> (String, String, String) {
    let e = read(text).unwrap_err();
    (text[e.at..e.at + e.len].to_owned(), e.message, e.hint.unwrap_or_default())
}

#[test]
fn every_form_of_the_interface_is_read() {
    for (spec, expected) in [
        ("8080:80", "tcp [::]:8080 127.0.0.1:80"),
        ("8080:80/udp", "udp [::]:8080 127.0.0.1:80"),
        ("127.0.0.1:8080:80", "tcp 127.0.0.1:8080 127.0.0.1:80"),
        ("8080:10.0.0.5:80", "tcp [::]:8080 10.0.0.5:80"),
        ("8080:nas.lan:80", "tcp [::]:8080 nas.lan:80"),
        ("8080:nas:80", "tcp [::]:8080 nas:80"),
        ("[::1]:8080:[2001:db8::5]:80", "tcp [::1]:8080 [2001:db8::5]:80"),
        ("8080:[::1]:80", "tcp [::]:8080 [::1]:80"),
        ("[::1]:8080:80", "tcp [::1]:8080 127.0.0.1:80"),
        ("[fe80::1%eth0]:22:22", "tcp [fe80::1%eth0]:22 127.0.0.1:22"),
        ("22:[fe80::1%eth0]:22", "tcp [::]:22 [fe80::1%eth0]:22"),
        ("192.168.1.2:8080:10.0.0.5:80", "tcp 192.168.1.2:8080 10.0.0.5:80"),
        ("0.0.0.0:8080:80", "tcp 0.0.0.0:8080 127.0.0.1:80"),
        ("[::]:8080:80", "tcp [::]:8080 127.0.0.1:80"),
        ("https:8443", "tcp [::]:443 127.0.0.1:8443"),
        ("8443:nas.lan:https", "tcp [::]:8443 nas.lan:443"),
        ("http-alt:80", "tcp [::]:8080 127.0.0.1:80"),
        ("[::ffff:10.0.0.1]:80:80", "tcp 10.0.0.1:80 127.0.0.1:80"),
        ("8080:80/TCP", "tcp [::]:8080 127.0.0.1:80"),
    ] {
        assert_eq!(expanded(spec), [expected], "{spec}");
    }
}

#[test]
fn both_protocols_make_two_listeners() {
    let both = ["tcp [::]:53 127.0.0.1:5353", "udp [::]:53 127.0.0.1:5353"];
    assert_eq!(expanded("53:5353/tcp+udp"), both);
    assert_eq!(expanded("domain:5353/udp+tcp"), both);
}

#[test]
fn a_service_is_looked_up_for_its_own_protocol() {
    assert_eq!(expanded("syslog:5514/udp"), ["udp [::]:514 127.0.0.1:5514"]);
    assert_eq!(read("syslog:5514/tcp+udp").unwrap().listen.ports.first().get(), 514);
    let (text, message, hint) = refused("syslog:5514");
    assert_eq!(
        (text.as_str(), message.as_str(), hint.as_str()),
        (
            "syslog",
            "the service `syslog` is not known for tcp, only for udp",
            "use the port number, or that protocol"
        )
    );
}

#[test]
fn each_port_of_a_range_has_its_counterpart() {
    let all = expanded("5000-5010:cam.lan:6000-6010/udp");
    assert_eq!(all.len(), 11);
    assert_eq!(all[0], "udp [::]:5000 cam.lan:6000");
    assert_eq!(all[10], "udp [::]:5010 cam.lan:6010");
}

#[test]
fn a_range_may_lead_to_one_port() {
    let all = expanded("5000-5010:cam.lan:554");
    assert_eq!(all.len(), 11);
    assert!(all.iter().all(|l| l.ends_with(" cam.lan:554")), "{all:?}");
}

#[test]
fn the_widest_range_is_read() {
    let all = expanded("1-65535:10.0.0.1:1-65535");
    assert_eq!(all.len(), 65535);
    assert_eq!(all[65534], "tcp [::]:65535 10.0.0.1:65535");
}

/// A spec, its offending part, and something that the message and the hint say.
const REFUSALS: &[(&str, &str, &str, &str)] = &[
    ("", "", "the spec is empty", "8080:80"),
    ("8080", "8080", "the target is missing", "as in 8080:80"),
    ("0:80", "0", "port 0 cannot be listened on", "1 to 65535"),
    ("8080:0", "0", "port 0 cannot be connected to", "1 to 65535"),
    ("8080:000", "000", "port 0 cannot be connected to", "1 to 65535"),
    ("65536:80", "65536", "port 65536 is above 65535", "1 to 65535"),
    ("99999999999999999999:80", "99999999999999999999", "is above 65535", "1 to 65535"),
    ("0-10:80", "0", "port 0 cannot be listened on", ""),
    ("5010-5000:80", "5010-5000", "the range 5010-5000 is reversed", "the lower port comes first"),
    ("80:5010-5000", "5010-5000", "the range 5010-5000 is reversed", "the lower port comes first"),
    ("5000-5010:c:6000-6009", "6000-6009", "11 listen ports cannot lead to a range of 10", "same length"),
    ("5000:c:6000-6009", "6000-6009", "one listen port cannot lead to a range of 10", "one target port"),
    ("8080:80/sctp", "sctp", "unknown protocol `sctp`", "tcp, udp or tcp+udp"),
    ("8080:80/tcp/udp", "tcp/udp", "unknown protocol `tcp/udp`", "tcp+udp"),
    ("8080:80/", "", "the protocol is missing", "tcp+udp"),
    ("gopherx:80", "gopherx", "unknown service `gopherx`", "/etc/services"),
    (":80", "", "the listen port is empty", ""),
    ("80:", "", "the target port is empty", ""),
    ("80::80", "", "the target host is empty", "127.0.0.1"),
    (":80:h:80", "", "the listen address is empty", "every address"),
    ("80:h:80:90", "80", "`80` is not an IP address of this machine", "192.168.1.2"),
    ("a:b:c:d:e", "a:b:c:d:e", "too many parts", "the form is"),
    ("fe80::1:22:22", "fe80::1:22:22", "an IPv6 address stands in brackets", "[2001:db8::5]:80"),
    ("::1:80:80", "::1:80:80", "an IPv6 address stands in brackets", ""),
    ("80:2001:db8::5:80", "80:2001:db8::5:80", "an IPv6 address stands in brackets", ""),
    ("[::1]:80:2001:db8::5:80", "[::1]:80:2001:db8::5:80", "stands in brackets", ""),
    ("80:2001:db8:1:2:3:4:5:6:80", "80:2001:db8:1:2:3:4:5:6:80", "stands in brackets", ""),
    ("[::1:80:80", "[::1:80:80", "the bracket is not closed", "close it"),
    ("[::1]80:80", "80:80", "`80:80` follows a closing bracket", "colon"),
    ("[10.0.0.1]:80:80", "10.0.0.1", "`10.0.0.1` is not an IPv6 address", "IPv6 only"),
    ("[]:80:80", "", "`` is not an IPv6 address", ""),
    ("[fe80::1]:80:80", "fe80::1", "a link-local address needs its interface", "[fe80::1%eth0]"),
    ("[::1%lo]:80:80", "%lo", "only a link-local address has a zone", "leave the zone out"),
    ("[fe80::1%]:80:80", "", "is not the name of an interface", ""),
    ("[fe80::1%a/b]:80:80", "a/b", "`a/b` is not the name of an interface", ""),
    ("10.0.0.1%eth0:80:80", "%eth0", "an IPv4 address has no zone", "a link-local IPv6"),
    ("80:10.0.0.1%eth0:80", "%eth0", "an IPv4 address has no zone", ""),
    ("10.0.0.256:80:80", "10.0.0.256", "`10.0.0.256` is not an IPv4 address", ""),
    ("80:10.0.0.256:80", "10.0.0.256", "`10.0.0.256` is not an IPv4 address", ""),
    ("80:-nas-:80", "-nas-", "neither an IP address nor a host name", "nas.lan"),
    ("80:nas..lan:80", "nas..lan", "neither an IP address nor a host name", ""),
    ("localhost:80:80", "localhost", "a listen address is an IP address, not a name", "127.0.0.1"),
    ("*:80:80", "*", "`*` is not an address", "leave it out"),
    ("80:0.0.0.0:80", "0.0.0.0", "not an address to connect to", "127.0.0.1"),
    ("80:[::]:80", "[::]", "not an address to connect to", "[::1]"),
    ("127.0.0.1:80", "127.0.0.1:80", "the target port is missing", "127.0.0.1:8080:80"),
    ("8080:10.0.0.5", "10.0.0.5", "the target port is missing", "8080:nas.lan:80"),
    ("8080:nas.lan", "nas.lan", "the target port is missing", "8080:nas.lan:80"),
    ("5000-:80", "5000-", "`5000-` is not a range of ports", "5000-5010"),
    ("1-2-3:80", "1-2-3", "`1-2-3` is not a range of ports", ""),
    ("+80:80", "+80", "`+80` is not a port", ""),
    ("80 :80", " ", "a space does not belong here", "8080:80"),
    ("8080:80x", "80x", "unknown service `80x`", "as in 80x:80"),
    ("nas.lan:80:80", "nas.lan", "unknown service `nas.lan`", "a listen address is an IP address"),
    ("-p", "-p", "this is not a spec", "8080:80"),
    ("80:http://h:80", "http://", "a spec has no `http://`", "8080:80"),
    ("80->80", ">", "an arrow does not belong here", "8080:80"),
    ("80:80\r", "\r", "a carriage return does not belong here", "8080:80"),
    ("8080:80é", "é", "`é` does not belong here", ""),
];

#[test]
fn every_refusal_names_the_part_and_what_would_be_right() {
    for (spec, part, message, hint) in REFUSALS {
        let got = refused(spec);
        assert_eq!(got.0, *part, "{spec}: {got:?}");
        assert!(got.1.contains(message), "{spec}: {got:?}");
        assert!(got.2.contains(hint), "{spec}: {got:?}");
    }
}

#[test]
fn a_listen_entry_is_an_address_and_ports() {
    let read = |text: &str| ListenSpec::parse(text, Protocols::Tcp, &services);
    for (text, expected) in [
        ("0.0.0.0:3389", "0.0.0.0:3389"),
        ("3389", "3389"),
        ("5000-5010", "5000-5010"),
        ("[::]:80", "80"),
        ("[::1]:80", "[::1]:80"),
        ("https", "443"),
    ] {
        assert_eq!(read(text).unwrap().to_string(), expected);
    }
    assert_eq!(read("3389/tcp").unwrap_err().message, "an address has no protocol here");
    assert_eq!(
        read("3389/udp").unwrap_err().hint.unwrap(),
        "name it once for the mapping: protocol = \"udp\""
    );
    assert_eq!(read("10.0.0.1").unwrap_err().message, "the listen port is missing");
    assert_eq!(read("::1:80").unwrap_err().message, "an IPv6 address stands in brackets");
    assert!(read("80:10.0.0.5:80").unwrap_err().message.contains("too many parts"));
}

#[test]
fn a_targets_entry_is_a_host_and_ports() {
    let read = |text: &str| TargetSpec::parse(text, Protocols::Tcp, &services);
    for (text, expected) in [
        ("10.0.0.7:3389", "10.0.0.7:3389"),
        ("nas.lan:80", "nas.lan:80"),
        ("[::1]:80", "[::1]:80"),
        ("127.0.0.1:80", "80"),
        ("80", "80"),
        ("cam.lan:6000-6010", "cam.lan:6000-6010"),
        ("_minecraft._tcp.example.org", "_minecraft._tcp.example.org"),
    ] {
        assert_eq!(read(text).unwrap().to_string(), expected);
    }
    let with_port = read("_minecraft._tcp.example.org:80").unwrap_err();
    assert_eq!(with_port.hint.unwrap(), "leave the port out: _minecraft._tcp.example.org");
    let published = Publish::parse("25565:_minecraft._tcp.example.org", &services).unwrap();
    assert_eq!(published.target.host, Host::Srv("_minecraft._tcp.example.org".into()));
    assert_eq!(published.to_string(), "25565:_minecraft._tcp.example.org");
    for text in ["_minecraft.example.org", "_._tcp.example.org", "_minecraft._tcp", "a._tcp.example.org"] {
        assert!(read(text).is_err(), "{text}");
    }
    assert_eq!(read("nas.lan").unwrap_err().hint.unwrap(), "add the port: nas.lan:80");
    assert_eq!(read("10.0.0.7").unwrap_err().message, "the target port is missing");
    assert_eq!(read("nas.lan:0").unwrap_err().at, 8);
}

fn span() -> impl Strategy<Value = PortSpan> {
    (1..=u16::MAX, 1..=u16::MAX).prop_map(|(a, b)| {
        let port = |n| NonZeroU16::new(n).unwrap();
        PortSpan::new(port(a.min(b)), port(a.max(b))).unwrap()
    })
}

fn listen_ip() -> impl Strategy<Value = (IpAddr, Option<Zone>)> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|b| (IpAddr::from(b), None)),
        any::<[u8; 16]>()
            .prop_map(|b| super::super::canonical(b.into()))
            .prop_filter("needs a zone", |ip| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()))
            .prop_map(|ip| (ip, None)),
        Just((IpAddr::V6(Ipv6Addr::UNSPECIFIED), None)),
        "[a-z][a-z0-9.-]{0,14}".prop_map(|z| ("fe80::1".parse().unwrap(), Zone::new(&z))),
    ]
}

fn host() -> impl Strategy<Value = Host> {
    prop_oneof![
        listen_ip()
            .prop_filter("not a target", |(ip, _)| !crate::mapping::is_nowhere(*ip))
            .prop_map(|(ip, zone)| Host::Ip(ip, zone)),
        Just(Host::LOOPBACK),
        "[a-z0-9_]{1,10}(\\.[a-z]{1,5}){0,3}".prop_filter_map("a number", |n| Host::name(&n)),
    ]
}

fn publish() -> impl Strategy<Value = Publish> {
    let protocols = prop_oneof![Just(Protocols::Tcp), Just(Protocols::Udp), Just(Protocols::Both)];
    (listen_ip(), span(), host(), 1..=u16::MAX, any::<bool>(), protocols).prop_map(
        |((ip, zone), ports, host, first, paired, protocols)| {
            let first = NonZeroU16::new(first).unwrap();
            let last = u16::try_from(ports.count() - 1).ok().and_then(|n| first.checked_add(n));
            let target = match last {
                Some(last) if paired => PortSpan::new(first, last).unwrap(),
                _ => PortSpan::single(first),
            };
            Publish {
                listen: ListenSpec { ip, zone, ports },
                target: TargetSpec { host, ports: target },
                protocols,
            }
        },
    )
}

proptest! {
    #[test]
    fn a_printed_spec_reads_back_as_itself(spec in publish()) {
        prop_assert_eq!(read(&spec.to_string()), Ok(spec));
    }

    #[test]
    fn any_text_is_read_or_refused_with_a_place_inside_it(text in any::<String>()) {
        within(&text);
    }

    #[test]
    fn any_text_of_the_grammars_own_characters_is_read_or_refused(text in "[0-9a-f:.%/\\[\\]+-]{0,24}") {
        within(&text);
    }

    #[test]
    fn a_mutilated_spec_is_read_or_refused(spec in publish(), at in any::<prop::sample::Index>(), c in any::<char>(), cut in 0usize..3) {
        let mut chars: Vec<char> = spec.to_string().chars().collect();
        let at = at.index(chars.len());
        chars.splice(at..(at + cut).min(chars.len()), [c]);
        within(&chars.into_iter().collect::<String>());
    }
}

/// Reads `text` in every way; where it is refused, the place is a part of it.
fn within(text: &str) {
    let check = |e: SpecError| assert!(text.get(e.at..e.at + e.len).is_some(), "{text:?}: {e:?}");
    let _ = read(text).map_err(check);
    let _ = ListenSpec::parse(text, Protocols::Both, &services).map_err(check);
    let _ = TargetSpec::parse(text, Protocols::Both, &services).map_err(check);
}

proptest! {
    /// Whatever is offered reads back, and is never what was refused.
    #[test]
    fn what_was_meant_is_read_by_the_grammar(text in "[-0-9a-z.:/%\\[\\]\"’,> \\r*]{0,40}") {
        let guesses = meant::publish(&text, &services);
        for spec in guesses.iter().flatten() {
            prop_assert!(Publish::parse(spec, &services).is_ok(), "{text:?}: {spec:?}");
        }
        if Publish::parse(&text, &services).is_err() {
            prop_assert!(guesses.iter().flatten().all(|spec| *spec != text));
        }
    }

    /// No text makes the guesses panic.
    #[test]
    fn no_text_is_too_strange_to_guess_at(text in any::<String>()) {
        meant::publish(&text, &services);
        meant::listen(&text, Protocols::Tcp, &services);
        meant::target(&text, Protocols::Both, &services);
    }
}

impl Publish {
    /// Every listener that the spec asks for, and the target of each.
    pub(crate) fn expand(&self) -> impl Iterator<Item = (Protocol, ListenAddr, TargetAddr)> {
        let span = self.listen.ports;
        self.protocols.iter().flat_map(move |protocol| {
            span.ports()
                .map(move |port| (protocol, self.listen.addr(port), self.target.counterpart(span, port)))
        })
    }
}
