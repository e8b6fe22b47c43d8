//! A router that misbehaves: the daemon says what is wrong, keeps forwarding, and ends in time.
//!
//! The routers are programs on the loopback interface, so the tests need no root. What a real router does is in
//! `router_home`.

use std::thread;

use crate::harness::{
    Client, Content, FakeRouter, HomeRouter as _, Household, Line, Portway, TcpTarget, eventually, free_port,
    in_fake_household, in_own_network, mapping, messages, own_addr, with_tools,
};

/// What is said of a router that tells no address of its own.
const MIB: u64 = 1024 * 1024;

/// With a router of this mode the daemon comes to say `message`, forwards all the while, stays small, and ends in time.
fn comes_to_say(mode: &str, key: &str, message: &str, fits: impl Fn(&Line) -> bool) {
    let home = Household::fake(mode);
    let mut portway = home.start(&home.web(key));
    portway.wait_log(message, |line| {
        assert!(!line.raw().contains('\u{1b}') && line.raw().len() < 2000, "{mode}: {}", line.raw());
        fits(line)
    });
    home.ping();
    let memory = portway.most_memory();
    assert!(memory < 64 * MIB, "{mode}: {} MiB", memory / MIB);
    let exit = portway.stop().with(0);
    assert!(!exit.log.contains("panicked"), "{mode}: {}", exit.log);
}

/// Some at once, because most of their time is spent waiting.
fn each(modes: &[&str], claim: impl Fn(&str) + Sync) {
    for some in modes.chunks(8) {
        thread::scope(|scope| {
            let threads: Vec<_> = some.iter().map(|mode| scope.spawn(|| claim(mode))).collect();
            for (thread, mode) in threads.into_iter().zip(some) {
                if let Err(panic) = thread.join() {
                    eprintln!("in mode {mode}");
                    std::panic::resume_unwind(panic);
                }
            }
        });
    }
}

#[test]
fn a_router_that_works_somehow_is_open() {
    with_tools(&FakeRouter::TOOLS, || {
        each(&["good", "nospecific", "noscpd", "twowan", "junk"], |mode| {
            comes_to_say(mode, "true", messages::OPEN_ON_THE_ROUTER, |line| {
                line.text("external.addr") == "11.99.0.1" && line.number("lease_s") == 3600
            });
        });
        comes_to_say("permanent", "true", messages::OPEN_ON_THE_ROUTER, |line| {
            !line.raw().contains("lease_s")
        });
    });
}

#[test]
fn a_router_that_knows_header_names_in_one_spelling_only_is_open() {
    with_tools(&FakeRouter::TOOLS, || {
        comes_to_say("literal", "true", messages::OPEN_ON_THE_ROUTER, |line| {
            line.text("external.addr") == "11.99.0.1"
        });
    });
}

#[test]
fn an_answer_that_breaks_the_rules_in_a_known_way_is_understood() {
    with_tools(&FakeRouter::TOOLS, || {
        let modes = ["spaced", "folded", "bareheads", "nolength", "chunked", "longlength", "shortlength"];
        each(&modes, |mode| {
            comes_to_say(mode, "true", messages::OPEN_ON_THE_ROUTER, |line| {
                line.text("external.addr") == "11.99.0.1" && !line.raw().contains("unverified")
            });
        });
    });
}

#[test]
fn a_router_that_grants_an_opening_and_does_not_find_it_has_it_open_and_unverified() {
    with_tools(&FakeRouter::TOOLS, || {
        each(&["lost402", "lost501", "lost713", "lost714"], |mode| {
            let home = Household::fake(mode);
            let mut portway = home.up(&home.web("true"));
            let line = portway.wait_log(messages::OPEN_ON_THE_ROUTER, |_| true);
            assert_eq!(line.text("state"), "open");
            assert!(line.text("unverified").contains("does not show it"), "{mode}: {}", line.raw());
            home.wait_checks(2);
            assert!(home.requests("AddPortMapping") <= 2, "{mode}: it is not opened again all the time");
            let exit = home.down(portway);
            assert_eq!(exit.lines(messages::OPEN_ON_THE_ROUTER).len(), 1, "{mode}");
        });
    });
}

#[test]
fn a_router_that_refuses_is_reported_with_what_it_says() {
    with_tools(&FakeRouter::TOOLS, || {
        each(&["conflict", "nodesc"], |mode| {
            comes_to_say(mode, "true", messages::HELD_BY_ANOTHER_MACHINE, |line| {
                line.text("holder") == "unknown"
            });
        });
        comes_to_say("deny", "true", messages::ROUTER_REFUSES, |line| line.text("error").contains("606"));
        comes_to_say("sameport", "{ external_port = 7 }", messages::ROUTER_REFUSES, |line| {
            line.text("error").contains("external_port")
        });
        each(&["full", "code501"], |mode| {
            comes_to_say(mode, "true", messages::NOT_OPEN_ON_THE_ROUTER, |line| line.number("retry_s") > 0);
        });
    });
}

#[test]
fn a_router_that_says_yes_and_does_something_else_is_found_out() {
    with_tools(&FakeRouter::TOOLS, || {
        comes_to_say("forget", "true", messages::OPEN_ON_THE_ROUTER, |line| {
            !line.text("unverified").is_empty()
        });
        comes_to_say("lie", "true", messages::NOT_OPEN_ON_THE_ROUTER, |line| {
            line.text("error").contains("another machine")
        });
    });
}

#[test]
fn a_router_without_an_address_is_reported_and_stays_open() {
    with_tools(&FakeRouter::TOOLS, || {
        each(&["wan0", "nowan"], |mode| {
            comes_to_say(mode, "true", messages::NO_EXTERNAL_ADDRESS, |line| !line.text("advice").is_empty());
            comes_to_say(mode, "true", messages::OPEN_ON_THE_ROUTER, |_| true);
        });
    });
}

#[test]
fn a_provider_with_a_nat_of_its_own_is_reported_once() {
    with_tools(&FakeRouter::TOOLS, || {
        let home = Household::fake_with("good", ["--wan", "100.64.3.4"]);
        let mut portway = home.up(&home.web("true"));
        let line = portway.wait_log(messages::BEHIND_A_SECOND_NAT, |_| true);
        assert_eq!(line.text("external.addr"), "100.64.3.4");
        home.wait_checks(1);
        let exit = home.down(portway);
        assert_eq!(exit.lines(messages::BEHIND_A_SECOND_NAT).len(), 1);
    });
}

#[test]
fn a_router_that_makes_no_sense_counts_as_absent() {
    let modes = [
        "silent", "bigdesc", "slowdesc", "hangdesc", "laughs", "wide", "deep", "redirect", "location",
        "control", "dying", "bigsoap", "slowsoap", "hangsoap", "widesoap",
    ];
    with_tools(&FakeRouter::TOOLS, || {
        each(&modes, |mode| {
            comes_to_say(mode, "true", messages::NO_ROUTER_FOUND, |line| !line.text("error").is_empty());
        });
    });
}

#[test]
fn sessions_do_not_notice_a_router_that_hangs() {
    in_fake_household("hangsoap", |home| {
        let (len, content) = (8 * MIB, Content::of(3));
        let (bulk, at) = (TcpTarget::writes_and_closes(&content, len), own_addr(8080));
        let mut portway = home.start(&(home.web("true") + &mapping(at, bulk.addr, "")));
        portway.wait_log(messages::ROUTER_LOST, |_| true);
        // From this line to the next there is always a question that the router does not answer. If bytes waited for
        // the router, one or two sessions would end meanwhile.
        let (mut sessions, mut transfers) = (0, 0);
        while portway.count(messages::ROUTER_LOST) == 1 {
            for _ in 0..10 {
                home.ping();
                sessions += 1;
            }
            assert_eq!(content.receive(&mut Client::to(at).0).expect("the client reads"), len);
            transfers += 1;
        }
        assert!(
            sessions > 20 && transfers > 2,
            "{sessions} sessions, {transfers} transfers while the router hung"
        );
        portway.stop().with(0);
    });
}

#[test]
fn a_router_that_hangs_at_the_end_does_not_hold_the_end_up() {
    in_fake_household("good", |home| {
        let portway = home.up(&home.web("true"));
        home.freeze();
        portway.stop().with(0).says("left open on the router");
        assert!(std::fs::read_to_string(home.state().join("router.json")).is_ok_and(|t| t.contains("web")));
    });
}

#[test]
fn an_orderly_end_leaves_nothing_behind() {
    in_fake_household("good", |home| {
        let mappings: String =
            (0..5).map(|nth| home.mapping(&format!("m{nth}"), free_port(), "true")).collect();
        let exit = home.down(home.up(&mappings));
        assert_eq!(exit.lines(messages::CLOSED_ON_THE_ROUTER).len(), 5);
    });
}

#[test]
fn after_a_crash_what_is_wanted_is_taken_over_and_the_rest_is_taken_back() {
    in_fake_household("good", |home| {
        let dropped = free_port();
        let stays = home.web("true");
        home.up(&(home.mapping("goes", dropped, "true") + &stays)).kill();
        let mut second = home.up(&stays);
        second.wait_log(messages::CLOSED_ON_THE_ROUTER, |line| line.text("mapping") == "goes");
        let left = home.openings().concat();
        assert!(left.contains(&home.port().to_string()) && !left.contains(&dropped.to_string()), "{left}");
        home.down(second);
    });
}

#[test]
fn what_a_crash_left_is_taken_back_although_nothing_is_wanted_any_more() {
    in_fake_household("good", |home| {
        home.up(&home.web("true")).kill();
        let mut second = home.start(&home.web("false"));
        second.wait_log(messages::CLOSED_ON_THE_ROUTER, |_| true);
        assert_eq!(home.openings(), [""; 0]);
        second.stop().with(0);
    });
}

#[test]
fn a_second_daemon_takes_nothing_of_the_first_back() {
    in_fake_household("good", |home| {
        let first = home.up(&home.web("true"));
        let mut second = home.up(&home.mapping("two", free_port(), "true"));
        second.wait_log(messages::OPENINGS_NOT_REMEMBERED_OVER_A_RESTART, |_| true);
        second.stop().with(0);
        let left = home.openings().concat();
        assert!(left.contains("portway:web"), "{left}");
        home.down(first);
    });
}

#[test]
fn openings_are_remembered_in_the_next_directory_when_the_one_of_the_service_cannot_be_written() {
    in_own_network(&["sh", "mount", "python3"], || {
        let (home, user) = (Household::fake("good"), tempfile::tempdir().expect("a temporary directory"));
        let start = |mappings: &str| {
            let at = home.state().to_str().expect("a readable path");
            let script =
                "mount -t tmpfs -o ro none \"$0\" && mount -t tmpfs -o ro none /var/lib && exec \"$@\"";
            Portway::with(&home.config(mappings))
                .env("STATE_DIRECTORY", at)
                .env("XDG_STATE_HOME", &user.path().display().to_string())
                .through(["unshare", "--mount", "--", "sh", "-c", script, at])
                .start()
        };
        let mut portway = start(&home.web("true"));
        portway.wait_log(messages::STATE_DIRECTORY_NOT_USABLE, |line| line.text("dir").starts_with("/tmp"));
        portway.wait_log(messages::OPEN_ON_THE_ROUTER, |_| true);
        let file = user.path().join("portway/router.json");
        eventually("the opening is noted", || {
            std::fs::read_to_string(&file).is_ok_and(|text| text.contains("\"web\"")).then_some(())
        });
        portway.kill();
        let _portway = start(&home.web("false"));
        eventually("what the crash left is taken back", || home.openings().is_empty().then_some(()));
    });
}

#[test]
fn a_broken_list_of_openings_is_set_aside() {
    in_fake_household("good", |home| {
        std::fs::write(home.state().join("router.json"), "{ what is this").expect("the test's own directory");
        let mut portway = home.up(&home.web("true"));
        portway.wait_log(messages::OPENINGS_BROKEN, |_| true);
        assert!(home.state().join("router.json.broken").exists());
        home.down(portway);
    });
}

#[test]
fn a_reload_asks_the_router_for_the_difference_alone() {
    in_fake_household("good", |home| {
        let stays = home.web("true");
        let mut portway = home.up(&(home.mapping("goes", free_port(), "true") + &stays));
        assert_eq!(home.requests("AddPortMapping"), 2);
        let comes = home.mapping("comes", free_port(), "true");
        portway.reload_with(&home.config(&(comes.clone() + &stays)));
        portway.wait_log(messages::CLOSED_ON_THE_ROUTER, |line| line.text("mapping") == "goes");
        portway.wait_log(messages::OPEN_ON_THE_ROUTER, |line| line.text("mapping") == "comes");
        assert_eq!((home.requests("AddPortMapping"), home.requests("DeletePortMapping")), (3, 1));
        // And an option of the listener that does not concern the router.
        portway.reload_with(&home.config(&(comes + &stays + "idle_timeout = \"10m\"\n")));
        home.wait_checks(1);
        assert_eq!((home.requests("AddPortMapping"), home.requests("DeletePortMapping")), (3, 1));
        home.down(portway);
    });
}

#[test]
fn a_router_that_forgot_everything_is_asked_again() {
    in_fake_household("good", |home| {
        let mut portway = home.up(&home.web("true"));
        let mark = portway.log_len();
        home.restart();
        portway.wait_log_after(mark, messages::OPEN_ON_THE_ROUTER, |_| true);
        let openings = home.openings().concat();
        assert!(openings.contains(&home.port().to_string()), "{openings}");
        let mark = portway.log_len();
        home.move_description();
        portway.wait_log_after(mark, messages::ROUTER_LOST, |_| true);
        let mark = portway.log_len();
        portway.wait_log_after(mark, messages::ROUTER_ASKED, |line| line.text("answer").contains("Taken"));
        home.down(portway);
    });
}

#[test]
fn any_other_port_is_taken_once_and_kept() {
    in_fake_household("good", |home| {
        // Another machine's, as far as the second daemon can tell by the text.
        let external = format!("{{ external_port = {} }}", home.port());
        let other = tempfile::tempdir().expect("a temporary directory");
        let mut holder = home.start_on("lan2", &home.mapping("other", free_port(), &external), other.path());
        holder.wait_log(messages::OPEN_ON_THE_ROUTER, |_| true);
        let config =
            home.mapping("web", free_port(), &external) + &home.settings("on_conflict = \"any-port\"");
        let port = |portway: &mut Portway| {
            portway.wait_log(messages::OPEN_ON_THE_ROUTER, |_| true).number("external.port")
        };
        let mut portway = home.up(&config);
        let other = port(&mut portway);
        assert_ne!(other, u64::from(home.port()));
        portway.kill();
        let mut portway = home.up(&config);
        assert_eq!(port(&mut portway), other);
        portway.stop().with(0);
        home.down(holder);
    });
}

#[test]
fn the_router_is_not_asked_for_what_is_not_exposed() {
    in_fake_household("good", |home| {
        let portway = home.start(&home.web("false"));
        home.ping();
        let tasks = std::fs::read_dir(format!("/proc/{}/task", portway.pid())).expect("the daemon runs");
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        assert!(names.into_iter().all(|name| name.trim() != "router"), "a thread for nothing");
        portway.stop().with(0);
        assert_eq!(home.log(), [""; 0]);
    });
}
