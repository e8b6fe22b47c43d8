//! UPnP against a router that misbehaves in one way each: every way ends in the right answer, in
//! time, in little memory.

use std::{
    io::ErrorKind,
    net::{TcpListener, UdpSocket},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{harness::FakeRouter, *};

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn place(search_port: u16) -> RouterAddr {
    let search_port = NonZeroU16::new(search_port);
    RouterAddr { gateway: HERE.into(), own: HERE.into(), search_port, gateway6: None, interface: 0 }
}

/// Runs a test against a router in a mode, once it is found.
fn with(test: &str, mode: &str, body: impl AsyncFnOnce(&FakeRouter, Driver)) {
    if !can_run(&format!("fake::{test}"), &FakeRouter::TOOLS, false) {
        return;
    }
    let router = FakeRouter::start(mode);
    run(async {
        let (driver, found) = search(&router).await.expect("the router is found");
        let expected = Found {
            via: RouterProtocol::Upnp,
            addr: HERE.into(),
            model: format!("fake {mode}"),
            id: format!("uuid:fake-{mode}"),
        };
        assert_eq!(found, expected);
        body(&router, driver).await;
    });
}

async fn search(router: &FakeRouter) -> Result<(Driver, Found), RouterError> {
    within(LONGEST_SEARCH, Driver::search(RouterProtocol::Upnp, &place(router.search_port()))).await
}

fn web() -> MapRequest {
    request((HERE, 8080), 9080)
}

fn entry(lease: Option<u64>) -> Entry {
    let holder = Holder { addr: (HERE, 8080).into(), text: web().text };
    Entry::Taken { holder, lease: lease.map(Duration::from_secs) }
}

fn as_asked(request: &MapRequest) -> Granted {
    Granted { external_port: request.external_port, lease: request.lease, pinhole: None }
}

#[track_caller]
fn assert_lost<T: std::fmt::Debug>(result: Result<T, RouterError>) {
    match result {
        Err(RouterError::Lost(text)) => assert!(text.chars().count() < 300, "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_opening_comes_is_renewed_and_goes() {
    with("an_opening_comes_is_renewed_and_goes", "good", async |router, driver| {
        let request = web();
        assert_eq!(driver.look(&request).await, Ok(Entry::Free));
        for _ in 0..2 {
            assert_eq!(driver.open(&request).await, Ok(as_asked(&request)));
            assert_eq!(driver.look(&request).await, Ok(entry(Some(600))));
        }
        let log = router.log();
        assert!(!log.iter().any(|line| line.contains("Delete")), "nothing is removed to renew: {log:?}");
        let health =
            Health { external: Some([11, 99, 0, 1].into()), tells: true, epoch: None, boot_id: Some(1) };
        assert_eq!(driver.health().await, Ok(health));
        for _ in 0..2 {
            assert_eq!(driver.close(&request).await, Ok(()), "one that is gone is fine");
            assert_eq!(driver.look(&request).await, Ok(Entry::Free));
        }
    });
}

#[test]
fn a_router_of_permanent_leases_says_so() {
    with("a_router_of_permanent_leases_says_so", "permanent", async |_, driver| {
        let mut request = web();
        assert_eq!(driver.open(&request).await, Err(RouterError::OnlyPermanent));
        assert_eq!(driver.any_port(&request).await, Err(RouterError::OnlyPermanent));
        request.lease = None;
        assert_eq!(driver.open(&request).await, Ok(as_asked(&request)));
        assert_eq!(driver.look(&request).await, Ok(entry(None)));
    });
}

#[test]
fn a_router_that_wants_both_ports_the_same_says_so() {
    with("a_router_that_wants_both_ports_the_same_says_so", "sameport", async |_, driver| {
        assert_eq!(driver.open(&web()).await, Err(RouterError::SamePort));
        let same = request((HERE, 9080), 9080);
        assert_eq!(driver.open(&same).await, Ok(as_asked(&same)));
    });
}

#[test]
fn a_taken_port_is_a_conflict() {
    for mode in ["conflict", "nodesc"] {
        with("a_taken_port_is_a_conflict", mode, async |_, driver| {
            assert_eq!(driver.open(&web()).await, Err(RouterError::Conflict), "{mode}");
            let any = within(LONGEST_CALL, driver.any_port(&web())).await;
            assert_eq!(any, Err(RouterError::Conflict), "{mode}");
        });
    }
}

#[test]
fn another_port_is_open_where_it_says() {
    with("another_port_is_open_where_it_says", "good", async |_, driver| {
        let granted = driver.any_port(&web()).await.expect("there are free ones");
        let there = MapRequest { external_port: granted.external_port, ..web() };
        assert_eq!(driver.look(&there).await, Ok(entry(Some(600))));
    });
}

#[test]
fn a_refusal_tells_whether_it_will_last() {
    const TEST: &str = "a_refusal_tells_whether_it_will_last";
    with(TEST, "deny", async |_, driver| {
        assert!(matches!(driver.open(&web()).await, Err(RouterError::Denied(text)) if text.contains("606")));
    });
    for (mode, code) in [("full", "728"), ("code501", "501")] {
        with(TEST, mode, async |_, driver| {
            let refused = driver.open(&web()).await;
            assert!(matches!(&refused, Err(RouterError::Failed(text)) if text.contains(code)), "{refused:?}");
        });
    }
}

#[test]
fn a_router_without_an_address_of_its_own_has_a_pulse() {
    for mode in ["wan0", "nowan", "code501"] {
        with("a_router_without_an_address_of_its_own_has_a_pulse", mode, async |_, driver| {
            let health = driver.health().await.expect("it answers");
            assert_eq!(
                health,
                Health { external: None, tells: true, epoch: None, boot_id: Some(1) },
                "{mode}"
            );
        });
    }
}

#[test]
fn a_look_shows_what_the_router_really_keeps() {
    const TEST: &str = "a_look_shows_what_the_router_really_keeps";
    with(TEST, "forget", async |_, driver| {
        assert_eq!(driver.open(&web()).await, Ok(as_asked(&web())));
        assert_eq!(driver.look(&web()).await, Ok(Entry::Free));
    });
    with(TEST, "lie", async |_, driver| {
        driver.open(&web()).await.expect("it says OK");
        let looked = driver.look(&web()).await;
        let other: IpAddr = [192, 168, 77, 200].into();
        assert!(
            matches!(looked, Ok(Entry::Taken { ref holder, .. }) if holder.addr.ip() == other),
            "{looked:?}"
        );
    });
}

#[test]
fn a_list_is_read_past_an_entry_that_is_broken() {
    with("a_list_is_read_past_an_entry_that_is_broken", "nospecific", async |_, driver| {
        assert_eq!(driver.look(&web()).await, Ok(Entry::Free));
        driver.open(&request((HERE, 1), 9079)).await.expect("it opens");
        driver.open(&web()).await.expect("it opens");
        assert_eq!(driver.look(&web()).await, Ok(entry(Some(600))));
        let udp = MapRequest { protocol: Protocol::Udp, ..web() };
        assert_eq!(driver.look(&udp).await, Ok(Entry::Free));
    });
}

#[test]
fn the_connection_that_is_up_is_the_one_that_counts() {
    with("the_connection_that_is_up_is_the_one_that_counts", "twowan", async |_, driver| {
        assert_eq!(driver.open(&web()).await, Ok(as_asked(&web())));
        assert_eq!(driver.look(&web()).await, Ok(entry(Some(600))));
    });
}

#[test]
fn a_router_that_describes_no_actions_is_spoken_to_by_the_standard() {
    with("a_router_that_describes_no_actions_is_spoken_to_by_the_standard", "noscpd", async |_, driver| {
        assert_eq!(driver.open(&web()).await, Ok(as_asked(&web())));
        assert_eq!(driver.close(&web()).await, Ok(()));
    });
}

#[test]
fn answers_that_make_no_sense_do_not_hide_the_one_that_does() {
    with("answers_that_make_no_sense_do_not_hide_the_one_that_does", "junk", async |_, driver| {
        assert_eq!(driver.open(&web()).await, Ok(as_asked(&web())));
    });
}

#[test]
fn a_restart_is_seen_by_its_number() {
    with("a_restart_is_seen_by_its_number", "good", async |router, driver| {
        driver.open(&web()).await.expect("it opens");
        assert_eq!(driver.still_there().await, Ok(Some(1)));
        router.restart();
        // The signal is taken between two requests.
        let mut seen = driver.still_there().await;
        while seen == Ok(Some(1)) {
            seen = driver.still_there().await;
        }
        assert_eq!(seen, Ok(Some(2)));
        assert_eq!(driver.health().await.map(|health| health.boot_id), Ok(Some(2)));
        assert_eq!(driver.look(&web()).await, Ok(Entry::Free));
    });
}

#[test]
fn a_router_whose_description_moved_is_lost() {
    with("a_router_whose_description_moved_is_lost", "good", async |router, driver| {
        router.move_description();
        let mut there = driver.still_there().await;
        while there.is_ok() {
            there = driver.still_there().await;
        }
        assert!(matches!(&there, Err(RouterError::Lost(text)) if text.contains("root2.xml")), "{there:?}");
    });
}

#[test]
fn answers_without_end_or_sense_are_a_lost_router() {
    each(&["bigsoap", "slowsoap", "hangsoap", "widesoap"], |mode| {
        with("answers_without_end_or_sense_are_a_lost_router", mode, async |_, driver| {
            let web = web();
            let (open, close, look, health) = tokio::join!(
                within(CALL, driver.open(&web)),
                within(CALL, driver.close(&web)),
                within(CALL, driver.look(&web)),
                within(CALL, driver.health())
            );
            assert_lost(open);
            assert_lost(close);
            assert_lost(look);
            assert_lost(health);
        });
    });
}

#[test]
fn a_description_without_end_or_sense_is_no_router() {
    if !can_run("fake::a_description_without_end_or_sense_is_no_router", &FakeRouter::TOOLS, false) {
        return;
    }
    let modes = ["bigdesc", "slowdesc", "hangdesc", "laughs", "wide", "deep", "dying", "silent"];
    each(&modes, |mode| assert_lost(run(search(&FakeRouter::start(mode)))));
}

#[test]
fn only_the_router_is_contacted() {
    if !can_run("fake::only_the_router_is_contacted", &FakeRouter::TOOLS, false) {
        return;
    }
    each(&["redirect", "location", "control"], |mode| {
        let other = TcpListener::bind(("127.0.0.2", 0)).expect("a port");
        other.set_nonblocking(true).expect("a socket");
        let url = format!("http://{}/x.xml", other.local_addr().expect("an address"));
        assert_lost(run(search(&FakeRouter::start_with(mode, ["--other", &url]))));
        let called = other.accept().map(drop).map_err(|e| e.kind());
        assert_eq!(called, Err(ErrorKind::WouldBlock), "{mode}");
    });
}

#[test]
fn a_router_that_is_gone_is_lost_at_once() {
    if !can_run("fake::a_router_that_is_gone_is_lost_at_once", &FakeRouter::TOOLS, false) {
        return;
    }
    let router = FakeRouter::start("good");
    run(async {
        let (driver, _) = search(&router).await.expect("the router is found");
        drop(router);
        assert_lost(within(Duration::ZERO, driver.open(&web())).await);
        assert_lost(within(LONGEST_CALL, driver.still_there()).await);
    });
}

#[test]
fn a_flood_of_answers_does_not_hold_the_search() {
    let socket = UdpSocket::bind((HERE, 0)).expect("a port");
    let port = socket.local_addr().expect("an address").port();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut question = [0; 2048];
            while !over.load(Ordering::Relaxed) {
                let (_, from) = socket.recv_from(&mut question).expect("a question");
                for _ in 0..20_000 {
                    let _ = socket.send_to(b"HTTP/1.1 200 OK\r\nLOCATION: http://127.0.0.1:1/\r\n\r\n", from);
                    let _ = socket.send_to(b"HTTP/1.1 200 OK\r\nLOCATION: http://192.0.2.1:1/\r\n\r\n", from);
                    let _ = socket.send_to(&[0xff; 1400], from);
                }
            }
        });
        let place = place(port);
        let found = run(within(LONGEST_SEARCH, Driver::search(RouterProtocol::Upnp, &place)));
        over.store(true, Ordering::Relaxed);
        // Wakes the one that waits for a question.
        UdpSocket::bind((HERE, 0)).and_then(|wakes| wakes.send_to(b"", (HERE, port))).expect("a socket");
        assert_lost(found);
    });
}

/// Memory is a process's: so this runs in a second copy of the test program, alone.
#[test]
fn no_router_costs_much_memory() {
    const ALONE: &str = "PORTWAY_TEST_ALONE";
    const NAME: &str = "gateway::driver::tests::fake::no_router_costs_much_memory";
    if !can_run("fake::no_router_costs_much_memory", &FakeRouter::TOOLS, false) {
        return;
    }
    if std::env::var_os(ALONE).is_none() {
        let this = std::env::current_exe().expect("this program");
        let ran = Command::new(this).args(["--exact", NAME, "--nocapture"]).env(ALONE, "1").output();
        let ran = ran.expect("this program again");
        let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success() && out.contains("1 passed"), "{out}{err}");
        return;
    }
    // The first search loads what any would.
    run(search(&FakeRouter::start("good"))).expect("the router is found");
    let before = most_memory();
    each(&["bigdesc", "laughs", "wide", "deep"], |mode| assert_lost(run(search(&FakeRouter::start(mode)))));
    each(&["bigsoap", "widesoap"], |mode| {
        let router = FakeRouter::start(mode);
        run(async {
            let (driver, _) = search(&router).await.expect("the router is found");
            assert_lost(driver.open(&web()).await);
            assert_lost(driver.look(&web()).await);
        });
    });
    let more = most_memory() - before;
    println!("at most {more} KiB more");
    assert!(more < 16 * 1024, "{more} KiB");
}

/// The most memory that this process ever had, in KiB.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the process's own status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line about memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
