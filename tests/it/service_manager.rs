//! What a service manager hears from portway (sd_notify(3)), by a socket that stands for one.

use std::{io::ErrorKind, os::unix::net::UnixDatagram, time::Duration};

use rustix::process::Signal;

use super::handover::hand_over;
use crate::harness::{Client, DEADLINE, Portway, Setup, TcpTarget, mapping, messages, own_addr, with_tools};

/// The manager's side.
struct Manager {
    socket: UnixDatagram,
    dir: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let socket = UnixDatagram::bind(dir.path().join("notify")).expect("a socket");
        socket.set_read_timeout(Some(DEADLINE)).expect("a socket takes a timeout");
        Self { socket, dir }
    }

    /// A daemon that speaks to it.
    fn starts(&self, setup: Setup) -> Portway {
        let at = self.dir.path().join("notify");
        setup.env("NOTIFY_SOCKET", at.to_str().expect("a plain path")).start()
    }

    /// The next message, as lines.
    #[track_caller]
    fn hears(&self) -> Vec<String> {
        let mut message = [0; 4096];
        let len = self.socket.recv(&mut message).expect("the daemon says something");
        let text = std::str::from_utf8(&message[..len]).expect("it is text");
        text.lines().map(str::to_owned).collect()
    }

    /// The messages up to the first with this line.
    #[track_caller]
    fn hears_until(&self, line: &str) -> Vec<String> {
        loop {
            let message = self.hears();
            if message.iter().any(|said| said == line) {
                return message;
            }
        }
    }

    /// Fails if anything is said for a while.
    #[track_caller]
    fn hears_nothing_for(&self, time: Duration) {
        self.socket.set_read_timeout(Some(time)).expect("a socket takes a timeout");
        let heard = self.socket.recv(&mut [0; 4096]);
        self.socket.set_read_timeout(Some(DEADLINE)).expect("a socket takes a timeout");
        let error = heard.expect_err("nothing is said");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn it_hears_of_the_start_each_reload_and_the_stop() {
    let (manager, target, at) = (Manager::new(), TcpTarget::echo(), own_addr(8080));
    let mut portway = manager.starts(Portway::with(&mapping(at, target.addr, "")));
    assert_eq!(manager.hears(), ["READY=1", "STATUS=1 mapping, 0 sessions, 0 flows"]);

    portway.reload_with(&mapping(at, target.addr, "name = \"same\""));
    let reloading = manager.hears();
    assert_eq!(reloading[0], "RELOADING=1");
    let since = reloading[1].strip_prefix("MONOTONIC_USEC=").expect("the time of it");
    assert!(since.parse::<u64>().is_ok(), "{since}");
    assert_eq!(manager.hears()[0], "READY=1");

    portway.refused_reload_with("nonsense = 1\n");
    assert_eq!(manager.hears()[0], "RELOADING=1");
    let refused = manager.hears();
    assert_eq!(refused[0], "READY=1");
    assert!(refused[1].contains("the last reload was refused"), "{}", refused[1]);

    portway.stop().with(0);
    assert_eq!(manager.hears()[..1], ["STOPPING=1"]);
}

#[test]
fn a_stop_is_extended_while_sessions_go_on() {
    let (manager, target, at) = (Manager::new(), TcpTarget::echo(), own_addr(8080));
    let portway = manager.starts(Portway::with(&mapping(at, target.addr, "")));
    let mut client = Client::to(at);
    client.ping();
    portway.signal(Signal::TERM);
    let stopping = manager.hears_until("STOPPING=1");
    assert_eq!(stopping[1], "STATUS=stopping: 1 session and 0 flows left");
    assert_eq!(stopping[2], "EXTEND_TIMEOUT_USEC=20000000");
    // And again, as long as the session lives.
    manager.hears_until("EXTEND_TIMEOUT_USEC=20000000");
    drop(client);
    portway.exit().with(0);
}

#[test]
fn it_hears_nothing_while_nothing_changes() {
    let (manager, target, at) = (Manager::new(), TcpTarget::echo(), own_addr(8080));
    let _portway = manager.starts(Portway::with(&mapping(at, target.addr, "")));
    manager.hears_until("READY=1");
    manager.hears_nothing_for(Duration::from_secs(12));
    let mut client = Client::to(at);
    client.ping();
    assert_eq!(manager.hears(), ["STATUS=1 mapping, 1 session, 0 flows"]);
}

#[test]
fn its_watchdog_is_fed_at_its_pace() {
    let (manager, target) = (Manager::new(), TcpTarget::echo());
    let setup = Portway::with(&mapping(own_addr(8080), target.addr, "")).env("WATCHDOG_USEC", "300000");
    let mut portway = manager.starts(setup);
    manager.hears_until("READY=1");
    manager.socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket takes a timeout");
    for _ in 0..5 {
        assert_eq!(manager.hears(), ["WATCHDOG=1"]);
    }
    assert!(portway.runs());
}

#[test]
fn a_watchdog_that_is_meant_for_another_process_is_not_fed() {
    let (manager, target) = (Manager::new(), TcpTarget::echo());
    let setup = Portway::with(&mapping(own_addr(8080), target.addr, ""));
    let _portway = manager.starts(setup.env("WATCHDOG_USEC", "300000").env("WATCHDOG_PID", "1"));
    manager.hears_until("READY=1");
    manager.hears_nothing_for(Duration::from_secs(2));
}

#[test]
fn over_a_hand_over_it_hears_which_process_is_the_main_one_and_of_no_stop() {
    let (manager, target, at) = (Manager::new(), TcpTarget::echo(), own_addr(8080));
    let mut portway = manager.starts(Portway::with(&mapping(at, target.addr, "")).installed());
    manager.hears_until("READY=1");
    let mut client = Client::to(at);
    client.ping();
    hand_over(&mut portway);
    let mut heard = Vec::new();
    while !heard.iter().any(|line| line == "READY=1") {
        heard.extend(manager.hears());
    }
    let told: Vec<_> = heard.iter().filter(|line| !line.starts_with("STATUS=1 mapping")).collect();
    assert_eq!(told, [&format!("MAINPID={}", portway.pid()), "READY=1"], "{heard:?}");
    client.ping();
    drop(client);
    portway.stop().with(0);
    assert_eq!(manager.hears_until("STOPPING=1")[0], "STOPPING=1");
}

#[test]
fn a_hand_over_that_fails_after_go_makes_the_former_process_the_main_one_again() {
    with_tools(&["python3"], || {
        let (manager, target, at) = (Manager::new(), TcpTarget::echo(), own_addr(8080));
        let mut portway = manager.starts(Portway::with(&mapping(at, target.addr, "")).installed());
        manager.hears_until("READY=1");
        let mut client = Client::to(at);
        client.ping();
        let between = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/handover/between.py");
        portway.install_script(&format!("exec python3 {between} go kill-new - \"$PORTWAY\" \"$@\""));
        portway.signal(Signal::USR2);
        portway.wait_log(messages::HAND_OVER_FAILED, |_| true);
        let mut mains = Vec::new();
        while mains.len() < 2 {
            mains.extend(manager.hears().into_iter().filter(|line| line.starts_with("MAINPID=")));
        }
        assert_ne!(mains[0], mains[1]);
        assert_eq!(mains[1], format!("MAINPID={}", portway.pid()));
        client.ping();
    });
}
