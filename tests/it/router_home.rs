//! A household behind a real router: what is exposed can be reached from the internet, through everything that happens
//! to a home router, and nothing is left behind.
//!
//! Each test has a household of its own (`tests/lab/router`): `wan` is the internet, `rtr` the router, `lan` the machine
//! that portway runs on, `lan2` another one. The daemon is the real program, and speaks through its log.

use std::net::{IpAddr, SocketAddr};

use crate::harness::{
    HomeRouter as _, Household, LAN_TARGET, Portway, RouterLab, eventually, in_household, messages,
};

/// What is said of a router that tells no address of its own.
/// An exposed mapping; `router` and what follows it.
pub(super) fn exposed(name: &str, port: u16, protocol: &str, router: &str) -> String {
    format!(
        "[[mapping]]\nname = \"{name}\"\npublish = \"{port}:127.0.0.1:{LAN_TARGET}/{protocol}\"\nrouter = {router}\n"
    )
}

pub(super) fn web(protocol: &str) -> String {
    exposed("web", 9080, protocol, "true")
}

/// Rules of a router that maps only these ports, and those of the neighbours.
pub(super) fn only(ports: &str) -> String {
    let allow = |ports| format!("allow {ports} 192.168.77.0/24 1-65535|");
    allow("7001-7002") + &allow(ports) + "deny 0-65535 0.0.0.0/0 0-65535"
}

pub(super) fn wan(port: u16) -> SocketAddr {
    SocketAddr::new(RouterLab::WAN.into(), port)
}

#[track_caller]
pub(super) fn wait_open(portway: &mut Portway, mark: usize, protocol: &str) {
    portway.wait_log_after(mark, messages::OPEN_ON_THE_ROUTER, |line| line.text("protocol") == protocol);
}

#[track_caller]
pub(super) fn wait_reached(home: &Household<RouterLab>, to: SocketAddr) {
    eventually(&format!("{to} is reached from the internet"), || home.reaches_tcp("wan", to).then_some(()));
}

#[test]
fn what_is_exposed_is_reached_from_the_internet_and_closed_at_the_end() {
    in_household(&[], [], |home| {
        assert!(!home.reaches_tcp("wan", wan(9080)));
        // A UDP client, whose end cannot be seen, would have the grace.
        let config = web("tcp+udp") + "[shutdown]\ngrace = \"1s\"\n";
        let mut portway = home.up(&config);
        let line = portway.wait_log(messages::ROUTER_FOUND, |_| true);
        assert_eq!((line.text("router.addr"), line.text("via")), ("192.168.77.1", "upnp"));
        assert!(home.reaches_tcp("wan", wan(9080)) && home.reaches_udp("wan", wan(9080)));
        let exit = home.down(portway);
        assert!(!home.reaches_tcp("wan", wan(9080)));
        assert!(!exit.log.contains("left open"), "{}", exit.log);
    });
}

#[test]
fn a_crash_is_followed_by_the_same_opening_and_no_second_one() {
    in_household(&[], [], |home| {
        let config = web("tcp");
        home.up(&config).kill();
        assert_eq!(home.openings().len(), 1);
        let portway = home.up(&config);
        assert_eq!(home.openings().len(), 1);
        wait_reached(home, wan(9080));
        home.down(portway);
    });
}

#[test]
fn a_router_that_restarts_is_opened_again_within_a_check() {
    in_household(&[], [], |home| {
        let mut portway = home.up(&web("tcp+udp"));
        let mark = portway.log_len();
        home.run("reboot");
        wait_open(&mut portway, mark, "tcp");
        wait_open(&mut portway, mark, "udp");
        assert!(home.reaches_tcp("wan", wan(9080)) && home.reaches_udp("wan", wan(9080)));

        // Its service restarts, at another address: the rules stay, and their leases no longer end.
        let mark = portway.log_len();
        home.run_with("HTTP_PORT", "0", "daemon restart");
        portway.wait_log_after(mark, messages::ROUTER_ASKED, |line| {
            line.text("call").starts_with("Look") && line.text("answer").contains("lease: None")
        });
        let mark = portway.log_len();
        portway.wait_log_after(mark, messages::ROUTER_ASKED, |line| {
            line.text("call").starts_with("Look") && line.text("answer").contains("lease: Some")
        });
        wait_reached(home, wan(9080));
        home.down(portway);
    });
}

#[test]
fn a_port_of_another_machine_is_respected_and_taken_when_it_is_free() {
    in_household(&[], [], |home| {
        let others = tempfile::tempdir().expect("a temporary directory");
        let mut other = home.start_on("lan2", &web("tcp"), others.path());
        wait_open(&mut other, 0, "tcp");
        let config = web("tcp") + &exposed("more", 9081, "tcp", "true");
        let mut portway = home.start(&config);
        let line = portway.wait_log(messages::HELD_BY_ANOTHER_MACHINE, |_| true);
        assert!(line.text("holder").starts_with("192.168.77.3:9080"), "{}", line.raw());
        assert_eq!(line.number("external.port"), 9080);
        portway.wait_log(messages::OPEN_ON_THE_ROUTER, |line| line.text("mapping") == "more");
        wait_reached(home, wan(9081));

        // A daemon that ends without the port leaves it to its holder.
        portway.stop().with(0);
        let left = home.openings();
        assert!(left.len() == 1 && left[0].contains("192.168.77.3"), "{left:?}");

        let mut portway = home.start(&config);
        portway.wait_log(messages::HELD_BY_ANOTHER_MACHINE, |_| true);
        other.stop().with(0);
        portway.wait_log(messages::OPEN_ON_THE_ROUTER, |line| line.text("mapping") == "web");
        wait_reached(home, wan(9080));
        home.down(portway);
    });
}

#[test]
fn a_refused_port_is_reported_and_not_asked_for_again_and_again() {
    in_household(&[], [("RULES", &only("9081"))], |home| {
        let config = web("tcp") + &exposed("more", 9081, "tcp", "true");
        let mut portway = home.start(&config);
        portway.wait_log(messages::ROUTER_REFUSES, |line| line.text("mapping") == "web");
        portway.wait_log(messages::OPEN_ON_THE_ROUTER, |line| line.text("mapping") == "more");
        // Two checks later.
        for _ in 0..2 {
            let mark = portway.log_len();
            portway.wait_log_after(mark, messages::ROUTER_ASKED, |line| line.text("call").contains("9081"));
        }
        let opens = portway.lines(messages::ROUTER_ASKED).into_iter().filter(|line| {
            line.text("call").starts_with("Open") && line.text("call").contains("external_port: 9080")
        });
        assert_eq!(opens.count(), 1);
        assert_eq!(portway.lines(messages::ROUTER_REFUSES).len(), 1);
        home.down(portway);
    });
}

#[test]
fn the_external_address_is_followed_and_judged() {
    in_household(&[], [], |home| {
        let mut portway = home.up(&web("tcp"));
        home.run("wanip 11.22.33.7");
        let line = portway.wait_log(messages::EXTERNAL_ADDRESS_CHANGED, |_| true);
        assert_eq!(line.text("external.addr"), "11.22.33.7");
        wait_reached(home, SocketAddr::new([11, 22, 33, 7].into(), 9080));
        // The provider's own NAT: this router then tells no address at all.
        home.run("wanip 100.64.3.4");
        portway.wait_log(messages::NO_EXTERNAL_ADDRESS, |line| !line.text("advice").is_empty());
        home.run("wanip 11.22.33.1");
        portway.wait_log(messages::REACHABLE_FROM_THE_INTERNET_AGAIN, |_| true);
        wait_reached(home, wan(9080));
        assert_eq!(portway.lines(messages::NO_EXTERNAL_ADDRESS).len(), 1);
        home.down(portway);
    });
}

#[test]
fn a_vpn_a_firewall_and_a_second_router_are_no_obstacle() {
    in_household(&[], [], |home| {
        home.run("hostfw on");
        home.run("second up");
        for vpn in ["on", "off"] {
            home.run(&format!("vpn {vpn}"));
            let mut portway = home.up(&web("tcp"));
            let line = portway.wait_log(messages::ROUTER_FOUND, |_| true);
            assert_eq!(line.text("router.addr"), "192.168.77.1", "vpn {vpn}");
            if vpn == "off" {
                wait_reached(home, wan(9080));
            }
            home.down(portway);
        }
    });
}

#[test]
fn an_opening_moves_with_the_address_of_this_machine() {
    in_household(&[], [("SECURE", "no")], |home| {
        let mut portway = home.up(&web("tcp"));
        let mark = portway.log_len();
        home.run("lanip 192.168.77.50");
        wait_open(&mut portway, mark, "tcp");
        wait_reached(home, wan(9080));
        let there = home.openings();
        assert!(there.len() == 1 && there[0].contains("192.168.77.50"), "{there:?}");
        home.down(portway);
    });
}

#[test]
fn an_opening_of_a_former_address_is_waited_for_where_the_router_guards_it() {
    in_household(&[], [("SECURE", "yes")], |home| {
        let mut portway = home.up(&(web("tcp") + &home.settings("lease = \"2m\"")));
        home.run("lanip 192.168.77.50");
        let line = portway.wait_log(messages::HELD_BY_ANOTHER_MACHINE, |_| true);
        assert!(line.text("holder").starts_with("192.168.77.2:9080"), "{}", line.raw());
        // The machine that had that address first gets it back.
        let mark = portway.log_len();
        home.run("lanip 192.168.77.2");
        wait_open(&mut portway, mark, "tcp");
        wait_reached(home, wan(9080));
        home.down(portway);
    });
}

#[test]
fn a_reload_opens_and_closes_the_difference_alone_and_udp_survives_the_end_of_tcp() {
    in_household(&[], [], |home| {
        let keep = exposed("keep", 9081, "tcp", "true");
        let mut portway = home.up(&(web("tcp+udp") + &keep));
        let kept = || home.openings().into_iter().find(|rule| rule.contains("9081"));
        let before = kept();
        assert!(before.is_some());
        let mark = portway.log_len();
        portway.reload_with(&home.config(&(web("udp") + &keep)));
        portway.wait_log_after(mark, messages::CLOSED_ON_THE_ROUTER, |line| line.text("protocol") == "tcp");
        // The router takes a rule of UDP away with that of TCP, and says nothing.
        eventually("UDP is reached again", || home.reaches_udp("wan", wan(9080)).then_some(()));
        assert!(!home.reaches_tcp("wan", wan(9080)));
        assert_eq!(kept(), before, "the rule of a mapping that stayed was replaced");
        home.down(portway);
    });
}

#[test]
fn a_router_without_upnp_is_opened_by_pcp_or_natpmp() {
    in_household(&[], [("UPNP", "no")], |home| {
        for (protocols, via) in [("", "pcp"), ("protocols = [\"natpmp\"]", "natpmp")] {
            let mut portway = home.up(&(web("tcp+udp") + &home.settings(protocols)));
            let line = portway.wait_log(messages::ROUTER_FOUND, |_| true);
            assert_eq!(line.text("via"), via);
            assert!(home.reaches_tcp("wan", wan(9080)) && home.reaches_udp("wan", wan(9080)), "{via}");
            // The epoch shows a restart.
            let mark = portway.log_len();
            home.run("reboot");
            portway.wait_log_after(mark, messages::ROUTER_RESTARTED, |_| true);
            wait_reached(home, wan(9080));
            home.down(portway);
        }
    });
}

#[test]
fn after_a_crash_pcp_takes_its_opening_back_by_its_nonce() {
    in_household(&[], [("UPNP", "no")], |home| {
        home.up(&web("tcp")).kill();
        let mut portway = home.start(&exposed("web", 9080, "tcp", "false"));
        portway.wait_log(messages::CLOSED_ON_THE_ROUTER, |_| true);
        home.down(portway);
    });
}

#[test]
fn a_router_that_comes_late_or_goes_for_a_while_is_found() {
    in_household(&[], [("NATPMP", "no")], |home| {
        home.run("daemon stop");
        let mut portway = home.start(&web("tcp"));
        portway.wait_log(messages::NO_ROUTER_FOUND, |_| true);
        home.run("daemon start");
        wait_open(&mut portway, 0, "tcp");
        wait_reached(home, wan(9080));

        home.run("link down");
        portway.wait_log(messages::ROUTER_LOST, |_| true);
        // No client at home notices.
        let inside = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 9080);
        assert!(home.reaches_tcp("lan", inside));
        home.run("link up");
        let mark = portway.log_len();
        portway.wait_log_after(mark, messages::ROUTER_ASKED, |line| line.text("answer").contains("Taken"));
        wait_reached(home, wan(9080));
        home.down(portway);
    });
}

#[test]
fn the_ipv6_firewall_is_open_for_exactly_what_is_exposed_to_it() {
    in_household(&[], [], |home| {
        let to = SocketAddr::new("2001:db8:77::2".parse().expect("an address"), 9080);
        assert!(!home.reaches_tcp("wan", to));
        let mut portway = home.start(&exposed("web", 9080, "tcp", "{ ipv6 = true }"));
        for external in ["2001:db8:77::2", "11.22.33.1"] {
            portway.wait_log(messages::OPEN_ON_THE_ROUTER, |line| line.text("external.addr") == external);
        }
        wait_reached(home, to);
        wait_reached(home, wan(9080));
        home.down(portway);
        assert!(!home.reaches_tcp("wan", to));
    });
}

#[test]
fn a_machine_without_a_network_waits_for_one() {
    in_household(&[], [], |home| {
        home.run("in lan ip route del default via 192.168.77.1");
        let mut portway = home.start(&web("tcp"));
        portway.wait_log(messages::NO_ROUTER_FOUND, |line| line.text("error").contains("no default route"));
        home.run("in lan ip route add default via 192.168.77.1");
        wait_open(&mut portway, 0, "tcp");
        wait_reached(home, wan(9080));
        home.down(portway);
    });
}
