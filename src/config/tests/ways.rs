//! Where mappings lead: several targets, names on one port, PROXY headers, and what starts a
//! target.

use std::time::Duration;

use super::*;
use crate::{
    preface::{Match, proxy::SendProxy},
    relay::{
        tcp::{Names, Route, TcpOptions},
        udp::UdpOptions,
    },
    targets::{Balance, OnDown, Selection},
    wake::Start,
};

/// How the first mapping chooses.
fn selection(loaded: &Loaded) -> &Selection {
    &loaded.plan.mappings.values().next().unwrap().selection
}

/// The options of the first TCP listener.
fn tcp(loaded: &Loaded) -> &TcpOptions {
    let mut specs = loaded.plan.listeners.values().filter_map(|listener| match &listener.service {
        Service::Tcp(spec) => Some(&spec.options),
        _ => None,
    });
    specs.next().unwrap()
}

/// The options of the first UDP listener.
fn udp(loaded: &Loaded) -> &UdpOptions {
    let specs = loaded.plan.listeners.values().find_map(|listener| match &listener.service {
        Service::Udp(spec) => Some(&spec.options),
        _ => None,
    });
    specs.unwrap()
}

/// The names of each TCP listener that has some.
fn names(loaded: &Loaded) -> Vec<&Names> {
    let mut all = Vec::new();
    for listener in loaded.plan.listeners.values() {
        if let Service::Tcp(spec) = &listener.service
            && let Route::Names(names) = &spec.route
        {
            all.push(&**names);
        }
    }
    all
}

/// Where a name leads, as text; "" where it leads nowhere.
fn leads(names: &Names, name: &str) -> String {
    let route = names.hosts.get(name);
    let targets: Vec<_> = route.into_iter().flat_map(|r| r.targets.iter()).map(ToString::to_string).collect();
    targets.join(" ")
}

#[test]
fn a_target_has_a_weight_and_may_wait_for_the_others() {
    let loaded = loaded(
        "[[mapping]]\nlisten = \"80\"\ntargets = [\"a:1\", { address = \"b:1\", weight = 1000 }, \
         { address = \"c:1\", backup = true }, { address = \"d:1\", backup = false, weight = 1 }]\n",
    );
    let targets = loaded.plan.listeners.values().next().unwrap().service.targets().unwrap();
    let all: Vec<_> = targets.all().map(|t| (t.addr.to_string(), t.weight.get(), t.backup)).collect();
    let expected = [("a:1", 1, false), ("b:1", 1000, false), ("c:1", 1, true), ("d:1", 1, false)];
    assert_eq!(all, expected.map(|(addr, weight, backup)| (addr.to_owned(), weight, backup)));
}

#[test]
fn the_choice_of_targets_is_that_of_the_mapping_then_of_the_defaults() {
    let built_in = loaded("publish = \"80:9\"\n");
    assert_eq!(selection(&built_in), &Selection::default());
    assert_eq!(selection(&built_in).balance, Balance::RoundRobin);

    const DEFAULTS: &str = "[defaults]\nbalance = \"client-hash\"\nhealth = { interval = \"10s\" }\n\
                            on_down = \"close\"\nslow_start = \"30s\"\n";
    let by_default = loaded(&format!("publish = \"80:9\"\n{DEFAULTS}"));
    let chosen = selection(&by_default);
    assert_eq!((chosen.balance, chosen.on_down), (Balance::ClientHash, OnDown::Close));
    assert_eq!(chosen.slow_start, Some(Duration::from_secs(30)));
    let health = chosen.health.as_ref().unwrap();
    assert_eq!((health.interval, health.timeout), (Duration::from_secs(10), Duration::from_secs(2)));
    assert_eq!((health.rise.get(), health.fall.get()), (2, 3));

    let own = loaded(&format!(
        "{DEFAULTS}[[mapping]]\npublish = \"80:9\"\nbalance = \"first\"\nhealth = false\non_down = \"keep\"\n\
         slow_start = \"never\"\n"
    ));
    assert_eq!(selection(&own), &Selection { balance: Balance::First, ..Selection::default() });
}

#[test]
fn a_probe_sends_and_expects_bytes() {
    let of = |health: &str| {
        let loaded = loaded(&format!("[[mapping]]\npublish = \"80:9\"\nhealth = {health}\n"));
        selection(&loaded).health.clone().unwrap()
    };
    let health = of(r"{ send = 'GET / HTTP/1.0\r\n\r\n', expect = '\xff\x00' }");
    assert_eq!(health.send.as_deref(), Some(&b"GET / HTTP/1.0\r\n\r\n"[..]));
    assert_eq!(health.expect.as_deref(), Some(&b"\xff\x00"[..]));
    let health = of(r#"{ send = "PING\r\n", expect = { hex = "00 ff" } }"#);
    assert_eq!(health.send.as_deref(), Some(&b"PING\r\n"[..]));
    assert_eq!(health.expect.as_deref(), Some(&b"\x00\xff"[..]));
    // A short interval has a timeout that it can keep.
    assert_eq!(of("{ interval = \"1s\" }").timeout, Duration::from_millis(500));
}

#[test]
fn proxy_headers_are_sent_and_taken_as_it_is_said() {
    let loaded = loaded(
        "[defaults]\naccept_proxy = [\"10.0.0.0/24\", \"fd00::1\"]\n[[mapping]]\npublish = \"80:9/tcp+udp\"\n\
         send_proxy = \"v2-each\"\nmatch_timeout = \"5s\"\n",
    );
    let (tcp, udp) = (tcp(&loaded), udp(&loaded));
    assert_eq!((tcp.send_proxy, udp.send_proxy), (SendProxy::V2Each, SendProxy::V2Each));
    assert_eq!((&tcp.accept_proxy, tcp.match_timeout), (&udp.accept_proxy, Duration::from_secs(5)));
    let nets: Vec<_> = tcp.accept_proxy.iter().map(ToString::to_string).collect();
    assert_eq!(nets, ["10.0.0.0/24", "fd00::1/128"]);
    assert_eq!(loaded.warnings, []);
}

#[test]
fn a_form_of_the_header_that_udp_does_not_have_is_refused_wherever_it_comes_from() {
    let default = "[defaults]\nsend_proxy = \"v1\"\n";
    assert_eq!(problems(&format!("publish = \"80:9/udp\"\n{default}")), ["1:12 conflicting-keys"]);
    let own = "[[mapping]]\npublish = \"80:9/tcp+udp\"\nsend_proxy = \"v1\"\n";
    assert_eq!(problems(own), ["3:15 conflicting-keys"]);
    assert_eq!(loaded(&format!("publish = \"80:9\"\n{default}")).plan.listeners.len(), 1);
}

#[test]
fn names_lead_to_their_targets_and_other_names_to_those_of_the_mapping() {
    let loaded = loaded(
        "[[mapping]]\nlisten = [\"443\", \"127.0.0.1:8443\"]\nmatch = \"tls-sni\"\ntargets = [\"10.0.0.9:443\"]\n\
         [mapping.hosts]\n\"Cloud.Example.org.\" = \"10.0.0.1:443\"\n\
         \"*.example.org\" = [\"10.0.0.2:443\", { address = \"10.0.0.3:443\", backup = true }]\n\
         \"one.example.org\" = { address = \"10.0.0.4:443\", weight = 2 }\n\
         \"office.example.org\" = { targets = \"10.0.0.5:443\", allow = [\"10.0.0.0/8\"], deny = \"10.0.0.7\", \
         send_proxy = \"v2\", wake = { unit = \"office.service\" } }\n\
         \"srv.example.org\" = \"_https._tcp.example.org\"\n",
    );
    let all = names(&loaded);
    assert_eq!(all.len(), 2);
    assert!(Arc::ptr_eq(&all[0].hosts, &all[1].hosts), "both listeners share them");
    let names = all[0];
    assert_eq!(names.by, Match::TlsSni);
    assert_eq!(names.otherwise.as_ref().unwrap().first().to_string(), "10.0.0.9:443");
    for (name, expected) in [
        ("cloud.example.org", "10.0.0.1:443"),
        ("b.example.org", "10.0.0.2:443 10.0.0.3:443"),
        ("ONE.example.org.", "10.0.0.4:443"),
        ("srv.example.org", "_https._tcp.example.org"),
        ("example.org", ""),
    ] {
        assert_eq!(leads(names, name), expected, "{name}");
    }
    let office = names.hosts.get("office.example.org").unwrap();
    assert_eq!(office.send_proxy, Some(SendProxy::V2));
    assert!(matches!(office.wake.as_ref().unwrap().start, Start::Unit(_)));
    assert!(office.access.spec().allow.is_some());
    assert_eq!(loaded.warnings, []);
}

#[test]
fn each_port_of_a_range_leads_to_its_counterpart_by_name_too() {
    let loaded = loaded(
        "[[mapping]]\nlisten = \"5000-5001\"\nmatch = \"http-host\"\nhosts = { \"a.lan\" = \"nas:6000-6001\" }\n",
    );
    let all: Vec<_> = names(&loaded).into_iter().map(|names| leads(names, "a.lan")).collect();
    assert_eq!(all, ["nas:6000", "nas:6001"]);
    assert!(names(&loaded).iter().all(|names| names.otherwise.is_none()));
}

#[test]
fn udp_beside_names_has_the_targets_of_the_mapping() {
    let loaded = loaded(
        "[[mapping]]\nlisten = \"443\"\nprotocol = \"tcp+udp\"\nmatch = \"tls-sni\"\ntargets = \"10.0.0.9:443\"\n\
         hosts = { \"a.example.org\" = \"10.0.0.1:443\" }\n",
    );
    assert_eq!(plan(&loaded), ["443/tcp [::]:443/tcp 10.0.0.9:443", "443/udp [::]:443/udp 10.0.0.9:443"]);
    assert_eq!(names(&loaded).len(), 1);
}

#[test]
fn players_are_answered_without_any_host() {
    let loaded = loaded(
        "[[mapping]]\npublish = \"25565:10.0.0.20:25565\"\nmatch = \"minecraft\"\n\
         on_connect_failure = { motd = \"back at 8\", players = \"0/8\" }\n\
         [[mapping]]\npublish = \"25566:10.0.0.20:25566\"\nmatch = \"minecraft\"\non_connect_failure = {}\n\
         [[mapping]]\npublish = \"25567:10.0.0.20:25567\"\n",
    );
    let all = names(&loaded);
    let told: Vec<_> = all.iter().map(|names| names.asleep.as_ref().unwrap()).collect();
    assert_eq!((&*told[0].motd, told[0].players), ("back at 8", (0, 8)));
    assert_eq!(told[1].players, (0, 20));
    assert!(all.iter().all(|names| names.otherwise.is_some() && names.by == Match::Minecraft));
    assert_eq!((told.len(), loaded.warnings.len()), (2, 0));
}

#[test]
fn a_match_of_the_defaults_is_for_mappings_with_hosts() {
    let text = "publish = \"80:9\"\n[defaults]\nmatch = \"http-host\"\n[[mapping]]\nlisten = \"81\"\n\
                hosts = { \"a.lan\" = \"nas:80\" }\n[[mapping]]\npublish = \"5300:9/udp\"\n";
    let loaded = loaded(text);
    assert_eq!((names(&loaded).len(), loaded.warnings.len()), (1, 0));
}

#[test]
fn what_starts_a_target_has_four_forms() {
    for (wake, start) in [
        ("{ docker = \"minecraft\" }", "Container(\"minecraft\")"),
        ("{ unit = \"a@b.service\" }", "Unit(\"a@b.service\")"),
        (
            "{ command = [\"/bin/start\", \"a b\"], stop_command = [\"/bin/stop\"] }",
            "Command { start: [\"/bin/start\", \"a b\"], stop: Some([\"/bin/stop\"]) }",
        ),
        ("{ mac = \"A8-bb-cc-dd-ee-0f\", wait = \"2m\" }", "Machine([168, 187, 204, 221, 238, 15])"),
    ] {
        let loaded = loaded(&format!("[[mapping]]\npublish = \"80:9/tcp+udp\"\nwake = {wake}\n"));
        let spec = tcp(&loaded).wake.clone().unwrap();
        assert_eq!(format!("{:?}", spec.start), start);
        assert_eq!(udp(&loaded).wake, Some(Arc::clone(&spec)));
        let stops = (!matches!(spec.start, Start::Machine(_))).then_some(Duration::from_secs(900));
        assert_eq!(spec.stop_after, stops, "{wake}");
        assert_eq!(loaded.warnings, []);
    }
    let off = "[defaults]\nwake = { docker = \"a\" }\n[[mapping]]\npublish = \"80:9\"\nwake = false\n";
    assert_eq!(tcp(&loaded(off)).wake, None);
}

#[test]
fn a_circle_through_a_name_is_refused_at_its_target() {
    assert_eq!(
        problems(
            "publish = [\"127.0.0.1:81:80\"]\n[[mapping]]\nlisten = \"80\"\nmatch = \"http-host\"\n\
             hosts = { \"a.lan\" = \"nas:80\", \"b.lan\" = [\"nas:80\", \"127.0.0.1:81\"] }\n"
        ),
        ["5:53 loop"]
    );
    let possible = "[[mapping]]\nlisten = \"80\"\nmatch = \"http-host\"\nmax_sessions = \"unlimited\"\n\
                    hosts = { \"a.lan\" = \"nas:80\", \"b.lan\" = \"_http._tcp.lan\" }\n";
    assert_eq!(warnings(possible), ["5:22 possible-loop", "5:42 possible-loop"]);
    let own = "[api]\nlisten = \"127.0.0.1:7678\"\n[[mapping]]\nlisten = \"80\"\nmatch = \"http-host\"\n\
               hosts = { \"a.lan\" = \"localhost:7678\" }\n";
    assert_eq!(problems(own), ["6:22 exposed-api"]);
}

#[test]
fn every_one_of_these_keys_is_changed_in_place() {
    const BASE: &str = "listen = \"80\"\ntargets = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n";
    let with = |more: &str| loaded(&format!("[[mapping]]\n{BASE}{more}\n")).plan;
    let base = with("");
    for more in [
        "balance = \"first\"",
        "health = {}",
        "on_down = \"close\"",
        "slow_start = \"1m\"",
        "send_proxy = \"v1\"",
        "accept_proxy = \"10.0.0.9\"",
        "match_timeout = \"1s\"",
        "transparent = true",
        "wake = { docker = \"a\" }",
        "match = \"http-host\"\nhosts = { \"a.lan\" = \"10.0.0.3:80\" }",
        "match = \"minecraft\"\non_connect_failure = {}",
    ] {
        let changed = diff(&base, &with(more));
        assert_eq!((changed.retune.len(), changed.open.len(), changed.close.len()), (1, 0, 0), "{more}");
        assert!(changed.replace.is_empty(), "{more}");
        assert!(diff(&with(more), &with(more)).is_empty(), "{more}");
    }
    let hosts = |hosts: &str| with(&format!("match = \"http-host\"\nhosts = {{ {hosts} }}"));
    let (one, other) =
        (hosts("\"a\" = \"b:1\", \"c\" = \"d:1\""), hosts("\"c\" = \"d:1\", \"A.\" = \"b:1\""));
    assert!(diff(&one, &other).is_empty(), "the same in another order and spelling");
}

#[test]
fn ten_thousand_names_load() {
    let mut text =
        "[[mapping]]\nlisten = [\"443\", \"127.0.0.1:8443\"]\nmatch = \"tls-sni\"\n[mapping.hosts]\n"
            .to_owned();
    for i in 0..10_000 {
        text.push_str(&format!("\"h{i}.example.org\" = \"10.0.{}.{}:443\"\n", i / 250, i % 250));
    }
    let loaded = loaded(&text);
    assert_eq!(names(&loaded)[0].hosts.len(), 10_000);
    assert_eq!(leads(names(&loaded)[0], "h9999.example.org"), "10.0.39.249:443");
}

#[test]
fn names_count_as_ways_of_each_listener() {
    let mut text = "[[mapping]]\nlisten = \"1000-1999\"\nmatch = \"tls-sni\"\n[mapping.hosts]\n".to_owned();
    for i in 0..2000 {
        text.push_str(&format!("\"h{i}.example.org\" = \"10.0.0.1:443\"\n"));
    }
    assert_eq!(problems(&text), ["2:11 too-many"]);
}
