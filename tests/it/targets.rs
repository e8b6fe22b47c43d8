//! What a mapping knows of its targets: which are down, and which to try first.

use std::{
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    path::Path,
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use tokio::time::Instant;

use crate::harness::{
    Client, Line, Portway, Setup, TcpTarget, add_address, echoes, eventually, in_own_network, mapping,
    messages, own_addr, portway, run, udp_client,
};

/// Lays the files of FILES over those of /etc, for the daemon alone.
const WITH_FILES: &str = r#"for file in "$FILES"/*; do
    [ -e "/etc/${file##*/}" ] && mount --bind "$file" "/etc/${file##*/}"
done
exec "$@""#;

/// The daemon with a /etc of the test's own.
fn with_files(setup: Setup, files: &Path) -> Setup {
    setup
        .env("FILES", files.to_str().expect("a plain path"))
        .through(["unshare", "--mount", "--", "sh", "-c", WITH_FILES, "sh"])
}

/// A directory with a file `hosts`.
fn hosts(text: &str) -> tempfile::TempDir {
    let files = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(files.path().join("hosts"), format!("127.0.0.1 localhost\n{text}")).expect("a file");
    files
}

/// An address that swallows connections: a listener whose queue is full.
struct Hole {
    addr: SocketAddr,
    _listener: Socket,
    _queued: Vec<TcpStream>,
}

impl Hole {
    fn at(addr: SocketAddr) -> Self {
        let listener = Socket::new(Domain::for_address(addr), Type::STREAM, None).expect("a socket");
        listener.bind(&addr.into()).expect("a target binds");
        listener.listen(0).expect("a target listens");
        let addr = listener.local_addr().ok().and_then(|addr| addr.as_socket()).expect("an address");
        let queue = || TcpStream::connect_timeout(&addr, Duration::from_millis(300)).ok();
        let queued = std::iter::from_fn(queue).collect();
        Self { addr, _listener: listener, _queued: queued }
    }
}

#[test]
fn a_target_that_goes_down_is_one_warning_and_its_return_one_line() {
    let (at, behind) = (own_addr(8080), own_addr(8000));
    let config = mapping(at, behind, "name = \"web\"");
    let mut portway = Portway::with(&config).start();
    for _ in 0..10 {
        Client::to(at).until_closed();
    }
    portway.wait_sessions(10);
    let lines = portway.lines(messages::TARGET_DOWN);
    assert_eq!(lines.len(), 1, "{}", portway.log());
    let down = &lines[0];
    assert_eq!((down.text("level"), down.text("mapping"), down.text("protocol")), ("WARN", "web", "tcp"));
    assert_eq!(down.text("target.addr"), behind.to_string());
    assert_eq!(down.number("sessions.failed"), 1);
    assert!(down.text("error").contains("refused"), "{}", down.raw());
    assert_eq!(portway.count(messages::TARGET_UP), 0);

    let target = TcpTarget::echo_at(behind);
    for _ in 0..5 {
        eventually("the target is served", || echoes(at).then_some(()));
    }
    let up = portway.wait_log(messages::TARGET_UP, |_| true);
    assert_eq!((up.text("level"), up.text("mapping"), up.text("protocol")), ("INFO", "web", "tcp"));
    assert_eq!(up.text("target.addr"), behind.to_string());
    assert_eq!(up.number("sessions.failed"), 10);
    assert!(up.number("down_ms") > 0, "{}", up.raw());

    drop(target);
    Client::to(at).until_closed();
    portway.wait_log(messages::TARGET_DOWN, |line| line.number("sessions.failed") == 1);
    let exit = portway.stop();
    assert_eq!(
        (exit.lines(messages::TARGET_DOWN).len(), exit.lines(messages::TARGET_UP).len()),
        (2, 1),
        "{}",
        exit.log
    );
}

#[test]
fn a_first_target_that_is_down_is_said_though_the_second_serves() {
    let (at, dead) = (own_addr(8080), own_addr(8000));
    let target = TcpTarget::echo();
    let config = format!(
        "[[mapping]]\nname = \"pair\"\nlisten = [\"{at}\"]\ntargets = [\"{dead}\", \"{}\"]\nbalance = \"first\"\n",
        target.addr
    );
    let mut portway = Portway::with(&config).start();
    Client::to(at).ping();
    let down = portway.wait_log(messages::TARGET_DOWN, |_| true);
    assert_eq!((down.text("mapping"), down.text("target.addr")), ("pair", &*dead.to_string()));
}

#[test]
fn a_target_that_resets_its_sessions_is_not_down() {
    let at = own_addr(8080);
    let target = TcpTarget::resets();
    let mut portway = Portway::with(&mapping(at, target.addr, "")).start();
    for _ in 0..5 {
        let mut client = Client::to(at);
        client.say(b"x");
        client.until_closed();
    }
    portway.wait_sessions(5);
    assert_eq!(portway.count(messages::TARGET_DOWN), 0, "{}", portway.log());
}

#[test]
fn a_target_that_swallows_connections_costs_its_time_once() {
    let (hole, target, at) = (Hole::at(own_addr(0)), TcpTarget::echo(), own_addr(8080));
    let config = format!(
        "[[mapping]]\nlisten = [\"{at}\"]\ntargets = [\"{}\", \"{}\"]\nbalance = \"first\"\n\
         connect_timeout = \"6s\"\n",
        hole.addr, target.addr
    );
    let mut portway = Portway::with(&config).start();
    let begun = Instant::now();
    Client::to(at).ping();
    assert!(begun.elapsed() >= Duration::from_secs(6), "the first target has its time");
    portway.wait_log(messages::TARGET_DOWN, |line| line.text("target.addr") == hole.addr.to_string());
    // If it had that time again, the next client would not hear its echo in time.
    portway.reload_with(&config.replace("\"6s\"", "\"10m\""));
    Client::to(at).ping();
}

#[test]
fn a_silent_address_of_a_name_costs_a_head_start_and_is_tried_last_then() {
    in_own_network(&["mount"], || {
        let v6 = IpAddr::from([0xfd00, 5, 0, 0, 0, 0, 0, 1]);
        add_address(v6);
        let hole = Hole::at((v6, 7000).into());
        let _target = TcpTarget::echo_at(([127, 0, 0, 1], 7000).into());
        let (files, at) = (hosts("fd00:5::1 dual.test\n127.0.0.1 dual.test\n"), own_addr(8080));
        let config = format!("[[mapping]]\npublish = \"{at}:dual.test:7000\"\nconnect_timeout = \"2m\"\n");
        let portway = with_files(Portway::with(&config), files.path()).start();
        // One after the other, each would have half of the time, and the client would not hear its echo in time.
        for _ in 0..3 {
            Client::to(at).ping();
        }
        assert_eq!(portway.count(messages::TARGET_DOWN), 0, "one of its addresses serves");
        drop(hole);
    });
}

#[test]
fn each_address_of_a_name_has_all_the_time() {
    in_own_network(&["mount", "nft"], || {
        // The first packet of each connection is lost, and the kernel sends the next one after a second.
        run("nft add table inet lossy");
        run(
            "nft add set inet lossy seen { type ipv4_addr . ipv4_addr . inet_service ; size 65535 ; flags dynamic ; }",
        );
        run("nft add chain inet lossy in { type filter hook input priority 0 ; }");
        let syn = "nft add rule inet lossy in tcp dport 7000 tcp flags & (syn|ack) == syn";
        run(&format!("{syn} ip saddr . ip daddr . tcp sport @seen accept"));
        run(&format!("{syn} add @seen {{ ip saddr . ip daddr . tcp sport }} drop"));
        let addresses: Vec<_> = (1..=6).map(|n| format!("127.6.0.{n}")).collect();
        let targets: Vec<_> = addresses
            .iter()
            .map(|ip| TcpTarget::echo_at(format!("{ip}:7000").parse().expect("an address")))
            .collect();
        let lines: String = addresses.iter().map(|ip| format!("{ip} many.test\n")).collect();
        let (files, at) = (hosts(&lines), own_addr(8080));
        let config = format!("[[mapping]]\npublish = \"{at}:many.test:7000\"\nconnect_timeout = \"5s\"\n");
        let _portway = with_files(Portway::with(&config), files.path()).start();
        Client::to(at).ping();
        Client::to(at).ping();
        run("nft delete table inet lossy");
        drop(targets);
    });
}

#[test]
fn a_name_that_resolves_to_nowhere_leads_to_no_service_of_this_machine() {
    in_own_network(&["mount"], || {
        let answers = ["0.0.0.0", "::", "::ffff:0.0.0.0", "0.0.0.7"];
        let lines: String = answers.iter().enumerate().map(|(n, ip)| format!("{ip} n{n}.test\n")).collect();
        let files = hosts(&lines);
        let inner = TcpTarget::echo_at(([127, 0, 0, 1], 7000).into());
        let inner_six = TcpTarget::echo_at("[::1]:7000".parse().expect("an address"));
        let inner_udp = UdpSocket::bind("127.0.0.1:7000").expect("every port is free here");
        let specs: Vec<_> = (0..answers.len())
            .map(|n| format!("\"127.0.0.1:{}:n{n}.test:7000/tcp+udp\"", 8000 + n))
            .collect();
        let config = format!("publish = [{}]\n", specs.join(", "));
        let mut portway = with_files(Portway::with(&config), files.path()).start();
        for n in 0..answers.len() {
            let at = SocketAddr::from(([127, 0, 0, 1], 8000 + u16::try_from(n).expect("few")));
            let of = |protocol: &'static str| {
                move |line: &Line| {
                    line.text("listen.addr") == at.to_string() && line.text("protocol") == protocol
                }
            };
            Client::to(at).until_closed();
            let line = portway.wait_log(messages::SESSION_ENDED, of("tcp"));
            assert_eq!(line.text("reason"), "unreachable");
            assert!(line.text("error").contains("stands for no machine"), "{}", line.raw());
            udp_client(at).send(b"?").expect("a client sends");
            assert_eq!(portway.wait_log(messages::SESSION_ENDED, of("udp")).text("reason"), "unreachable");
        }
        assert_eq!((inner.accepted(), inner_six.accepted()), (0, 0));
        inner_udp.set_nonblocking(true).expect("a socket");
        assert!(inner_udp.recv(&mut [0; 9]).is_err(), "a datagram came through");
    });
}

#[test]
fn the_literal_forms_of_nowhere_are_refused() {
    for host in ["0.0.0.0", "0.1.2.3", "[::]", "[::ffff:0.0.0.0]", "[64:ff9b::]", "[2002::1]"] {
        portway(["check", "-p", &format!("8080:{host}:80")])
            .exits(78)
            .says("is not an address to connect to");
    }
}

#[test]
fn a_name_that_resolves_to_loopback_is_one_warning() {
    in_own_network(&["mount"], || {
        let files = hosts("127.0.0.1 inner.test\n");
        let target = TcpTarget::echo_at(([127, 0, 0, 1], 7000).into());
        let (at, plain) = (own_addr(8080), own_addr(8081));
        let config = format!("publish = [\"{at}:inner.test:7000\", \"{plain}:localhost:7000\"]\n");
        let mut portway = with_files(Portway::with(&config), files.path()).start();
        for _ in 0..3 {
            Client::to(plain).ping();
            Client::to(at).ping();
        }
        let line = portway.wait_log(messages::NAME_RESOLVES_TO_LOOPBACK, |_| true);
        assert_eq!((line.text("name"), line.text("level")), ("inner.test", "WARN"));
        let exit = portway.stop();
        assert_eq!(exit.lines(messages::NAME_RESOLVES_TO_LOOPBACK).len(), 1, "{}", exit.log);
        drop(target);
    });
}

#[test]
fn a_name_whose_lookup_hangs_holds_up_no_other_name() {
    in_own_network(&["mount"], || {
        let files = hosts("127.0.0.1 known.test\n");
        let write = |name: &str, text: &str| std::fs::write(files.path().join(name), text).expect("a file");
        write("resolv.conf", "nameserver 127.0.0.1\n");
        write("nsswitch.conf", "hosts: files dns\n");
        let _silent = UdpSocket::bind("127.0.0.1:53").expect("every port is free here");
        let _target = TcpTarget::echo_at(([127, 0, 0, 1], 7000).into());
        let ip = own_addr(0).ip();
        let mut specs: Vec<_> = (0..40).map(|n| format!("\"{ip}:{}:n{n}.test:80\"", 8100 + n)).collect();
        specs.push(format!("\"{ip}:8080:known.test:7000\""));
        let config = format!("publish = [{}]\n", specs.join(", "));
        let portway = with_files(Portway::with(&config), files.path()).start();
        let stuck: Vec<_> = (0..40).map(|n| Client::to((ip, 8100 + n).into())).collect();
        let threads =
            || std::fs::read_dir(format!("/proc/{}/task", portway.pid())).map_or(0, Iterator::count);
        eventually("the lookups hang", || (threads() >= 40).then_some(()));
        Client::to((ip, 8080).into()).ping();
        drop(stuck);
    });
}

#[test]
fn a_name_that_leads_to_our_own_listener_is_refused_as_a_loop() {
    in_own_network(&["mount"], || {
        let own = [IpAddr::from([10, 5, 0, 1]), IpAddr::from([0xfd00, 5, 0, 0, 0, 0, 0, 1])];
        own.into_iter().for_each(add_address);
        // The kernel goes to the second one from the first one.
        run("ip addr add 10.6.0.1/24 dev lo");
        run("ip addr add 10.6.0.2/24 dev lo");
        let files = hosts("10.5.0.1 me.test\nfd00:5::1 me6.test\n10.6.0.2 second.test\n");
        let config = "[[mapping]]\npublish = [\"7100:me.test:7100/tcp+udp\", \"7200:me6.test:7200/tcp+udp\", \
             \"10.5.0.1:7300:me.test:7300/tcp+udp\", \"7400:second.test:7400/tcp+udp\"]\nmax_sessions_per_client = \"unlimited\"\n";
        let mut portway = with_files(Portway::with(config), files.path()).start();
        for (n, at) in
            ["127.0.0.1:7100", "127.0.0.1:7200", "10.5.0.1:7300", "127.0.0.1:7400"].into_iter().enumerate()
        {
            let at: SocketAddr = at.parse().expect("an address");
            Client::to(at).until_closed();
            portway.wait_sessions(2 * n + 1);
            udp_client(at).send(b"?").expect("a client sends");
            portway.wait_sessions(2 * n + 2);
        }
        let lines = portway.stop();
        let lines = lines.sessions_ended();
        assert_eq!(lines.len(), 8, "{lines:?}");
        for line in lines {
            assert_eq!(line.text("reason"), "unreachable", "{}", line.raw());
            if line.text("protocol") == "tcp" {
                assert!(line.text("error").starts_with("loop: "), "{}", line.raw());
            }
        }
    });
}

#[test]
fn check_names_the_risk_of_a_loop_without_a_cap() {
    let spec = ["check", "-p", "7100:me.test:7100"];
    portway(spec).exits(0).never_says("lead back");
    let files = tempfile::tempdir().expect("a temporary directory");
    let check = |more: &str| {
        let config = files.path().join("portway.toml");
        let text = format!("[[mapping]]\npublish = \"7100:me.test:7100\"\n{more}\n");
        std::fs::write(&config, text).expect("a file");
        portway(["check", "-c", config.to_str().expect("a plain path")]).exits(0)
    };
    check("max_sessions_per_client = \"unlimited\"").says("may lead back");
    check("").never_says("lead back");
}
