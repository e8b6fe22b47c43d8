//! Mappings that containers declare by their labels, with an engine as its socket shows it.

use std::{
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use serde_json::{Value, json};

use crate::harness::{
    Client, Engine, Portway, TcpTarget, check, container, echoes, eventually, mapping, messages, own_addr,
    paced, pass,
};

/// A file that asks this engine.
fn asks(engine: &Engine) -> String {
    format!("[docker]\nsocket = \"{}\"\n", engine.host())
}

/// A container whose port is that of `target`, published at `listen`.
fn publishes(name: &str, listen: SocketAddr, target: &TcpTarget) -> Value {
    let spec = format!("{listen}:{}", target.addr.port());
    container(name, &target.addr.ip().to_string(), &[("portway.publish", &spec)])
}

/// The mappings by name.
fn names(portway: &Portway) -> Vec<String> {
    let all = portway.api().get("/v1/mappings").json();
    all["mappings"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|m| m["name"].as_str().expect("a name").to_owned())
        .collect()
}

#[track_caller]
fn wait_names<const N: usize>(portway: &Portway, expected: [&str; N]) {
    eventually(&format!("the mappings {expected:?}, not {:?}", names(portway)), || {
        (names(portway) == expected).then_some(())
    });
}

/// What the status warns of.
fn warnings(portway: &Portway) -> Vec<String> {
    let status = portway.api().get("/v1/status").json();
    let text = |problem: &Value| {
        let word = |key: &str| problem[key].as_str().unwrap_or_default().to_owned();
        format!("{}:{}: {} ({})", word("file"), problem["line"], word("message"), word("help"))
    };
    status["warnings"].as_array().expect("a list").iter().map(text).collect()
}

#[track_caller]
fn wait_warning(portway: &Portway, part: &str) -> String {
    eventually(&format!("a warning with {part:?}"), || {
        warnings(portway).into_iter().find(|text| text.contains(part))
    })
}

#[test]
fn a_container_is_there_with_the_first_plan_and_its_place_is_its_label() {
    let (engine, target, listen) = (Engine::start(), TcpTarget::echo(), own_addr(8080));
    engine.change(|all| all.push(publishes("web", listen, &target)));
    let portway = Portway::with(&asks(&engine)).start();
    Client::to(listen).ping();
    let web = portway.api().get("/v1/mappings/web").json();
    assert_eq!(
        (web["origin"].as_str(), web["place"].as_str()),
        (Some("docker"), Some("container web, label portway.publish"))
    );
    assert_eq!(web["targets"][0]["address"], target.addr.to_string());
    assert_eq!(warnings(&portway), [""; 0]);
    portway.stop().with(0);
}

#[test]
fn containers_come_change_and_go() {
    let (engine, one, two) = (Engine::start(), TcpTarget::echo(), TcpTarget::echo());
    let (listen, other) = (own_addr(8080), own_addr(8081));
    let mut portway = Portway::with(&asks(&engine)).start();
    engine.wait_follower();
    engine.run(publishes("web", listen, &one));
    wait_names(&portway, ["web"]);
    let mut live = Client::to(listen);
    live.ping();
    // Made again with another label and at another address.
    engine.change(Vec::clear);
    engine.run(publishes("web", other, &two));
    eventually("the new listener", || echoes(other).then_some(()));
    eventually("the old listener has gone", || (!echoes(listen)).then_some(()));
    live.ping();
    engine.end("web", "die");
    wait_names(&portway, []);
    eventually("no listener is left", || (!echoes(other)).then_some(()));
    drop(live);
    assert_eq!(portway.count(messages::RELOAD_APPLIED), 0, "no reload was asked for");
    assert!(portway.count(messages::CONTAINERS_APPLIED) >= 3, "{}", portway.log());
    assert!(portway.runs());
    portway.stop().with(0);
}

#[test]
fn what_podman_calls_an_end_is_one() {
    let (engine, target, listen) = (Engine::start(), TcpTarget::echo(), own_addr(8080));
    let portway = Portway::with(&asks(&engine)).start();
    engine.wait_follower();
    let mut web = publishes("web", listen, &target);
    web["Created"] = json!("2026-11-29T10:00:00Z");
    web["Ports"] = Value::Null;
    engine.run(web);
    wait_names(&portway, ["web"]);
    engine.end("web", "died");
    wait_names(&portway, []);
    portway.stop().with(0);
}

#[test]
fn an_engine_that_restarts_ends_nothing_and_is_followed_again() {
    let (mut engine, target) = (Engine::start(), TcpTarget::echo());
    let (listen, more) = (own_addr(8080), own_addr(8081));
    engine.change(|all| all.push(publishes("web", listen, &target)));
    let mut portway = Portway::with(&asks(&engine)).start();
    let mut live = Client::to(listen);
    engine.wait_follower();
    engine.stop();
    let said = wait_warning(&portway, "cannot be asked");
    assert!(said.contains("docker.sock") && said.contains("portway.toml"), "{said}");
    live.ping();
    Client::to(listen).ping();
    // The list says what became of them meanwhile.
    engine.change(|all| *all = vec![publishes("late", more, &target)]);
    engine.serve();
    wait_names(&portway, ["late"]);
    assert_eq!(warnings(&portway), [""; 0]);
    engine.wait_follower();
    engine.run(publishes("web", listen, &target));
    wait_names(&portway, ["late", "web"]);
    live.ping();
    drop(live);
    portway.wait_log(messages::CONTAINER_ENGINE_ANSWERS_AGAIN, |_| true);
    portway.stop().with(0);
}

#[test]
fn an_engine_that_comes_after_the_start_is_found() {
    let (mut engine, target, listen) = (Engine::absent(), TcpTarget::echo(), own_addr(8080));
    let mut portway = Portway::with(&asks(&engine)).start();
    wait_warning(&portway, "cannot be asked");
    assert_eq!(portway.count(messages::CONFIGURATION), 1, "{}", portway.log());
    engine.change(|all| all.push(publishes("web", listen, &target)));
    engine.serve();
    wait_names(&portway, ["web"]);
    assert!(portway.runs());
    portway.stop().with(0);
}

#[test]
fn a_bad_label_is_told_once_and_harms_no_other() {
    let (engine, target, listen) = (Engine::start(), TcpTarget::echo(), own_addr(8080));
    let mut portway = Portway::with(&asks(&engine)).start();
    engine.wait_follower();
    engine.run(container(
        "bad",
        "127.0.0.1",
        &[("portway.publish", "8081:80"), ("portway.alow", "10.0.0.1")],
    ));
    let said = wait_warning(&portway, "container bad, label portway.alow");
    assert!(said.contains("unknown key `alow`"), "{said}");
    engine.run(publishes("web", listen, &target));
    wait_names(&portway, ["web"]);
    Client::to(listen).ping();
    engine.end("web", "die");
    wait_names(&portway, []);
    assert_eq!(portway.count(messages::CONFIGURATION), 1, "{}", portway.log());
    // Mended, it is there, and the warning is not.
    engine.change(Vec::clear);
    engine.run(publishes("bad", listen, &target));
    wait_names(&portway, ["bad"]);
    assert_eq!(warnings(&portway), [""; 0]);
    assert!(portway.runs());
    portway.stop().with(0);
}

#[test]
fn a_file_wins_a_clash_and_both_places_are_named() {
    let (engine, mine, theirs, listen) =
        (Engine::start(), TcpTarget::echo(), TcpTarget::echo(), own_addr(8080));
    engine.change(|all| all.push(publishes("web", listen, &theirs)));
    let text = mapping(listen, mine.addr, "name = \"mine\"") + &asks(&engine);
    let mut portway = Portway::with(&text).start();
    let said = wait_warning(&portway, "container web");
    assert!(said.contains("listened on twice, first at") && said.contains("portway.toml:2:"), "{said}");
    assert_eq!(names(&portway), ["mine"]);
    // Without the mapping of the file, the container has the port.
    portway.reload_with(&asks(&engine));
    wait_names(&portway, ["web"]);
    portway.stop().with(0);
}

#[test]
fn of_two_containers_the_one_that_has_the_port_keeps_it() {
    let (engine, target, listen) = (Engine::start(), TcpTarget::echo(), own_addr(8080));
    let mut young = publishes("young", listen, &target);
    young["Created"] = json!(1_800_000_000);
    engine.change(|all| all.push(young));
    let portway = Portway::with(&asks(&engine)).start();
    engine.wait_follower();
    engine.run(publishes("old", listen, &target));
    let said = wait_warning(&portway, "container old");
    assert!(said.contains("first at container young, label portway.publish"), "{said}");
    assert_eq!(names(&portway), ["young"]);
    engine.end("young", "die");
    wait_names(&portway, ["old"]);
    portway.stop().with(0);
}

#[test]
fn a_port_that_another_program_has_keeps_one_container_waiting_and_no_other() {
    let (engine, target) = (Engine::start(), TcpTarget::echo());
    let (taken, free) = (own_addr(8080), own_addr(8081));
    let holder = TcpListener::bind(taken).expect("the test's own address");
    let mut portway = Portway::with(&asks(&engine)).start();
    engine.wait_follower();
    engine.run(publishes("a", taken, &target));
    wait_names(&portway, ["a"]);
    engine.run(publishes("b", free, &target));
    wait_names(&portway, ["a", "b"]);
    Client::to(free).ping();
    let state = |name: &str| {
        portway.api().get(&format!("/v1/mappings/{name}")).json()["listeners"][0]["state"].clone()
    };
    assert_ne!(state("a"), state("b"));
    // It refuses no reload either.
    let text = asks(&engine) + "[shutdown]\ngrace = \"1s\"\n";
    portway.reload_with(&text);
    drop(holder);
    eventually("the port is taken over", || echoes(taken).then_some(()));
    portway.stop().with(0);
}

#[test]
fn what_a_file_says_meanwhile_waits_for_a_reload() {
    let (engine, target) = (Engine::start(), TcpTarget::echo());
    let (listen, of_file) = (own_addr(8080), own_addr(8081));
    let portway = Portway::with(&asks(&engine)).start();
    engine.wait_follower();
    portway.write_config(&(asks(&engine) + &mapping(of_file, target.addr, "")));
    engine.run(publishes("web", listen, &target));
    wait_names(&portway, ["web"]);
    portway.write_config("half a li");
    engine.run(publishes("other", own_addr(8082), &target));
    wait_names(&portway, ["other", "web"]);
    assert!(portway.api().get("/v1/status").json()["last_reload"].is_null());
    portway.stop().with(0);
}

#[test]
fn a_reload_turns_it_off_and_on_and_changes_the_prefix() {
    let (engine, target, listen) = (Engine::start(), TcpTarget::echo(), own_addr(8080));
    let other = own_addr(8081);
    engine.change(|all| {
        all.push(publishes("web", listen, &target));
        let spec = format!("{other}:{}", target.addr.port());
        all.push(container("else", &target.addr.ip().to_string(), &[("pw.publish", &spec)]));
    });
    let mut portway = Portway::with("").start();
    assert_eq!(names(&portway), [""; 0]);
    portway.reload_with(&asks(&engine));
    wait_names(&portway, ["web"]);
    portway.reload_with(&(asks(&engine) + "label_prefix = \"pw\"\n"));
    wait_names(&portway, ["else"]);
    portway.reload_with("");
    wait_names(&portway, []);
    let asked = engine.lists();
    engine.tell("start");
    pass(Duration::from_millis(500));
    assert_eq!(engine.lists(), asked, "the engine is left alone");
    portway.stop().with(0);
}

#[test]
fn a_proxy_before_the_engine_is_asked_over_tcp() {
    let (addr, target, listen) = (own_addr(2375), TcpTarget::echo(), own_addr(8080));
    let mut engine = Engine::at(addr);
    let portway = Portway::with(&asks(&engine)).start();
    engine.wait_follower();
    engine.run(publishes("web", listen, &target));
    wait_names(&portway, ["web"]);
    engine.stop();
    wait_warning(&portway, "does the proxy");
    portway.stop().with(0);
}

#[test]
fn answers_without_sense_or_end_cost_nothing_that_runs() {
    let (engine, target, listen) = (Engine::start(), TcpTarget::echo(), own_addr(8080));
    engine.change(|all| all.push(publishes("web", listen, &target)));
    let mut portway = Portway::with(&asks(&engine)).start();
    engine.wait_follower();
    let body =
        |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes();
    let huge = {
        let mut bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n[".to_vec();
        bytes.resize(40 << 20, b' ');
        bytes
    };
    for (answer, said) in [
        (body("{\"a\":1}"), "cannot be read"),
        (body("[{\"Id\":7}]"), "cannot be read"),
        (body("[[[["), "cannot be read"),
        (huge, "more than 32768 KiB"),
        (b"\x00\x01\x02 nonsense\r\n\r\n".to_vec(), "cannot be asked"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_vec(), "Forbidden (HTTP 403)"),
    ] {
        engine.answer_instead(Some(answer));
        engine.tell("start");
        wait_warning(&portway, said);
        Client::to(listen).ping();
        engine.answer_instead(None);
        eventually("the engine is asked again", || warnings(&portway).is_empty().then_some(()));
        engine.wait_follower();
    }
    // Events without sense are a reason to look, and no more.
    for line in ["", "{", "null", "[]", "\u{0}", &"x".repeat(10_000)] {
        engine.tell_line(line);
    }
    engine.run(publishes("more", own_addr(8081), &target));
    wait_names(&portway, ["more", "web"]);
    assert!(portway.most_memory() < 300 << 20, "{} MiB", portway.most_memory() >> 20);
    assert!(portway.runs());
    portway.stop().with(0);
}

#[test]
fn five_hundred_containers_at_once_are_one_change() {
    let (engine, target) = (Engine::start(), TcpTarget::echo());
    let base = own_addr(10_000);
    let mut portway = Portway::with(&asks(&engine)).start();
    engine.wait_follower();
    let at = |nth: u16| SocketAddr::new(base.ip(), 10_000 + nth);
    let before = engine.lists();
    engine.change(|all| all.extend((0..500).map(|nth| publishes(&format!("c{nth:03}"), at(nth), &target))));
    (0..500).for_each(|_| engine.tell("start"));
    eventually("all of them", || (names(&portway).len() == 500).then_some(()));
    Client::to(at(0)).ping();
    Client::to(at(499)).ping();
    assert!(engine.lists() - before < 10, "{} lists", engine.lists() - before);
    assert!(portway.count(messages::CONTAINERS_APPLIED) < 10, "{}", portway.log());
    engine.change(Vec::clear);
    engine.tell("die");
    wait_names(&portway, []);
    assert!(portway.runs());
    portway.stop().with(0);
}

#[test]
fn a_container_that_starts_again_and_again_is_followed_at_a_slow_pace() {
    let (engine, target, listen) = (Engine::start(), TcpTarget::echo(), own_addr(8080));
    let portway = Portway::with(&asks(&engine)).start();
    engine.wait_follower();
    let before = engine.lists();
    paced(Duration::from_millis(50), 60, |_| {
        engine.run(publishes("web", listen, &target));
        engine.end("web", "die");
    });
    let lists = engine.lists() - before;
    assert!((1..=8).contains(&lists), "{lists} lists in three seconds");
    engine.run(publishes("web", listen, &target));
    wait_names(&portway, ["web"]);
    portway.stop().with(0);
}

#[test]
fn check_reads_the_keys_and_asks_no_engine() {
    let engine = Engine::start();
    check(&asks(&engine), &[]).exits(0).never_says("cannot be asked");
    assert_eq!(engine.asked(), [""; 0]);
    check("[docker]\nsocket = \"docker.sock\"\n", &[]).exits(78).says("/var/run/docker.sock");
}
