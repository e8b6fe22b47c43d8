//! A router that misbehaves: the daemon says what is wrong, keeps forwarding, and ends in time.
//!
//! The routers are programs on the loopback interface, so the tests need no root. What a real router does is in
//! `router_home`.

use std::{net::SocketAddr, path::Path, thread, time::Duration};

use tokio::time::Instant;

use crate::harness::{
    Client, FakeRouter, Line, Portway, TcpTarget, eventually, free_port, in_own_network, with_tools,
};

/// What is said of a router that tells no address of its own.
const NO_ADDRESS: &str = "no external address: the router is offline, or behind a second NAT";

const MIB: u64 = 1024 * 1024;

/// The end of a program with a router that hangs: three seconds for the router, the rest for a busy machine. A
/// daemon that waits for a call to end would need nine.
const END: Duration = Duration::from_secs(8);

/// Asks only this router, and often.
pub(super) fn router(fake: &FakeRouter, more: &str) -> String {
    format!(
        "[router]\ngateway = \"127.0.0.1:{}\"\nprotocols = [\"upnp\"]\ncheck_every = \"5s\"\n{more}\n[log]\nformat = \
         \"json\"\nlevel = \"debug\"\n",
        fake.search_port()
    )
}

/// A mapping that is to be open on the router.
pub(super) fn exposed(name: &str, port: u16, target: SocketAddr, more: &str) -> String {
    let router = if more.is_empty() { "true" } else { more };
    format!("[[mapping]]\nname = \"{name}\"\npublish = \"{port}:{target}\"\nrouter = {router}\n")
}

/// A directory for what outlives a daemon.
pub(super) fn state() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

pub(super) fn start(config: &str, state: &Path) -> Portway {
    Portway::with(config).env("STATE_DIRECTORY", &state.display().to_string()).start()
}

/// How often the router was asked for this.
fn requests(fake: &FakeRouter, action: &str) -> usize {
    fake.log().iter().filter(|line| line.contains(action)).count()
}

/// The entries that the router has now, by its last line.
fn entries(fake: &FakeRouter) -> String {
    let log = fake.log();
    let last = log.iter().rfind(|line| line.contains('{')).cloned().unwrap_or_default();
    last.split_once('{').map(|(_, entries)| entries.to_owned()).unwrap_or_default()
}

/// With a router of this mode the daemon comes to say `message`, forwards all the while, stays small, and ends in time.
fn comes_to_say(mode: &str, details: &str, message: &str, fits: impl Fn(&Line) -> bool) {
    let (fake, state, target, port) = (FakeRouter::start(mode), state(), TcpTarget::echo(), free_port());
    let mut portway = start(&(exposed("web", port, target.addr, details) + &router(&fake, "")), state.path());
    portway.wait_log(message, |line| {
        assert!(!line.raw().contains('\u{1b}') && line.raw().len() < 2000, "{mode}: {}", line.raw());
        fits(line)
    });
    Client::to(([127, 0, 0, 1], port).into()).ping();
    let memory = portway.most_memory();
    assert!(memory < 64 * MIB, "{mode}: {} MiB", memory / MIB);
    let asked = Instant::now();
    let exit = portway.stop().with(0);
    assert!(asked.elapsed() < END, "{mode}: the end took {:?}", asked.elapsed());
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
            comes_to_say(mode, "", "open on the router", |line| {
                line.text("external.addr") == "11.99.0.1" && line.number("lease_s") == 3600
            });
        });
        comes_to_say("permanent", "", "open on the router", |line| !line.raw().contains("lease_s"));
    });
}

#[test]
fn a_router_that_knows_header_names_in_one_spelling_only_is_open() {
    with_tools(&FakeRouter::TOOLS, || {
        comes_to_say("literal", "", "open on the router", |line| line.text("external.addr") == "11.99.0.1");
    });
}

#[test]
fn an_answer_that_breaks_the_rules_in_a_known_way_is_understood() {
    with_tools(&FakeRouter::TOOLS, || {
        let modes = ["spaced", "folded", "bareheads", "nolength", "chunked", "longlength", "shortlength"];
        each(&modes, |mode| {
            comes_to_say(mode, "", "open on the router", |line| {
                line.text("external.addr") == "11.99.0.1" && !line.raw().contains("unverified")
            });
        });
    });
}

#[test]
fn a_router_that_grants_an_opening_and_does_not_find_it_has_it_open_and_unverified() {
    with_tools(&FakeRouter::TOOLS, || {
        each(&["lost402", "lost501", "lost713", "lost714"], |mode| {
            let (fake, state, target, port) =
                (FakeRouter::start(mode), state(), TcpTarget::echo(), free_port());
            let config = exposed("web", port, target.addr, "") + &router(&fake, "");
            let mut portway = start(&config, state.path());
            let line = portway.wait_log("open on the router", |_| true);
            assert_eq!(line.text("state"), "open");
            assert!(line.text("unverified").contains("does not show it"), "{mode}: {}", line.raw());
            let checks = requests(&fake, "GetExternalIPAddress");
            eventually("another check", || {
                (requests(&fake, "GetExternalIPAddress") > checks + 1).then_some(())
            });
            assert!(requests(&fake, "AddPortMapping") <= 2, "{mode}: it is not opened again all the time");
            let exit = portway.stop().with(0);
            assert_eq!(exit.lines("open on the router").len(), 1, "{mode}");
            assert_eq!(entries(&fake), "}", "{mode}: it is taken back at the end");
        });
    });
}

#[test]
fn a_router_that_refuses_is_reported_with_what_it_says() {
    with_tools(&FakeRouter::TOOLS, || {
        each(&["conflict", "nodesc"], |mode| {
            comes_to_say(mode, "", "held by another machine", |line| line.text("holder") == "unknown");
        });
        comes_to_say("deny", "", "router refuses", |line| line.text("error").contains("606"));
        comes_to_say("sameport", "{ external_port = 7 }", "router refuses", |line| {
            line.text("error").contains("external_port")
        });
        each(&["full", "code501"], |mode| {
            comes_to_say(mode, "", "not open on the router", |line| line.number("retry_s") > 0);
        });
    });
}

#[test]
fn a_router_that_says_yes_and_does_something_else_is_found_out() {
    with_tools(&FakeRouter::TOOLS, || {
        comes_to_say("forget", "", "open on the router", |line| !line.text("unverified").is_empty());
        comes_to_say("lie", "", "not open on the router", |line| {
            line.text("error").contains("another machine")
        });
    });
}

#[test]
fn a_router_without_an_address_is_reported_and_stays_open() {
    with_tools(&FakeRouter::TOOLS, || {
        each(&["wan0", "nowan"], |mode| {
            comes_to_say(mode, "", NO_ADDRESS, |line| !line.text("advice").is_empty());
            comes_to_say(mode, "", "open on the router", |_| true);
        });
    });
}

#[test]
fn a_provider_with_a_nat_of_its_own_is_reported_once() {
    with_tools(&FakeRouter::TOOLS, || {
        let fake = FakeRouter::start_with("good", ["--wan", "100.64.3.4"]);
        let (state, target, port) = (state(), TcpTarget::echo(), free_port());
        let config = exposed("web", port, target.addr, "") + &router(&fake, "");
        let mut portway = start(&config, state.path());
        let line = portway.wait_log("behind a second NAT", |_| true);
        assert_eq!(line.text("external.addr"), "100.64.3.4");
        portway.wait_log("open on the router", |_| true);
        let checks = requests(&fake, "GetExternalIPAddress");
        eventually("another check", || (requests(&fake, "GetExternalIPAddress") > checks).then_some(()));
        let exit = portway.stop().with(0);
        assert_eq!(exit.lines("behind a second NAT").len(), 1);
    });
}

#[test]
fn a_router_that_makes_no_sense_is_none() {
    let modes = [
        "silent", "bigdesc", "slowdesc", "hangdesc", "laughs", "wide", "deep", "redirect", "location",
        "control", "dying", "bigsoap", "slowsoap", "hangsoap", "widesoap",
    ];
    with_tools(&FakeRouter::TOOLS, || {
        each(&modes, |mode| {
            comes_to_say(mode, "", "no router found", |line| !line.text("error").is_empty());
        });
    });
}

#[test]
fn sessions_do_not_notice_a_router_that_hangs() {
    with_tools(&FakeRouter::TOOLS, || {
        let (fake, state, target, port) =
            (FakeRouter::start("hangsoap"), state(), TcpTarget::echo(), free_port());
        let config = exposed("web", port, target.addr, "") + &router(&fake, "");
        let mut portway = start(&config, state.path());
        portway.wait_log("router lost", |_| true);
        // Found by its search again at once, it hangs again.
        let mut slowest = Duration::ZERO;
        for _ in 0..300 {
            let began = Instant::now();
            Client::to(([127, 0, 0, 1], port).into()).ping();
            slowest = slowest.max(began.elapsed());
        }
        // A daemon that waits for the router would wait for three seconds.
        assert!(slowest < Duration::from_secs(2), "a session took {slowest:?}");
        portway.stop().with(0);
    });
}

#[test]
fn a_router_that_hangs_at_the_end_holds_nobody_up() {
    with_tools(&FakeRouter::TOOLS, || {
        let (fake, state, target, port) =
            (FakeRouter::start("good"), state(), TcpTarget::echo(), free_port());
        let config = exposed("web", port, target.addr, "") + &router(&fake, "");
        let mut portway = start(&config, state.path());
        portway.wait_log("open on the router", |_| true);
        fake.freeze();
        let asked = Instant::now();
        let exit = portway.stop().with(0).says("left open on the router");
        assert!(asked.elapsed() < END, "the end took {:?}: {}", asked.elapsed(), exit.log);
        assert!(std::fs::read_to_string(state.path().join("router.json")).is_ok_and(|t| t.contains("web")));
    });
}

#[test]
fn an_orderly_end_leaves_nothing_behind() {
    with_tools(&FakeRouter::TOOLS, || {
        let (fake, state, target) = (FakeRouter::start("good"), state(), TcpTarget::echo());
        let mappings: String =
            (0..5).map(|nth| exposed(&format!("m{nth}"), free_port(), target.addr, "")).collect();
        let mut portway = start(&(mappings + &router(&fake, "")), state.path());
        for nth in 0..5 {
            portway.wait_log("open on the router", |line| line.text("mapping") == format!("m{nth}"));
        }
        let exit = portway.stop().with(0);
        assert_eq!(exit.lines("closed on the router").len(), 5);
        // They are closed side by side, and so are written down in any order.
        let log = fake.log();
        let empty = |line: &String| line.contains("DeletePortMapping -> 200 [] {}");
        assert!(log.iter().rev().take(5).any(empty), "{log:#?}");
    });
}

#[test]
fn after_a_crash_what_is_wanted_is_taken_over_and_the_rest_is_taken_back() {
    with_tools(&FakeRouter::TOOLS, || {
        let (fake, state, target) = (FakeRouter::start("good"), state(), TcpTarget::echo());
        let (kept, dropped) = (free_port(), free_port());
        let stays = exposed("stays", kept, target.addr, "");
        let both = exposed("goes", dropped, target.addr, "") + &stays + &router(&fake, "");
        let mut first = start(&both, state.path());
        for name in ["stays", "goes"] {
            first.wait_log("open on the router", |line| line.text("mapping") == name);
        }
        first.kill();
        let mut second = start(&(stays + &router(&fake, "")), state.path());
        second.wait_log("open on the router", |line| line.text("mapping") == "stays");
        second.wait_log("closed on the router", |line| line.text("mapping") == "goes");
        let left = entries(&fake);
        assert!(left.contains(&kept.to_string()) && !left.contains(&dropped.to_string()), "{left}");
        second.stop().with(0);
        assert_eq!(entries(&fake), "}");
    });
}

#[test]
fn what_a_crash_left_is_taken_back_although_nothing_is_wanted_any_more() {
    with_tools(&FakeRouter::TOOLS, || {
        let (fake, state, target, port) =
            (FakeRouter::start("good"), state(), TcpTarget::echo(), free_port());
        let mut first = start(&(exposed("web", port, target.addr, "") + &router(&fake, "")), state.path());
        first.wait_log("open on the router", |_| true);
        first.kill();
        let config = exposed("web", port, target.addr, "false") + &router(&fake, "");
        let mut second = start(&config, state.path());
        second.wait_log("closed on the router", |_| true);
        assert_eq!(entries(&fake), "}");
        second.stop().with(0);
    });
}

#[test]
fn a_second_daemon_takes_nothing_of_the_first_back() {
    with_tools(&FakeRouter::TOOLS, || {
        let (fake, state, target) = (FakeRouter::start("good"), state(), TcpTarget::echo());
        let mut first =
            start(&(exposed("one", free_port(), target.addr, "") + &router(&fake, "")), state.path());
        first.wait_log("open on the router", |_| true);
        let mut second =
            start(&(exposed("two", free_port(), target.addr, "") + &router(&fake, "")), state.path());
        second.wait_log("openings on the router are not remembered over a restart", |_| true);
        second.wait_log("open on the router", |_| true);
        second.stop().with(0);
        assert!(entries(&fake).contains("portway:one"), "{}", entries(&fake));
        first.stop().with(0);
        assert_eq!(entries(&fake), "}");
    });
}

#[test]
fn openings_are_remembered_in_the_next_directory_when_the_one_of_the_service_cannot_be_written() {
    in_own_network(&["sh", "mount", "python3"], || {
        let (fake, service, user) = (FakeRouter::start("good"), state(), state());
        let (target, port) = (TcpTarget::echo(), free_port());
        let start = |config: &str| {
            let at = service.path().to_str().expect("a readable path");
            let script =
                "mount -t tmpfs -o ro none \"$0\" && mount -t tmpfs -o ro none /var/lib && exec \"$@\"";
            Portway::with(config)
                .env("STATE_DIRECTORY", at)
                .env("XDG_STATE_HOME", &user.path().display().to_string())
                .through(["unshare", "--mount", "--", "sh", "-c", script, at])
                .start()
        };
        let mut portway = start(&(exposed("web", port, target.addr, "") + &router(&fake, "")));
        portway.wait_log("state directory not usable", |line| line.text("dir").starts_with("/tmp"));
        portway.wait_log("open on the router", |_| true);
        let file = user.path().join("portway/router.json");
        eventually("the opening is noted", || {
            std::fs::read_to_string(&file).is_ok_and(|text| text.contains("\"web\"")).then_some(())
        });
        portway.kill();
        let _portway = start(&(format!("publish = [\"{port}:{}\"]\n", target.addr) + &router(&fake, "")));
        eventually("what the crash left is taken back", || (entries(&fake) == "}").then_some(()));
    });
}

#[test]
fn a_broken_list_of_openings_is_set_aside() {
    with_tools(&FakeRouter::TOOLS, || {
        let (fake, state, target, port) =
            (FakeRouter::start("good"), state(), TcpTarget::echo(), free_port());
        std::fs::write(state.path().join("router.json"), "{ what is this").expect("the test's own directory");
        let mut portway = start(&(exposed("web", port, target.addr, "") + &router(&fake, "")), state.path());
        portway.wait_log("the list of openings on the router is broken; starting without it", |_| true);
        portway.wait_log("open on the router", |_| true);
        assert!(state.path().join("router.json.broken").exists());
        portway.stop().with(0);
    });
}

#[test]
fn a_reload_asks_the_router_for_the_difference_alone() {
    with_tools(&FakeRouter::TOOLS, || {
        let (fake, state, target) = (FakeRouter::start("good"), state(), TcpTarget::echo());
        let (one, two, three) = (free_port(), free_port(), free_port());
        let stays = exposed("stays", one, target.addr, "");
        let before = exposed("goes", two, target.addr, "") + &stays + &router(&fake, "");
        let mut portway = start(&before, state.path());
        for name in ["stays", "goes"] {
            portway.wait_log("open on the router", |line| line.text("mapping") == name);
        }
        assert_eq!(requests(&fake, "AddPortMapping"), 2);
        portway.reload_with(&(exposed("comes", three, target.addr, "") + &stays + &router(&fake, "")));
        portway.wait_log("closed on the router", |line| line.text("mapping") == "goes");
        portway.wait_log("open on the router", |line| line.text("mapping") == "comes");
        assert_eq!((requests(&fake, "AddPortMapping"), requests(&fake, "DeletePortMapping")), (3, 1));
        // And an option of the listener that does not concern the router.
        let stays = stays + "idle_timeout = \"10m\"\n";
        portway.reload_with(&(exposed("comes", three, target.addr, "") + &stays + &router(&fake, "")));
        let checks = requests(&fake, "GetExternalIPAddress");
        eventually("another check", || (requests(&fake, "GetExternalIPAddress") > checks).then_some(()));
        assert_eq!((requests(&fake, "AddPortMapping"), requests(&fake, "DeletePortMapping")), (3, 1));
        portway.stop().with(0);
    });
}

#[test]
fn a_router_that_forgot_everything_is_asked_again() {
    with_tools(&FakeRouter::TOOLS, || {
        let (fake, state, target, port) =
            (FakeRouter::start("good"), state(), TcpTarget::echo(), free_port());
        let mut portway = start(&(exposed("web", port, target.addr, "") + &router(&fake, "")), state.path());
        portway.wait_log("open on the router", |_| true);
        let mark = portway.log_len();
        fake.restart();
        portway.wait_log_after(mark, "open on the router", |_| true);
        assert!(entries(&fake).contains(&port.to_string()), "{}", entries(&fake));
        let mark = portway.log_len();
        fake.move_description();
        portway.wait_log_after(mark, "router lost", |_| true);
        let mark = portway.log_len();
        portway.wait_log_after(mark, "router asked", |line| line.text("answer").contains("Taken"));
        portway.stop().with(0);
        assert_eq!(entries(&fake), "}");
    });
}

#[test]
fn any_other_port_is_taken_once_and_kept() {
    with_tools(&FakeRouter::TOOLS, || {
        let (fake, target, port) = (FakeRouter::start("good"), TcpTarget::echo(), free_port());
        let (mine, others) = (state(), state());
        // Another machine's, as far as the second daemon can tell by the text.
        let place = format!("{{ external_port = {port} }}");
        let holder = exposed("other", free_port(), target.addr, &place) + &router(&fake, "");
        let mut holder = start(&holder, others.path());
        holder.wait_log("open on the router", |_| true);
        let config =
            exposed("web", free_port(), target.addr, &place) + &router(&fake, "on_conflict = \"any-port\"");
        let mut portway = start(&config, mine.path());
        let line = portway.wait_log("open on the router", |_| true);
        let other = line.number("external.port");
        assert_ne!(other, u64::from(port));
        portway.kill();
        let mut portway = start(&config, mine.path());
        let line = portway.wait_log("open on the router", |_| true);
        assert_eq!(line.number("external.port"), other);
        portway.stop().with(0);
        holder.stop().with(0);
        assert_eq!(entries(&fake), "}");
    });
}

#[test]
fn what_is_not_exposed_is_no_matter_of_the_router() {
    with_tools(&FakeRouter::TOOLS, || {
        let (fake, state, target, port) =
            (FakeRouter::start("good"), state(), TcpTarget::echo(), free_port());
        let portway = start(&(exposed("web", port, target.addr, "false") + &router(&fake, "")), state.path());
        Client::to(([127, 0, 0, 1], port).into()).ping();
        let tasks = std::fs::read_dir(format!("/proc/{}/task", portway.pid())).expect("the daemon runs");
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        assert!(names.into_iter().all(|name| name.trim() != "router"), "a thread for nothing");
        portway.stop().with(0);
        assert_eq!(fake.log(), Vec::<String>::new());
    });
}
