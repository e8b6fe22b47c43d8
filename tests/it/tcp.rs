//! What a TCP session promises: every byte, every end, told apart and reported once.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr},
    thread,
    time::Duration,
};

use tokio::time::Instant;

use crate::harness::{
    Client, Content, Line, Portway, TcpTarget, echoes, eventually, is_reset, mapping, messages, own_addr,
    paced, reset_seen,
};

const MIB: u64 = 1024 * 1024;

/// A daemon with one mapping to `target`, and where it listens.
fn relay(target: SocketAddr, more: &str) -> (Portway, SocketAddr) {
    let at = own_addr(8080);
    (Portway::with(&mapping(at, target, more)).start(), at)
}

fn reason(line: &Line) -> &str {
    line.text("reason")
}

#[test]
fn a_gibibyte_each_way_at_once_arrives_unchanged() {
    const TOTAL: u64 = 1024 * MIB;
    let (up, down) = (Content::of(1), Content::of(2));
    let (target, connections) = TcpTarget::manual();
    let (mut portway, at) = relay(target.addr, "");

    let client = Client::to(at);
    let server = connections.next();
    let sends = [(&client.0, &up), (&server, &down)];
    let receives = [(&server, &up), (&client.0, &down)];
    thread::scope(|scope| {
        for (mut stream, content) in sends {
            scope.spawn(move || {
                content.send(&mut stream, TOTAL).expect("all of it is taken");
                stream.shutdown(Shutdown::Write).expect("the side ends");
            });
        }
        for (mut stream, content) in receives {
            scope.spawn(move || assert_eq!(content.receive(&mut stream).expect("all of it comes"), TOTAL));
        }
    });

    let line = portway.wait_session();
    assert_eq!((line.number("bytes.in"), line.number("bytes.out")), (TOTAL, TOTAL));
}

#[test]
fn a_half_closed_client_still_gets_its_answer() {
    let content = Content::of(3);
    let target = TcpTarget::answers_after_eof(&content, MIB);
    let (_portway, at) = relay(target.addr, "");
    for _ in 0..20 {
        let mut client = Client::to(at);
        client.say(b"that was my question");
        client.finish();
        assert_eq!(content.receive(&mut client.0).expect("the answer comes"), MIB);
    }
}

#[test]
fn a_half_closed_target_still_gets_the_rest() {
    let content = Content::of(4);
    let (target, connections) = TcpTarget::manual();
    let (mut portway, at) = relay(target.addr, "");
    let mut client = Client::to(at);
    let mut server = connections.next();
    server.write_all(b"bye").expect("the target speaks");
    server.shutdown(Shutdown::Write).expect("the target ends its side");
    assert_eq!(client.hear(3), b"bye");
    assert_eq!(client.0.read(&mut [0]).expect("an orderly end"), 0);

    thread::scope(|scope| {
        let received = scope.spawn(|| content.receive(&mut server).expect("the rest comes"));
        content.send(&mut client.0, MIB).expect("the client still sends");
        client.finish();
        assert_eq!(received.join().expect("it compares"), MIB);
    });
    assert_eq!(reason(&portway.wait_session()), "target-closed");
}

#[test]
fn a_trickle_after_half_close_lives() {
    let (target, connections) = TcpTarget::manual();
    let (mut portway, at) = relay(target.addr, "half_close_timeout = \"3s\"");
    let mut client = Client::to(at);
    let mut server = connections.next();
    client.finish();
    assert_eq!(server.read(&mut [0]).expect("an orderly end"), 0);

    // Seven seconds, more than twice the timeout, and never three without a byte.
    paced(Duration::from_secs(1), 7, |_| {
        server.write_all(b".").expect("the session lives");
        assert_eq!(client.hear(1), b".");
    });
    drop(server);
    assert_eq!(client.0.read(&mut [0]).expect("an orderly end"), 0);
    assert_eq!(reason(&portway.wait_session()), "client-closed");
}

#[test]
fn a_silent_peer_after_half_close_is_reaped() {
    let (target, connections) = TcpTarget::manual();
    let (mut portway, at) = relay(target.addr, "half_close_timeout = \"1s\"");
    let base = portway.fds();
    let mut clients: Vec<Client> = (0..10).map(|_| Client::to(at)).collect();
    let servers: Vec<_> = (0..10).map(|_| connections.next()).collect();
    clients.iter().for_each(Client::finish);
    clients.iter_mut().for_each(Client::until_closed);
    for line in portway.wait_sessions(10) {
        assert_eq!(reason(&line), "half-close-timeout");
    }
    portway.wait_fds(base);
    drop(servers);
}

#[test]
fn a_thousand_resets_leave_the_listener_serving() {
    let target = TcpTarget::echo();
    // Resets come faster than a busy machine can take them in: the cap is not what is tested here.
    let (portway, at) = relay(target.addr, "max_sessions_per_client = \"unlimited\"");
    let base = portway.fds();
    for _ in 0..1_000 {
        Client::to(at).reset();
    }
    Client::to(at).ping();
    portway.wait_fds(base);
}

#[test]
fn the_last_chunk_before_a_close_is_delivered() {
    let content = Content::of(5);
    for len in [1, 1_000, 16 * 1024, 100_000, MIB] {
        let target = TcpTarget::writes_and_closes(&content, len);
        let (mut portway, at) = relay(target.addr, "");
        for _ in 0..10 {
            let mut client = Client::to(at);
            assert_eq!(content.receive(&mut client.0).expect("an orderly end"), len);
        }
        for line in portway.wait_sessions(10) {
            assert_eq!((line.number("bytes.out"), reason(&line)), (len, "target-closed"));
        }
    }
}

#[test]
fn a_target_that_is_down_closes_the_client_long_before_connect_timeout() {
    let absent = own_addr(9009);
    let (mut portway, at) = relay(absent, "connect_timeout = \"10m\"");
    let mut client = Client::to(at);
    client.until_closed();
    let line = portway.wait_session();
    assert_eq!(reason(&line), "unreachable");
    assert_eq!(line.text("target.addr"), absent.to_string());
}

#[test]
fn a_reset_of_the_client_is_a_reset_at_the_target() {
    let (target, connections) = TcpTarget::manual();
    let (mut portway, at) = relay(target.addr, "");
    let mut client = Client::to(at);
    client.say(b"hello");
    let mut server = connections.next();
    server.read_exact(&mut [0; 5]).expect("the greeting arrives");
    client.reset();
    assert!(reset_seen(&mut server), "the target saw an orderly end");
    assert_eq!(reason(&portway.wait_session()), "client-error");
}

#[test]
fn a_reset_of_the_target_is_a_reset_at_the_client() {
    let target = TcpTarget::resets();
    let (mut portway, at) = relay(target.addr, "");
    let mut client = Client::to(at);
    client.say(b"x");
    assert!(reset_seen(&mut client.0), "the client saw an orderly end");
    assert_eq!(reason(&portway.wait_session()), "target-error");
}

#[test]
fn a_reset_while_bytes_are_in_flight_frees_everything() {
    let content = Content::of(6);
    let (target, connections) = TcpTarget::manual();
    let (mut portway, at) = relay(target.addr, "");
    // Pipes that are not in use are kept for later sessions: up to eight, of two descriptors each, for a worker, and
    // never one for each session.
    let pipes = 16 * thread::available_parallelism().expect("a processor").get();
    let base = portway.fds() + pipes;
    for _ in 0..100 {
        let client = Client::to(at);
        let mut server = connections.next();
        // The client reads nothing, so the bytes fill every buffer on the way before the reset.
        let content = content.clone();
        let writes = thread::spawn(move || content.send(&mut server, 64 * MIB));
        let mut first = [0; 1];
        client.0.peek(&mut first).expect("the first bytes arrive");
        client.reset();
        let error = writes.join().expect("it only writes").expect_err("the reset arrives");
        assert!(is_reset(&error), "{error}");
    }
    for line in portway.wait_sessions(100) {
        assert_eq!(reason(&line), "client-error");
    }
    portway.wait_fds(base);
}

#[test]
fn an_idle_session_is_ended_and_a_busy_one_is_not() {
    let target = TcpTarget::echo();
    let (mut portway, at) = relay(target.addr, "idle_timeout = \"3s\"");
    let mut idle = Client::to(at);
    let mut busy = Client::to(at);
    idle.ping();
    paced(Duration::from_millis(500), 12, |_| busy.ping());
    idle.until_closed();
    assert_eq!(reason(&portway.wait_session()), "idle");
    busy.ping();
    assert_eq!(portway.sessions_ended().len(), 1);
}

#[test]
fn one_direction_alone_keeps_a_session_from_being_idle() {
    let (target, connections) = TcpTarget::manual();
    let (portway, at) = relay(target.addr, "idle_timeout = \"3s\"");
    let mut client = Client::to(at);
    let mut server = connections.next();
    // Two timeouts long, and never a tenth of one without a byte.
    paced(Duration::from_millis(300), 20, |_| {
        server.write_all(b".").expect("the session lives");
        assert_eq!(client.hear(1), b".");
    });
    assert!(portway.sessions_ended().is_empty());
}

#[test]
fn the_end_of_the_client_reaches_a_target_that_says_nothing() {
    let (target, connections) = TcpTarget::manual();
    let (_portway, at) = relay(target.addr, "");
    let mut client = Client::to(at);
    client.say(b"x");
    client.finish();
    let mut all = Vec::new();
    connections.next().read_to_end(&mut all).expect("an orderly end");
    assert_eq!(all, b"x");
}

#[test]
fn a_slow_reader_gets_all_of_a_target_that_closed_early() {
    const TOTAL: u64 = 32 * MIB;
    let content = Content::of(7);
    let target = TcpTarget::writes_and_closes(&content, TOTAL);
    let (mut portway, at) = relay(target.addr, "");
    let mut client = Client::to(at);
    let mut offset = 0;
    paced(Duration::from_millis(20), 50, |_| {
        let piece = client.hear(1_000);
        content.compare(offset, &piece);
        offset += 1_000;
    });
    let mut buffer = vec![0; 100_000];
    while let len @ 1.. = client.0.read(&mut buffer).expect("an orderly end") {
        content.compare(offset, &buffer[..len]);
        offset += len as u64;
    }
    assert_eq!(offset, TOTAL);
    drop(client);
    let line = portway.wait_session();
    assert_eq!((line.number("bytes.out"), reason(&line)), (TOTAL, "target-closed"));
}

#[test]
fn a_slow_target_gets_all_of_a_client_that_closed_early() {
    const TOTAL: u64 = 32 * MIB;
    let content = Content::of(8);
    let (target, connections) = TcpTarget::manual();
    let (mut portway, at) = relay(target.addr, "");
    let mut client = Client::to(at);
    let mut server = connections.next();
    let sent = content.clone();
    let sends = thread::spawn(move || sent.send(&mut client.0, TOTAL));
    let mut offset = 0;
    paced(Duration::from_millis(20), 50, |_| {
        let mut piece = [0; 1_000];
        server.read_exact(&mut piece).expect("a piece arrives");
        content.compare(offset, &piece);
        offset += 1_000;
    });
    let mut buffer = vec![0; 100_000];
    while let len @ 1.. = server.read(&mut buffer).expect("an orderly end") {
        content.compare(offset, &buffer[..len]);
        offset += len as u64;
    }
    sends.join().expect("it only writes").expect("all of it was taken");
    assert_eq!(offset, TOTAL);
    drop(server);
    let line = portway.wait_session();
    assert_eq!((line.number("bytes.in"), reason(&line)), (TOTAL, "client-closed"));
}

#[test]
fn every_session_has_one_line_with_its_addresses_and_bytes() {
    let (target, connections) = TcpTarget::manual();
    let (mut portway, at) = relay(target.addr, "name = \"front.door\"");
    let began = Instant::now();
    let mut client = Client::to(at);
    let mut server = connections.next();
    client.say(b"12345");
    server.read_exact(&mut [0; 5]).expect("the question arrives");
    server.write_all(b"123").expect("the target answers");
    assert_eq!(client.hear(3), b"123");
    let from = client.0.local_addr().expect("a connected socket has an address");
    client.finish();
    assert_eq!(server.read(&mut [0]).expect("an orderly end"), 0);
    drop(server);
    client.until_closed();

    let line = portway.wait_session();
    assert_eq!(line.text("mapping"), "front.door");
    assert_eq!(line.text("protocol"), "tcp");
    assert_eq!(line.text("client.addr"), from.to_string());
    assert_eq!(line.text("listen.addr"), at.to_string());
    assert_eq!(line.text("target.addr"), target.addr.to_string());
    assert_eq!((line.number("bytes.in"), line.number("bytes.out")), (5, 3));
    assert!(u128::from(line.number("duration_ms")) <= began.elapsed().as_millis(), "{}", line.raw());
    assert_eq!(reason(&line), "client-closed");
    assert_eq!(portway.stop().with(0).sessions_ended().len(), 1);
}

#[test]
fn many_sessions_at_once_have_one_line_each() {
    let target = TcpTarget::echo();
    // Clients come faster than a busy machine sees others go: the cap is not what is tested here.
    let (mut portway, at) = relay(target.addr, "max_sessions_per_client = \"unlimited\"");
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    Client::to(at).ping();
                }
            });
        }
    });
    let lines = portway.wait_sessions(400);
    assert!(lines.iter().all(|line| line.number("bytes.in") == 4 && line.number("bytes.out") == 4));
    assert_eq!(target.accepted(), 400);
    assert_eq!(portway.stop().with(0).sessions_ended().len(), 400);
}

#[test]
fn sessions_of_a_stopping_daemon_say_so() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let config = mapping(at, target.addr, "") + "[shutdown]\ngrace = \"1s\"\n";
    let portway = Portway::with(&config).start();
    let mut client = Client::to(at);
    client.ping();
    let exit = portway.stop().with(0);
    let reasons: Vec<&str> = exit.sessions_ended().into_iter().map(reason).collect();
    assert_eq!(reasons, ["shutdown"]);
    client.until_closed();
}

#[test]
fn a_target_named_by_a_host_name_is_reached() {
    let target = TcpTarget::echo_at(([127, 0, 0, 1], 0).into());
    let at = own_addr(8080);
    let port = target.addr.port();
    let config = format!("publish = [\"{at}:localhost:{port}\"]\n");
    let mut portway = Portway::with(&config).start();
    Client::to(at).ping();
    assert_eq!(portway.wait_session().text("target.addr"), target.addr.to_string());
}

#[test]
fn the_next_target_is_tried_when_the_first_is_down() {
    let target = TcpTarget::echo();
    let (at, absent) = (own_addr(8080), own_addr(9009));
    let up = target.addr;
    let config = format!(
        "[[mapping]]\nname = \"pair\"\nlisten = [\"{at}\"]\ntargets = [\"{absent}\", \"{up}\"]\nbalance = \"first\"\n"
    );
    let mut portway = Portway::with(&config).start();
    for _ in 0..4 {
        let mut client = Client::to(at);
        client.ping();
        client.finish();
        client.until_closed();
    }
    for line in portway.wait_sessions(4) {
        assert_eq!((line.text("target.addr"), reason(&line)), (&*up.to_string(), "client-closed"));
    }
}

#[test]
fn a_target_that_comes_back_is_served_again() {
    let (at, behind) = (own_addr(8080), own_addr(8000));
    let mut portway = Portway::with(&mapping(at, behind, "")).start();
    assert!(!echoes(at));
    assert_eq!(reason(&portway.wait_session()), "unreachable");
    let _target = TcpTarget::echo_at(behind);
    eventually("the target is served", || echoes(at).then_some(()));
}

#[test]
fn a_connect_to_a_silent_network_has_connect_timeout_and_ends() {
    // A listener whose queue is full answers no further connection: a network that swallows packets.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    full.bind(&own_addr(0).into()).expect("a target binds");
    full.listen(0).expect("a target listens");
    let hole = full.local_addr().ok().and_then(|addr| addr.as_socket()).expect("an address");
    let _queued = Client::to(hole);

    let (mut portway, at) = relay(hole, "connect_timeout = \"1s\"");
    let mut client = Client::to(at);
    client.until_closed();
    let line = portway.wait_session();
    assert_eq!(reason(&line), "unreachable");
    assert!(line.number("duration_ms") >= 900, "{}", line.raw());
}

#[test]
fn a_client_that_resets_while_its_target_is_dialled_leaves_nothing() {
    let absent = own_addr(9009);
    let (portway, at) = relay(absent, "");
    let base = portway.fds();
    for _ in 0..200 {
        Client::to(at).reset();
    }
    portway.wait_fds(base);
    Client::to(at).until_closed();
}

#[test]
fn a_daemon_with_its_fast_paths_off_logs_that_and_relays() {
    let (target, at) = (TcpTarget::echo(), own_addr(8080));
    let mut portway = Portway::with(&mapping(at, target.addr, "")).env("PORTWAY_FAST_PATHS", "off").start();
    portway.wait_text(messages::FAST_PATHS_ARE_OFF);
    Client::to(at).ping();
}
