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
    assert_eq!(problems(&mapping("2000-2010:9", "{ external_port = 65530 }")), ["3:10 range-mismatch"]);
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
        ["3:10 wrong-type", "6:12 unknown-key", "9:28 invalid-value", "12:28 wrong-type", "12:40 wrong-type"]
    );
}

#[test]
fn a_listener_that_no_router_can_reach_is_refused() {
    for spec in ["127.0.0.1:2000:9", "[::1]:2000:9", "[fe80::1%eth0]:2000:9", "169.254.7.7:2000:9"] {
        assert_eq!(problems(&mapping(spec, "true")), ["3:10 unreachable"], "{spec}");
        let disabled = mapping(spec, "true") + "enabled = false\n";
        assert_eq!(problems(&disabled).len(), 1);
    }
    let some = loaded(
        "[[mapping]]\nlisten = [\"127.0.0.1:2000\", \"192.168.1.2:2000\"]\ntargets = \"9\"\nrouter = true\n",
    );
    assert_eq!(open(&some), ["192.168.1.2:2000/tcp same"]);
    let inherited = "publish = [\"127.0.0.1:2000:9\", \"2001:9\"]\n[defaults]\nrouter = true\n";
    assert_eq!(open(&loaded(inherited)), ["[::]:2001/tcp same"]);
    assert_eq!(warnings(inherited), ["1:13 unreachable"]);
}

#[test]
fn a_port_of_the_router_goes_to_one_listener() {
    assert_eq!(
        problems(&(mapping("2000:9/tcp+udp", "true") + &mapping("2001:9", "{ external_port = 2000 }"))),
        ["6:10 router-port-in-use"]
    );
    assert_eq!(
        problems(
            "[[mapping]]\nlisten = [\"2000\", \"2001-2003\"]\ntargets = \"9\"\nrouter = { external_port = 30000 }\n"
        ),
        ["4:10 router-port-in-use"]
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
    assert_eq!(problems(&mapping("2000-2064:9", "true")), ["3:10 too-many"]);
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
            "3:10 unwise-value",
            "5:12 exposed-service",
            "8:12 foreign-address",
            "9:10 no-effect",
            "12:10 no-effect"
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
    assert_eq!(warnings(&text), ["5:10 unwise-value", "6:16 unwise-value"]);
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
            "5:15 invalid-value",
            "5:28 duplicate-entry",
            "5:35 wrong-type",
            "6:12 invalid-value",
            "7:14 invalid-value",
            "8:10 invalid-value",
            "9:16 invalid-value",
            "10:16 invalid-value",
            "11:1 unknown-key"
        ]
    );
    assert_eq!(
        with("protocols = []\ngateway = \"192.168.1.1:0\"\nlease = \"never\"\ncheck_every = \"2d\"\n"),
        ["5:13 empty", "6:12 invalid-value", "7:10 invalid-value", "8:16 invalid-value"]
    );
    for gateway in ["0.0.0.0", "239.255.255.250", "fe80::1%eth0", ""] {
        let found = with(&format!("gateway = \"{gateway}\"\nlease = \"8d\"\n"));
        assert_eq!(found, ["5:12 invalid-value", "6:10 invalid-value"], "{gateway}");
    }
}

#[test]
fn a_router_that_nothing_asks_for_is_a_warning() {
    assert_eq!(warnings("publish = \"2000:9\"\n[router]\n"), ["2:1 no-effect"]);
    assert_eq!(warnings(&format!("[router]\n{}", mapping("2000:9", "true"))), [""; 0]);
    let disabled = format!("publish = \"2001:9\"\n[router]\n{}enabled = false\n", mapping("2000:9", "true"));
    assert_eq!(warnings(&disabled), [""; 0]);
}
