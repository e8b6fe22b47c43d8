//! portway as a service: the project's own unit, under a real systemd.
//!
//! All of it runs as root, in a lab that the tests of this file share. What the service manager hears is also proven without
//! one, in `service_manager`.

use std::{
    collections::HashSet,
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::Duration,
};

use crate::harness::{
    Client, Content, Suite, SystemdLab, TcpTarget, UdpTarget, echoes, eventually, eventually_within, mapping,
    own_addr, paced, udp_client, udp_mapping, under_systemd,
};

/// A loopback address with a port below 1024.
fn low(port: u16) -> SocketAddr {
    SocketAddr::new(own_addr(0).ip(), port)
}

/// Writes a good configuration and starts the service.
#[track_caller]
fn start(lab: &SystemdLab, config: &str) {
    lab.configure(config);
    lab.run("systemctl start portway");
    assert_eq!(lab.show("ActiveState"), "active");
}

/// The points of `systemd-analyze security`.
#[track_caller]
fn exposure(lab: &SystemdLab) -> f64 {
    let said = lab.run("systemd-analyze security --no-pager portway.service");
    let points = said.lines().find_map(|line| line.split_once("exposure level for portway.service: "));
    let points = points.and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
    points.unwrap_or_else(|| panic!("no points in {said}"))
}

/// What every supported systemd does with the unit.
fn the_unit_works(lab: &SystemdLab) {
    lab.try_run("systemd-analyze verify --man=no portway.service").exits(0).never_says("portway");
    let points = exposure(lab);
    println!("exposure: {points}");
    assert!(points <= 1.5, "{points}");

    let target = TcpTarget::echo();
    let (one, two) = (low(81), own_addr(8080));
    start(lab, &mapping(one, target.addr, ""));
    // It is ready when it says so: the first client gets in.
    assert!(echoes(one), "a port below 1024 without root");
    assert_eq!(lab.show("StatusText"), "1 mapping, 0 sessions, 0 flows");
    assert_ne!(lab.run("ps -o user= -C portway").trim(), "root");
    let mut client = Client::to(one);
    client.ping();
    lab.wait_status("1 session", |status| status == "1 mapping, 1 session, 0 flows");

    lab.configure(&(mapping(one, target.addr, "") + &mapping(two, target.addr, "")));
    lab.run("systemctl reload portway");
    assert!(echoes(two), "the reload has waited");
    assert_eq!(lab.show("StatusText"), "2 mappings, 1 session, 0 flows");

    lab.configure("nonsense = 1\n");
    lab.try_run("systemctl reload portway").exits(1);
    assert_eq!(lab.show("ActiveState"), "active");
    let status = lab.wait_status("why", |status| status.contains("the last reload was refused"));
    assert!(status.contains("portway.toml:1:1: unknown key `nonsense`"), "{status}");
    assert!(client.still_echoes() && echoes(two), "what ran before runs on");
    drop(client);

    lab.run("systemctl stop portway");
    assert_eq!(lab.show("Result"), "success");
    assert_eq!(lab.show("ActiveState"), "inactive");
}

#[test]
fn the_unit_starts_reloads_says_how_it_is_and_stops_on_systemd_257() {
    under_systemd(Suite::Trixie, |lab| {
        the_unit_works(lab);
        assert_eq!(lab.show("RestartSteps"), "8", "the pauses grow");
    });
}

#[test]
fn the_unit_starts_reloads_says_how_it_is_and_stops_on_systemd_252() {
    under_systemd(Suite::Bookworm, the_unit_works);
}

#[test]
fn an_administrator_may_choose_the_kind_of_unit_that_is_reloaded_by_a_signal() {
    under_systemd(Suite::Trixie, |lab| {
        lab.edit("portway.service", "[Service]\nType=notify-reload\nExecReload=\n");
        let target = TcpTarget::echo();
        start(lab, &mapping(own_addr(8080), target.addr, ""));
        let at = own_addr(8081);
        lab.configure(&mapping(at, target.addr, ""));
        // systemd waits for RELOADING=1 with a time after its signal, and for READY=1.
        lab.run("systemctl reload portway");
        assert!(echoes(at));
    });
}

#[test]
fn a_daemon_that_hangs_is_restarted() {
    under_systemd(Suite::Trixie, |lab| {
        lab.edit("portway.service", "[Service]\nWatchdogSec=2s\n");
        let (target, at) = (TcpTarget::echo(), own_addr(8080));
        start(lab, &mapping(at, target.addr, ""));
        lab.run("systemctl kill --signal=STOP portway");
        eventually_within(SystemdLab::RESTART, "it was restarted", || {
            (lab.show("NRestarts") == "1" && lab.show("SubState") == "running").then_some(())
        });
        assert!(echoes(at));
        lab.wait_journal("Watchdog timeout");
    });
}

#[test]
fn a_daemon_that_answers_is_not_restarted_by_the_watchdog() {
    under_systemd(Suite::Trixie, |lab| {
        lab.edit("portway.service", "[Service]\nWatchdogSec=1s\n");
        let target = TcpTarget::echo();
        start(lab, &mapping(own_addr(8080), target.addr, ""));
        // The manager notes the last sign of life: several of them come, each before the limit.
        let signs = |last: &mut String| {
            let now = lab.show("WatchdogTimestampMonotonic");
            (std::mem::replace(last, now.clone()) != now).then_some(())
        };
        let mut last = lab.show("WatchdogTimestampMonotonic");
        for _ in 0..6 {
            eventually("it gives a sign of life", || signs(&mut last));
        }
        assert_eq!(lab.show("NRestarts"), "0");
    });
}

#[test]
fn a_daemon_that_dies_is_restarted_and_one_with_a_wrong_configuration_is_not() {
    under_systemd(Suite::Trixie, |lab| {
        let (target, at) = (TcpTarget::echo(), own_addr(8080));
        start(lab, &mapping(at, target.addr, ""));
        lab.run("systemctl kill --signal=KILL portway");
        eventually_within(SystemdLab::RESTART, "it was restarted", || {
            (lab.show("NRestarts") == "1" && lab.show("SubState") == "running").then_some(())
        });
        assert!(echoes(at));

        lab.run("systemctl stop portway");
        lab.configure("nonsense = 1\n");
        lab.try_run("systemctl start portway").exits(1);
        // It would wait for its restart otherwise.
        assert_eq!(lab.show("SubState"), "failed");
        assert_eq!(lab.show("ExecMainStatus"), "78");
        lab.wait_journal("unknown key `nonsense`");
    });
}

#[test]
fn a_port_that_is_taken_at_the_start_is_waited_for() {
    under_systemd(Suite::Trixie, |lab| {
        let target = TcpTarget::echo();
        let (taken, free) = (own_addr(8080), own_addr(8081));
        let holder = TcpListener::bind(taken).expect("the lab's ports are free");
        start(lab, &(mapping(taken, target.addr, "") + &mapping(free, target.addr, "")));
        assert!(echoes(free));
        let status = lab.wait_status("what waits", |status| status.contains("1 listener waits"));
        assert!(status.contains(&format!("{taken}/tcp is in use by")), "{status}");
        drop(holder);
        eventually("the port that is free again is served", || echoes(taken).then_some(()));
        lab.wait_status("nothing is wrong", |status| status == "2 mappings, 0 sessions, 0 flows");
    });
}

#[test]
fn a_token_that_only_root_may_read_reaches_the_daemon_as_a_credential() {
    under_systemd(Suite::Trixie, |lab| {
        lab.write("/etc/portway/token", "Zm9yIHRlc3RzIG9ubHksIDMyIGJ5dGVzIGxvbmc\n");
        lab.run("chmod 600 /etc/portway/token");
        lab.edit("portway.service", "[Service]\nLoadCredential=token:/etc/portway/token\n");
        let api = own_addr(8080);
        let token = "{ role = \"admin\", file = \"${CREDENTIALS_DIRECTORY:-/etc/portway}/token\" }";
        start(lab, &format!("[api]\nlisten = \"{api}\"\ntokens = [{token}]\n"));
        let asked = |more: &str| {
            let mut stream = TcpStream::connect(api).expect("the API listens");
            write!(stream, "GET /v1/status HTTP/1.1\r\nHost: {api}\r\n{more}Connection: close\r\n\r\n")
                .expect("it reads");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("it answers");
            answer
        };
        assert!(asked("").starts_with("HTTP/1.1 401"));
        let bearer = "Authorization: Bearer Zm9yIHRlc3RzIG9ubHksIDMyIGJ5dGVzIGxvbmc\r\n";
        assert!(asked(bearer).starts_with("HTTP/1.1 200"), "{}", asked(bearer));
    });
}

#[test]
fn variables_of_the_defaults_file_are_those_of_the_command_line() {
    under_systemd(Suite::Trixie, |lab| {
        let (target, file, variable) = (TcpTarget::echo(), own_addr(8080), own_addr(8081));
        lab.write("/etc/default/portway", &format!("PORTWAY_PUBLISH={variable}:{}\n", target.addr));
        start(lab, &mapping(file, target.addr, ""));
        assert!(echoes(file) && echoes(variable), "both are read");
    });
}

#[test]
fn sockets_that_systemd_opens_are_served_without_any_right() {
    under_systemd(Suite::Trixie, |lab| {
        let (tcp, udp) = (TcpTarget::echo(), UdpTarget::echo());
        let six = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 443);
        let (datagrams, unwanted) = (low(53), low(82));
        let no_rights = include_str!("../../systemd/portway.service.d/no-rights.conf");
        lab.edit("portway.service", no_rights);
        lab.edit(
            "portway.socket",
            &format!(
                "[Socket]\nListenStream=80\nListenStream={six}\nListenDatagram={datagrams}\nListenStream={unwanted}\n"
            ),
        );
        lab.try_run("systemd-analyze verify --man=no portway.socket").exits(0).never_says("portway");
        let on_every_address = format!("[[mapping]]\npublish = \"80:{}\"\n", tcp.addr);
        lab.configure(
            &(on_every_address + &mapping(six, tcp.addr, "") + &udp_mapping(datagrams, udp.addr, "")),
        );
        lab.run("systemctl start portway.socket");
        assert_eq!(lab.show("ActiveState"), "inactive", "nothing runs yet");

        // The first client starts the daemon, and is served.
        let mut first = Client::to(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 80));
        first.ping();
        lab.wait_state("running");
        assert!(echoes(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 80)), "the same socket takes IPv6");
        assert!(echoes(six));
        let client = udp_client(datagrams);
        client.send(b"ping").expect("a datagram goes out");
        let mut answer = [0; 8];
        let len = client.recv(&mut answer).expect("an answer");
        assert_eq!(&answer[..len], b"ping");

        let rights = lab.sh("cat /proc/$(systemctl show -P MainPID portway)/status").out;
        assert!(rights.contains("CapEff:\t0000000000000000"), "{rights}");
        let status = lab.wait_status("what matches nothing", |status| status.contains("1 passed socket"));
        assert!(status.contains(&format!("matches no listener: {unwanted}/tcp")), "{status}");
        lab.wait_journal("matches no listener");
        println!("exposure without a right: {}", exposure(lab));

        // A mapping that is removed and comes back finds its socket again, and so does one for the socket that was left.
        let goes_and_comes_back = || {
            lab.configure(&mapping(unwanted, tcp.addr, ""));
            lab.run("systemctl reload portway");
            assert!(echoes(unwanted));
            lab.configure(&format!("[[mapping]]\npublish = \"80:{}\"\n", tcp.addr));
            lab.run("systemctl reload portway");
            assert!(echoes(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 80)));
        };
        goes_and_comes_back();

        // The next process knows that they stay, too: the one that it listens on, and the other one.
        lab.run("portway upgrade");
        assert!(echoes(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 80)));
        for _ in 0..2 {
            goes_and_comes_back();
        }

        // A restart of the sockets restarts the service. It leaves none of them in use, and its sessions go on.
        let mut staying = Client::to(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 80));
        staying.ping();
        let before = lab.show("MainPID");
        lab.run("systemctl restart portway.socket");
        lab.wait_state("running");
        assert_ne!(lab.show("MainPID"), before, "another process");
        staying.ping();
        assert!(echoes(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 80)), "a new client");
    });
}

/// Restarts the service, which has to be another process then.
#[track_caller]
fn restart(lab: &SystemdLab) {
    let before = lab.show("MainPID");
    lab.run("systemctl restart portway");
    assert_eq!(lab.show("ActiveState"), "active");
    assert_ne!(lab.show("MainPID"), before);
    assert_eq!(lab.show("NFileDescriptorStore"), "0", "what was stored is used once");
}

/// The clients that the target has seen, by their addresses.
fn seen(target: &UdpTarget) -> HashSet<SocketAddr> {
    target.got().iter().map(|(from, _)| *from).collect()
}

#[test]
fn sessions_and_flows_go_on_over_a_restart() {
    const LENGTH: u64 = 24 << 20;
    under_systemd(Suite::Trixie, |lab| {
        let content = Content::of(13);
        let sent = content.clone();
        // Fast enough that bytes are everywhere on the way, and slow enough that it takes two restarts.
        let download = TcpTarget::serve(move |mut stream| {
            let piece = 64 << 10;
            paced(Duration::from_millis(15), usize::try_from(LENGTH / piece).expect("it is small"), |nth| {
                let offset = nth as u64 * piece;
                stream.write_all(sent.piece(offset, piece as usize)).expect("the session goes on");
            });
        });
        let (echo, datagrams) = (TcpTarget::echo(), UdpTarget::echo());
        let (large, small, udp) = (own_addr(8080), low(443), own_addr(5353));
        start(
            lab,
            &(mapping(large, download.addr, "")
                + &mapping(small, echo.addr, "")
                + &udp_mapping(udp, datagrams.addr, "idle_timeout = \"5m\"")),
        );
        let mut idle = Client::to(small);
        idle.ping();
        let client = udp_client(udp);
        let asks = || {
            client.send(b"ping").expect("a datagram goes out");
            let mut answer = [0; 8];
            assert_eq!(client.recv(&mut answer).expect("an answer"), 4);
        };
        asks();
        let network = lab.network();
        std::thread::scope(|scope| {
            let all = scope.spawn(|| {
                network.enter();
                let mut stream = TcpStream::connect(large).expect("it listens");
                content.receive(&mut stream).expect("every byte is right")
            });
            lab.wait_status("2 sessions", |status| status.contains("2 sessions, 1 flow"));
            for _ in 0..2 {
                restart(lab);
                assert!(!all.is_finished(), "a restart in the middle");
                assert!(lab.show("StatusText").contains("2 sessions, 1 flow"), "{}", lab.show("StatusText"));
                idle.ping();
                asks();
            }
            assert_eq!(all.join().expect("the client ends"), LENGTH);
        });
        assert_eq!(seen(&datagrams).len(), 1, "the flow keeps its source port");
        assert!(echoes(small), "new clients are welcome");
        lab.wait_journal("took over");
    });
}

#[test]
fn what_a_daemon_knows_goes_on_over_a_restart() {
    under_systemd(Suite::Trixie, |lab| {
        let (target, at) = (TcpTarget::echo(), own_addr(8080));
        start(lab, &(mapping(at, target.addr, "") + "[guard]\n"));
        let mut over = Client::to(at);
        over.ping();
        drop(over);
        let mut client = Client::to(at);
        client.ping();
        lab.run("portway ban 192.0.2.7 --for 1h");
        lab.run("portway log-level debug --for 10m");
        let json = |command: &str| -> serde_json::Value {
            serde_json::from_str(&lab.run(command)).expect("it prints JSON")
        };
        let known = || {
            let mapping = json("portway status 8080/tcp --json");
            let names = ["sessions", "sessions_total", "bytes_in", "bytes_out"];
            let level = json("portway status --json")["log_level"].clone();
            // A ban goes along by the second.
            let ban = json("portway bans --json")["bans"][0]["client"].clone();
            (names.map(|name| mapping[name].as_u64()), ban, level)
        };
        let before = eventually("the first session has ended", || {
            let known = known();
            (known.0 == [Some(1), Some(2), Some(8), Some(8)]).then_some(known)
        });
        assert_eq!(before.1, "192.0.2.7");
        let last = || {
            let said = lab.run("portway events --json");
            let event = said.lines().next_back().and_then(|line| serde_json::from_str(line).ok());
            event.and_then(|event: serde_json::Value| event["id"].as_u64()).expect("the number of an event")
        };
        for _ in 0..2 {
            let before_it = last();
            restart(lab);
            assert_eq!(known(), before);
            assert!(last() > before_it, "the numbers of events go on");
        }
        client.ping();
        let sessions = json("portway sessions --json");
        assert_eq!(sessions["sessions"][0]["id"], 2, "it keeps its number: {sessions}");
    });
}

#[test]
fn clients_that_come_during_a_restart_wait_and_are_served() {
    under_systemd(Suite::Bookworm, |lab| {
        let (target, at) = (TcpTarget::echo(), own_addr(8080));
        start(lab, &mapping(at, target.addr, ""));
        let (network, done) = (lab.network(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let clients = scope.spawn(|| {
                network.enter();
                let mut served = 0;
                while !done.load(SeqCst) {
                    Client::to(at).ping();
                    served += 1;
                }
                served
            });
            for _ in 0..3 {
                restart(lab);
            }
            done.store(true, SeqCst);
            let served: usize = clients.join().expect("every client is served");
            assert!(served > 10, "{served}");
        });
    });
}

#[test]
fn a_stop_ends_sessions_and_so_does_a_restart_with_a_wrong_configuration() {
    under_systemd(Suite::Trixie, |lab| {
        let (target, at) = (TcpTarget::echo(), own_addr(8080));
        let config = mapping(at, target.addr, "") + "[shutdown]\ngrace = \"0s\"\n";
        start(lab, &config);
        let mut client = Client::to(at);
        client.ping();
        lab.run("systemctl stop portway");
        client.until_closed();

        start(lab, &config);
        let mut client = Client::to(at);
        client.ping();
        lab.configure("nonsense = 1\n");
        lab.try_run("systemctl restart portway").exits(1);
        client.until_closed();
        assert_eq!(lab.show("NFileDescriptorStore"), "0");

        // A session whose mapping is gone ends, and the others go on.
        let other = own_addr(8081);
        lab.run("systemctl reset-failed portway");
        start(lab, &(config.clone() + &mapping(other, target.addr, "")));
        let (mut gone, mut stays) = (Client::to(other), Client::to(at));
        gone.ping();
        stays.ping();
        lab.configure(&config);
        restart(lab);
        stays.ping();
        gone.until_closed();
    });
}
