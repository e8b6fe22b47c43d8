//! What a UDP flow promises: whole datagrams, the right source, and a path that stays.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use crate::harness::{
    Content, Portway, UdpTarget, add_address, eventually, free_port, in_own_network, messages, own_addr,
    paced, udp_client, udp_mapping,
};

const SIZES: [usize; 7] = [0, 1, 1472, 1500, 2048, 9000, 65_507];

/// A daemon with one mapping to `target`, and where it listens.
fn relay(target: SocketAddr, more: &str) -> (Portway, SocketAddr) {
    let at = own_addr(5353);
    (Portway::with(&udp_mapping(at, target, more)).start(), at)
}

/// Sends a datagram to an echo until it comes back; on a busy machine one may be lost.
#[track_caller]
fn echo_of(client: &UdpSocket, datagram: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; 65_536];
    client.set_read_timeout(Some(Duration::from_millis(500))).expect("a socket takes a timeout");
    eventually(&format!("an answer to {} bytes", datagram.len()), || {
        client.send(datagram).ok()?;
        client.recv(&mut buffer).ok().map(|len| buffer[..len].to_vec())
    })
}

#[test]
fn datagrams_of_every_size_pass_unchanged_both_ways() {
    let content = Content::of(11);
    let target = UdpTarget::echo();
    let (_portway, at) = relay(target.addr, "");
    for len in SIZES {
        // A client of its own, so that a late answer to a repeated datagram is never taken for another's.
        let client = udp_client(at);
        assert_eq!(echo_of(&client, content.piece(0, len)), content.piece(0, len), "{len} bytes");
        let got = target.got();
        let (_, last) = got.last().expect("it came back, so it had arrived");
        assert_eq!(last, content.piece(0, len), "{len} bytes at the target");
    }
}

#[test]
fn a_short_datagram_after_a_long_one_holds_nothing_of_it() {
    let target = UdpTarget::echo();
    let (_portway, at) = relay(target.addr, "");
    let client = udp_client(at);
    let mut buffer = [0; 100];
    for _ in 0..1_000 {
        for datagram in [&b"fifteen letters"[..], b"five!"] {
            client.send(datagram).expect("the client sends");
            let len = client.recv(&mut buffer).expect("the answer comes");
            assert_eq!(&buffer[..len], datagram);
        }
    }
}

#[test]
fn the_answer_comes_from_the_address_that_was_asked() {
    let target = UdpTarget::echo();
    let port = free_port();
    let config = format!("publish = [\"{port}:{}/udp\"]\n", target.addr);
    let _portway = Portway::with(&config).start();
    // A connected socket takes answers only from the address that it asked.
    for ip in ["127.0.0.1", "127.0.0.2", "127.0.0.77"] {
        let at = SocketAddr::new(ip.parse().expect("an address"), port);
        assert_eq!(echo_of(&udp_client(at), b"who are you?"), b"who are you?", "{ip}");
    }
}

#[test]
fn the_answer_comes_from_the_address_that_was_asked_in_ipv6_too() {
    in_own_network(&[], || {
        add_address("fd00::1".parse().expect("an address"));
        add_address("fd00::2".parse().expect("an address"));
        add_address("10.9.9.9".parse().expect("an address"));
        let target = UdpTarget::echo();
        let config = format!("publish = [\"5353:{}/udp\"]\n", target.addr);
        let _portway = Portway::with(&config).start();
        for at in ["[::1]:5353", "[fd00::1]:5353", "[fd00::2]:5353", "10.9.9.9:5353", "127.0.0.2:5353"] {
            let client = udp_client(at.parse().expect("an address"));
            assert_eq!(echo_of(&client, b"who are you?"), b"who are you?", "{at}");
        }
    });
}

#[test]
fn a_target_that_comes_up_gets_the_next_datagram() {
    let (at, behind) = (own_addr(5353), own_addr(5300));
    let _portway = Portway::with(&udp_mapping(at, behind, "")).start();
    let client = udp_client(at);
    client.send(b"A").expect("the client sends");
    // The refusal of A is on its way back to the daemon, or there: B must not be what it eats.
    let probe = udp_client(behind);
    let _ = probe.send(b"");
    probe.recv(&mut [0]).expect_err("no target is there");
    let target = UdpTarget::echo_at(behind);
    client.send(b"B").expect("the client sends");
    eventually("B arrives", || target.got().iter().any(|(_, datagram)| datagram == b"B").then_some(()));
    // On a busy machine A may have been so late that the target was there: then its answer is the first.
    let mut buffer = [0; 10];
    eventually("the answer to B", || {
        let len = client.recv(&mut buffer).expect("an answer comes");
        (&buffer[..len] == b"B").then_some(())
    });
}

#[test]
fn a_one_way_stream_keeps_its_flow() {
    let target = UdpTarget::silent();
    let (portway, at) = relay(target.addr, "idle_timeout = \"3s\"");
    let client = udp_client(at);
    // Three timeouts long, and never one without a datagram.
    paced(Duration::from_millis(500), 20, |nth| {
        client.send(&[u8::try_from(nth).expect("small")]).expect("the client sends");
    });
    eventually("all of it arrives", || (target.got().len() == 20).then_some(()));
    let sources: BTreeSet<SocketAddr> = target.got().into_iter().map(|(from, _)| from).collect();
    assert_eq!(sources.len(), 1, "{sources:?}");
    assert!(portway.sessions_ended().is_empty(), "{}", portway.log());
}

#[test]
fn an_idle_flow_ends_with_one_line_and_gives_its_descriptor_back() {
    let target = UdpTarget::echo();
    let (mut portway, at) = relay(target.addr, "idle_timeout = \"1s\"");
    let base = portway.fds();
    let client = udp_client(at);
    assert_eq!(echo_of(&client, b"hello"), b"hello");
    let line = portway.wait_session();
    assert_eq!(line.text("protocol"), "udp");
    assert_eq!(line.text("mapping"), "5353/udp");
    assert_eq!(line.text("target.addr"), target.addr.to_string());
    assert_eq!(line.text("client.addr").rsplit(':').next(), Some(&*port_of(&client)));
    assert_eq!(line.number("bytes.in"), line.number("bytes.out"));
    assert_eq!(line.text("reason"), "idle");
    portway.wait_fds(base);
    // The same client again is a new flow.
    assert_eq!(echo_of(&client, b"again"), b"again");
    portway.wait_sessions(2);
}

fn port_of(socket: &UdpSocket) -> String {
    socket.local_addr().expect("a bound socket has an address").port().to_string()
}

#[test]
fn the_first_datagram_of_the_shortest_timeout_is_delivered() {
    let target = UdpTarget::echo();
    let (_portway, at) = relay(target.addr, "idle_timeout = \"1ms\"");
    let client = udp_client(at);
    for nth in 0..20_usize {
        client.send(&[7]).expect("the client sends");
        eventually("it arrives", || (target.got().len() == nth + 1).then_some(()));
    }
}

#[test]
fn many_clients_each_get_their_own_answers() {
    let target = UdpTarget::echo();
    let (portway, at) = relay(target.addr, "idle_timeout = \"2s\"");
    let base = portway.fds();
    let clients: Vec<UdpSocket> = (0..200).map(|_| udp_client(at)).collect();
    for (nth, client) in clients.iter().enumerate() {
        let own = format!("client {nth}");
        assert_eq!(echo_of(client, own.as_bytes()), own.as_bytes());
    }
    portway.wait_fds(base);
}

#[test]
fn ten_thousand_questions_of_one_client_are_all_answered_with_the_defaults() {
    const AT_ONCE: usize = 4;
    let target = UdpTarget::echo();
    let (portway, at) = relay(target.addr, "");
    let lost = std::thread::scope(|scope| {
        let asking = || (0..10_000 / AT_ONCE).filter(|nth| !is_answered(at, *nth)).count();
        let askers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(asking)).collect();
        askers.into_iter().map(|asker| asker.join().expect("a client asks")).sum::<usize>()
    });
    // The kernel of a busy machine may drop one.
    assert!(lost <= 10, "{lost} questions without an answer\n{}", portway.log());
}

/// Asks one question from a port of its own, as a program that looks up a name does.
fn is_answered(at: SocketAddr, nth: usize) -> bool {
    let client = udp_client(at);
    client.set_read_timeout(Some(Duration::from_secs(2))).expect("a socket takes a timeout");
    let question = nth.to_string();
    let mut answer = [0; 20];
    client.send(question.as_bytes()).is_ok()
        && client.recv(&mut answer).is_ok_and(|len| &answer[..len] == question.as_bytes())
}

#[test]
fn a_client_at_its_cap_loses_only_flows_that_were_answered() {
    let (target, silent) = (UdpTarget::echo(), UdpTarget::silent());
    let (at, other) = (own_addr(5353), own_addr(5353));
    let terms = "max_sessions_per_client = 3";
    let config = udp_mapping(at, target.addr, &format!("name = \"a\"\n{terms}"))
        + &udp_mapping(other, silent.addr, &format!("name = \"b\"\n{terms}"));
    let mut portway = Portway::with(&config).start();
    let clients: Vec<UdpSocket> = (0..5).map(|_| udp_client(at)).collect();
    for client in &clients {
        assert_eq!(echo_of(client, b"?"), b"?");
    }
    // The two oldest made way, in their order.
    let ended: Vec<String> =
        portway.wait_sessions(2).iter().map(|line| line.text("client.addr").to_owned()).collect();
    let oldest = [port_of(&clients[0]), port_of(&clients[1])];
    assert!(ended.iter().all(|addr| oldest.iter().any(|port| addr.ends_with(port))), "{ended:?}");
    // None of these was answered: the fourth is refused.
    let waiting: Vec<UdpSocket> = (0..4).map(|_| udp_client(other)).collect();
    for client in &waiting {
        client.send(b"?").expect("the client sends");
    }
    let refused = portway.wait_log(messages::SESSIONS_REFUSED, |line| line.text("mapping") == "b");
    assert_eq!(refused.text("reasons"), "client-full 1");
    eventually("three arrive", || (silent.got().len() == 3).then_some(()));
    assert_eq!(portway.sessions_ended().len(), 2, "{}", portway.log());
}

#[test]
fn a_flow_that_was_asked_and_answered_once_is_over_sooner() {
    let target = UdpTarget::echo();
    let (mut portway, at) = relay(target.addr, "");
    let base = portway.fds();
    let (once, twice) = (udp_client(at), udp_client(at));
    assert_eq!(echo_of(&twice, b"1"), b"1");
    assert_eq!(echo_of(&twice, b"2"), b"2");
    assert_eq!(echo_of(&once, b"only"), b"only");
    let line = portway.wait_session();
    assert_eq!(
        (line.text("reason"), &*port_of(&once)),
        ("idle", line.text("client.addr").rsplit(':').next().unwrap_or_default())
    );
    assert_eq!(portway.sessions_ended().len(), 1, "the other flow lives on");
    portway.wait_fds(base + 1);
}

#[test]
fn one_clients_trouble_is_not_anothers() {
    let (dead, at) = (own_addr(9009), own_addr(5353));
    let target = UdpTarget::echo();
    let other = own_addr(5353);
    let config =
        udp_mapping(at, dead, "name = \"dead\"") + &udp_mapping(other, target.addr, "name = \"alive\"");
    let mut portway = Portway::with(&config).start();
    let client = udp_client(at);
    for _ in 0..100 {
        // The refusal may come back to the client as well: its own trouble.
        let _ = client.send(b"anyone?");
    }
    assert_eq!(echo_of(&udp_client(other), b"hello"), b"hello");
    assert!(portway.runs());
    // The listener in front of the dead target still takes what comes: a target there is served at once.
    let late = UdpTarget::echo_at(dead);
    assert_eq!(echo_of(&udp_client(at), b"late"), b"late");
    drop(late);
}

#[test]
fn a_second_daemon_on_the_same_port_fails_and_names_the_first() {
    let target = UdpTarget::echo();
    let (first, at) = relay(target.addr, "");
    let second = Portway::with(&udp_mapping(at, target.addr, "")).launch();
    let exit = second.exit().with(1).says(&at.to_string()).says(&first.pid().to_string());
    assert!(exit.log.contains("portway"), "{}", exit.log);
    // And it did not take anything from the first one.
    assert_eq!(echo_of(&udp_client(at), b"still here"), b"still here");
}

#[test]
fn a_stop_does_not_wait_for_a_client_that_is_silent() {
    let target = UdpTarget::echo();
    let at = own_addr(5353);
    let config = udp_mapping(at, target.addr, "") + "[shutdown]\ngrace = \"10m\"\n";
    let portway = Portway::with(&config).start();
    assert_eq!(echo_of(&udp_client(at), b"hello"), b"hello");
    // Far sooner than the grace, or this fails by its deadline.
    let exit = portway.stop().with(0);
    let reasons: Vec<&str> = exit.sessions_ended().into_iter().map(|line| line.text("reason")).collect();
    assert_eq!(reasons, ["shutdown"]);
}
