//! An empty plan: valid at a start, in a reload and in `check`, with a warning.

use std::{fs, io, path::Path, time::Duration};

use rustix::process::Signal;

use crate::harness::{
    Client, Line, Portway, TcpTarget, UdpTarget, eventually, mapping, messages, own_addr, portway,
    udp_client, udp_mapping,
};

/// Configurations that forward nothing, each with a word of its warning.
const EMPTY: [(&str, &str); 7] = [
    ("", "no mapping"),
    ("publish = []\n", "no mapping"),
    ("include = [\"conf.d/*.toml\"]\n", "no mapping"),
    ("[log]\nformat = \"json\"\n", "no mapping"),
    ("[[mapping]]\npublish = \"8080:192.0.2.7:80\"\nenabled = false\n", "disabled"),
    ("[[mapping]]\nname = \"web\"\npublish = []\n", "`publish` is empty"),
    ("[[mapping]]\nname = \"web\"\nlisten = []\ntargets = [\"192.0.2.7:80\"]\n", "`listen` is empty"),
];

#[test]
fn check_warns_of_an_empty_plan_and_exits_0() {
    for (text, word) in EMPTY {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("portway.toml");
        fs::write(&file, text).expect("the test's own directory");
        let ran = portway([Path::new("check"), Path::new("-c"), &file]).exits(0);
        ran.says("warning: ").says("nothing is forwarded").says(word).says("0 mappings, 0 listeners: ok");
    }
}

#[test]
fn the_daemon_starts_with_an_empty_plan_and_takes_the_first_mapping_by_a_reload() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    for (text, _) in EMPTY {
        let mut portway = Portway::with(text).start();
        portway
            .wait_log(messages::CONFIGURATION, |line| line.text("warning").contains("nothing is forwarded"));
        portway.reload_with(&mapping(at, target.addr, ""));
        Client::to(at).ping();
        portway.stop().with(0);
    }
}

#[test]
fn a_reload_removes_the_last_mapping() {
    let (target, datagrams) = (TcpTarget::echo(), UdpTarget::echo());
    let (tcp, udp) = (own_addr(8080), own_addr(5353));
    let some = mapping(tcp, target.addr, "") + &udp_mapping(udp, datagrams.addr, "");
    for (empty, _) in EMPTY {
        let mut portway = Portway::with(&some).start();
        Client::to(tcp).ping();
        let mark = portway.log_len();
        let applied = portway.reload_with(empty);
        assert_eq!((applied.number("closed"), applied.number("opened")), (2, 0));
        let is_warned = |line: &Line| line.text("warning").contains("nothing is forwarded");
        portway.wait_log_after(mark, messages::CONFIGURATION, is_warned);
        assert!(Client::try_to(tcp).is_err(), "the removed mapping still listens after {empty:?}");
        let client = udp_client(udp);
        client.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket takes a timeout");
        eventually("the kernel refuses datagrams for the removed mapping", || {
            let answer = client.send(b"ping").and_then(|_| client.recv(&mut [0; 9]));
            answer.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused).then_some(())
        });
        portway.reload_with(&some);
        Client::to(tcp).ping();
        portway.stop().with(0);
    }
}

#[test]
fn the_last_included_file_can_be_deleted() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let mut portway = Portway::with("include = [\"conf.d/*.toml\"]\n").start();
    let included = portway.dir().join("conf.d/web.toml");
    fs::create_dir(portway.dir().join("conf.d")).expect("the test's own directory");
    fs::write(&included, mapping(at, target.addr, "")).expect("the test's own directory");
    portway.signal(Signal::HUP);
    portway.wait_log(messages::RELOAD_APPLIED, |line| line.number("opened") == 1);
    Client::to(at).ping();
    fs::remove_file(&included).expect("the test's own directory");
    portway.signal(Signal::HUP);
    portway.wait_log(messages::RELOAD_APPLIED, |line| line.number("closed") == 1);
    assert!(Client::try_to(at).is_err(), "the deleted mapping still listens");
}
