//! Mappings that are made, changed, paused and removed through the API.

use std::{fs, net::SocketAddr, path::Path};

use serde_json::{Value, json};

use crate::harness::{
    Api, Client, Portway, Setup, TcpTarget, echoes, eventually, mapping, messages, own_addr,
};

/// A daemon with one mapping of its file, and this managed file.
fn with_managed(at: SocketAddr, target: SocketAddr, managed: &Path) -> Setup {
    let mapping = mapping(at, target, "name = \"web\"");
    Portway::with(&format!("{mapping}[api]\nmanaged = \"{}\"\n", managed.display()))
}

fn put(api: &Api, name: &str, table: &Value) -> crate::harness::Reply {
    let json = [("content-type", "application/json")];
    api.send("PUT", &format!("/v1/mappings/{name}"), &json, Some(&table.to_string()))
}

#[test]
fn a_mapping_is_made_forwards_outlives_a_restart_and_is_removed() {
    let (target, dir) = (TcpTarget::echo(), tempfile::tempdir().expect("a directory"));
    let (web, at, other) = (own_addr(8080), own_addr(8081), own_addr(8082));
    let managed = dir.path().join("managed.toml");
    let portway = with_managed(web, target.addr, &managed).start();
    let api = portway.api();
    let made = put(&api, "mc", &json!({ "publish": format!("{at}:{}", target.addr), "max_sessions": 5 }));
    let made = made.is(200).json();
    assert_eq!((&made["origin"], &made["listeners"][0]["state"]), (&json!("managed"), &json!("listening")));
    assert!(echoes(at));
    assert!(fs::read_to_string(&managed).expect("the file").contains("max_sessions = 5"));
    let by_spec =
        api.post("/v1/mappings", &json!({ "publish": format!("{other}:{}", target.addr) })).is(201).json();
    assert_eq!(by_spec["name"], "8082/tcp");
    api.post("/v1/mappings", &json!({ "publish": format!("{other}:{}", target.addr) })).is(409);
    assert!(echoes(other));
    portway.stop().with(0);

    let portway = with_managed(web, target.addr, &managed).start();
    let api = portway.api();
    assert!(echoes(at) && echoes(other));
    api.call("DELETE", "/v1/mappings/8082/tcp").is(204);
    api.call("DELETE", "/v1/mappings/8082%2Ftcp").is(404);
    assert!(Client::try_to(other).is_err());
    put(&api, "mc", &json!({ "publish": format!("{other}:{}", target.addr), "for": "1h" })).is(200);
    assert!(echoes(other) && Client::try_to(at).is_err(), "it changes as a whole");
    assert!(api.get("/v1/mappings/mc").json()["until"].is_string());
}

#[test]
fn a_mapping_of_a_file_is_paused_and_resumed_and_not_changed() {
    let (target, dir) = (TcpTarget::echo(), tempfile::tempdir().expect("a directory"));
    let web = own_addr(8080);
    let portway = with_managed(web, target.addr, &dir.path().join("managed.toml")).start();
    let api = portway.api();
    let refused = put(&api, "web", &json!({ "publish": format!("{web}:{}", target.addr) })).is(409);
    assert!(refused.error().contains("portway.toml"), "{refused:?}");
    api.call("DELETE", "/v1/mappings/web").is(409);
    let paused = api.call("POST", "/v1/mappings/web/pause").is(200).json();
    assert_eq!((&paused["paused"], &paused["listeners"][0]["state"]), (&json!(true), &json!("closed")));
    assert!(Client::try_to(web).is_err());
    let resumed = api.call("POST", "/v1/mappings/web/resume").is(200).json();
    assert_eq!(resumed["paused"], false);
    eventually("it forwards again", || echoes(web).then_some(()));
    api.call("POST", "/v1/mappings/nothing/pause").is(404);
    api.call("POST", "/v1/mappings/web/stop").is(404);
    api.call("POST", "/v1/mappings/web").is(404);
}

#[test]
fn a_wrong_mapping_changes_nothing_and_its_problems_have_a_place() {
    let (target, taken, dir) =
        (TcpTarget::echo(), TcpTarget::echo(), tempfile::tempdir().expect("a directory"));
    let (web, at) = (own_addr(8080), own_addr(8081));
    let managed = dir.path().join("managed.toml");
    let portway = with_managed(web, target.addr, &managed).start();
    let api = portway.api();
    let spec = format!("{at}:{}", target.addr);
    for (table, about) in [
        (json!({ "publish": "0:80" }), "port"),
        (json!({ "publish": spec, "max_sesions": 3 }), "max_sessions"),
        (json!({ "publish": spec, "max_sessions": "many" }), "max_sessions"),
        (json!({ "publish": spec, "for": "soon" }), "duration"),
        (json!({ "publish": spec, "name": "other" }), "name"),
        (json!({}), "publish"),
    ] {
        let refused = put(&api, "mc", &table).is(400).json();
        let text = refused.to_string();
        assert_eq!(refused["problems"][0]["file"], "body", "{text}");
        assert!(text.contains(about), "{about}: {text}");
    }
    put(&api, "a%20b", &json!({ "publish": spec })).is(400);
    api.post("/v1/mappings", &json!({ "max_sessions": 3 })).is(400);
    put(&api, "mc", &json!({ "publish": format!("{}:{}", taken.addr, target.addr) })).is(409);
    assert_eq!(api.get("/v1/mappings").json()["mappings"].as_array().map(Vec::len), Some(1));
    assert!(echoes(web) && Client::try_to(at).is_err());
    let left = fs::read_to_string(&managed).unwrap_or_default();
    assert!(!left.contains("mc"), "{left}");
}

#[test]
fn a_mapping_with_names_is_made_and_changed_and_shown_as_it_was_written() {
    let (one, other, dir) = (TcpTarget::echo(), TcpTarget::echo(), tempfile::tempdir().expect("a directory"));
    let (web, at) = (own_addr(8080), own_addr(8081));
    let managed = dir.path().join("managed.toml");
    let portway = with_managed(web, one.addr, &managed).start();
    let api = portway.api();
    let request = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
    let is_led = |host: &str, to: &TcpTarget| {
        let (before, request) = (to.accepted(), request(host));
        let mut client = Client::to(at);
        client.say(&request);
        assert_eq!(client.hear(request.len()), request, "an echo");
        assert_eq!(to.accepted(), before + 1, "{host}");
    };
    let hosts = json!({
        "a.lan": one.addr.to_string(),
        "*.b.lan": { "targets": [{ "address": other.addr.to_string(), "weight": 3 }], "allow": ["127.0.0.0/8"] },
    });
    let table = json!({
        "listen": at.to_string(), "match": "http-host", "hosts": hosts, "balance": "least-sessions",
        "health": { "interval": "1h", "timeout": "1s" },
    });
    let made = put(&api, "names", &table).is(200).json();
    assert_eq!(made["listeners"][0]["state"], "listening", "{made}");
    is_led("a.lan", &one);
    is_led("x.b.lan", &other);

    let shown = api.get("/v1/config").json();
    let shown = shown["mappings"].as_array().and_then(|all| all.iter().find(|m| m["name"] == "names"));
    let shown = shown.expect("it is in the configuration");
    assert_eq!((&shown["match"], &shown["balance"]), (&json!("http-host"), &json!("least-sessions")));
    assert_eq!(shown["hosts"]["a.lan"], json!([one.addr.to_string()]));
    let again = json!({
        "listen": at.to_string(), "match": shown["match"], "hosts": shown["hosts"], "health": shown["health"],
        "balance": shown["balance"],
    });
    put(&api, "names", &again).is(200);
    assert_eq!(api.get("/v1/config").json()["mappings"].to_string().matches("least-sessions").count(), 1);
    is_led("x.b.lan", &other);

    let mut moved = again;
    moved["hosts"]["a.lan"] = json!(other.addr.to_string());
    put(&api, "names", &moved).is(200);
    is_led("A.lan.", &other);
    let wrong = put(&api, "names", &json!({ "listen": at.to_string(), "hosts": hosts })).is(400).json();
    assert_eq!(wrong["problems"][0]["code"], "missing-key", "{wrong}");
    is_led("a.lan", &other);
}

#[test]
fn a_managed_file_that_is_broken_by_hand_is_said_to_be_so() {
    let (target, dir) = (TcpTarget::echo(), tempfile::tempdir().expect("a directory"));
    let web = own_addr(8080);
    let managed = dir.path().join("managed.toml");
    fs::write(&managed, "[[mapping]\n").expect("the test's own file");
    let mut portway = with_managed(web, target.addr, &managed).start();
    portway.wait_log(messages::CONFIGURATION, |_| true);
    assert!(echoes(web), "it keeps no other mapping out");
    let api = portway.api();
    let refused =
        put(&api, "mc", &json!({ "publish": format!("{}:{}", own_addr(8081), target.addr) })).is(409);
    assert!(refused.error().contains("managed.toml"), "{refused:?}");
    assert_eq!(fs::read_to_string(&managed).expect("the file"), "[[mapping]\n");
}
