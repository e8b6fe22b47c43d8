//! A household behind a real router that changes while portway runs: pulled cables, VPNs, restarts, forgotten leases,
//! switched-off protocols. Also whole ranges, and the flag.
//!
//! The households, and how to read them, are those of [`super::router_home`].

use std::{net::SocketAddr, os::unix::fs::MetadataExt, time::Duration};

use rustix::process::Signal;

use super::router_home::{exposed, only, wait_open, wait_reached, wan, web};
use crate::harness::{
    Client, Content, HomeRouter as _, Household, LAN_TARGET, Portway, RouterLab, Setup, TcpTarget,
    eventually, in_household, messages, paced,
};

/// A mapping's port on this machine itself.
fn near(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[track_caller]
fn wait_reached_by_udp(home: &Household<RouterLab>, to: SocketAddr) {
    eventually(&format!("{to} is reached from the internet by UDP"), || {
        home.reaches_udp("wan", to).then_some(())
    });
}

/// Waits until the router showed the opening of this protocol with an end, later than `mark`.
#[track_caller]
fn wait_seen_with_lease(portway: &mut Portway, mark: usize, protocol: &str) {
    portway.wait_log_after(mark, messages::ROUTER_ASKED, |line| {
        line.text("call").starts_with("Look")
            && line.text("call").contains(&format!("protocol: {protocol}"))
            && line.text("answer").contains("lease: Some")
    });
}

/// A piece of a stream goes to an echo and comes back.
#[track_caller]
fn there_and_back(client: &mut Client, content: &Content, nth: usize) {
    const LEN: usize = 32 * 1024;
    let offset = (nth * LEN) as u64;
    client.say(content.piece(offset, LEN));
    content.compare(offset, &client.hear(LEN));
}

#[test]
fn a_cable_that_is_out_for_half_a_minute_ends_no_session_and_stops_no_byte_at_home() {
    in_household(&[], [], |home| {
        let lab: &Household<RouterLab> = home;
        lab.inside("lan", || {
            let target = TcpTarget::echo_at(near(LAN_TARGET + 1));
            let publish = format!("publish = \"9080:{}\"", target.addr);
            let mut portway = lab.up(&format!("[[mapping]]\nname = \"web\"\n{publish}\nrouter = true\n"));
            let mut far = lab.inside("wan", || Client::to(wan(9080)));
            far.ping();
            let (mut home, content) = (Client::to(near(9080)), Content::of(2));
            let mark = portway.log_len();
            lab.run("link down");
            // The daemon asks a router that does not answer. If bytes waited for it, a few pieces would pass meanwhile.
            let mut pieces = 0;
            while portway.count(messages::NO_ROUTER_FOUND) == 0 {
                there_and_back(&mut home, &content, pieces);
                pieces += 1;
            }
            assert!(pieces > 20, "{pieces} pieces before the router was given up");
            paced(Duration::from_millis(100), 300, |nth| there_and_back(&mut home, &content, pieces + nth));
            portway.wait_log_after(mark, messages::NO_ROUTER_FOUND, |line| !line.text("error").is_empty());

            let mark = portway.log_len();
            lab.run("link up");
            portway.wait_log_after(mark, messages::ROUTER_FOUND, |_| true);
            // It looks whether its opening is still there, and takes no other.
            portway
                .wait_log_after(mark, messages::ROUTER_ASKED, |line| line.text("answer").contains("Taken"));
            far.ping();
            wait_reached(lab, wan(9080));
            home.ping();
            drop((far, home));
            let exit = lab.down(portway);
            assert!(exit.sessions_ended().iter().all(|line| line.text("reason") == "client-closed"));
        });
    });
}

#[test]
fn a_vpn_that_takes_the_default_route_changes_no_opening_and_hinders_no_new_one() {
    in_household(&[], [], |home| {
        // Beside a VPN, answers must go back the way that the question came.
        home.run("in lan ip rule add from 192.168.77.2 table 77");
        home.run("in lan ip route add default via 192.168.77.1 table 77");
        let config = web("tcp+udp");
        let mut portway = home.up(&config);
        let before = home.openings();
        let mark = portway.log_len();
        home.run("vpn on");
        wait_reached(home, wan(9080));
        wait_reached_by_udp(home, wan(9080));
        portway.reload_with(&home.config(&(exposed("more", 9081, "tcp", "true") + &config)));
        portway.wait_log_after(mark, messages::OPEN_ON_THE_ROUTER, |line| line.text("mapping") == "more");
        wait_reached(home, wan(9081));
        // After a look at the addresses of this machine, too.
        wait_seen_with_lease(&mut portway, mark, "Udp");
        let mark = portway.log_len();
        wait_seen_with_lease(&mut portway, mark, "Udp");
        let there = home.openings();
        assert!(there.len() == 3 && before.iter().all(|rule| there.contains(rule)), "{before:?} {there:?}");
        assert!(there.iter().all(|rule| rule.contains("192.168.77.2:")), "{there:?}");
        let exit = home.down(portway);
        assert_eq!(exit.lines(messages::ROUTER_FOUND).len(), 1, "{}", exit.log);

        // Without any other way out, the router is found only if the settings name it.
        home.run("vpn only");
        let mut portway = home.start(&config);
        portway.wait_log(messages::NO_ROUTER_FOUND, |line| line.text("error").contains("vpn0"));
        portway.reload_with(&(config + &home.settings("gateway = \"192.168.77.1\"")));
        wait_open(&mut portway, 0, "tcp");
        wait_reached(home, wan(9080));
        home.down(portway);
    });
}

#[test]
fn a_range_is_opened_port_by_port_and_shrinks_port_by_port() {
    in_household(&[], [], |home| {
        let _echoes = [1, 2, 3].map(|nth| home.echo("lan", LAN_TARGET + nth));
        let range = |last: u16| {
            let ports = format!("9080-{}:127.0.0.1:{LAN_TARGET}-{}", 9080 + last, LAN_TARGET + last);
            format!(
                "[[mapping]]\nname = \"game\"\npublish = \"{ports}\"\nrouter = {{ external_port = 30000 }}\n"
            )
        };
        let mut portway = home.start(&range(3));
        for nth in 0..4 {
            portway
                .wait_log(messages::OPEN_ON_THE_ROUTER, |line| line.number("external.port") == 30_000 + nth);
            wait_reached(home, wan(30_000 + u16::try_from(nth).expect("small")));
        }
        let leads = |rules: &[String], nth: u16| {
            let (from, to) = (format!("dport {} ", 30_000 + nth), format!("192.168.77.2:{}", 9080 + nth));
            rules.iter().any(|rule| rule.contains(&from) && rule.contains(&to))
        };
        let before = home.openings();
        assert!(before.len() == 4 && (0..4).all(|nth| leads(&before, nth)), "{before:#?}");
        portway.reload_with(&home.config(&range(1)));
        for port in [30_002, 30_003] {
            portway.wait_log(messages::CLOSED_ON_THE_ROUTER, |line| line.number("external.port") == port);
        }
        let there = home.openings();
        assert!(there.len() == 2 && (0..2).all(|nth| leads(&there, nth)), "{there:#?}");
        assert!(there.iter().all(|rule| before.contains(rule)), "one that stays was replaced: {there:#?}");
        assert!(!home.reaches_tcp("wan", wan(30_002)));
        home.down(portway);
    });
}

#[test]
fn the_flag_opens_every_mapping_that_does_not_say_no() {
    in_household(&[], [], |home| {
        let state = home.state().display().to_string();
        let setup = |setup: Setup| home.place(setup.args(["--router"]).env("STATE_DIRECTORY", &state), "lan");
        // With no file at all.
        let portway = setup(Portway::publishing(&format!("9080:{LAN_TARGET}/tcp+udp"))).start();
        for protocol in ["tcp", "udp"] {
            let open = |line: &str| line.contains(messages::OPEN_ON_THE_ROUTER) && line.contains(protocol);
            eventually(protocol, || portway.log().lines().any(open).then_some(()));
        }
        assert!(home.reaches_tcp("wan", wan(9080)) && home.reaches_udp("wan", wan(9080)));
        portway.signal(Signal::INT);
        portway.exit().with(0).says(messages::CLOSED_ON_THE_ROUTER);
        assert_eq!(home.openings(), [""; 0]);

        let closed = exposed("closed", 9081, "tcp", "false");
        let silent = format!("[[mapping]]\nname = \"silent\"\npublish = \"9082:127.0.0.1:{LAN_TARGET}\"\n");
        let other = exposed("other", 9083, "tcp", "{ external_port = 9084 }");
        let mut portway = setup(Portway::with(&home.config(&(closed + &silent + &other)))).start();
        for name in ["silent", "other"] {
            portway.wait_log(messages::OPEN_ON_THE_ROUTER, |line| line.text("mapping") == name);
        }
        assert!(home.reaches_tcp("wan", wan(9082)) && home.reaches_tcp("wan", wan(9084)));
        assert_eq!(home.openings().len(), 2);
        home.down(portway);
    });
}

#[test]
fn leases_that_a_restart_took_the_end_from_get_one_and_both_protocols_go_on_working() {
    in_household(&[], [], |home| {
        let mut portway = home.up(&web("tcp+udp"));
        let (before, mark) = (home.openings(), portway.log_len());
        // Stopped, or its next check might replace them before they are looked at.
        portway.signal(Signal::STOP);
        home.run("daemon restart");
        assert_eq!(home.openings(), before, "the rules stay");
        portway.signal(Signal::CONT);
        // Each is replaced. With each, the router silently ends the other, until that is replaced, too.
        eventually("both are replaced", || {
            let there = home.openings();
            (there.len() == 2 && !there.iter().any(|rule| before.contains(rule))).then_some(())
        });
        for protocol in ["Tcp", "Udp"] {
            wait_seen_with_lease(&mut portway, mark, protocol);
        }
        wait_reached(home, wan(9080));
        wait_reached_by_udp(home, wan(9080));
        // And that comes to an end: a check later they are the same, and still work.
        let check = |portway: &mut Portway| {
            let mark = portway.log_len();
            for protocol in ["Tcp", "Udp"] {
                wait_seen_with_lease(portway, mark, protocol);
            }
        };
        check(&mut portway);
        let there = home.openings();
        check(&mut portway);
        assert_eq!(home.openings(), there);
        assert!(home.reaches_tcp("wan", wan(9080)) && home.reaches_udp("wan", wan(9080)));
        home.down(portway);
    });
}

#[test]
fn where_upnp_is_switched_off_pcp_takes_over() {
    in_household(&[], [], |home| {
        let mut portway = home.up(&web("tcp+udp"));
        let mark = portway.log_len();
        home.run_with("UPNP", "no", "reboot");
        portway.wait_log_after(mark, messages::ROUTER_FOUND, |line| line.text("via") == "pcp");
        for protocol in ["tcp", "udp"] {
            portway.wait_log_after(mark, messages::OPEN_ON_THE_ROUTER, |line| {
                (line.text("protocol"), line.text("via")) == (protocol, "pcp")
            });
        }
        wait_reached(home, wan(9080));
        wait_reached_by_udp(home, wan(9080));
        home.down(portway);
    });
}

#[test]
fn a_refusal_is_asked_again_after_a_restart_that_a_failed_call_showed() {
    in_household(&[], [("RULES", &only("9081"))], |home| {
        let config = web("tcp") + &exposed("more", 9081, "tcp", "true");
        let mut portway = home.start(&config);
        portway.wait_log(messages::ROUTER_REFUSES, |line| line.text("mapping") == "web");
        portway.wait_log(messages::OPEN_ON_THE_ROUTER, |line| line.text("mapping") == "more");
        home.run("daemon stop");
        portway.wait_log(messages::ROUTER_LOST, |_| true);
        let mark = portway.log_len();
        home.run_with("RULES", &only("9080-9081"), "daemon start");
        // Without that it would wait for an hour.
        portway.wait_log_after(mark, messages::ROUTER_RESTARTED, |_| true);
        portway.wait_log_after(mark, messages::OPEN_ON_THE_ROUTER, |line| line.text("mapping") == "web");
        wait_reached(home, wan(9080));
        home.down(portway);
    });
}

#[test]
fn a_reload_that_chooses_another_protocol_leaves_nothing_of_the_former() {
    in_household(&[], [], |home| {
        let config = |protocol| web("tcp+udp") + &home.settings(&format!("protocols = [\"{protocol}\"]"));
        let mut portway = home.start(&config("upnp"));
        let mut mark = 0;
        for via in ["upnp", "natpmp", "pcp", "upnp"] {
            if mark > 0 {
                portway.reload_with(&config(via));
                portway.wait_log_after(mark, messages::CLOSED_ON_THE_ROUTER, |line| {
                    line.text("protocol") == "tcp"
                });
                portway.wait_log_after(mark, messages::CLOSED_ON_THE_ROUTER, |line| {
                    line.text("protocol") == "udp"
                });
            }
            for protocol in ["tcp", "udp"] {
                portway.wait_log_after(mark, messages::OPEN_ON_THE_ROUTER, |line| {
                    (line.text("protocol"), line.text("via")) == (protocol, via)
                });
            }
            wait_reached(home, wan(9080));
            wait_reached_by_udp(home, wan(9080));
            assert_eq!(home.openings().len(), 2, "{via}");
            mark = portway.log_len();
        }
        home.down(portway);
    });
}

/// The daemon as a user starts it, without a directory from systemd. It can write to these places only.
fn start_at_home(lab: &RouterLab, config: &str, var_lib: &str, home: &str) -> Portway {
    let mount = format!("mount {var_lib} /var/lib && exec \"$0\" \"$@\"");
    let setup = lab.place(Portway::with(config), "lan").through(["sh", "-c", &mount]);
    setup.env("STATE_DIRECTORY", "").env("XDG_STATE_HOME", "").env("HOME", home).start()
}

#[test]
fn without_a_directory_from_systemd_a_crash_leaves_nothing_behind_either() {
    // An opening whose nonce is lost stays until its lease ends.
    in_household(&["mount", "sh"], [("UPNP", "no")], |lab| {
        let settings = lab.settings("protocols = [\"pcp\"]");
        let (open, closed) = (web("tcp") + &settings, exposed("web", 9080, "tcp", "false") + &settings);
        let (own, not_own) = (tempfile::tempdir().expect("a directory"), "-t tmpfs -o ro none".to_owned());
        let (there, home) = (own.path().join("lib"), own.path().join("home"));
        for dir in [&there, &home] {
            std::fs::create_dir(dir).expect("the test's own directory");
        }
        let (bound, home_dir) = (format!("--bind {}", there.display()), home.display().to_string());
        for (var_lib, file) in [
            (&bound, there.join("portway/router.json")),
            (&not_own, home.join(".local/state/portway/router.json")),
        ] {
            let mut portway = start_at_home(lab, &open, var_lib, &home_dir);
            wait_open(&mut portway, 0, "tcp");
            portway.kill();
            let metadata = file.parent().expect("a directory").metadata().expect("it was made");
            assert_eq!(metadata.mode() & 0o777, 0o700, "{}", file.display());
            assert_eq!(lab.openings().len(), 1);
            let mut portway = start_at_home(lab, &closed, var_lib, &home_dir);
            portway.wait_log(messages::CLOSED_ON_THE_ROUTER, |_| true);
            lab.down(portway);
        }
        // Where nothing can be kept, that is said.
        let mut portway = start_at_home(lab, &open, &not_own, "/dev/null");
        portway.wait_log(messages::ROUTER_STATE_NOT_PERSISTED, |_| true);
        wait_open(&mut portway, 0, "tcp");
        lab.down(portway);
    });
}
