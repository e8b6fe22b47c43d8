//! The flight recorder: the last events of a mapping, and the dump for a report of a fault.

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Client, Portway, TcpTarget, echoes, enters, eventually, mapping, own_addr, own_ip};

/// The recorded events of a mapping, as `portway events` prints them.
fn recent(portway: &Portway, name: &str) -> Vec<Value> {
    let ran = portway.ctl(["events", "--mapping", name, "--recent", "--json"]).exits(0);
    ran.out.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect()
}

/// How many of them are of this kind.
fn count(events: &[Value], kind: &str) -> usize {
    events.iter().filter(|event| event["kind"] == kind).count()
}

#[test]
fn the_last_events_of_a_mapping_have_sessions_dials_ends_and_refusals() {
    let target = TcpTarget::echo();
    let (at, other, foe) = (own_addr(8080), own_addr(8081), own_ip());
    let config = mapping(at, target.addr, &format!("name = \"web\"\ndeny = \"{foe}\""))
        + &mapping(other, target.addr, "name = \"other\"");
    let mut portway = Portway::with(&config).start();
    Client::to(at).ping();
    portway.wait_session();
    assert!(echoes(other));
    for _ in 0..5 {
        assert!(!enters(foe, at));
    }
    let events = eventually("the refusals are recorded", || {
        let events = recent(&portway, "web");
        let refused = events.iter().find(|event| event["kind"] == "session-refused");
        refused.is_some_and(|refused| refused["count"] == 5).then_some(events)
    });
    for kind in ["session-started", "session-connected", "session-ended", "session-refused", "listening"] {
        assert_eq!(count(&events, kind), 1, "{kind}: {events:?}");
    }
    let dialled = events.iter().find(|event| event["kind"] == "session-connected").expect("it is there");
    assert_eq!(dialled["target"], target.addr.to_string());
    assert!(dialled["took_ms"].is_u64() && dialled["session"].is_u64(), "{dialled}");
    assert!(events.iter().all(|event| event["mapping"] == "web"), "{events:?}");
    portway.ctl(["events", "--mapping", "web", "--recent"]).exits(0).says("reached").says("refused 5 times");
    portway.ctl(["events", "--mapping", "nothing", "--recent"]).exits(1).says("nothing");
}

#[test]
fn a_dump_has_everything_and_names_no_address_unless_it_is_asked_to() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let more = "name = \"web\"\nallow = [\"203.0.113.9\", \"127.0.0.0/8\"]\n\
                match = \"http-host\"\nhosts = { \"shop.example.org\" = \"10.1.2.3:80\" }";
    let portway = Portway::with(&mapping(at, target.addr, more)).start();
    let ran = portway.ctl(["dump"]).exits(0);
    let dump: Value = serde_json::from_str(&ran.out).expect("JSON");
    for part in ["portway", "system", "status", "config", "mappings", "router", "recent"] {
        assert!(!dump[part].is_null(), "{part}: {ran}");
    }
    ran.never_says("203.0.113.9").never_says("10.1.2.3").never_says("example.org").says("public-v4-");
    portway.ctl(["dump", "--addresses"]).exits(0).says("203.0.113.9").says("shop.example.org");
}

#[test]
fn sigquit_writes_a_dump_into_the_state_directory_and_ends_nothing() {
    let target = TcpTarget::echo();
    let (at, dir) = (own_addr(8080), tempfile::tempdir().expect("a temporary directory"));
    let state = dir.path().to_str().expect("a readable path");
    let mut portway =
        Portway::with(&mapping(at, target.addr, "name = \"web\"")).env("STATE_DIRECTORY", state).start();
    portway.signal(Signal::QUIT);
    let line = portway.wait_log("dump written", |_| true);
    let text = std::fs::read_to_string(line.text("file")).expect("the file is there");
    let dump: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(dump["anonymous"], true, "{text}");
    assert!(line.text("file").starts_with(state), "{}", line.raw());
    assert!(echoes(at));
}
