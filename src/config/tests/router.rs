//! `[router]`, the key `router` and `--router`: what is open on the home router.

use super::*;
use crate::{
    gateway::{OnConflict, RouterProtocol, RouterSettings},
    mapping::ListenerKey,
};

/// What is open on the router, as lines `listener external-port`.
fn open(loaded: &Loaded) -> Vec<String> {
    let shown = |(key, listener): (&ListenerKey, &ListenerPlan)| {
        let exposure = listener.exposure?;
        let port = exposure.external_port.map_or("same".into(), |port| port.to_string());
        Some(format!("{key} {port}{}", if exposure.ipv6 { " ipv6" } else { "" }))
    };
    loaded.plan.listeners.iter().filter_map(shown).collect()
}

fn mapping(spec: &str, router: &str) -> String {
    format!("[[mapping]]\npublish = \"{spec}\"\nrouter = {router}\n")
}

/// The file with `--router`.
fn load_with_flag(text: &str) -> Result<Loaded, Problems> {
    let files = file(text);
    let file = Some(files.path("portway.toml"));
    load(&Source { file, router: true, ..Source::default() }, &Machine)
}

#[test]
fn a_mapping_is_open_at_its_own_port_or_another() {
    let text = mapping("2000:9/tcp+udp", "true")
        + &mapping("2001:9", "{ external_port = 30000 }")
        + &mapping("2002:9", "{ ipv6 = true }")
        + &mapping("2003:9", "{}")
        + &mapping("2004:9", "false")
        + "[[mapping]]\npublish = \"2005:9\"\n";
    assert_eq!(
        open(&loaded(&text)),
        [
            "[::]:2000/tcp same",
            "[::]:2001/tcp 30000",
            "[::]:2002/tcp same ipv6",
            "[::]:2003/tcp same",
            "[::]:2000/udp same"
        ]
    );
}

#[test]
fn a_range_is_open_from_its_external_port_on() {
    let loaded = loaded(&mapping("2000-2002:9", "{ external_port = 30000 }"));
    assert_eq!(open(&loaded), ["[::]:2000/tcp 30000", "[::]:2001/tcp 30001", "[::]:2002/tcp 30002"]);
    assert_eq!(
        problems(&mapping("2000-2010:9", "{ external_port = 65530 }")),
        [
            "3:10: 11 external ports from 65530 on go beyond 65535 ? the external port is the first of as many as there are listen ports: choose a lower one"
        ]
    );
    assert_eq!(
        open(&super::loaded(&mapping("2000-2001:9", "{ external_port = 65534 }"))).last().unwrap(),
        "[::]:2001/tcp 65535"
    );
}

#[test]
fn what_is_no_wish_is_refused() {
    assert_eq!(
        problems(
            &(mapping("2000:9", "\"yes\"")
                + &mapping("2001:9", "{ externl_port = 1 }")
                + &mapping("2002:9", "{ external_port = 0 }")
                + &mapping("2003:9", "{ external_port = \"3\", ipv6 = 1 }"))
        ),
        [
            "3:10: `router` is true, false or a table { external_port = 30000 }, not a string ? write true",
            "6:12: unknown key `externl_port` of `router` ? did you mean `external_port`?",
            "9:28: 0 is not a port ? use a port from 1 to 65535",
            "12:28: `external_port` is a port number, not a string ? write 3",
            "12:40: `ipv6` is true or false, not an integer ? write true",
        ]
    );
}

#[test]
fn a_listener_that_no_router_can_reach_is_refused() {
    let message = "no router leads here: this listens on loopback or link-local addresses only";
    let hint = "listen on every address, or on the one that the router sends to; or say `router = false`";
    for spec in ["127.0.0.1:2000:9", "[::1]:2000:9", "[fe80::1%eth0]:2000:9", "169.254.7.7:2000:9"] {
        assert_eq!(problems(&mapping(spec, "true")), [format!("3:10: {message} ? {hint}")], "{spec}");
        let disabled = mapping(spec, "true") + "enabled = false\n";
        assert_eq!(problems(&disabled).len(), 1);
    }
    let some = loaded(
        "[[mapping]]\nlisten = [\"127.0.0.1:2000\", \"192.168.1.2:2000\"]\ntargets = \"9\"\nrouter = true\n",
    );
    assert_eq!(open(&some), ["192.168.1.2:2000/tcp same"]);
    let inherited = "publish = [\"127.0.0.1:2000:9\", \"2001:9\"]\n[defaults]\nrouter = true\n";
    assert_eq!(open(&loaded(inherited)), ["[::]:2001/tcp same"]);
    assert_eq!(warnings(inherited), [format!("1:13: {message}")]);
}

#[test]
fn a_port_of_the_router_goes_to_one_listener() {
    assert_eq!(
        problems(&(mapping("2000:9/tcp+udp", "true") + &mapping("2001:9", "{ external_port = 2000 }"))),
        [
            "6:10: the router's port 2000/tcp is asked for twice, first at portway.toml:3:10 ? choose another one: router = { external_port = 30000 }"
        ]
    );
    assert_eq!(
        problems(
            "[[mapping]]\nlisten = [\"2000\", \"2001-2003\"]\ntargets = \"9\"\nrouter = { external_port = 30000 }\n"
        ),
        [
            "4:10: several listeners here ask for the router's port 30000/tcp ? give each of them a mapping with an `external_port` of its own"
        ]
    );
    let both_families = "[[mapping]]\nlisten = [\"192.168.1.2:2000\", \"[2001:db8::5]:2000\"]\ntargets = \"nas:9\"\nrouter = { ipv6 = true }\n";
    assert_eq!(
        open(&loaded(both_families)),
        ["192.168.1.2:2000/tcp same ipv6", "[2001:db8::5]:2000/tcp same ipv6"]
    );
    let twice = problems("publish = [\"2000:9\", \"2000:10\"]\n[defaults]\nrouter = true\n");
    assert_eq!(twice.len(), 1, "a listener used twice is that, and nothing of the router: {twice:?}");
}

#[test]
fn a_router_opens_so_many_listeners_and_no_more() {
    assert_eq!(open(&loaded(&mapping("2000-2063:9", "true"))).len(), 64);
    assert_eq!(
        problems(&mapping("2000-2064:9", "true")),
        [
            "3:10: more than 64 listeners in all are to be open on the router ? say `router = false` where it need not be, or use smaller ranges"
        ]
    );
}

#[test]
fn openings_that_are_likely_to_fail_or_unwise_are_warned_of() {
    let text = mapping("443:10.0.0.7:8443", "true")
        + &mapping("192.168.1.2:2000:10.0.0.7:3389", "true")
        + &mapping("[2001:db8::5]:2001:9", "true")
        + &mapping("192.168.1.2:2002:9", "{ ipv6 = true }")
        + &mapping("2003:10.0.0.7:9", "{ external_port = 30443 }");
    assert_eq!(
        warnings(&text),
        [
            "3:10: the external port 443 is below 1024: many routers do not open it",
            "5:12: Remote Desktop (RDP), port 3389, is open to the internet",
            "8:12: the listen address 2001:db8::5 is not an address of this machine now",
            "9:10: nothing is opened for IPv6 addresses alone",
            "12:10: `ipv6 = true` opens nothing for IPv4 addresses alone",
        ]
    );
}

#[test]
fn the_flag_opens_whatever_does_not_say_otherwise() {
    let text = "publish = [\"2000:9\", \"127.0.0.1:2001:9\"]\n[defaults]\nrouter = false\n".to_owned()
        + &mapping("2002:9", "false")
        + &mapping("2003:9", "{ external_port = 30000 }");
    let loaded = load_with_flag(&text).unwrap();
    assert_eq!(open(&loaded), ["[::]:2000/tcp same", "[::]:2003/tcp 30000"]);
    let told: Vec<_> = loaded.warnings.iter().map(|w| (w.line, w.column)).collect();
    assert_eq!(told, [(1, 23)]);
    let defaults = load_with_flag("publish = \"2000:9\"\n[defaults]\nrouter = { ipv6 = true }\n").unwrap();
    assert_eq!(open(&defaults), ["[::]:2000/tcp same ipv6"]);
    let publish = vec!["2000:9".to_owned()];
    let alone = load(&Source { publish, router: true, ..Source::default() }, &Machine).unwrap();
    assert_eq!(open(&alone), ["[::]:2000/tcp same"]);
}

#[test]
fn the_router_is_asked_as_it_is_said() {
    let router =
        |lines: &str| loaded(&format!("{}[router]\n{lines}", mapping("2000:9", "true"))).settings.router;
    assert_eq!(router(""), RouterSettings::default());
    assert_eq!(router("gateway = \"auto\"\ninterface = \"auto\"\n"), RouterSettings::default());
    let all = router(
        "protocols = [\"natpmp\", \"upnp\"]\ngateway = \"192.168.1.1:1901\"\ninterface = \"enp3s0\"\nlease = \"2m\"\non_conflict = \"any-port\"\ncheck_every = \"5s\"\n",
    );
    assert_eq!(all.protocols, [RouterProtocol::NatPmp, RouterProtocol::Upnp]);
    let port = |text: &str| text.parse::<std::num::NonZeroU16>().ok();
    assert_eq!(all.gateway, Some((IpAddr::from([192, 168, 1, 1]), port("1901"))));
    assert_eq!((all.interface.as_deref(), all.on_conflict), (Some("enp3s0"), OnConflict::AnyPort));
    assert_eq!((all.lease, all.check_every), (Duration::from_secs(120), Duration::from_secs(5)));
    for (text, ip, search) in [
        ("192.168.1.1", "192.168.1.1", None),
        ("::ffff:192.168.1.1", "192.168.1.1", None),
        ("fe80::1", "fe80::1", None),
        ("[fe80::1]", "fe80::1", None),
        ("[2001:db8::1]:5000", "2001:db8::1", port("5000")),
    ] {
        let found = router(&format!("gateway = \"{text}\"\nprotocols = \"pcp\"\n"));
        assert_eq!(found.gateway, Some((ip.parse().unwrap(), search)), "{text}");
    }
}

#[test]
fn a_router_that_is_hurried_is_a_warning_and_no_problem() {
    let text = format!("{}[router]\nlease = \"10s\"\ncheck_every = \"1s\"\n", mapping("2000:9", "true"));
    let settings = loaded(&text).settings.router;
    assert_eq!((settings.lease, settings.check_every), (Duration::from_secs(10), Duration::from_secs(1)));
    assert_eq!(
        warnings(&text),
        [
            "5:10: below two minutes `lease` keeps the router busy, and ends when one renewal is late",
            "6:16: below five seconds `check_every` keeps the router busy",
        ]
    );
}

#[test]
fn terms_of_the_router_are_refused_with_what_would_be_right() {
    let with = |lines: &str| {
        problems(&format!("publish = \"2000:9\"\n[defaults]\nrouter = true\n[router]\n{lines}"))
    };
    assert_eq!(
        with(
            "protocols = [\"upn\", \"pcp\", \"pcp\", 3]\ngateway = \"router.lan\"\ninterface = \"a name that is too long\"\nlease = \"9s\"\non_conflict = \"any\"\ncheck_every = \"900ms\"\nleases = 1\n"
        ),
        [
            "5:15: unknown protocol `upn` ? did you mean \"upnp\"?",
            "5:28: the protocol \"pcp\" stands there twice ? they are tried in the order in which they stand; name each once",
            "5:35: `protocol` is a string, not an integer ? as in protocol = \"tcp+udp\"",
            "6:12: the gateway `router.lan` is not an address ? use \"auto\", or the router's IP address, as in \"192.168.1.1\" or \"[fd00::1]:1900\"",
            "7:14: `a name that is too long` is not the name of an interface ? use \"auto\", or a name of at most 15 characters, as `ip link` shows it",
            "8:10: `lease` is too short ? use a time from \"10s\" to \"7d\"; the lease is renewed before it ends",
            "9:16: unknown on_conflict `any` ? did you mean \"any-port\"?",
            "10:16: `check_every` is too short ? use a time from \"1s\" to \"1d\"",
            "11:1: unknown key `leases` in [router] ? did you mean `lease`?",
        ]
    );
    let brief = |lines: &str| {
        with(lines).iter().map(|p| p.split(" ? ").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        brief("protocols = []\ngateway = \"192.168.1.1:0\"\nlease = \"never\"\ncheck_every = \"2d\"\n"),
        [
            "5:13: `protocols` is empty",
            "6:12: the gateway `192.168.1.1:0` has port 0",
            "7:10: `lease` cannot be \"never\"",
            "8:16: `check_every` is too long",
        ]
    );
    for (gateway, why) in [
        ("0.0.0.0", "is not the address of one machine"),
        ("239.255.255.250", "is not the address of one machine"),
        ("fe80::1%eth0", "names an interface"),
        ("", "is not an address"),
    ] {
        let found = brief(&format!("gateway = \"{gateway}\"\nlease = \"8d\"\n"));
        assert_eq!(
            found,
            [format!("5:12: the gateway `{gateway}` {why}"), "6:10: `lease` is too long".into()]
        );
    }
}

#[test]
fn a_router_that_nothing_asks_for_is_a_warning() {
    let unused = "[router] without a mapping that is to be open on the router";
    assert_eq!(warnings("publish = \"2000:9\"\n[router]\n"), [format!("2:1: {unused}")]);
    assert_eq!(warnings(&format!("[router]\n{}", mapping("2000:9", "true"))), [""; 0]);
    let disabled = format!("publish = \"2001:9\"\n[router]\n{}enabled = false\n", mapping("2000:9", "true"));
    assert_eq!(warnings(&disabled), [""; 0]);
}
