//! The same claims with every fast path off: nothing that they prove may hang on splice, GRO or GSO.

use std::process::{Command, Stdio};

use crate::harness::{FAST_PATHS_OFF, Portway, Ran, TcpTarget, mapping, own_addr};

/// Runs the tests of this program whose names begin with `subject`, in a copy of it.
fn all_of(subject: &str) {
    let this = std::env::current_exe().expect("this program");
    let mut copy = Command::new(this);
    let ran = Ran::of(copy.arg(subject).env(FAST_PATHS_OFF, "1").stdin(Stdio::null()));
    // Indented, so that the inner program's own summary is never counted.
    let said: Vec<String> = ran.out.lines().map(|line| format!("  | {line}")).collect();
    assert_eq!(ran.code, Some(0), "with the fast paths off:\n{}", said.join("\n"));
}

#[test]
fn everything_about_tcp_holds_without_splice() {
    all_of("tcp::");
}

#[test]
fn everything_about_udp_holds_without_gro_and_gso() {
    all_of("udp::");
}

#[test]
fn the_switch_is_heard() {
    let (target, at) = (TcpTarget::echo(), own_addr(8080));
    let mut portway = Portway::with(&mapping(at, target.addr, "")).env("PORTWAY_FAST_PATHS", "off").start();
    portway.wait_text("fast paths are off");
}
