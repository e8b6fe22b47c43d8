//! A hand-over that fails leaves the running process as it was: it serves, and its sessions live.

use std::fs;

use serde_json::json;

use crate::harness::{Client, Portway, Ran, TcpTarget, mapping, messages, own_addr, portway};

struct Running {
    daemon: Portway,
    client: Client,
    _target: TcpTarget,
}

impl Running {
    fn start() -> Self {
        let target = TcpTarget::echo();
        let at = own_addr(8080);
        let daemon = Portway::with(&mapping(at, target.addr, "")).installed().start();
        let mut client = Client::to(at);
        client.ping();
        Self { daemon, client, _target: target }
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
    let mark = running.daemon.log_len();
    running.upgrade().exits(0).says("handed over to portway");
    let line = running.daemon.wait_log_after(mark, messages::HANDED_OVER, |_| true);
    running.daemon.follow(line.number("pid"));
    running.goes_on();
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
