//! What each route of the API shows and does.

use serde_json::{Value, json};

use crate::harness::{
    Api, Client, Portway, TcpTarget, UdpTarget, echoes, eventually, mapping, messages, own_addr, own_ip,
    udp_client, udp_mapping,
};

fn list<'v>(value: &'v Value, name: &str) -> &'v Vec<Value> {
    value[name].as_array().unwrap_or_else(|| panic!("no list {name} in {value}"))
}

/// The sessions of a path.
fn sessions(api: &Api, path: &str) -> Vec<Value> {
    list(&api.get(path).is(200).json(), "sessions").clone()
}

#[test]
fn mappings_are_shown_by_name_also_with_a_slash_in_it() {
    let target = TcpTarget::echo();
    let (named, plain) = (own_addr(8080), own_addr(8081));
    let config =
        mapping(named, target.addr, "name = \"web\"\nmax_sessions = 7") + &mapping(plain, target.addr, "");
    let portway = Portway::with(&config).start();
    let api = portway.api();
    let mut client = Client::to(named);
    client.ping();
    let all = api.get("/v1/mappings").is(200).json();
    let names: Vec<_> =
        list(&all, "mappings").iter().map(|mapping| mapping["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["8081/tcp", "web"]);
    let web = api.get("/v1/mappings/web").is(200).json();
    assert_eq!(web["listeners"][0]["state"], "listening");
    assert_eq!((&web["sessions"], &web["sessions_total"]), (&json!(1), &json!(1)));
    assert_eq!(web["targets"][0]["address"], target.addr.to_string());
    for path in ["/v1/mappings/8081/tcp", "/v1/mappings/8081%2Ftcp"] {
        assert_eq!(api.get(path).is(200).json()["name"], "8081/tcp");
    }
    assert_eq!(api.get("/v1/mappings/wbe").is(404).error(), "there is no mapping `wbe`");
    api.get("/v1/mappings/%00").is(404);
}

#[test]
fn sessions_are_listed_by_number_in_parts_and_by_filter() {
    let (target, udp) = (TcpTarget::echo(), UdpTarget::echo());
    let (web, games) = (own_addr(8080), own_addr(8080));
    let config =
        mapping(web, target.addr, "name = \"web\"") + &udp_mapping(games, udp.addr, "name = \"games\"");
    let portway = Portway::with(&config).start();
    let api = portway.api();
    assert_eq!(api.get("/v1/sessions").is(200).json(), json!({ "sessions": [] }));
    let mut clients: Vec<_> = (0..450).map(|_| Client::from(own_ip(), web)).collect();
    clients.iter_mut().for_each(Client::ping);
    let udp_client = udp_client(games);
    udp_client.send(b"hello").unwrap();
    udp_client.recv(&mut [0; 16]).unwrap();

    let all = sessions(&api, "/v1/sessions");
    assert_eq!(all.len(), 451);
    let ids: Vec<_> = all.iter().map(|session| session["id"].as_u64().unwrap()).collect();
    assert!(ids.is_sorted());
    let flow = sessions(&api, "/v1/sessions?mapping=games");
    assert_eq!((flow.len(), &flow[0]["protocol"], &flow[0]["bytes_in"]), (1, &json!("udp"), &json!(5)));
    let client = clients[7].0.local_addr().unwrap();
    let one = sessions(&api, &format!("/v1/sessions?client={}", client.ip()));
    assert_eq!((one.len(), &one[0]["client"]), (1, &json!(client.to_string())));
    assert_eq!(one[0]["target"], target.addr.to_string());
    assert_eq!(sessions(&api, "/v1/sessions?client=127.0.0.0/8").len(), 451);

    let (mut parts, mut after) = (Vec::new(), String::new());
    loop {
        let part = api.get(&format!("/v1/sessions?limit=200&after={after}")).is(200).json();
        parts.extend(list(&part, "sessions").iter().map(|session| session["id"].as_u64().unwrap()));
        let Some(next) = part["next"].as_str() else { break };
        next.clone_into(&mut after);
    }
    assert_eq!(parts, ids);
    for wrong in ["limit=0", "limit=x", "after=x", "client=nowhere", "mapping=a%20b", "clinet=127.0.0.1"] {
        let reply = api.get(&format!("/v1/sessions?{wrong}")).is(400).json();
        assert_eq!(reply["problems"][0]["file"], "query", "{reply}");
    }
}

#[test]
fn sessions_are_ended_by_number_by_client_and_by_mapping() {
    let target = TcpTarget::echo();
    let (web, other) = (own_addr(8080), own_addr(8080));
    let config =
        mapping(web, target.addr, "name = \"web\"") + &mapping(other, target.addr, "name = \"other\"");
    let mut portway = Portway::with(&config).start();
    let api = portway.api();
    let open = |to| {
        let mut client = Client::from(own_ip(), to);
        client.ping();
        client
    };
    let (one, by_client, by_mapping, stays) = (open(web), open(web), open(web), open(other));
    api.call("DELETE", "/v1/sessions").is(400);
    api.call("DELETE", "/v1/sessions?mapping=").is(400);
    api.call("DELETE", "/v1/sessions/0").is(404);
    api.call("DELETE", "/v1/sessions/all").is(404);
    assert_eq!(sessions(&api, "/v1/sessions").len(), 4, "a wrong request ends nothing");
    let ip = |client: &Client| client.0.local_addr().unwrap().ip();
    let id = sessions(&api, &format!("/v1/sessions?client={}", ip(&one)))[0]["id"].as_u64().unwrap();
    let closed = |path: &str| api.call("DELETE", path).is(200).json()["closed"].clone();
    assert_eq!(closed(&format!("/v1/sessions/{id}")), 1);
    assert_eq!(closed(&format!("/v1/sessions?client={}", ip(&by_client))), 1);
    assert_eq!(closed("/v1/sessions?mapping=web"), 1);
    assert_eq!(closed("/v1/sessions?mapping=web"), 0);
    for line in portway.wait_sessions(3) {
        assert_eq!(line.text("reason"), "closed-by-operator");
    }
    assert_eq!(sessions(&api, "/v1/sessions").len(), 1);
    drop((one, by_client, by_mapping, stays));
}

#[test]
fn a_client_is_banned_and_let_in_again() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let portway = Portway::with(&mapping(at, target.addr, "name = \"web\"")).start();
    let api = portway.api();
    let ip = own_ip();
    let mut live = Client::from(ip, at);
    live.ping();
    let ban =
        api.post("/v1/bans", &json!({ "client": ip, "for": "1h", "reason": "too loud" })).is(200).json();
    assert_eq!(
        (&ban["client"], &ban["reason"], &ban["manual"]),
        (&json!(ip), &json!("too loud"), &json!(true))
    );
    eventually("the live session is cut", || sessions(&api, "/v1/sessions").is_empty().then_some(()));
    let all = api.get("/v1/bans").is(200).json();
    assert_eq!(list(&all, "bans")[0]["client"], json!(ip));
    assert!(list(&all, "bans")[0]["until"].is_string());
    api.call("DELETE", &format!("/v1/bans?client={ip}")).is(200);
    api.call("DELETE", &format!("/v1/bans?client={ip}")).is(404);
    Client::from(ip, at).ping();

    let net = format!("{ip}/24");
    let ban = api.post("/v1/bans", &json!({ "client": net })).is(200).json();
    assert_eq!(ban["until"], Value::Null, "until further notice");
    let net = ban["client"].as_str().unwrap().to_owned();
    assert!(net.ends_with(".0/24"), "{net}");
    eventually("the network is banned", || (!crate::harness::enters(ip, at)).then_some(()));
    api.call("DELETE", &format!("/v1/bans?client={net}")).is(200);
    Client::from(ip, at).ping();

    for wrong in [
        json!({}),
        json!({ "client": "home.example" }),
        json!({ "client": "192.0.2.1", "for": "1 fortnight" }),
        json!({ "client": "192.0.2.1", "for": "0s" }),
        json!({ "client": "192.0.2.1", "until": "1h" }),
        json!({ "client": 7 }),
        json!([]),
    ] {
        let reply = api.post("/v1/bans", &wrong).is(400).json();
        assert_eq!(reply["problems"][0]["file"], "body", "{wrong}: {reply}");
    }
    api.call("DELETE", "/v1/bans").is(400);
    api.call("DELETE", "/v1/bans?client=x").is(400);
    assert_eq!(api.get("/v1/bans").is(200).json(), json!({ "bans": [] }));
}

#[test]
fn a_reload_is_tried_applied_and_refused() {
    let (target, taken) = (TcpTarget::echo(), TcpTarget::echo());
    let (web, new) = (own_addr(8080), own_addr(8080));
    let first = mapping(web, target.addr, "name = \"web\"");
    let portway = Portway::with(&first).start();
    let api = portway.api();
    let mut client = Client::to(web);
    client.ping();
    let write = |config: &str| std::fs::write(portway.config(), config).unwrap();

    write(&mapping(new, target.addr, "name = \"new\""));
    let plan = api.call("POST", "/v1/reload?dry_run=true").is(200).json();
    assert_eq!((&plan["dry_run"], &plan["sessions_cut_count"]), (&json!(true), &json!(1)));
    assert_eq!(plan["opened"][0], format!("new {new}/tcp"));
    assert_eq!(plan["closed"][0], format!("web {web}/tcp"));
    assert!(echoes(web) && Client::try_to(new).is_err(), "a trial changes nothing");

    write("[[mapping]]\nname = \"web\"\npublish = \"0:80\"\n");
    for path in ["/v1/reload", "/v1/reload?dry_run=true"] {
        let refused = api.call("POST", path).is(422).json();
        let problem = &refused["problems"][0];
        assert_eq!((&problem["line"], problem["file"].is_string()), (&json!(3), true), "{refused}");
    }
    write(
        &(mapping(web, target.addr, "name = \"web\"") + &mapping(taken.addr, target.addr, "name = \"no\"")),
    );
    let conflict = api.call("POST", "/v1/reload").is(409).json();
    assert!(
        conflict["problems"][0]["message"].as_str().unwrap().contains(&taken.addr.to_string()),
        "{conflict}"
    );
    assert!(echoes(web), "what ran runs on");
    assert_eq!(api.get("/v1/status").json()["last_reload"]["outcome"], "refused");

    write(&(first + &mapping(new, target.addr, "name = \"new\"")));
    let applied = api.call("POST", "/v1/reload").is(200).json();
    assert_eq!(
        (&applied["dry_run"], &applied["opened"][0]),
        (&json!(false), &json!(format!("new {new}/tcp")))
    );
    assert!(echoes(new));
    client.ping();
    assert_eq!(api.get("/v1/status").json()["last_reload"]["outcome"], "applied");
    api.call("POST", "/v1/reload?dry_run=perhaps").is(400);
    api.get("/v1/reload").is(405);
}

#[test]
fn events_are_numbered_followed_and_taken_up_again() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let config = mapping(at, target.addr, "name = \"web\"")
        + &mapping(own_addr(8080), target.addr, "name = \"other\"");
    let portway = Portway::with(&config).start();
    let api = portway.api();
    let follow = |path: &str, headers: &[(&str, &str)]| {
        use std::io::Write;
        let mut line = api.connect();
        line.write_all(&api.request("GET", path, headers, None)).unwrap();
        line
    };
    let event = |line: &mut crate::harness::HttpStream| loop {
        if let Some(data) = line.line().strip_prefix("data: ") {
            return serde_json::from_str::<Value>(data).unwrap();
        }
    };
    let mut all = follow("/v1/events", &[]);
    while !all.line().starts_with(": portway") {}
    drop(Client::to(at));
    let (started, ended) = (event(&mut all), event(&mut all));
    assert_eq!((&started["kind"], &started["mapping"]), (&json!("session-started"), &json!("web")));
    assert_eq!((&ended["kind"], &ended["session"]), (&json!("session-ended"), &started["session"]));
    assert_eq!(ended["id"].as_u64(), started["id"].as_u64().map(|id| id + 1));
    api.post("/v1/bans", &json!({ "client": "192.0.2.1" })).is(200);
    assert_eq!(event(&mut all)["kind"], "banned");

    let id = started["id"].to_string();
    let mut again = follow("/v1/events", &[("last-event-id", &id)]);
    assert_eq!(event(&mut again)["id"], ended["id"]);
    let mut after = follow(&format!("/v1/events?after={id}"), &[]);
    assert_eq!(event(&mut after)["id"], ended["id"]);
    let mut of_web = follow("/v1/events?mapping=web&after=0", &[]);
    assert!((0..3).all(|_| event(&mut of_web)["mapping"] == "web"));
    api.get("/v1/events?mapping=a%20b").is(400);
    api.get("/v1/events?after=x").is(400);

    // The end of the daemon is the end of the stream.
    let stopped = std::thread::spawn(move || portway.stop().with(0));
    let mut rest = String::new();
    let _ = std::io::Read::read_to_string(&mut all, &mut rest);
    assert!(rest.contains("\"stopping\""), "{rest}");
    stopped.join().unwrap();
}

#[test]
fn the_level_of_the_log_is_changed_for_a_while() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let mut portway = Portway::with(&mapping(at, target.addr, "deny = [\"127.0.0.0/8\"]")).start();
    let api = portway.api();
    assert_eq!(api.get("/v1/log-level").is(200).json(), json!({ "level": "info" }));
    let set = api.post("/v1/log-level", &json!({ "level": "debug", "for": "10m" })).is(200).json();
    assert_eq!(set["level"], "debug");
    assert!((590_000..=600_000).contains(&set["left_ms"].as_u64().unwrap()), "{set}");
    assert_eq!(api.get("/v1/status").json()["log_level"], "debug");
    drop(Client::to(at));
    portway.wait_log(messages::SESSION_REFUSED, |_| true);
    for wrong in [json!({ "level": "loud" }), json!({ "level": "info", "for": "x" }), json!({})] {
        api.post("/v1/log-level", &wrong).is(400);
    }
}

#[test]
fn the_history_has_what_moved() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let portway = Portway::with(&mapping(at, target.addr, "name = \"web\"")).start();
    let api = portway.api();
    let mut client = Client::to(at);
    for path in ["/v1/history", "/v1/history?mapping=web&minutes=15"] {
        eventually("a second in which something moved", || {
            client.ping();
            let history = api.get(path).is(200).json();
            assert_eq!(history["interval_ms"], 1000);
            list(&history, "points").iter().any(|point| point["bytes_in"] != 0).then_some(())
        });
    }
    assert_eq!(api.get("/v1/history?minutes=1440").is(200).json()["interval_ms"], 60_000);
    api.get("/v1/history?mapping=wbe").is(404);
    for wrong in ["minutes=0", "minutes=1441", "minutes=x", "hours=1"] {
        api.get(&format!("/v1/history?{wrong}")).is(400);
    }
}

#[test]
fn the_page_is_there_for_everyone_and_its_data_is_not() {
    let (listen, dir) = (own_addr(7678), tempfile::tempdir().unwrap());
    let token = dir.path().join("token");
    std::fs::write(&token, "a token with a space is refused".replace(' ', "-")).unwrap();
    let config = format!(
        "{}[api]\nlisten = \"{listen}\"\ntokens = [{{ role = \"admin\", file = \"{}\" }}]\n",
        mapping(own_addr(8080), own_addr(8000), ""),
        token.display()
    );
    let _portway = Portway::with(&config).start();
    let api = Api::Tcp(listen);
    let page = api.get("/").is(200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").unwrap().contains("script-src 'self'"));
    assert!(page.body.starts_with("<!doctype html>") || page.body.starts_with("<!DOCTYPE html>"));
    api.get("/app.js").is(200);
    api.call("POST", "/").is(405);
    api.get("/v1/status").is(401);
}

#[test]
fn the_router_is_shown_also_where_it_is_not_used() {
    let portway = Portway::publishing(&format!("{}:{}", own_addr(8080), own_addr(8000))).start();
    assert_eq!(portway.api().get("/v1/router").is(200).json()["state"], "off");
}

#[test]
fn the_configuration_is_shown_without_its_secrets() {
    let (listen, dir) = (own_addr(7678), tempfile::tempdir().unwrap());
    let token = dir.path().join("token");
    std::fs::write(&token, "a-secret-of-this-test").unwrap();
    let config = format!(
        "{}[api]\nlisten = \"{listen}\"\ntokens = [{{ role = \"admin\", file = \"{}\" }}]\n",
        mapping(own_addr(8080), own_addr(8000), "name = \"web\"\nmax_sessions = 7"),
        token.display()
    );
    let portway = Portway::with(&config).start();
    let reply = portway.api().get("/v1/config").is(200);
    assert!(!reply.body.contains("a-secret-of-this-test"), "{}", reply.body);
    let config = reply.json();
    assert_eq!(
        (&config["mappings"][0]["name"], &config["mappings"][0]["max_sessions"]),
        (&json!("web"), &json!(7))
    );
    assert_eq!(config["api"]["listen"], json!(listen.to_string()));
}
