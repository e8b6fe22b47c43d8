//! Signals at every moment: while the configuration is read for the first time, while it is read again, and the ones that
//! mean nothing.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;

use crate::harness::{Client, Portway, Ran, TcpTarget, echoes, eventually, mapping, messages, own_addr};

/// A configuration with a list that takes a while to read, and the directory that it lies in.
fn long_to_read(listen: SocketAddr, target: SocketAddr) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let list = dir.path().join("long.txt");
    let mut lines = String::new();
    for n in 0..500_000 {
        // Every other address, so that nothing can be merged.
        writeln!(lines, "{}", Ipv4Addr::from(0x0a00_0000 + 2 * n)).expect("a string grows");
    }
    std::fs::write(&list, lines).expect("the test's own directory");
    let lists = format!("[lists]\nlong = {{ file = \"{}\" }}\n", list.display());
    (dir, mapping(listen, target, "deny = \"@long\"") + &lists)
}

/// Waits until the daemon has worked for a while from `before` on: nothing else than reading makes it work here.
fn wait_reading(portway: &Portway, before: Duration) {
    let worked = || (portway.cpu_time() >= before + Duration::from_millis(60)).then_some(());
    eventually("the configuration is being read", worked);
}

#[test]
fn signals_while_the_configuration_is_read_at_the_start_do_not_end_it() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let (_dir, config) = long_to_read(at, target.addr);
    let mut portway = Portway::with(&config).launch();
    wait_reading(&portway, Duration::ZERO);
    for signal in [Signal::HUP, Signal::USR1, Signal::USR2, Signal::HUP] {
        portway.signal(signal);
    }
    portway.wait_ready();
    // What was asked for before may have missed the change that it was about.
    portway.wait_log(messages::RELOAD_APPLIED, |_| true);
    Client::to(at).ping();
    portway.stop().with(0);
}

#[test]
fn a_stop_while_the_configuration_is_read_at_the_start_ends_it() {
    let target = TcpTarget::echo();
    for signal in [Signal::TERM, Signal::INT] {
        let (_dir, config) = long_to_read(own_addr(8080), target.addr);
        let portway = Portway::with(&config).launch();
        wait_reading(&portway, Duration::ZERO);
        portway.signal(signal);
        let exit = portway.exit().with(0);
        assert!(exit.lines(messages::READY).is_empty(), "{}", exit.log);
    }
}

#[test]
fn a_stop_during_a_reload_does_not_wait_for_it() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let (_dir, config) = long_to_read(at, target.addr);
    let portway = Portway::with(&config).start();
    let before = portway.cpu_time();
    portway.signal(Signal::HUP);
    wait_reading(&portway, before);
    let exit = portway.stop().with(0);
    assert!(exit.lines(messages::RELOAD_APPLIED).is_empty(), "{}", exit.log);
    assert_eq!(exit.lines(messages::STOPPED).len(), 1, "{}", exit.log);
}

#[test]
fn user_signals_end_nothing() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let portway = Portway::with(&mapping(at, target.addr, "")).start();
    let mut client = Client::to(at);
    client.ping();
    portway.signal(Signal::USR1);
    client.ping();
    drop(client);
    portway.stop().with(0);
}

/// All that another process may send, but those that stop or end a program in any case, those of its own faults, and
/// those that the README lists.
const MEANINGLESS: &str = "for n in $(seq 1 31) $(seq 34 64); do \
    case $n in 1|2|4|5|6|7|8|9|11|12|15|19|20|31) ;; *) kill -$n $0 ;; esac; done";

#[test]
fn no_other_signal_ends_it() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let mut portway = Portway::with(&mapping(at, target.addr, "")).start();
    let mut client = Client::to(at);
    client.ping();
    let pid = portway.pid().to_string();
    Ran::of(Command::new("bash").args(["-c", MEANINGLESS, &pid])).exits(0);
    client.ping();
    portway.signal(Signal::HUP);
    portway.wait_log(messages::RELOAD_APPLIED, |_| true);
    assert!(portway.runs());
    drop(client);
    portway.stop().with(0);
}

#[test]
fn signals_that_the_parent_blocked_are_heard() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let mut portway = Portway::with(&mapping(at, target.addr, ""))
        .through(["env", "--block-signal=TERM", "--block-signal=HUP"])
        .start();
    portway.signal(Signal::HUP);
    portway.wait_log(messages::RELOAD_APPLIED, |_| true);
    portway.stop().with(0);
}

#[test]
fn a_log_file_at_its_limit_ends_nothing() {
    const MOST: u64 = 4096;
    let target = TcpTarget::echo();
    let (dir, at) = (tempfile::tempdir().expect("a temporary directory"), own_addr(8080));
    let log = dir.path().join("log");
    let to_file = format!("exec \"$@\" 2>{}", log.display());
    let portway = Portway::with(&mapping(at, target.addr, ""))
        .through(["prlimit", &format!("--fsize={MOST}"), "--", "bash", "-c", &to_file, "bash"])
        .launch();
    eventually("it listens", || echoes(at).then_some(()));
    // A session's line has some 300 bytes.
    for _ in 0..100 {
        Client::to(at).ping();
    }
    eventually("the file is full", || {
        let length = std::fs::metadata(&log).ok()?.len();
        (length > MOST - 512).then_some(())
    });
    for _ in 0..100 {
        Client::to(at).ping();
    }
    portway.stop().with(0);
}
