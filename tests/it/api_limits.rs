//! What a client of the API may take of the daemon: places, bytes and time; and that the relay does not pay for it.

use std::{
    io::{Read, Write},
    time::Duration,
};

use tokio::time::Instant;

use crate::harness::{
    Api, Client, Portway, TcpTarget, echoes, eventually, eventually_within, mapping, own_addr, paced,
};

/// How long a client that does not read may stay: its limit, and time for a busy machine.
const GIVEN_UP: Duration = Duration::from_secs(60);

fn config(listen: std::net::SocketAddr) -> String {
    format!("{}[api]\nlisten = \"{listen}\"\n", mapping(own_addr(8080), own_addr(8000), "name = \"web\""))
}

#[test]
fn the_client_after_the_last_place_hears_why_and_the_socket_has_places_of_its_own() {
    let listen = own_addr(7678);
    let portway = Portway::with(&config(listen)).start();
    let api = Api::Tcp(listen);
    let inside: Vec<_> = (0..64).map(|_| api.connect()).collect();
    let reply = eventually("a client is turned away", || {
        let reply = api.raw(&api.request("GET", "/healthz", &[], None))?;
        (reply.status == 503).then_some(reply)
    });
    assert!(reply.error().contains("as many clients"), "{reply:?}");
    portway.api().get("/healthz").is(200);
    drop(inside);
    eventually("there are places again", || (api.get("/healthz").status == 200).then_some(()));
}

#[test]
fn a_head_that_is_too_long_or_too_slow_ends_the_connection() {
    let listen = own_addr(7678);
    let _portway = Portway::with(&config(listen)).start();
    let api = Api::Tcp(listen);
    let long = "x".repeat(100_000);
    let reply = api.send("GET", "/healthz", &[("x-long", &long)], None);
    assert_eq!(reply.status, 431);
    let many: Vec<(String, String)> = (0..200).map(|n| (format!("x-{n}"), "y".to_owned())).collect();
    let many: Vec<_> = many.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(api.send("GET", "/healthz", &many, None).status, 431);
    assert_eq!(api.raw(b"HELO portway\r\n\r\n").expect("a reply").status, 400);

    let (started, mut slow) = (Instant::now(), api.connect());
    let request = b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow: ";
    slow.write_all(request).unwrap();
    let mut sent = 0;
    while slow.write_all(b"x").is_ok() && sent < 60 {
        sent += 1;
        paced(Duration::from_millis(500), 1, |_| {});
    }
    assert!(started.elapsed() < Duration::from_secs(20), "a head may take {:?}", started.elapsed());
}

#[test]
fn a_body_that_is_too_large_or_too_slow_is_refused() {
    let listen = own_addr(7678);
    let portway = Portway::with(&config(listen)).start();
    let json = [("content-type", "application/json")];
    for api in [Api::Tcp(listen), portway.api()] {
        let large = format!("{{\"token\": \"{}\"}}", "x".repeat(64 * 1024));
        api.send("POST", "/v1/login", &json, Some(&large)).is(413);
        let huge = format!("{{\"token\": \"{}\"}}", "x".repeat(4 << 20));
        if let Some(reply) = api.raw(&api.request("POST", "/v1/login", &json, Some(&huge))) {
            reply.is(413);
        }
        let chunked = [("content-type", "application/json"), ("transfer-encoding", "chunked")];
        let mut endless = api.request("POST", "/v1/login", &chunked, None);
        for _ in 0..100 {
            endless.extend_from_slice(format!("1000\r\n{}\r\n", "x".repeat(4096)).as_bytes());
        }
        endless.extend_from_slice(b"0\r\n\r\n");
        api.raw(&endless).expect("a reply").is(413);
    }
    let api = Api::Tcp(listen);
    let mut slow = api.connect();
    let head = [("content-type", "application/json"), ("content-length", "100")];
    slow.write_all(&api.request("POST", "/v1/login", &head, None)).unwrap();
    slow.write_all(b"{").unwrap();
    let started = Instant::now();
    slow.reply().expect("a reply").is(408);
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_client_that_does_not_read_is_given_up() {
    let listen = own_addr(7678);
    let portway = Portway::with(&config(listen)).start();
    for api in [Api::Tcp(listen), portway.api()] {
        let base = portway.fds();
        // Answers of some megabytes, and none is read.
        let (mut deaf, started) = (api.connect(), Instant::now());
        let request = api.request("GET", "/v1/status", &[("connection", "keep-alive")], None);
        let requests = request.repeat(3_000);
        let sender = deaf.twin();
        std::thread::spawn(move || drop(deaf.write_all(&requests)));
        eventually("the deaf client is inside", || (portway.fds() > base).then_some(()));
        eventually_within(GIVEN_UP, "the deaf client is given up", || (portway.fds() <= base).then_some(()));
        assert!(started.elapsed() > Duration::from_secs(15), "after {:?}", started.elapsed());
        drop(sender);
        assert!(portway.memory() < 64 * 1024, "{} KiB", portway.memory());
    }
}

#[test]
fn the_relay_goes_on_while_the_api_is_flooded() {
    let target = TcpTarget::echo();
    let (at, listen) = (own_addr(8080), own_addr(7678));
    let config = format!("{}[api]\nlisten = \"{listen}\"\n", mapping(at, target.addr, "name = \"web\""));
    let mut portway = Portway::with(&config).descriptors(1024).start();
    let mut before = Client::to(at);
    before.ping();
    let api = Api::Tcp(listen);
    let flood: Vec<_> = (0..300).map(|_| api.connect()).collect();
    for _ in 0..20 {
        before.ping();
        assert!(echoes(at), "a new session");
    }
    // Descriptors of the relay are not touched.
    let sessions: Vec<Client> = (0..200).map(|_| Client::to(at)).collect();
    for mut session in sessions {
        session.ping();
    }
    drop((flood, before));
    assert!(portway.runs());
    eventually("the API answers again", || (api.get("/healthz").status == 200).then_some(()));
    portway.stop().with(0);
}

#[test]
fn a_client_under_way_does_not_hold_up_the_end() {
    let listen = own_addr(7678);
    let portway = Portway::with(&config(listen)).start();
    let api = Api::Tcp(listen);
    let mut idle: Vec<_> = (0..5).map(|_| api.connect()).collect();
    for line in &mut idle {
        line.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
    }
    let started = Instant::now();
    portway.stop().with(0);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    for mut line in idle {
        let mut rest = Vec::new();
        let _ = line.read_to_end(&mut rest);
    }
}
