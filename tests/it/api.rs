//! The API: its routes, what it says of wrong requests, and what it does when the configuration changes.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::json;

use crate::harness::{Api, Portway, TcpTarget, eventually, mapping, messages, own_addr};

/// A configuration with one mapping and the API on `listen`.
fn config(listen: std::net::SocketAddr, more: &str) -> String {
    format!(
        "{}[api]\nlisten = \"{listen}\"\n{more}\n",
        mapping(own_addr(8080), own_addr(8000), "name = \"web\"")
    )
}

#[test]
fn the_usual_socket_is_there_without_any_configuration() {
    let portway = Portway::publishing(&format!("{}:{}", own_addr(8080), own_addr(8000))).start();
    let mode = fs::metadata(portway.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let status = portway.api().get("/v1/status").is(200).json();
    assert_eq!(status["pid"], portway.pid());
    assert_eq!((&status["ready"], &status["mappings"]), (&json!(true), &json!(1)));
    let socket = portway.socket();
    let exit = portway.stop().with(0);
    assert!(!socket.exists(), "the socket stays behind: {}", exit.log);
}

#[test]
fn both_kinds_of_socket_have_the_same_routes() {
    let listen = own_addr(7678);
    let portway = Portway::with(&config(listen, "")).start();
    for api in [portway.api(), Api::Tcp(listen)] {
        assert_eq!(api.get("/healthz").is(200).json(), json!({ "status": "ok" }));
        assert_eq!(api.get("/readyz").is(200).json(), json!({ "status": "ready" }));
        assert_eq!(api.get("/v1/status").is(200).json()["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(api.call("HEAD", "/v1/status").is(200).body, "");
    }
}

#[test]
fn a_wrong_request_says_what_is_wrong() {
    let portway = Portway::with(&config(own_addr(7678), "")).start();
    let api = portway.api();
    assert_eq!(api.get("/v1/nothing").is(404).error(), "there is no route /v1/nothing");
    let method = api.call("DELETE", "/v1/status").is(405);
    assert_eq!(method.header("allow"), Some("GET,HEAD"));
    assert_eq!(method.error(), "the route /v1/status does not take DELETE");
    let parameter = api.get("/v1/status?mappnig=web").is(400).json();
    assert_eq!(parameter["problems"][0]["file"], "query");
    assert_eq!(parameter["problems"][0]["message"], "`mappnig`: unknown parameter");
    let json = [("content-type", "application/json")];
    let body = api.send("POST", "/v1/login", &json, Some("{\n  \"tokne\": 1}")).is(400).json();
    let problem = &body["problems"][0];
    assert_eq!(
        (&problem["line"], &problem["column"], &problem["file"]),
        (&json!(2), &json!(9), &json!("body"))
    );
    assert!(problem["message"].as_str().unwrap().contains("unknown field `tokne`"), "{body}");
    api.send("POST", "/v1/login", &json, Some("{")).is(400);
    api.send("POST", "/v1/login", &json, Some("")).is(400);
    api.send("POST", "/v1/login", &[], Some("{\"token\": \"x\"}")).is(415);
}

#[test]
fn a_daemon_with_a_listener_that_waits_is_not_ready() {
    let taken = TcpTarget::echo();
    let (free, target) = (own_addr(8080), own_addr(8000));
    let config = mapping(free, target, "name = \"web\"") + &mapping(taken.addr, target, "name = \"late\"");
    let mut portway = Portway::with(&config).start();
    let reply = portway.api().get("/readyz").is(503);
    let waiting = reply.json()["not_ready"][0].as_str().unwrap().to_owned();
    assert!(waiting.contains("late") && waiting.contains(&taken.addr.to_string()), "{waiting}");
    assert_eq!(portway.api().get("/v1/status").is(200).json()["ready"], false);
    portway.reload_with(&mapping(free, target, "name = \"web\""));
    portway.api().get("/readyz").is(200);
}

#[test]
fn a_reload_moves_the_listener_and_a_place_that_is_taken_leaves_it_where_it_is() {
    let (first, second, taken) = (own_addr(7678), own_addr(7678), TcpTarget::echo());
    let mut portway = Portway::with(&config(first, "")).start();
    Api::Tcp(first).get("/healthz").is(200);
    portway.reload_with(&config(second, ""));
    eventually("the new listener answers", || Api::Tcp(second).try_connect().ok());
    eventually("the old listener is gone", || Api::Tcp(first).try_connect().err());
    Api::Tcp(second).get("/healthz").is(200);

    portway.reload_with(&config(taken.addr, ""));
    let line = portway.wait_log(messages::API_LISTENER_NOT_MOVED, |_| true);
    assert_eq!(line.text("stays"), second.to_string());
    Api::Tcp(second).get("/healthz").is(200);

    // Only the port is the same: the old listener is in the way of the new one.
    let every = format!("0.0.0.0:{}", second.port());
    drop(taken);
    portway.reload_with(&mapping(own_addr(8080), own_addr(8000), "name = \"web\""));
    eventually("the listener is gone", || Api::Tcp(second).try_connect().err());
    portway.api().get("/healthz").is(200);
    assert!(!every.is_empty());
}

#[test]
fn a_listener_that_is_named_and_cannot_be_opened_ends_the_start() {
    let taken = TcpTarget::echo();
    let exit = Portway::with(&config(taken.addr, "")).launch().exit().with(1);
    assert!(exit.log.contains(&format!("[api] listen {}", taken.addr)), "{}", exit.log);
    let metrics =
        format!("{}[metrics]\nlisten = \"{}\"\n", mapping(own_addr(8080), own_addr(8000), ""), taken.addr);
    Portway::with(&metrics).launch().exit().with(1).says("[metrics] listen");
}

#[test]
fn the_listener_for_metrics_has_nothing_else() {
    let metrics = own_addr(9678);
    let config = format!(
        "{}[metrics]\nlisten = \"{metrics}\"\n",
        mapping(own_addr(8080), own_addr(8000), "name = \"web\"")
    );
    let _portway = Portway::with(&config).start();
    let api = Api::Tcp(metrics);
    api.get("/healthz").is(200);
    // A scraper may know it by any name.
    api.send("GET", "/readyz", &[("host", "portway:9678")], None).is(200);
    for path in ["/v1/status", "/v1/sessions", "/v1/login", "/"] {
        api.get(path).is(404);
    }
}

#[test]
fn the_end_can_be_watched() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let config = mapping(at, target.addr, "name = \"web\"") + "[shutdown]\ngrace = \"30s\"\n";
    let mut portway = Portway::with(&config).start();
    let mut client = crate::harness::Client::to(at);
    client.ping();
    portway.signal(rustix::process::Signal::TERM);
    portway.wait_log(messages::STOPPING, |_| true);
    eventually("the API tells of the stop", || {
        let reply = portway.api().get("/readyz");
        (reply.status == 503 && reply.body.contains("stopping")).then_some(())
    });
    assert_eq!(portway.api().get("/v1/status").is(200).json()["sessions"], 1);
    drop(client);
    portway.exit().with(0);
}
