//! A household behind a real router: what is exposed can be reached from the internet, through everything that happens
//! to a home router, and nothing is left behind.
//!
//! Each test has a household of its own (`tests/lab/router`): `wan` is the internet, `rtr` the router, `lan` the machine
//! that portway runs on, `lan2` another one. The daemon is the real program, and speaks through its log.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use tokio::time::Instant;

use crate::harness::{Portway, RouterLab, eventually, in_router_lab};

/// Where the targets listen, on the machine of portway itself.
pub(super) const TARGET: u16 = 8000;
/// What is said of a router that tells no address of its own.
const NO_ADDRESS: &str = "no external address: the router is offline, or behind a second NAT";
/// How long the end may take: three seconds for the router, the rest for a busy machine.
const END: Duration = Duration::from_secs(8);

/// `[router]` with checks as often as can be, and a log that tells each question.
pub(super) fn settings(more: &str) -> String {
    format!("[router]\ncheck_every = \"5s\"\n{more}\n[log]\nformat = \"json\"\nlevel = \"debug\"\n")
}

/// An exposed mapping; `router` and what follows it.
pub(super) fn exposed(name: &str, port: u16, protocol: &str, router: &str) -> String {
    format!(
        "[[mapping]]\nname = \"{name}\"\npublish = \"{port}:127.0.0.1:{TARGET}/{protocol}\"\nrouter = {router}\n"
    )
}

pub(super) fn web(protocol: &str) -> String {
    exposed("web", 9080, protocol, "true")
}

pub(super) fn state() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// The daemon, on one of the machines.
pub(super) fn start(lab: &RouterLab, on: &str, config: &str, state: &Path) -> Portway {
    let network = lab.network(on);
    let setup = Portway::with(config).through(["ip", "netns", "exec", &network]);
    setup.env("STATE_DIRECTORY", &state.display().to_string()).start()
}

/// The daemon on `lan`, with `web` open on the router for both protocols.
#[track_caller]
pub(super) fn start_open_for_both(lab: &RouterLab, state: &Path) -> Portway {
    let mut portway = start(lab, "lan", &(web("tcp+udp") + &settings("")), state);
    for protocol in ["tcp", "udp"] {
        wait_open(&mut portway, 0, protocol);
    }
    portway
}

pub(super) fn wan(port: u16) -> SocketAddr {
    SocketAddr::new(RouterLab::WAN.into(), port)
}

#[track_caller]
pub(super) fn wait_open(portway: &mut Portway, mark: usize, protocol: &str) {
    portway.wait_log_after(mark, "open on the router", |line| line.text("protocol") == protocol);
}

#[track_caller]
pub(super) fn wait_reached(lab: &RouterLab, to: SocketAddr) {
    eventually(&format!("{to} is reached from the internet"), || lab.reaches_tcp("wan", to).then_some(()));
}

/// The openings that the router carries out: the rules that change an address, with their handles.
pub(super) fn openings(lab: &RouterLab) -> Vec<String> {
    let rules = lab.run("rules");
    rules.lines().filter(|line| line.contains(" dnat ")).map(|line| line.trim().to_owned()).collect()
}

#[test]
fn what_is_exposed_is_reached_from_the_internet_and_closed_at_the_end() {
    in_router_lab(&[], [], |lab| {
        let _echo = lab.echo("lan", TARGET);
        let state = state();
        assert!(!lab.reaches_tcp("wan", wan(9080)));
        // A UDP client, whose end cannot be seen, would have the grace.
        let config = web("tcp+udp") + &settings("") + "[shutdown]\ngrace = \"1s\"\n";
        let mut portway = start(lab, "lan", &config, state.path());
        let line = portway.wait_log("router found", |_| true);
        assert_eq!((line.text("router.addr"), line.text("via")), ("192.168.77.1", "upnp"));
        wait_open(&mut portway, 0, "tcp");
        wait_open(&mut portway, 0, "udp");
        assert!(lab.reaches_tcp("wan", wan(9080)) && lab.reaches_udp("wan", wan(9080)));
        let asked = Instant::now();
        let exit = portway.stop().with(0);
        assert!(asked.elapsed() < END, "{}", exit.log);
        assert_eq!(openings(lab), Vec::<String>::new());
        assert!(!lab.reaches_tcp("wan", wan(9080)));
        assert!(!exit.log.contains("left open"), "{}", exit.log);
    });
}

#[test]
fn a_crash_is_followed_by_the_same_opening_and_no_second_one() {
    in_router_lab(&[], [], |lab| {
        let _echo = lab.echo("lan", TARGET);
        let state = state();
        let config = web("tcp") + &settings("");
        let mut portway = start(lab, "lan", &config, state.path());
        wait_open(&mut portway, 0, "tcp");
        portway.kill();
        assert_eq!(openings(lab).len(), 1);
        let mut portway = start(lab, "lan", &config, state.path());
        wait_open(&mut portway, 0, "tcp");
        assert_eq!(openings(lab).len(), 1);
        wait_reached(lab, wan(9080));
        portway.stop().with(0);
        assert_eq!(openings(lab), Vec::<String>::new());
    });
}

#[test]
fn a_router_that_restarts_is_opened_again_within_a_check() {
    in_router_lab(&[], [], |lab| {
        let _echo = lab.echo("lan", TARGET);
        let state = state();
        let mut portway = start_open_for_both(lab, state.path());
        let mark = portway.log_len();
        lab.run("reboot");
        wait_open(&mut portway, mark, "tcp");
        wait_open(&mut portway, mark, "udp");
        assert!(lab.reaches_tcp("wan", wan(9080)) && lab.reaches_udp("wan", wan(9080)));

        // Its service restarts, at another address: the rules stay, and their leases no longer end.
        let mark = portway.log_len();
        lab.run_with("HTTP_PORT", "0", "daemon restart");
        portway.wait_log_after(mark, "router asked", |line| {
            line.text("call").starts_with("Look") && line.text("answer").contains("lease: None")
        });
        let mark = portway.log_len();
        portway.wait_log_after(mark, "router asked", |line| {
            line.text("call").starts_with("Look") && line.text("answer").contains("lease: Some")
        });
        wait_reached(lab, wan(9080));
        portway.stop().with(0);
        assert_eq!(openings(lab), Vec::<String>::new());
    });
}

#[test]
fn a_port_of_another_machine_is_respected_and_taken_when_it_is_free() {
    in_router_lab(&[], [], |lab| {
        let _echo = lab.echo("lan", TARGET);
        let (mine, others) = (state(), state());
        let mut other = start(lab, "lan2", &(web("tcp") + &settings("")), others.path());
        wait_open(&mut other, 0, "tcp");
        let config = web("tcp") + &exposed("more", 9081, "tcp", "true") + &settings("");
        let mut portway = start(lab, "lan", &config, mine.path());
        let line = portway.wait_log("held by another machine", |_| true);
        assert!(line.text("holder").starts_with("192.168.77.3:9080"), "{}", line.raw());
        assert_eq!(line.number("external.port"), 9080);
        portway.wait_log("open on the router", |line| line.text("mapping") == "more");
        wait_reached(lab, wan(9081));

        // A daemon that ends without the port leaves it to its holder.
        portway.stop().with(0);
        let left = openings(lab);
        assert!(left.len() == 1 && left[0].contains("192.168.77.3"), "{left:?}");

        let mut portway = start(lab, "lan", &config, mine.path());
        portway.wait_log("held by another machine", |_| true);
        other.stop().with(0);
        portway.wait_log("open on the router", |line| line.text("mapping") == "web");
        wait_reached(lab, wan(9080));
        portway.stop().with(0);
    });
}

#[test]
fn a_refused_port_is_reported_and_not_asked_for_again_and_again() {
    in_router_lab(
        &[],
        [("RULES", "allow 9081 192.168.77.0/24 1-65535|deny 0-65535 0.0.0.0/0 0-65535")],
        |lab| {
            let _echo = lab.echo("lan", TARGET);
            let state = state();
            let config = web("tcp") + &exposed("more", 9081, "tcp", "true") + &settings("");
            let mut portway = start(lab, "lan", &config, state.path());
            portway.wait_log("router refuses", |line| line.text("mapping") == "web");
            portway.wait_log("open on the router", |line| line.text("mapping") == "more");
            // Two checks later.
            for _ in 0..2 {
                let mark = portway.log_len();
                portway.wait_log_after(mark, "router asked", |line| line.text("call").contains("9081"));
            }
            let opens = portway.lines("router asked").into_iter().filter(|line| {
                line.text("call").starts_with("Open") && line.text("call").contains("external_port: 9080")
            });
            assert_eq!(opens.count(), 1);
            assert_eq!(portway.lines("router refuses").len(), 1);
            portway.stop().with(0);
        },
    );
}

#[test]
fn the_external_address_is_followed_and_judged() {
    in_router_lab(&[], [], |lab| {
        let _echo = lab.echo("lan", TARGET);
        let state = state();
        let mut portway = start(lab, "lan", &(web("tcp") + &settings("")), state.path());
        wait_open(&mut portway, 0, "tcp");
        lab.run("wanip 11.22.33.7");
        let line = portway.wait_log("external address changed", |_| true);
        assert_eq!(line.text("external.addr"), "11.22.33.7");
        wait_reached(lab, SocketAddr::new([11, 22, 33, 7].into(), 9080));
        // The provider's own NAT: this router then tells no address at all.
        lab.run("wanip 100.64.3.4");
        portway.wait_log(NO_ADDRESS, |line| !line.text("advice").is_empty());
        lab.run("wanip 11.22.33.1");
        portway.wait_log("reachable from the internet again", |_| true);
        wait_reached(lab, wan(9080));
        assert_eq!(portway.lines(NO_ADDRESS).len(), 1);
        portway.stop().with(0);
        assert_eq!(openings(lab), Vec::<String>::new());
    });
}

#[test]
fn a_vpn_a_firewall_and_a_second_router_are_no_obstacle() {
    in_router_lab(&[], [], |lab| {
        let _echo = lab.echo("lan", TARGET);
        lab.run("hostfw on");
        lab.run("second up");
        for vpn in ["on", "off"] {
            lab.run(&format!("vpn {vpn}"));
            let state = state();
            let mut portway = start(lab, "lan", &(web("tcp") + &settings("")), state.path());
            let line = portway.wait_log("router found", |_| true);
            assert_eq!(line.text("router.addr"), "192.168.77.1", "vpn {vpn}");
            wait_open(&mut portway, 0, "tcp");
            portway.stop().with(0);
        }
        lab.run("vpn off");
        let state = state();
        let mut portway = start(lab, "lan", &(web("tcp") + &settings("")), state.path());
        wait_open(&mut portway, 0, "tcp");
        wait_reached(lab, wan(9080));
        portway.stop().with(0);
    });
}

#[test]
fn an_opening_moves_with_the_address_of_this_machine() {
    in_router_lab(&[], [("SECURE", "no")], |lab| {
        let _echo = lab.echo("lan", TARGET);
        let state = state();
        let mut portway = start(lab, "lan", &(web("tcp") + &settings("")), state.path());
        wait_open(&mut portway, 0, "tcp");
        let mark = portway.log_len();
        lab.run("lanip 192.168.77.50");
        wait_open(&mut portway, mark, "tcp");
        wait_reached(lab, wan(9080));
        let there = openings(lab);
        assert!(there.len() == 1 && there[0].contains("192.168.77.50"), "{there:?}");
        portway.stop().with(0);
        assert_eq!(openings(lab), Vec::<String>::new());
    });
}

#[test]
fn an_opening_of_a_former_address_is_waited_for_where_the_router_guards_it() {
    in_router_lab(&[], [("SECURE", "yes")], |lab| {
        let _echo = lab.echo("lan", TARGET);
        let state = state();
        let mut portway = start(lab, "lan", &(web("tcp") + &settings("lease = \"2m\"")), state.path());
        wait_open(&mut portway, 0, "tcp");
        lab.run("lanip 192.168.77.50");
        let line = portway.wait_log("held by another machine", |_| true);
        assert!(line.text("holder").starts_with("192.168.77.2:9080"), "{}", line.raw());
        // The machine that had that address first gets it back.
        let mark = portway.log_len();
        lab.run("lanip 192.168.77.2");
        wait_open(&mut portway, mark, "tcp");
        wait_reached(lab, wan(9080));
        portway.stop().with(0);
        assert_eq!(openings(lab), Vec::<String>::new());
    });
}

#[test]
fn a_reload_opens_and_closes_the_difference_alone_and_udp_survives_the_end_of_tcp() {
    in_router_lab(&[], [], |lab| {
        let _echo = lab.echo("lan", TARGET);
        let state = state();
        let keep = exposed("keep", 9081, "tcp", "true");
        let config = |mappings: String| mappings + &keep + &settings("");
        let mut portway = start(lab, "lan", &config(web("tcp+udp")), state.path());
        for (mapping, protocol) in [("web", "tcp"), ("web", "udp"), ("keep", "tcp")] {
            let fits = |line: &crate::harness::Line| {
                line.text("mapping") == mapping && line.text("protocol") == protocol
            };
            portway.wait_log("open on the router", fits);
        }
        let kept = |lab: &RouterLab| openings(lab).into_iter().find(|rule| rule.contains("9081"));
        let before = kept(lab);
        assert!(before.is_some());
        let mark = portway.log_len();
        portway.reload_with(&config(web("udp")));
        portway.wait_log_after(mark, "closed on the router", |line| line.text("protocol") == "tcp");
        // The router takes a rule of UDP away with that of TCP, and says nothing.
        eventually("UDP is reached again", || lab.reaches_udp("wan", wan(9080)).then_some(()));
        assert!(!lab.reaches_tcp("wan", wan(9080)));
        assert_eq!(kept(lab), before, "the rule of a mapping that stayed was replaced");
        portway.stop().with(0);
        assert_eq!(openings(lab), Vec::<String>::new());
    });
}

#[test]
fn a_router_without_upnp_is_opened_by_pcp_or_natpmp() {
    in_router_lab(&[], [("UPNP", "no")], |lab| {
        let _echo = lab.echo("lan", TARGET);
        for (protocols, via) in [("", "pcp"), ("protocols = [\"natpmp\"]", "natpmp")] {
            let state = state();
            let config = web("tcp+udp") + &settings(protocols);
            let mut portway = start(lab, "lan", &config, state.path());
            let line = portway.wait_log("router found", |_| true);
            assert_eq!(line.text("via"), via);
            wait_open(&mut portway, 0, "tcp");
            wait_open(&mut portway, 0, "udp");
            assert!(lab.reaches_tcp("wan", wan(9080)) && lab.reaches_udp("wan", wan(9080)), "{via}");
            // The epoch shows a restart.
            let mark = portway.log_len();
            lab.run("reboot");
            portway.wait_log_after(mark, "router restarted", |_| true);
            wait_reached(lab, wan(9080));
            portway.stop().with(0);
            assert_eq!(openings(lab), Vec::<String>::new(), "{via}");
        }
    });
}

#[test]
fn after_a_crash_pcp_takes_its_opening_back_by_its_nonce() {
    in_router_lab(&[], [("UPNP", "no")], |lab| {
        let _echo = lab.echo("lan", TARGET);
        let state = state();
        let mut portway = start(lab, "lan", &(web("tcp") + &settings("")), state.path());
        wait_open(&mut portway, 0, "tcp");
        portway.kill();
        let closed = exposed("web", 9080, "tcp", "false") + &settings("");
        let mut portway = start(lab, "lan", &closed, state.path());
        portway.wait_log("closed on the router", |_| true);
        assert_eq!(openings(lab), Vec::<String>::new());
        portway.stop().with(0);
    });
}

#[test]
fn a_router_that_comes_late_or_goes_for_a_while_is_found() {
    in_router_lab(&[], [("NATPMP", "no")], |lab| {
        let _echo = lab.echo("lan", TARGET);
        let state = state();
        lab.run("daemon stop");
        let mut portway = start(lab, "lan", &(web("tcp") + &settings("")), state.path());
        portway.wait_log("no router found", |_| true);
        lab.run("daemon start");
        wait_open(&mut portway, 0, "tcp");
        wait_reached(lab, wan(9080));

        lab.run("link down");
        portway.wait_log("router lost", |_| true);
        // No client at home notices.
        let inside = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 9080);
        assert!(lab.reaches_tcp("lan", inside));
        lab.run("link up");
        let mark = portway.log_len();
        portway.wait_log_after(mark, "router asked", |line| line.text("answer").contains("Taken"));
        wait_reached(lab, wan(9080));
        portway.stop().with(0);
        assert_eq!(openings(lab), Vec::<String>::new());
    });
}

#[test]
fn the_ipv6_firewall_is_open_for_exactly_what_is_exposed_to_it() {
    in_router_lab(&[], [], |lab| {
        let _echo = lab.echo("lan", TARGET);
        let state = state();
        let to = SocketAddr::new("2001:db8:77::2".parse().expect("an address"), 9080);
        assert!(!lab.reaches_tcp("wan", to));
        let config = exposed("web", 9080, "tcp", "{ ipv6 = true }") + &settings("");
        let mut portway = start(lab, "lan", &config, state.path());
        let is_pinhole = |line: &crate::harness::Line| line.text("external.addr") == "2001:db8:77::2";
        portway.wait_log("open on the router", is_pinhole);
        portway.wait_log("open on the router", |line| line.text("external.addr") == "11.22.33.1");
        wait_reached(lab, to);
        wait_reached(lab, wan(9080));
        portway.stop().with(0);
        assert!(!lab.reaches_tcp("wan", to));
        assert_eq!(openings(lab), Vec::<String>::new());
    });
}

#[test]
fn a_machine_without_a_network_waits_for_one() {
    in_router_lab(&[], [], |lab| {
        let _echo = lab.echo("lan", TARGET);
        let state = state();
        lab.run("in lan ip route del default via 192.168.77.1");
        let mut portway = start(lab, "lan", &(web("tcp") + &settings("")), state.path());
        portway.wait_log("no router found", |line| line.text("error").contains("no default route"));
        lab.run("in lan ip route add default via 192.168.77.1");
        wait_open(&mut portway, 0, "tcp");
        wait_reached(lab, wan(9080));
        portway.stop().with(0);
        assert_eq!(openings(lab), Vec::<String>::new());
    });
}
