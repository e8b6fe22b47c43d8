//! Ports in use: the log names their holder and the cure, and the daemon tries again.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use crate::harness::{
    Client, Portway, TcpTarget, add_address, echoes, eventually, free_port, in_own_network, mapping,
    messages, own_addr, own_ip, run,
};

#[test]
fn a_taken_port_names_its_holder() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let first = Portway::with(&mapping(at, target.addr, "")).start();
    let second = Portway::with(&mapping(at, target.addr, "")).launch();
    let exit = second.exit().with(1).says(&at.to_string()).says(&first.pid().to_string());
    assert!(exit.log.contains("portway"), "{}", exit.log);
    Client::to(at).ping();
}

#[test]
fn a_wildcard_that_meets_a_taken_port_names_its_holder() {
    let port = free_port();
    let holder = TcpListener::bind(("127.0.0.1", port)).expect("the port was free");
    let exit = Portway::publishing(&format!("{port}:9")).launch().exit().with(1);
    let exit = exit.says(&port.to_string()).says(&std::process::id().to_string());
    drop((holder, exit));
}

#[test]
fn every_port_that_cannot_be_had_is_listed() {
    let taken = [own_addr(8080), own_addr(8081), own_addr(8082)];
    let free = own_addr(8083);
    let holders = taken.map(|at| TcpListener::bind(at).expect("an address of its own"));
    let target = own_addr(8000);
    let config: String = taken
        .iter()
        .chain([&free])
        .enumerate()
        .map(|(n, at)| mapping(*at, target, &format!("name = \"m{n}\"")))
        .collect();
    let mut exit = Portway::with(&config).args(["--strict"]).launch().exit().with(1);
    for at in taken {
        exit = exit.says(&at.to_string());
    }
    drop(holders);
}

#[test]
fn a_taken_port_waits_while_the_others_serve_and_opens_when_it_is_free() {
    let target = TcpTarget::echo();
    let (open, taken) = (own_addr(8080), own_addr(8081));
    let holder = TcpListener::bind(taken).expect("an address of its own");
    let config =
        mapping(open, target.addr, "name = \"open\"") + &mapping(taken, target.addr, "name = \"taken\"");
    let mut portway = Portway::with(&config).start();
    let line = portway.wait_log(messages::LISTENER_WAITING, |_| true);
    assert_eq!((line.text("level"), line.text("mapping")), ("ERROR", "taken"));
    assert_eq!(line.text("listen.addr"), taken.to_string());
    assert!(line.text("error").contains(&format!("(pid {})", std::process::id())), "{}", line.raw());
    let ready = portway.wait_log(messages::READY, |_| true);
    assert_eq!(["listeners", "listening", "waiting"].map(|field| ready.number(field)), [2, 1, 1]);
    Client::to(open).ping();

    // A reload changes nothing about that.
    portway.reload_with(&format!("{config}[shutdown]\ngrace = \"1s\"\n"));
    drop(holder);
    portway.wait_log(messages::LISTENING, |line| line.text("mapping") == "taken");
    Client::to(taken).ping();
    assert_eq!(portway.count(messages::LISTENER_WAITING), 1, "{}", portway.log());
    portway.stop().with(0);
}

#[test]
fn a_taken_udp_port_or_range_waits_and_is_reported_in_few_lines() {
    let target = TcpTarget::echo();
    let (open, ip) = (own_addr(8080), own_ip());
    let holders: Vec<UdpSocket> =
        (9000..9030).map(|port| UdpSocket::bind((ip, port)).expect("an address of its own")).collect();
    let config = mapping(open, target.addr, "")
        + &format!("[[mapping]]\nname = \"many\"\npublish = \"{ip}:9000-9029:127.0.0.1:9000-9029/udp\"\n");
    let mut portway = Portway::with(&config).start();
    assert_eq!(portway.count(messages::LISTENER_WAITING), 10, "{}", portway.log());
    let more = portway.wait_log(messages::MORE_LISTENERS_WAITING, |_| true);
    assert_eq!((more.text("level"), more.number("left_out")), ("ERROR", 20));
    assert_eq!(portway.wait_log(messages::READY, |_| true).number("waiting"), 30);
    Client::to(open).ping();
    drop(holders);
}

#[test]
fn a_strict_start_fails_for_any_listener() {
    let target = TcpTarget::echo();
    let (open, taken) = (own_addr(8080), own_addr(8081));
    let _holder = TcpListener::bind(taken).expect("an address of its own");
    let with = |other: SocketAddr| {
        Portway::with(&(mapping(open, target.addr, "") + &mapping(other, target.addr, "")))
    };
    let exit = with(taken).args(["--strict"]).launch().exit().with(1);
    exit.says(&format!("bind {taken}/tcp: the address is in use by"))
        .says(&format!("(pid {})", std::process::id()));
    with(taken).env("PORTWAY_STRICT", "true").launch().exit().with(1).says(&taken.to_string());
    // Of the documentation's addresses: it is not here.
    let absent = "192.0.2.200:8080".parse().expect("an address");
    with(absent).args(["--strict"]).launch().exit().with(1).says("bind 192.0.2.200:8080/tcp");
    assert!(!echoes(open), "nothing listens after a start that failed");
}

#[test]
fn a_reload_onto_a_taken_port_is_refused_whole() {
    let target = TcpTarget::echo();
    let (first, free, taken) = (own_addr(8080), own_addr(8081), own_addr(8082));
    let holder = TcpListener::bind(taken).expect("an address of its own");
    let config = mapping(first, target.addr, "");
    let more = config.clone() + &mapping(free, target.addr, "") + &mapping(taken, target.addr, "");
    let mut portway = Portway::with(&config).start();
    let line = portway.refused_reload_with(&more);
    assert!(line.text("error").contains(&format!("(pid {})", std::process::id())), "{}", line.raw());
    assert!(!echoes(free));
    Client::to(first).ping();
    drop(holder);
    portway.reload_with(&more);
    Client::to(taken).ping();
}

#[test]
fn a_listener_waits_for_its_address_and_comes_up_with_it() {
    in_own_network(&[], || {
        let target = TcpTarget::echo();
        let (early, late) = (own_addr(8080), "10.20.30.40:8080".parse().expect("an address"));
        let config =
            mapping(early, target.addr, "name = \"early\"") + &mapping(late, target.addr, "name = \"late\"");
        let mut portway = Portway::with(&config).launch();
        portway.wait_log(messages::LISTENER_WAITING, |line| line.raw().contains("10.20.30.40:8080"));
        portway.wait_log(messages::LISTENING, |line| line.text("mapping") == "early");
        Client::to(early).ping();
        add_address("10.20.30.40".parse().expect("an address"));
        portway.wait_log(messages::LISTENING, |line| line.text("mapping") == "late");
        eventually("the late address is served", || echoes(late).then_some(()));
        portway.stop().with(0);
    });
}

#[test]
fn a_wildcard_serves_addresses_that_come_later() {
    in_own_network(&[], || {
        let target = TcpTarget::echo();
        let _portway = Portway::publishing(&format!("8080:{}", target.addr)).start();
        add_address("10.20.30.41".parse().expect("an address"));
        add_address("fd00::41".parse().expect("an address"));
        for at in ["10.20.30.41:8080", "[fd00::41]:8080", "127.0.0.1:8080", "[::1]:8080"] {
            // The route to a new address may come and go for a moment.
            eventually(&format!("{at} is served"), || echoes(at.parse().expect("an address")).then_some(()));
        }
    });
}

#[test]
fn every_address_is_ipv4_alone_where_ipv6_is_off() {
    in_own_network(&["sysctl"], || {
        let target = TcpTarget::echo();
        run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
        let _portway = Portway::publishing(&format!("8080:{}", target.addr)).start();
        Client::to("127.0.0.1:8080".parse().expect("an address")).ping();
    });
}

#[test]
fn a_privileged_port_without_the_right_names_the_right_and_both_cures() {
    in_own_network(&["setpriv"], || {
        let portway = Portway::publishing("127.0.0.1:80:8080").user(65_534).launch();
        portway
            .exit()
            .with(1)
            .says("127.0.0.1:80")
            .says("CAP_NET_BIND_SERVICE")
            .says("AmbientCapabilities")
            .says("setcap");
    });
}

#[test]
fn a_missing_right_fails_the_start_whatever_else_opens() {
    in_own_network(&["setpriv"], || {
        Portway::publishing("127.0.0.1:80:8080")
            .args(["-p", "127.0.0.1:8081:8080"])
            .user(65_534)
            .launch()
            .exit()
            .with(1)
            .says("CAP_NET_BIND_SERVICE");
    });
}

#[test]
fn a_refused_reload_names_the_program_in_the_way_and_not_portway() {
    in_own_network(&[], || {
        let target = TcpTarget::echo();
        let holder = TcpListener::bind("127.0.0.2:7100").expect("a free port");
        let config = |listen: &str| format!("publish = [\"{listen}:7100:{}\"]\n", target.addr);
        let mut portway = Portway::with(&config("127.0.0.1")).start();
        let line = portway.refused_reload_with(&config("0.0.0.0"));
        let error = line.text("error");
        assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
        assert!(!error.contains(&format!("(pid {})", portway.pid())), "{error}");
        Client::to("127.0.0.1:7100".parse().expect("an address")).ping();
        drop(holder);
    });
}
