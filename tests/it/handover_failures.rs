//! A hand-over that fails leaves the running process as it was: it serves, and its sessions live.

use std::fs;

use rustix::process::Signal;
use serde_json::json;

use crate::harness::{
    Client, Portway, Ran, TcpTarget, eventually, mapping, messages, own_addr, portway, with_tools,
};

struct Running {
    daemon: Portway,
    client: Client,
    target: TcpTarget,
}

impl Running {
    fn start() -> Self {
        let target = TcpTarget::echo();
        let at = own_addr(8080);
        let daemon = Portway::with(&mapping(at, target.addr, "")).installed().start();
        let mut client = Client::to(at);
        client.ping();
        Self { daemon, client, target }
    }

    fn upgrade(&self) -> Ran {
        portway(["upgrade".as_ref(), "--socket".as_ref(), self.daemon.socket().as_os_str()])
    }

    /// Tries to hand over, and checks that nothing has changed.
    #[track_caller]
    fn fails(&mut self, cause: &str) {
        let (mark, pid) = (self.daemon.log_len(), self.daemon.pid());
        self.upgrade().exits(1).says(cause);
        self.daemon
            .wait_log_after(mark, messages::HAND_OVER_FAILED, |line| line.text("error").contains(cause));
        self.goes_on();
        assert_eq!(self.daemon.pid(), pid);
        assert_eq!(self.daemon.processes().len(), 1, "nothing else is left\n{}", self.daemon.log());
    }

    /// Hands over, and checks that nothing is missing.
    #[track_caller]
    fn hands_over(&mut self) {
        let mark = self.daemon.log_len();
        self.upgrade().exits(0).says("handed over to portway");
        let line = self.daemon.wait_log_after(mark, messages::HANDED_OVER, |_| true);
        self.daemon.follow(line.number("pid"));
        self.goes_on();
    }

    #[track_caller]
    fn goes_on(&mut self) {
        self.client.ping();
        let status = self.daemon.api().get("/v1/status").is(200).json();
        assert_eq!((&status["pid"], &status["sessions"]), (&json!(self.daemon.pid()), &json!(1)), "{status}");
        assert_eq!(status["ready"], true, "{status}");
    }
}

#[test]
fn a_program_that_cannot_be_started_is_named_and_all_goes_on() {
    let mut running = Running::start();
    let installed = running.daemon.installed();
    fs::remove_file(&installed).expect("the test's own directory");
    running.fails("No such file");
    fs::write(&installed, "text").expect("the test's own directory");
    running.fails("Permission denied");
    running.daemon.install_script("");
    fs::write(&installed, [0x7f, b'E', b'L', b'F', 9, 9]).expect("the test's own directory");
    running.fails("start ");
    running.daemon.install_program();
    running.hands_over();
}

#[test]
fn a_program_that_ends_or_says_something_else_at_the_start_changes_nothing() {
    let mut running = Running::start();
    for (script, cause) in [
        ("exit 3", "exit status: 3"),
        ("kill -SEGV $$", "signal: 11"),
        ("exec >&0; printf 'GET / HTTP/1.1\\r\\n\\r\\n'; exec sleep 1000", "does not begin as one"),
        ("exec >&0; printf 'PwHO\\x09\\x00\\x00\\x00\\x02\\x00\\x00\\x00\\x00\\x00\\x00\\x00{}'", "format 9"),
        ("exec \"$PORTWAY\" run --no-such-flag", "exit status: 2"),
        ("\"$PORTWAY\" \"$@\"", "a script has to `exec` the program"),
    ] {
        running.daemon.install_script(script);
        running.fails(cause);
    }
}

#[test]
fn a_program_whose_format_differs_by_one_takes_over_and_another_one_is_refused() {
    with_tools(&["python3"], || {
        let mut running = Running::start();
        running.disturb("hello", "format-3");
        running.fails("the message has the format 3");
        running.disturb("hello", "format-2");
        running.upgrade().exits(0).says("1 session");
        running.client.ping();
        assert!(running.target.accepted() == 1, "it is the same session");
    });
}

#[test]
fn a_configuration_that_the_new_program_refuses_is_told_with_its_problems() {
    let mut running = Running::start();
    running.daemon.write_config("[[mapping]]\npublish = \"80:x:y:z:80\"\nnonsense = 1\n");
    running.fails("the configuration is wrong");
    let reply = running.daemon.api().call("POST", "/v1/upgrade").is(422).json();
    assert!(reply["problems"].as_array().is_some_and(|problems| problems.len() > 1), "{reply}");
    assert!(reply["problems"][0]["line"].is_u64(), "{reply}");
}

#[test]
fn a_port_that_another_program_has_is_a_conflict() {
    let mut running = Running::start();
    let taken = std::net::TcpListener::bind(own_addr(0)).expect("a port");
    let more = mapping(taken.local_addr().expect("an address"), own_addr(8081), "");
    let text = fs::read_to_string(running.daemon.config()).expect("the test's own file");
    running.daemon.write_config(&format!("{more}{text}"));
    running.fails("the address is in use");
    running.daemon.api().call("POST", "/v1/upgrade").is(409);
}

impl Running {
    /// Installs what stands between the two processes and does `action` at `message`; see `handover/between.py`.
    fn disturb(&self, message: &str, action: &str) {
        let between = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/handover/between.py");
        let file = self.daemon.dir().join("goes-on");
        let _ = fs::remove_file(&file);
        let words = format!("exec python3 {between} {message} {action} {}", file.display());
        self.daemon.install_script(&format!("{words} \"$PORTWAY\" \"$@\""));
    }

    /// Lets what waits go on.
    fn go_on(&self) {
        fs::write(self.daemon.dir().join("goes-on"), "").expect("the test's own directory");
    }
}

#[test]
fn a_new_process_that_is_killed_at_any_step_leaves_the_old_one_as_it_was() {
    with_tools(&["python3"], || {
        let mut running = Running::start();
        for message in ["hello", "ready", "listen", "staged", "snapshot", "receipt", "go", "serving"] {
            running.disturb(message, "kill-new");
            running.fails(" before it could ");
        }
        for message in ["sockets", "listen", "snapshot"] {
            running.disturb(message, "cut");
            running.fails("the new program has ended before it could");
        }
        running.daemon.install_program();
        running.hands_over();
    });
}

#[test]
fn a_new_process_that_says_nothing_is_given_up_at_each_step() {
    with_tools(&["python3"], || {
        let steps = ["hello", "staged", "receipt", "serving"];
        // Each step has a limit of some seconds: side by side.
        std::thread::scope(|scope| {
            for message in steps {
                scope.spawn(move || {
                    let mut running = Running::start();
                    running.disturb(message, "silence");
                    running.fails("no answer within");
                });
            }
        });
    });
}

#[test]
fn an_old_process_that_is_killed_after_the_receipt_leaves_the_new_one_serving() {
    with_tools(&["python3"], || {
        for message in ["receipt", "go"] {
            let mut running = Running::start();
            running.disturb(message, "kill-old");
            // The new process is asked in the end, and says what it has taken.
            running.upgrade().exits(0).says("1 session");
            let serves = || {
                let api = running.daemon.api().try_connect().ok().map(|_| running.daemon.api());
                let status = api?.get("/v1/status").json();
                (status["sessions"] == 1).then_some(status)
            };
            let status = eventually("the new process serves", serves);
            assert_ne!(status["pid"], json!(running.daemon.pid()), "{message}");
            running.client.ping();
            eventually("one process is left", || (running.daemon.processes().len() == 1).then_some(()));
        }
    });
}

#[test]
fn an_old_process_that_is_killed_early_leaves_nothing_behind() {
    with_tools(&["python3"], || {
        for message in ["hello", "staged", "snapshot"] {
            let mut running = Running::start();
            running.disturb(message, "kill-old");
            running.upgrade().exits(1);
            eventually("no process is left", || running.daemon.processes().is_empty().then_some(()));
            assert!(!running.client.still_echoes(), "{message}");
        }
    });
}

#[test]
fn a_second_hand_over_is_refused_while_one_is_under_way() {
    with_tools(&["python3"], || {
        let mut running = Running::start();
        running.disturb("ready", "wait");
        std::thread::scope(|scope| {
            let first = scope.spawn(|| running.upgrade());
            eventually("the first one is under way", || {
                (running.daemon.count(messages::HANDING_OVER) == 1).then_some(())
            });
            running.upgrade().exits(1).says("a hand-over is under way");
            let reply = running.daemon.api().call("POST", "/v1/upgrade").is(409);
            assert_eq!(reply.error(), "a hand-over is under way");
            running.go_on();
            first.join().expect("it ends").exits(0).says("1 session");
        });
        running.client.ping();
    });
}

#[test]
fn a_stop_during_a_hand_over_ends_it_and_the_daemon() {
    with_tools(&["python3"], || {
        for message in ["hello", "staged", "receipt"] {
            let mut running = Running::start();
            running.disturb(message, "wait");
            running.daemon.signal(Signal::USR2);
            running.daemon.wait_log(messages::HANDING_OVER, |_| true);
            eventually("the new process is there", || (running.daemon.processes().len() > 2).then_some(()));
            drop(running.client);
            running.daemon.signal(Signal::TERM);
            running.daemon.wait_log(messages::HAND_OVER_FAILED, |line| line.text("error").contains("stop"));
            running.daemon.wait_log(messages::STOPPING, |_| true);
            eventually("all have ended", || running.daemon.processes().is_empty().then_some(()));
        }
    });
}

#[test]
fn a_reload_during_a_hand_over_is_done_by_the_new_process() {
    with_tools(&["python3"], || {
        let mut running = Running::start();
        running.disturb("ready", "wait");
        let mark = running.daemon.log_len();
        running.daemon.signal(Signal::USR2);
        running.daemon.wait_log(messages::HANDING_OVER, |_| true);
        eventually("the configuration was read", || (running.daemon.processes().len() > 2).then_some(()));
        let more = own_addr(8081);
        let text = fs::read_to_string(running.daemon.config()).expect("the test's own file");
        let other = mapping(more, running.target.addr, "");
        running.daemon.write_config(&format!("{other}{text}"));
        running.daemon.signal(Signal::HUP);
        running.go_on();
        running.daemon.wait_log_after(mark, messages::HANDED_OVER, |_| true);
        eventually("the new listener serves", || crate::harness::echoes(more).then_some(()));
        running.client.ping();
    });
}

#[test]
fn a_configuration_from_a_stream_is_refused_for_a_hand_over() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let config = mapping(at, target.addr, "");
    let bash = ["bash", "-c", "exec \"$@\" --config /dev/stdin <<< \"$CONFIG\"", "bash"];
    let setup = Portway::bare().args(["run", "--log-format", "json"]).env("CONFIG", &config);
    let mut daemon = setup.installed().through(bash).start();
    portway(["upgrade".as_ref(), "--socket".as_ref(), daemon.socket().as_os_str()])
        .exits(1)
        .says("/dev/stdin")
        .says("start portway with a file");
    daemon.wait_log(messages::HAND_OVER_FAILED, |_| true);
    Client::to(at).ping();
}
