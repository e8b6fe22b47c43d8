//! What the log says of a start: what to mend where it fails, and what listens.

use std::net::{SocketAddr, TcpListener};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;

use crate::harness::{Portway, TcpTarget, echoes, messages, own_addr, own_ip};

/// A port that is taken, and a mapping for it under this log.
fn taken(log: &str) -> (TcpListener, SocketAddr, String) {
    let at = own_addr(8080);
    let holder = TcpListener::bind(at).expect("an address of its own");
    (holder, at, format!("publish = [\"{at}:127.0.0.1:9\"]\n[log]\n{log}\n"))
}

#[test]
fn of_two_thousand_ports_in_use_ten_are_named_and_the_others_are_counted() {
    const COUNT: u16 = 2_000;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("a limit may be raised");
    let ip = own_ip();
    // Below the ports of listeners on every address: see `tests/free_ports.rs`.
    let (first, last) = (12_000, 12_000 + COUNT - 1);
    let holders: Vec<TcpListener> =
        (first..=last).map(|port| TcpListener::bind((ip, port)).expect("an address of its own")).collect();
    let publish = format!("publish = [\"{ip}:{first}-{last}:127.0.0.1:{first}-{last}\"]\n");
    let exit = Portway::with(&publish).launch().exit().with(1);
    let named = exit.log.matches(&format!("(pid {})", std::process::id())).count();
    assert_eq!(named, 10, "{}", exit.log);
    let [more] = exit.lines(messages::MORE_LISTENERS_COULD_NOT_BE_OPENED)[..] else { panic!("{}", exit.log) };
    assert_eq!(usize::try_from(more.number("left_out")).expect("small"), holders.len() - 10);
}

#[test]
fn of_a_thousand_listeners_a_hundred_have_a_line_and_the_others_are_counted() {
    const COUNT: u64 = 1_000;
    let (ip, target) = (own_ip(), TcpTarget::echo());
    let range = format!("publish = [\"{ip}:12000-12998:127.0.0.1:12000-12998\", ");
    let last = format!("\"{ip}:13000:{}\"]\n", target.addr);
    let mut portway = Portway::with(&(range + &last)).start();
    let ready = portway.wait_log(messages::READY, |_| true);
    assert_eq!(ready.number("listening"), COUNT);
    assert_eq!(portway.count(messages::LISTENING), 100);
    let more = portway.wait_log(messages::MORE_LISTENERS_LISTENING, |_| true);
    assert_eq!(more.number("left_out"), COUNT - 100);
    // One without a line serves as the others do.
    assert!(echoes(SocketAddr::new(ip, 13_000)));
}

#[test]
fn a_log_of_json_lines_has_nothing_else_beside_them_when_the_start_fails() {
    let (_holder, at, config) = taken("format = \"json\"");
    let exit = Portway::with(&config).launch().exit().with(1).says(&at.to_string());
    let is_json = |line: &str| serde_json::from_str::<Value>(line).is_ok();
    assert!(exit.log.lines().all(is_json) && !exit.log.is_empty(), "{}", exit.log);
}

#[test]
fn a_start_that_fails_names_the_port_whatever_the_log_leaves_out() {
    let me = format!("(pid {})", std::process::id());
    for log in ["level = \"off\"", "level = \"off\"\nformat = \"json\"", "level = \"error\""] {
        let (_holder, at, config) = taken(log);
        let exit =
            Portway::with(&config).launch().exit().with(1).says("1 of the listeners could not be opened\n");
        assert_eq!(exit.log.matches(&at.to_string()).count(), 1, "{log}: {}", exit.log);
        assert!(log == "level = \"error\"" || exit.log.contains("\nbind "), "a line each: {}", exit.log);
        exit.says(&me);
    }
}
