//! What a daemon knows goes along with its sessions: counters, bans, the log's level, the numbers of sessions and events.

use serde_json::Value;

use super::hand_over;
use crate::harness::{Client, Portway, TcpTarget, eventually, mapping, own_addr};

/// The number of the last event, as a stream tells it.
fn last_event(daemon: &Portway) -> u64 {
    let said = daemon.ctl(["events", "--json"]).exits(0);
    let last = said.out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).next_back();
    last.and_then(|event| event["id"].as_u64()).expect("an event has a number")
}

#[test]
fn counters_bans_numbers_and_the_level_of_the_log_go_along() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let config = mapping(at, target.addr, "") + "[guard]\n";
    let mut daemon = Portway::with(&config).installed().start();
    let mut over = Client::to(at);
    over.ping();
    drop(over);
    daemon.wait_session();
    let mut client = Client::to(at);
    client.ping();
    daemon.ctl(["ban", "192.0.2.7", "--for", "1h", "--reason", "a test"]).exits(0);
    daemon.ctl(["log-level", "debug", "--for", "10m"]).exits(0);
    let known = |daemon: &Portway| {
        let mapping = daemon.api().get("/v1/mappings/8080%2Ftcp").is(200).json();
        let bans = daemon.api().get("/v1/bans").is(200).json();
        let status = daemon.api().get("/v1/status").is(200).json();
        let counts =
            ["sessions", "sessions_total", "bytes_in", "bytes_out"].map(|name| mapping[name].clone());
        // A ban goes along by the second.
        let bans = ["client", "reason", "manual", "count"].map(|name| bans["bans"][0][name].clone());
        (counts, bans, status["log_level"].clone())
    };
    // What has arrived may be counted a moment later.
    let before = eventually("all is counted", || {
        Some(known(&daemon)).filter(|known| known.0 == [1, 2, 8, 8].map(Value::from))
    });
    assert_eq!(before.1[0], "192.0.2.7");
    for _ in 0..2 {
        let last = last_event(&daemon);
        let report = hand_over(&mut daemon);
        assert_eq!(known(&daemon), before, "{report}");
        assert!(last_event(&daemon) > last, "the numbers of events go on");
    }
    // A new session has the next number, and the old one counts on.
    client.ping();
    let mut third = Client::to(at);
    third.ping();
    let ids = || {
        let sessions = daemon.api().get("/v1/sessions").is(200).json();
        let mut ids: Vec<_> = sessions["sessions"].as_array()?.iter().map(|one| one["id"].as_u64()).collect();
        ids.sort_unstable();
        (ids.len() == 2).then_some(ids)
    };
    assert_eq!(eventually("both are there", ids), [Some(2), Some(3)]);
    eventually("all is counted", || (known(&daemon).0 == [2, 3, 16, 16].map(Value::from)).then_some(()));
}

#[test]
fn both_processes_report_the_same_pause() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let mut daemon = Portway::with(&mapping(at, target.addr, "")).installed().start();
    Client::to(at).ping();
    let report = hand_over(&mut daemon);
    assert_eq!(report["pause_ms"].as_f64(), Some(daemon.last_pause()), "{report}");
    assert!(daemon.last_pause() > 0.0);
}
