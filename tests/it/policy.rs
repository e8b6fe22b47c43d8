//! Access: lists, caps and rates, what a refused client sees, and which sessions end when the terms change.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
    time::Duration,
};

use rustix::process::Signal;

use crate::harness::{
    Client, DEADLINE, Line, Portway, TcpTarget, UdpTarget, add_address, echoes, enters, eventually,
    free_port, in_own_network, is_reset, mapping, messages, own_addr, own_ip, portway, reset_seen, run,
    udp_client_from, udp_mapping,
};

#[allow(dead_code, reason = "the library's own tests use all of it")]
#[path = "../mmdb.rs"]
mod mmdb;

/// Every line, as JSON.
const DEBUG: &str = "[log]\nlevel = \"debug\"\nformat = \"json\"\n";
/// A time in which an answer would have come.
const SILENCE: Duration = Duration::from_millis(500);

fn is_from(line: &Line, client: IpAddr) -> bool {
    line.text("client.addr").parse::<SocketAddr>().is_ok_and(|addr| addr.ip() == client)
}

/// Replaces a file as a whole.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("the test's own directory");
    fs::rename(&new, path).expect("the test's own directory");
}

#[test]
fn allow_and_deny_are_by_address_and_the_most_specific_entry_wins() {
    let target = TcpTarget::echo();
    let (friend, foe, stranger, at) = (own_ip(), own_ip(), own_ip(), own_addr(8080));
    let terms = format!(
        "allow = [\"127.0.0.0/8\", \"{friend}\"]\ndeny = [\"{foe}\", \"{stranger}/31\", \"{friend}/31\"]\n"
    );
    let mut portway = Portway::with(&(mapping(at, target.addr, &terms) + DEBUG)).start();
    assert!(enters(friend, at), "a single address is more specific than a network");
    assert!(!enters(foe, at));
    assert!(!enters(stranger, at));
    let line = portway.wait_log(messages::SESSION_REFUSED, |line| is_from(line, foe));
    assert_eq!((line.text("reason"), line.text("protocol")), ("denied", "tcp"));
    assert_eq!((line.text("listen.addr"), line.text("mapping")), (at.to_string().as_str(), "8080/tcp"));
    portway.wait_sessions(1);
    assert_eq!(target.accepted(), 1, "nothing is opened for a refused client");
}

#[test]
fn a_client_that_is_not_on_the_allow_list_is_refused() {
    let target = TcpTarget::echo();
    let (friend, at) = (own_ip(), own_addr(8080));
    let _portway = Portway::with(&mapping(at, target.addr, &format!("allow = \"{friend}\""))).start();
    assert!(enters(friend, at));
    assert!(!enters(own_ip(), at));
}

#[test]
fn an_ipv4_client_of_a_dual_stack_listener_is_known_by_its_ipv4_address() {
    let target = TcpTarget::echo();
    let (foe, port) = (own_ip(), free_port());
    let config = format!("[[mapping]]\npublish = \"{port}:{}\"\ndeny = \"{foe}\"\n", target.addr);
    let _portway = Portway::with(&config).start();
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    assert!(!enters(foe, at));
    assert!(enters(own_ip(), at));
    let six = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    // Many containers have no IPv6 at all: no client comes over it.
    if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        assert!(echoes(six), "it is denied for IPv4 only");
    }
}

#[test]
fn a_list_file_is_followed_and_a_broken_one_changes_nothing() {
    let target = TcpTarget::echo();
    let (first, second, at) = (own_ip(), own_ip(), own_addr(8080));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let list = dir.path().join("blocked.txt");
    replace(&list, &format!("# empty so far\n{first}\n"));
    let config = mapping(at, target.addr, "deny = \"@blocked\"")
        + &format!("[lists]\nblocked = {{ file = {list:?} }}\n");
    let mut portway = Portway::with(&config).start();
    assert!(!enters(first, at));
    let mut live = Client::from(second, at);
    let mut other = Client::to(at);
    live.ping();
    other.ping();

    replace(&list, &format!("{second}\n"));
    let line = portway.wait_session();
    assert!(is_from(&line, second) && line.text("reason") == "policy", "{line:?}");
    let reloaded = portway.wait_log(messages::LIST_RELOADED, |_| true);
    assert_eq!((reloaded.text("list"), reloaded.number("entries")), ("blocked", 1));
    live.until_closed();
    other.ping();
    assert!(!enters(second, at));
    assert!(enters(first, at));

    for broken in [Some("10.0.0.0/8\n127.0.0.0/33\n"), None] {
        let mark = portway.log_len();
        match broken {
            Some(text) => replace(&list, text),
            None => fs::remove_file(&list).expect("the test's own directory"),
        }
        let line = portway.wait_log_after(mark, messages::LIST_NOT_USABLE, |_| true);
        assert_eq!(line.text("file"), list.to_str().expect("a readable path"));
        if broken.is_some() {
            assert_eq!(line.number("line"), 2);
        }
        assert!(!enters(second, at), "the last good list stays");
        assert!(enters(first, at));
    }

    let mark = portway.log_len();
    replace(&list, &format!("{first}\n{second}\n"));
    let line = portway.wait_log_after(mark, messages::LIST_RELOADED, |_| true);
    assert_eq!(line.number("entries"), 2);
    assert!(!enters(first, at));
    other.ping();
    assert_eq!(portway.count(messages::LIST_NOT_USABLE), 2, "one line for each change");
}

#[test]
fn a_list_that_changes_during_the_grace_of_a_stop_still_ends_sessions() {
    let target = TcpTarget::echo();
    let (foe, friend, at) = (own_ip(), own_ip(), own_addr(8080));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let list = dir.path().join("blocked.txt");
    fs::write(&list, "192.0.2.0/24\n").expect("the test's own directory");
    let config = mapping(at, target.addr, "deny = \"@blocked\"")
        + &format!("[lists]\nblocked = {{ file = {list:?} }}\n[shutdown]\ngrace = \"1h\"\n");
    let mut portway = Portway::with(&config).start();
    let (mut bad, mut good) = (Client::from(foe, at), Client::from(friend, at));
    bad.ping();
    good.ping();
    portway.signal(Signal::TERM);
    portway.wait_log(messages::STOPPING, |_| true);
    replace(&list, &format!("{foe}\n"));
    let line = portway.wait_session();
    assert!(is_from(&line, foe) && line.text("reason") == "policy", "{line:?}");
    bad.until_closed();
    good.ping();
    drop(good);
    portway.exit().with(0);
}

#[test]
fn a_country_database_is_followed_and_a_broken_one_changes_nothing() {
    let target = TcpTarget::echo();
    let (one, other, at) = (own_ip(), own_ip(), own_addr(8080));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("countries.mmdb");
    let put = |bytes: &[u8]| {
        let new = file.with_extension("new");
        fs::write(&new, bytes).expect("the test's own directory");
        fs::rename(&new, &file).expect("the test's own directory");
    };
    let in_country = |ip: IpAddr| mmdb::database(&[(&format!("{ip}/32"), "NL")]);
    put(&in_country(one));
    let config =
        mapping(at, target.addr, "allow_countries = [\"nl\"]") + &format!("[geoip]\ndatabase = {file:?}\n");
    let mut portway = Portway::with(&config).start();
    let mut live = Client::from(one, at);
    live.ping();
    assert!(!enters(other, at), "it is of no country");

    put(&in_country(other));
    let line = portway.wait_session();
    assert!(is_from(&line, one) && line.text("reason") == "policy", "{line:?}");
    live.until_closed();
    assert!(enters(other, at) && !enters(one, at));

    put(b"no database at all");
    portway.wait_log(messages::COUNTRY_DATABASE_NOT_USABLE, |_| true);
    assert!(enters(other, at) && !enters(one, at));
}

#[test]
fn a_mapping_has_no_more_sessions_than_it_may_and_a_place_is_given_back() {
    let target = TcpTarget::echo();
    let at = [own_addr(8080), own_addr(8081)];
    let config = format!(
        "[[mapping]]\nname = \"two\"\nlisten = [\"{}\", \"{}\"]\ntargets = [\"{}\"]\nmax_sessions = 2\n",
        at[0], at[1], target.addr
    );
    let mut portway = Portway::with(&config).start();
    let mut held: Vec<Client> = at.iter().map(|at| Client::to(*at)).collect();
    held.iter_mut().for_each(Client::ping);
    assert!(!enters(own_ip(), at[0]), "its listeners share the places");
    for round in 1..=20 {
        drop(held.pop());
        portway.wait_sessions(round);
        let mut next = Client::to(at[round % 2]);
        next.ping();
        held.push(next);
        assert!(!echoes(at[0]));
    }
    // A reload keeps count of those inside.
    portway.reload_with(&(config.clone() + "idle_timeout = \"1h\"\n"));
    assert!(!echoes(at[1]));
    portway.reload_with(&config.replace("max_sessions = 2", "max_sessions = 3"));
    Client::to(at[0]).ping();
    held.iter_mut().for_each(Client::ping);
}

#[test]
fn the_ports_of_a_mapping_without_a_name_share_its_places_and_separate_ones_do_not() {
    let target = TcpTarget::echo();
    let at = [own_addr(8080), own_addr(8081)];
    let together = format!(
        "[[mapping]]\nlisten = [\"{}\", \"{}\"]\ntargets = [\"{}\"]\nmax_sessions = 2\n",
        at[0], at[1], target.addr
    );
    let mut portway = Portway::with(&together).start();
    let mut held: Vec<Client> = at.iter().map(|at| Client::to(*at)).collect();
    held.iter_mut().for_each(Client::ping);
    assert!(!echoes(at[0]) && !echoes(at[1]));

    let [one, other] = at.map(|at| format!("\"{at}:{}\"", target.addr));
    drop(held);
    portway.wait_sessions(2);
    portway.reload_with(&format!("publish = [{one}, {other}]\n[defaults]\nmax_sessions = 2\n"));
    let mut held: Vec<Client> = at.iter().chain(&at).map(|at| Client::to(*at)).collect();
    held.iter_mut().for_each(Client::ping);
    assert!(!echoes(at[0]) && !echoes(at[1]));
}

#[test]
fn a_client_has_no_more_sessions_than_it_may() {
    let target = TcpTarget::echo();
    let (one, other, at) = (own_ip(), own_ip(), own_addr(8080));
    let mut portway = Portway::with(&mapping(at, target.addr, "max_sessions_per_client = 3")).start();
    let mut held: Vec<Client> = (0..3).map(|_| Client::from(one, at)).collect();
    held.iter_mut().for_each(Client::ping);
    assert!(!enters(one, at));
    assert!(enters(other, at));
    portway.wait_sessions(1);
    held.truncate(2);
    portway.wait_sessions(2);
    assert!(enters(one, at));
}

#[test]
fn a_thousand_addresses_of_one_ipv6_network_are_one_client() {
    in_own_network(&["ip", "sysctl"], || {
        run("ip -6 route add local 2001:db8:1:2::/64 dev lo");
        run("ip -6 route add local 2001:db8:1:3::/64 dev lo");
        let target = TcpTarget::echo();
        let at: SocketAddr = "[::1]:8080".parse().expect("an address");
        let config = mapping(at, target.addr, "max_sessions_per_client = 5");
        let mut portway = Portway::with(&config).start();
        let client = |network: u16, host: u16| {
            Client::try_from_ip(IpAddr::from([0x2001, 0xdb8, 1, network, 0, 0, 0, host]), at)
        };
        let mut inside = Vec::new();
        for host in 1..=1_000 {
            inside.extend(client(2, host).into_iter().filter_map(|mut c| c.still_echoes().then_some(c)));
        }
        assert_eq!(inside.len(), 5);
        assert!(client(3, 1).is_ok_and(|mut c| c.still_echoes()), "the next network is another client");
        let line = portway.wait_log(messages::SESSIONS_REFUSED, |_| true);
        assert!(line.text("reasons").contains("client-full"), "{line:?}");
    });
}

#[test]
fn rates_hold_for_the_client_and_for_the_mapping() {
    let target = TcpTarget::echo();
    let (by_client, by_mapping) = (own_addr(8080), own_addr(8081));
    let config = mapping(by_client, target.addr, "new_sessions_per_client = \"3/h\"")
        + &mapping(by_mapping, target.addr, "new_sessions = \"20/h\"\nburst = 4");
    let mut portway = Portway::with(&config).start();
    let one = own_ip();
    let entered = |at, ip: &dyn Fn() -> IpAddr| (0..10).filter(|_| enters(ip(), at)).count();
    assert_eq!(entered(by_client, &|| one), 3);
    assert!(enters(own_ip(), by_client), "another client has its own rate");
    assert_eq!(entered(by_mapping, &own_ip), 4);

    // A minute has one summary; the first one comes soon.
    for (name, reason, refused) in [("8080/tcp", "client-rate", 7), ("8081/tcp", "rate", 6)] {
        let line = portway.wait_log(messages::SESSIONS_REFUSED, |line| line.text("mapping") == name);
        assert!(line.text("reasons").starts_with(reason) && line.number("refused") <= refused, "{line:?}");
    }
}

/// A daemon that refuses everyone in this way.
fn refusing(how: &str) -> (Portway, SocketAddr) {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let terms = format!("deny = \"127.0.0.0/8\"\nrefuse = \"{how}\"");
    (Portway::with(&(mapping(at, target.addr, &terms) + DEBUG)).start(), at)
}

#[test]
fn a_refused_client_reads_its_end() {
    let (_portway, at) = refusing("close");
    assert_eq!(Client::to(at).0.read(&mut [0]).expect("an end"), 0);
}

#[test]
fn a_refused_client_may_be_reset() {
    let (_portway, at) = refusing("reset");
    // The reset may come before the client knows that it was connected.
    assert!(Client::try_to(at).map_or_else(|error| is_reset(&error), |mut client| reset_seen(&mut client.0)));
}

#[test]
fn a_refused_client_may_be_left_in_silence_and_only_so_many_are() {
    let (portway, at) = refusing("drop");
    let mut client = Client::to(at);
    client.say(b"hello?");
    client.0.set_read_timeout(Some(SILENCE)).expect("a socket takes a timeout");
    let heard = client.0.read(&mut [0]).expect_err("not a word");
    assert!(matches!(heard.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{heard}");

    let base = portway.fds();
    let mut others: Vec<Client> = (0..600).map(|_| Client::to(at)).collect();
    // One that is not would be reset by the kernel when the daemon stops to listen.
    eventually("all have been refused", || (portway.count(messages::SESSION_REFUSED) == 601).then_some(()));
    assert!(portway.fds() <= base + 260, "{} descriptors", portway.fds() - base);
    for (i, other) in others.iter_mut().enumerate().skip(400) {
        other.0.set_nonblocking(true).expect("a socket takes that");
        if i < 500 {
            let _ = other.0.write(b"hello");
        }
        let heard = other.0.read(&mut [0]).expect_err("not a word");
        assert_eq!(heard.kind(), ErrorKind::WouldBlock, "{heard}");
    }
    portway.stop().with(0);
    // The end of the daemon is silent, too, if it has the right to that. Clients that sent something may send it again,
    // and then the kernel answers with a reset.
    if rustix::process::geteuid().is_root() {
        for other in &mut others[500..] {
            let heard = other.0.read(&mut [0]).expect_err("not a word");
            assert_eq!(heard.kind(), ErrorKind::WouldBlock, "{heard}");
        }
    }
}

#[test]
fn a_reload_that_revokes_ends_live_sessions_with_the_reason_policy() {
    let (target, behind) = (TcpTarget::echo(), UdpTarget::echo());
    let (foe, friend) = (own_ip(), own_ip());
    let (at, udp_at) = (own_addr(8080), own_addr(8080));
    let config = |terms: &str| {
        mapping(at, target.addr, terms) + &udp_mapping(udp_at, behind.addr, &format!("name = \"u\"\n{terms}"))
    };
    let mut portway = Portway::with(&config("")).start();
    let (mut bad, mut good) = (Client::from(foe, at), Client::from(friend, at));
    bad.ping();
    good.ping();
    let flow = udp_client_from(foe, udp_at);
    flow.send(b"x").and_then(|_| flow.recv(&mut [0; 8])).expect("an answer");

    portway.reload_with(&config(&format!("deny = \"{foe}\"")));
    for line in portway.wait_sessions(2) {
        assert!(is_from(&line, foe) && line.text("reason") == "policy", "{line:?}");
    }
    bad.until_closed();
    good.ping();
    assert!(!enters(foe, at));
    flow.set_read_timeout(Some(SILENCE)).expect("a socket takes a timeout");
    flow.send(b"x").expect("the client sends");
    flow.recv(&mut [0; 8]).expect_err("it is refused in silence");

    // Caps and rates never end a session.
    portway.reload_with(&config("max_sessions = 1\nmax_sessions_per_client = 1\nnew_sessions = \"1/h\""));
    good.ping();
}

#[test]
fn a_refused_datagram_is_silent_and_never_an_offence() {
    let (target, behind) = (TcpTarget::echo(), UdpTarget::echo());
    let (foe, friend) = (own_ip(), own_ip());
    let (at, udp_at) = (own_addr(8080), own_addr(8080));
    let config = mapping(at, target.addr, "")
        + &udp_mapping(udp_at, behind.addr, &format!("name = \"u\"\ndeny = \"{foe}\""))
        + "[guard]\nrefusals = \"2/h\"\n"
        + DEBUG;
    let mut portway = Portway::with(&config).start();
    let bad = udp_client_from(foe, udp_at);
    for _ in 0..50 {
        bad.send(b"let me in").expect("the client sends");
    }
    let good = udp_client_from(friend, udp_at);
    good.send(b"hello").and_then(|_| good.recv(&mut [0; 8])).expect("an answer");
    let line = portway.wait_log(messages::SESSION_REFUSED, |line| line.text("protocol") == "udp");
    assert!(is_from(&line, foe) && line.text("reason") == "denied", "{line:?}");
    bad.set_read_timeout(Some(SILENCE)).expect("a socket takes a timeout");
    bad.recv(&mut [0; 16]).expect_err("not a word");
    assert!(enters(foe, at), "its source may be forged, so it is not banned");
    assert_eq!(behind.got().len(), 1);
}

#[test]
fn a_client_sends_no_more_datagrams_than_it_may_and_others_are_not_held_back() {
    let behind = UdpTarget::echo();
    let at = own_addr(5353);
    let config = udp_mapping(at, behind.addr, "datagrams_per_client = \"20/h\"");
    let mut portway = Portway::with(&config).start();
    let (loud, calm) = (udp_client_from(own_ip(), at), udp_client_from(own_ip(), at));
    for i in 0..100_u8 {
        loud.send(&[i]).expect("the client sends");
    }
    calm.send(b"hello").and_then(|_| calm.recv(&mut [0; 8])).expect("an answer");
    let line = portway.wait_log(messages::SESSIONS_REFUSED, |_| true);
    assert!(line.text("reasons").starts_with("datagram-rate"), "{line:?}");
    assert_eq!(behind.got().len(), 21);
}

#[test]
fn the_limit_of_sessions_is_the_daemons_and_follows_a_reload() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let config = |limit: &str| mapping(at, target.addr, "") + &format!("[limits]\nsessions = {limit}\n");
    let mut portway = Portway::with(&config("2")).start();
    let mut held: Vec<Client> = (0..2).map(|_| Client::to(at)).collect();
    held.iter_mut().for_each(Client::ping);
    let mut third = Client::to(at);
    third.say(b"ping");
    third.0.set_read_timeout(Some(SILENCE)).expect("a socket takes a timeout");
    third.0.read(&mut [0; 4]).expect_err("it waits its turn");
    third.0.set_read_timeout(Some(DEADLINE)).expect("a socket takes a timeout");
    drop(held.pop());
    assert_eq!(third.hear(4), b"ping");

    // Lowered, it takes nothing away; raised, it lets more in.
    portway.reload_with(&config("1"));
    third.ping();
    held[0].ping();
    portway.reload_with(&config("3"));
    Client::to(at).ping();
    portway.reload_with(&config("4000000000"));
    portway.wait_log(messages::LIMIT_BEYOND_DESCRIPTORS, |line| line.text("key") == "limits.sessions");
    Client::to(at).ping();
}

#[test]
fn a_refused_client_is_closed_at_once_while_the_daemon_is_full() {
    let target = TcpTarget::echo();
    let (foe, at) = (own_ip(), own_addr(8080));
    let terms = format!("deny = \"{foe}\"");
    let config = mapping(at, target.addr, &terms) + "[limits]\nsessions = 1\n";
    let _portway = Portway::with(&config).start();
    let mut inside = Client::to(at);
    inside.ping();
    let mut waiting = Client::to(at);
    waiting.say(b"ping");
    for _ in 0..10 {
        assert_eq!(Client::from(foe, at).0.read(&mut [0]).expect("an end"), 0);
    }
    drop(inside);
    assert_eq!(waiting.hear(4), b"ping", "the client that waited gets the place");
}

#[test]
fn addresses_of_a_namespace_are_told_apart_over_ipv6() {
    in_own_network(&["ip"], || {
        let [friend, foe] = ["2001:db8::1", "2001:db8:0:1::1"].map(|ip| ip.parse().expect("an address"));
        add_address(friend);
        add_address(foe);
        let target = TcpTarget::echo();
        let at: SocketAddr = "[::1]:8080".parse().expect("an address");
        let _portway = Portway::with(&mapping(at, target.addr, "deny = \"2001:db8:0:1::/64\"")).start();
        assert!(enters(friend, at));
        assert!(!enters(foe, at));
    });
}

#[test]
fn a_range_without_a_name_is_one_mapping_named_by_its_range() {
    let target = TcpTarget::echo();
    let ip = own_ip();
    let spec = format!("{ip}:5000-5003:{}", target.addr);
    let name = "5000-5003/tcp";

    let ran = portway(["check", "--json", "-p", &spec]).exits(0);
    let plan: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    let listeners = plan["mappings"].as_array().expect("a list");
    assert!(listeners.len() == 4 && listeners.iter().all(|l| l["name"] == name), "{ran}");
    portway(["check", "-p", &spec]).exits(0).says(&format!("\n{name} ")).says("1 mapping, 4 listeners");

    // The limit holds for all ports together.
    let config = format!("[[mapping]]\npublish = \"{spec}\"\nmax_sessions_per_client = 1\n");
    let mut portway = Portway::with(&config).start();
    assert_eq!(portway.wait_log(messages::LISTENING, |_| true).text("mapping"), name);
    let at = |port| SocketAddr::new(ip, port);
    let mut first = Client::to(at(5000));
    first.ping();
    assert!(!echoes(at(5003)));
    drop(first);
    assert_eq!(portway.wait_session().text("mapping"), name);
    eventually("the place is free on another port", || echoes(at(5003)).then_some(()));
}
