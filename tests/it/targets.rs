//! What a mapping knows of its targets: which are down, and which to try first.

use crate::harness::{Client, Portway, TcpTarget, echoes, eventually, mapping, own_addr};

#[test]
fn a_target_that_goes_down_is_one_warning_and_its_return_one_line() {
    let (at, behind) = (own_addr(8080), own_addr(8000));
    let config = mapping(at, behind, "name = \"web\"");
    let mut portway = Portway::with(&config).start();
    for _ in 0..10 {
        Client::to(at).until_closed();
    }
    portway.wait_sessions(10);
    let lines = portway.lines("target down");
    assert_eq!(lines.len(), 1, "{}", portway.log());
    let down = &lines[0];
    assert_eq!((down.text("level"), down.text("mapping"), down.text("protocol")), ("WARN", "web", "tcp"));
    assert_eq!(down.text("target.addr"), behind.to_string());
    assert_eq!(down.number("sessions.failed"), 1);
    assert!(down.text("error").contains("refused"), "{}", down.raw());
    assert_eq!(portway.count("target up"), 0);

    let target = TcpTarget::echo_at(behind);
    for _ in 0..5 {
        eventually("the target is served", || echoes(at).then_some(()));
    }
    let up = portway.wait_log("target up", |_| true);
    assert_eq!((up.text("level"), up.text("mapping"), up.text("protocol")), ("INFO", "web", "tcp"));
    assert_eq!(up.text("target.addr"), behind.to_string());
    assert_eq!(up.number("sessions.failed"), 10);
    assert!(up.number("down_ms") > 0, "{}", up.raw());

    drop(target);
    Client::to(at).until_closed();
    portway.wait_log("target down", |line| line.number("sessions.failed") == 1);
    let exit = portway.stop();
    assert_eq!((exit.lines("target down").len(), exit.lines("target up").len()), (2, 1), "{}", exit.log);
}

#[test]
fn a_first_target_that_is_down_is_said_though_the_second_serves() {
    let (at, dead) = (own_addr(8080), own_addr(8000));
    let target = TcpTarget::echo();
    let config = format!(
        "[[mapping]]\nname = \"pair\"\nlisten = [\"{at}\"]\ntargets = [\"{dead}\", \"{}\"]\n",
        target.addr
    );
    let mut portway = Portway::with(&config).start();
    Client::to(at).ping();
    let down = portway.wait_log("target down", |_| true);
    assert_eq!((down.text("mapping"), down.text("target.addr")), ("pair", &*dead.to_string()));
}

#[test]
fn a_target_that_resets_its_sessions_is_not_down() {
    let at = own_addr(8080);
    let target = TcpTarget::resets();
    let mut portway = Portway::with(&mapping(at, target.addr, "")).start();
    for _ in 0..5 {
        let mut client = Client::to(at);
        client.say(b"x");
        client.until_closed();
    }
    portway.wait_sessions(5);
    assert_eq!(portway.count("target down"), 0, "{}", portway.log());
}
