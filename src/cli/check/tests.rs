use std::{collections::HashSet, net::IpAddr, ops::RangeInclusive};

use serde_json::{Value, json};

use super::{Terminal, json};
use crate::{
    config::{HostView, Loaded, Problems, Source, load},
    mapping::Protocol,
};

/// The table on a terminal of any width.
fn table(loaded: &Loaded) -> String {
    super::table(loaded, Terminal::default())
}

struct Nothing;

impl HostView for Nothing {
    fn env(&self, _: &str) -> Option<String> {
        None
    }
    fn service(&self, _: &str, _: Protocol) -> Option<u16> {
        None
    }
    fn addresses(&self) -> HashSet<IpAddr> {
        HashSet::new()
    }
    fn broadcasts(&self) -> HashSet<IpAddr> {
        HashSet::new()
    }

    fn ephemeral_ports(&self) -> Option<RangeInclusive<u16>> {
        None
    }
}

fn specs(specs: &[&str]) -> Result<Loaded, Problems> {
    let publish = specs.iter().map(|s| (*s).to_owned()).collect();
    load(&Source { publish, ..Source::default() }, &Nothing)
}

fn file(text: &str) -> Result<Loaded, Problems> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("portway.toml");
    std::fs::write(&path, text).unwrap();
    load(&Source { file: Some(path), ..Source::default() }, &Nothing)
}

#[test]
fn the_table_is_aligned_and_says_what_every_address_is() {
    let loaded = specs(&["8080:80", "127.0.0.1:53:10.0.0.53:53/udp", "0.0.0.0:81:nas.lan:80"]).unwrap();
    assert_eq!(
        table(&loaded),
        "MAPPING   PROTOCOL  LISTEN                           TARGET        OPTIONS\n\
         81/tcp    tcp       0.0.0.0:81 (every IPv4 address)  nas.lan:80\n\
         8080/tcp  tcp       [::]:8080 (every address)        127.0.0.1:80\n\
         53/udp    udp       127.0.0.1:53                     10.0.0.53:53\n\
         \n3 mappings, 3 listeners: ok\n"
    );
}

#[test]
fn a_range_is_one_row() {
    let shown = table(&specs(&["5000-5010:cam.lan:6000-6010/udp", "7000-7003:10.0.0.1:80"]).unwrap());
    assert!(
        shown.contains("5000-5010/udp  udp       [::]:5000-5010 (every address)  cam.lan:6000-6010\n"),
        "{shown}"
    );
    assert!(shown.contains("[::]:7000-7003 (every address)  10.0.0.1:80\n"), "{shown}");
    assert!(shown.ends_with("\n2 mappings, 15 listeners: ok\n"), "{shown}");
}

#[test]
fn neighbours_that_are_no_range_stay_apart() {
    let shown = table(&specs(&["8080:80", "8081:81", "8082:82"]).unwrap());
    assert!(shown.contains("8081/tcp") && shown.contains("127.0.0.1:81"), "{shown}");
    assert!(shown.ends_with("\n3 mappings, 3 listeners: ok\n"), "{shown}");
}

#[test]
fn a_named_mapping_counts_once_and_shows_its_options() {
    let loaded = file(
        "[[mapping]]\nname = \"mc\"\npublish = \"25565-25566:10.0.0.20:25565-25566/tcp+udp\"\n\
         idle_timeout = \"90s\"\nsource = \"10.0.0.1\"\n",
    );
    let shown = table(&loaded.unwrap());
    assert!(shown.contains("10.0.0.20:25565-25566  idle_timeout=90s source=10.0.0.1\n"), "{shown}");
    assert!(shown.ends_with("\n1 mapping, 4 listeners: ok\n"), "{shown}");
}

#[test]
fn warnings_stand_below_the_table() {
    let shown = table(&specs(&["3389:10.0.0.7:3389"]).unwrap());
    assert!(
        shown.contains("\nwarning: -p \"3389:10.0.0.7:3389\" (column 1): Remote Desktop (RDP), port 3389,"),
        "{shown}"
    );
}

#[test]
fn json_lists_every_listener_with_its_options() {
    let mut shown: Value = serde_json::from_str(&json(&specs(&["8080:80/tcp+udp"]))).unwrap();
    // Two paths depend on the machine.
    let api = shown.as_object_mut().unwrap().remove("api").unwrap();
    assert_eq!((&api["listen"], &api["tokens"], &api["hosts"]), (&Value::Null, &json!([]), &json!([])));
    let terms = |options: Value| {
        let mut all = json!({
            "name": "8080/tcp", "protocol": "tcp", "listen": "[::]:8080", "trap": false, "targets": ["127.0.0.1:80"],
            "source": null, "bandwidth_per_session": "unlimited", "allow": null, "deny": [], "allow_countries": null,
            "deny_countries": [], "max_sessions": 10_000, "max_sessions_per_client": 256, "new_sessions": "unlimited",
            "burst": null, "new_sessions_per_client": "unlimited", "burst_per_client": null, "router": null,
            "log": "all", "balance": "round-robin", "health": null, "on_down": "keep", "slow_start": null,
            "send_proxy": "off", "accept_proxy": [], "transparent": false, "wake": null, "knock": false,
        });
        all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        all
    };
    assert_eq!(
        shown,
        json!({
            "ok": true,
            "metrics": { "listen": null },
            "daemon": { "user": null, "sandbox": "auto" },
            "docker": null,
            "knock": null,
            "probe": null,
            "log": { "level": "info", "format": "text", "target": "stderr" },
            "shutdown": { "grace": "30s" },
            "mappings": [
                terms(json!({
                    "connect_timeout": "5s", "idle_timeout": "never", "half_close_timeout": "5m", "keepalive": "1m",
                    "refuse": "close", "match": "none", "hosts": null, "on_connect_failure": "close",
                    "match_timeout": "3s",
                })),
                terms(json!({
                    "name": "8080/udp", "protocol": "udp", "idle_timeout": "1m", "datagrams_per_client": "unlimited",
                })),
            ],
            "lists": [], "geoip": null, "guard": null,
            "limits": { "sessions": "auto", "flows": "auto" },
            "router": {
                "protocols": ["upnp", "pcp", "natpmp"], "gateway": "auto", "interface": "auto", "lease": "1h",
                "on_conflict": "fail", "check_every": "1m",
            },
            "warnings": [],
            "problems": [],
        })
    );
}

/// Names on one port, and several targets.
const NAMES: &str = "\
    [[mapping]]\nname = \"sites\"\nlisten = \"5000-5001\"\nmatch = \"tls-sni\"\nbalance = \"client-hash\"\n\
    targets = [{ address = \"a:1-2\", weight = 2 }, { address = \"b:1\", weight = 3, backup = true }]\n\
    health = { send = 'PING\\r\\n', expect = '\\xff' }\n\
    [mapping.hosts]\n\"x.example.org\" = \"nas:80-81\"\n\
    \"*.example.org\" = { targets = \"nas:443\", deny = \"10.0.0.9\", send_proxy = \"v2\", wake = { unit = \"a.service\" } }\n\
    [[mapping]]\nlisten = \"25565\"\nmatch = \"minecraft\"\non_connect_failure = { motd = \"zzz\" }\n\
    hosts = { \"mc.example.org\" = \"10.0.0.1:25565\" }\n";

#[test]
fn each_name_has_a_row_below_its_listener() {
    let shown = table(&file(NAMES).unwrap());
    let rows: Vec<Vec<&str>> = shown
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    assert_eq!(
        rows[1..6],
        [
            &[
                "sites",
                "tcp",
                "[::]:5000-5001 (every address)",
                "a:1-2 (weight 2), b:1 (weight 3, backup)",
                "match=tls-sni balance=client-hash health=5s"
            ][..],
            &["x.example.org", "nas:80-81"],
            &["*.example.org", "nas:443", "deny=10.0.0.9 send_proxy=v2 wake=unit:a.service"],
            &[
                "25565/tcp",
                "tcp",
                "[::]:25565 (every address)",
                "closed",
                "match=minecraft on_connect_failure=\"zzz\""
            ],
            &["mc.example.org", "10.0.0.1:25565"],
        ],
        "{shown}"
    );
}

#[test]
fn names_and_targets_are_in_json_as_one_would_write_them() {
    let shown: Value = serde_json::from_str(&json(&file(NAMES))).unwrap();
    let sites = &shown["mappings"][0];
    assert_eq!(
        sites["targets"],
        json!([
            { "address": "a:1", "weight": 2, "backup": false },
            { "address": "b:1", "weight": 3, "backup": true },
        ])
    );
    assert_eq!(
        sites["hosts"],
        json!({
            "x.example.org": ["nas:80"],
            "*.example.org": {
                "targets": ["nas:443"], "deny": ["10.0.0.9"], "send_proxy": "v2",
                "wake": { "unit": "a.service", "wait": "1m", "stop_after": "15m" },
            },
        })
    );
    assert_eq!(
        sites["health"],
        json!({
            "interval": "5s", "timeout": "2s", "rise": 2, "fall": 3, "send": "PING\\r\\n",
            "expect": { "hex": "ff" },
        })
    );
    let mc = &shown["mappings"][2];
    assert_eq!(mc["on_connect_failure"], json!({ "motd": "zzz", "players": "0/20" }));
    assert_eq!((&mc["targets"], &mc["match"]), (&json!([]), &json!("minecraft")));
}

const HARDENED: &str = "\
    [[mapping]]\nname = \"rdp\"\nlisten = \"3389\"\ntargets = \"10.0.0.7:3389\"\nprotocol = \"tcp+udp\"\n\
    allow = [\"10.0.0.0/8\", \"@office\", \"192.0.2.7\", \"192.0.2.8\"]\ndeny = \"10.9.0.0/16\"\nmax_sessions = 20\n\
    max_sessions_per_client = \"unlimited\"\nnew_sessions = \"20/s\"\nburst = 40\nnew_sessions_per_client = \"6/min\"\n\
    datagrams_per_client = \"900/s\"\nbandwidth_per_session = \"10MB/s\"\nrefuse = \"drop\"\n\
    router = { external_port = 30000, ipv6 = true }\n\
    [lists]\noffice = [\"203.0.113.0/24\", \"2001:db8::/48\"]\nnone = []\n\
    [guard]\ntrap = [\"23\", \"1000-1009\"]\nexempt = \"@office\"\nstate = \"/var/lib/portway/bans.json\"\n\
    [limits]\nsessions = 500\n";

#[test]
fn the_table_shows_who_may_enter_decoys_and_the_router_as_they_are_written() {
    let shown = table(&file(HARDENED).unwrap());
    let common = "bandwidth_per_session=10MB allow=@office,10.0.0.0/8,192.0.2.7,+1 deny=10.9.0.0/16 max_sessions=20 max_sessions_per_client=unlimited \
                  new_sessions=20/s burst=40 new_sessions_per_client=6/min";
    let tcp = format!("10.0.0.7:3389  {common} refuse=drop router=30000+ipv6\n");
    let udp = format!("{common} datagrams_per_client=900/s router=30000+ipv6\n");
    assert!(shown.contains(&tcp) && shown.contains(&udp), "{shown}");
    assert!(shown.contains("\n1000-1009/tcp  tcp       [::]:1000-1009 (every address)  trap\n"), "{shown}");
    assert!(shown.contains("\n23/tcp         tcp       [::]:23 (every address)         trap\n"), "{shown}");
    assert!(
        shown.ends_with(
            "\n\nlist @none: 0 entries\nlist @office: 2 entries\n\
             guard: refusals=10/min ban=1h exempt=@office state=/var/lib/portway/bans.json\n\
             \n1 mapping, 2 listeners, 11 traps: ok\n"
        ),
        "{shown}"
    );
}

#[test]
fn a_range_on_the_router_is_one_row_and_other_terms_are_another() {
    let ranges = file(
        "[[mapping]]\nname = \"a\"\npublish = \"2000-2003:9\"\nrouter = { external_port = 30000 }\n\
         [[mapping]]\nname = \"b\"\npublish = \"3000-3001:9\"\nrouter = true\n",
    );
    let shown = table(&ranges.unwrap());
    assert!(shown.contains("[::]:2000-2003 (every address)  127.0.0.1:9  router=30000-30003\n"), "{shown}");
    assert!(shown.contains("[::]:3000-3001 (every address)  127.0.0.1:9  router=3000-3001\n"), "{shown}");
    let mixed =
        "[[mapping]]\npublish = \"2000-2003:9\"\n[[mapping]]\npublish = \"2004-2007:9\"\nmax_sessions = 2\n";
    let shown = table(&file(mixed).unwrap());
    assert!(shown.contains("2000-2003/tcp") && shown.contains("2004-2007/tcp"), "{shown}");
}

#[test]
fn json_has_every_term() {
    let shown: Value = serde_json::from_str(&json(&file(HARDENED))).unwrap();
    let find = |name: &str, protocol: &str| {
        let all = shown["mappings"].as_array().unwrap();
        all.iter().find(|m| m["name"] == name && m["protocol"] == protocol).unwrap().clone()
    };
    let (tcp, udp) = (find("rdp", "tcp"), find("rdp", "udp"));
    assert_eq!(tcp["allow"], json!(["@office", "10.0.0.0/8", "192.0.2.7", "192.0.2.8"]));
    for (key, value) in [
        ("deny", json!(["10.9.0.0/16"])),
        ("max_sessions", json!(20)),
        ("max_sessions_per_client", json!("unlimited")),
        ("new_sessions", json!("20/s")),
        ("burst", json!(40)),
        ("new_sessions_per_client", json!("6/min")),
        ("burst_per_client", json!(6)),
        ("bandwidth_per_session", json!("10MB")),
        ("router", json!({ "external_port": 30_000, "ipv6": true })),
    ] {
        assert_eq!((&tcp[key], &udp[key]), (&value, &value), "{key}");
    }
    assert_eq!((&tcp["refuse"], &udp["datagrams_per_client"]), (&json!("drop"), &json!("900/s")));
    assert!(udp.get("refuse").is_none() && tcp.get("datagrams_per_client").is_none());
    assert_eq!(
        find("23/tcp", "tcp"),
        json!({ "name": "23/tcp", "protocol": "tcp", "listen": "[::]:23", "trap": true, "targets": [] })
    );
    assert_eq!(shown["lists"][1], json!({ "name": "office", "entries": 2, "file": null }));
    assert_eq!(
        shown["guard"],
        json!({ "refusals": "10/min", "ban": "1h", "exempt": ["@office"], "state": "/var/lib/portway/bans.json" })
    );
    assert_eq!(shown["limits"], json!({ "sessions": 500, "flows": "auto" }));
}

#[test]
fn json_lists_every_problem_with_its_place() {
    let shown: Value = serde_json::from_str(&json(&specs(&["8080:0", "x:1"]))).unwrap();
    assert_eq!(shown["ok"], false);
    assert_eq!(
        shown["problems"][0],
        json!({
            "code": "invalid-spec", "file": "-p \"8080:0\"", "line": 1, "column": 6, "text": "0",
            "message": "port 0 cannot be connected to", "help": "use a port from 1 to 65535",
        })
    );
    assert_eq!(shown["problems"].as_array().unwrap().len(), 2);
}
