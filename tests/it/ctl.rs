//! The commands that talk to a daemon: what they ask, what they show, and how they fail, against a socket that answers as
//! the test says.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::net::UnixListener,
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::{End, FakeApi, Ran, eventually, portway};

/// Runs a command against a socket.
fn ctl<const N: usize>(socket: &Path, args: [&str; N]) -> Ran {
    let socket = socket.to_str().expect("a readable path");
    portway(args.into_iter().chain(["--socket", socket]))
}

#[track_caller]
fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran}"))
}

const COMMANDS: [&[&str]; 18] = [
    &["status"],
    &["sessions"],
    &["events"],
    &["dump"],
    &["close", "7"],
    &["reload"],
    &["ban", "192.0.2.7"],
    &["unban", "192.0.2.7"],
    &["bans"],
    &["revoke", "192.0.2.7"],
    &["router"],
    &["health"],
    &["add", "8080:80"],
    &["remove", "web"],
    &["pause", "web"],
    &["resume", "web"],
    &["log-level", "debug"],
    &["upgrade"],
];

#[test]
fn without_a_daemon_each_command_fails_and_says_what_helps() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let socket = dir.path().join("portway.sock");
    let path = socket.to_str().expect("a readable path");
    let none = format!("no portway daemon answers at {path}");
    for command in COMMANDS {
        let args = || command.iter().copied().chain(["--socket", path]);
        portway(args()).exits(1).says(&none).says("is it running?").says("= help: ");
        let ran = portway(args().chain(["--json"])).exits(1);
        assert_eq!(json(&ran)["error"], none.as_str(), "{ran}");
    }
    // A socket that a daemon left behind.
    drop(UnixListener::bind(&socket).expect("a socket"));
    ctl(&socket, ["status"]).exits(1).says(&none);
    // A file.
    fs::remove_file(&socket).expect("the test's own directory");
    fs::write(&socket, "").expect("the test's own directory");
    ctl(&socket, ["status"]).exits(1).says(&none);
}

#[test]
fn the_socket_comes_from_the_argument_the_variable_or_the_usual_places() {
    let status = &[("GET /readyz", 200, r#"{"status": "ready"}"#)];
    let fake = FakeApi::answering(status);
    let socket = fake.socket();
    let mut command = Command::new(env!("CARGO_BIN_EXE_portway"));
    command.arg("health").env("PORTWAY_SOCKET", "/nowhere/portway.sock");
    Ran::of(&mut command).exits(1).says("/nowhere/portway.sock");
    Ran::of(command.args(["--socket".as_ref(), socket.as_os_str()])).exits(0).says("ready");
    let mut command = Command::new(env!("CARGO_BIN_EXE_portway"));
    let dir = socket.parent().expect("a directory");
    command.arg("health").env_remove("PORTWAY_SOCKET").env_remove("RUNTIME_DIRECTORY");
    Ran::of(command.env("XDG_RUNTIME_DIR", dir)).exits(0).says("ready");
    Ran::of(command.env("PORTWAY_SOCKET", "off")).exits(2).says("`off`");
    Ran::of(command.env("PORTWAY_SOCKET", "").env("PORTWAY_JSON", "1"))
        .exits(0)
        .says("\"status\": \"ready\"");
}

#[test]
fn wrong_usage_exits_2_before_anything_is_asked() {
    let fake = FakeApi::answering(&[]);
    for args in [
        &["close"][..],
        &["close", "7", "--client", "192.0.2.7"],
        &["close", "seven"],
        &["close", "--client", "192.0.2.7", "7"],
        &["ban"],
        &["unban"],
        &["add"],
        &["remove"],
        &["pause"],
        &["resume"],
        &["log-level"],
        &["log-level", "loud"],
        &["sessions", "--sort", "height"],
        &["sessions", "--limit", "0"],
        &["status", "a", "b"],
        &["health", "--no-such-flag"],
    ] {
        let socket = fake.socket();
        portway(args.iter().copied().chain(["--socket", socket.to_str().expect("a readable path")])).exits(2);
    }
    assert_eq!(fake.asked(), []);
}

const MAPPING: &str = r#"{"name": "mc", "enabled": true}"#;
const ANSWERS: &[(&str, u16, &str)] = &[
    ("DELETE /v1/sessions", 200, r#"{"closed": 1}"#),
    ("POST /v1/reload", 200, "{}"),
    ("POST /v1/bans", 200, r#"{"client": "192.0.2.7"}"#),
    ("DELETE /v1/bans", 200, r#"{"removed": 1}"#),
    ("DELETE /v1/grants", 200, r#"{"removed": 1}"#),
    ("POST /v1/mappings/", 200, MAPPING),
    ("PUT /v1/mappings/", 200, MAPPING),
    ("POST /v1/mappings", 201, MAPPING),
    ("DELETE /v1/mappings/", 204, ""),
    ("GET /v1/mappings/", 200, MAPPING),
    ("POST /v1/log-level", 200, "{}"),
    ("GET /v1/sessions", 200, r#"{"sessions": []}"#),
    ("GET /v1/bans", 200, r#"{"bans": []}"#),
    ("GET /v1/router", 200, r#"{"state": "off"}"#),
];

/// A command, what it asks, the JSON of the body, and what it says.
type Example = (&'static [&'static str], &'static str, &'static str, &'static str);
const EXAMPLES: &[Example] = &[
    (&["close", "7"], "DELETE /v1/sessions/7", "", "closed 1 session"),
    (
        &["close", "--client", "2001:db8::/64"],
        "DELETE /v1/sessions?client=2001%3Adb8%3A%3A%2F64",
        "",
        "closed 1 session",
    ),
    (
        &["close", "--mapping", "8080/tcp", "--client", "192.0.2.7"],
        "DELETE /v1/sessions?client=192.0.2.7&mapping=8080%2Ftcp",
        "",
        "closed 1 session",
    ),
    (&["reload"], "POST /v1/reload", "", "reload applied"),
    (&["reload", "--dry-run"], "POST /v1/reload?dry_run=true", "", ""),
    (&["ban", "192.0.2.7"], "POST /v1/bans", r#"{"client": "192.0.2.7"}"#, "banned 192.0.2.7 until"),
    (
        &["ban", "192.0.2.7", "--for", "1h", "--reason", "a, b"],
        "POST /v1/bans",
        r#"{"client": "192.0.2.7", "for": "1h", "reason": "a, b"}"#,
        "banned",
    ),
    (&["unban", "192.0.2.7"], "DELETE /v1/bans?client=192.0.2.7", "", "unbanned 192.0.2.7"),
    (&["bans"], "GET /v1/bans", "", "no client is banned"),
    (&["revoke", "2001:db8::7"], "DELETE /v1/grants?client=2001%3Adb8%3A%3A7", "", "has to knock again"),
    (&["router"], "GET /v1/router", "", "router: not asked"),
    (&["sessions"], "GET /v1/sessions", "", "no live sessions"),
    (
        &["sessions", "--mapping", "web", "--client", "192.0.2.7", "--limit", "5"],
        "GET /v1/sessions?mapping=web&client=192.0.2.7&limit=5",
        "",
        "",
    ),
    (&["status", "8080/tcp"], "GET /v1/mappings/8080%2Ftcp", "", "mc: "),
    (&["pause", "8080/tcp"], "POST /v1/mappings/8080%2Ftcp/pause", "", "paused 8080/tcp"),
    (&["resume", "mc"], "POST /v1/mappings/mc/resume", "", "resumed mc"),
    (&["remove", "mc"], "DELETE /v1/mappings/mc", "", "removed mc"),
    (&["add", "8080:80"], "POST /v1/mappings", r#"{"publish": "8080:80"}"#, "added mc"),
    (
        &["add", "25565:mc.lan:25565", "--name", "mc", "--router", "--allow", "@a,10.0.0.0/8", "--for", "2h"],
        "PUT /v1/mappings/mc",
        r#"{"publish": "25565:mc.lan:25565", "allow": ["@a", "10.0.0.0/8"], "router": true, "for": "2h"}"#,
        "added mc",
    ),
    (&["log-level", "DEBUG"], "POST /v1/log-level", r#"{"level": "debug"}"#, "until the next reload"),
    (
        &["log-level", "debug", "--for", "10m"],
        "POST /v1/log-level",
        r#"{"level": "debug", "for": "10m"}"#,
        "for 10m",
    ),
];

#[test]
fn each_command_asks_for_what_it_says() {
    let fake = FakeApi::answering(ANSWERS);
    let socket = fake.socket();
    let socket = socket.to_str().expect("a readable path");
    let value = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
    let mut asked = 0;
    for (args, line, body, said) in EXAMPLES {
        for json in [&[][..], &["--json"]] {
            let ran = portway(args.iter().chain(json).copied().chain(["--socket", socket])).exits(0);
            assert!(!json.is_empty() || ran.out.contains(said), "{said:?}: {ran}");
            assert!(json.is_empty() || serde_json::from_str::<Value>(&ran.out).is_ok(), "{ran}");
            let requests = fake.asked();
            let request = &requests[asked];
            assert_eq!((&*request.line, value(&request.body)), (*line, value(body)));
            let is_json = request.head.contains(&"content-type: application/json".to_owned());
            assert_eq!(is_json, !body.is_empty(), "{request:?}");
            asked += 1;
            assert_eq!(requests.len(), asked, "one request a command");
        }
    }
}

#[test]
fn a_refusal_is_shown_with_its_problems_and_exits_1() {
    const REFUSED: &str = r#"{"error": "the configuration is wrong", "problems": [
        {"code": "unknown-key", "file": "a.toml", "line": 3, "column": 7, "message": "unknown key `idel\u001b`", "help": "did you mean `idle`?"},
        {"file": "-p \"0:1\"", "message": "port 0"}]}"#;
    let fake = FakeApi::answering(&[
        ("POST /v1/reload", 422, REFUSED),
        ("POST /v1/bans", 400, r#"{"error": "the body is wrong: `x`"}"#),
        ("DELETE /v1/sessions/", 404, r#"{"error": "there is no live session"}"#),
        ("POST /v1/mappings", 409, r#"{"error": "0.0.0.0:80/tcp is in use", "problems": []}"#),
    ]);
    let ran = ctl(&fake.socket(), ["reload"]).exits(1);
    assert_eq!(
        ran.err,
        "portway: the configuration is wrong\n\na.toml:3:7: unknown key `idel\\u{1b}`\n   = help: did you mean `idle`?\n\n\
         -p \"0:1\": port 0\n"
    );
    let ran = ctl(&fake.socket(), ["reload", "--dry-run", "--json"]).exits(1);
    assert_eq!(json(&ran)["problems"][0]["line"], 3);
    assert!(!ran.out.contains('\u{1b}'), "{ran}");
    ctl(&fake.socket(), ["ban", "x"]).exits(2).says("portway: the body is wrong: `x`");
    ctl(&fake.socket(), ["close", "7", "8"]).exits(1).says("there is no live sessions 7, 8");
    ctl(&fake.socket(), ["add", "80:80"]).exits(1).says("portway: 0.0.0.0:80/tcp is in use");
}

#[test]
fn health_exits_1_with_the_listeners_that_do_not_listen() {
    const NOT_READY: &str = r#"{"status": "not ready", "error": "the daemon is not ready", "not_ready": ["web 0.0.0.0:80/tcp: in use"]}"#;
    let fake = FakeApi::answering(&[("GET /readyz", 503, NOT_READY)]);
    ctl(&fake.socket(), ["health"])
        .exits(1)
        .says("portway: the daemon is not ready\n  web 0.0.0.0:80/tcp: in use\n");
    let ran = ctl(&fake.socket(), ["health", "--json"]).exits(1);
    assert_eq!(json(&ran)["not_ready"][0], "web 0.0.0.0:80/tcp: in use");
}

#[test]
fn an_answer_of_another_program_is_named_as_such() {
    let fake =
        FakeApi::answering(&[("GET /v1/status", 200, "<html>"), ("GET /v1/bans", 200, r#"{"bans": 7}"#)]);
    for command in ["status", "bans", "health"] {
        let ran = ctl(&fake.socket(), [command]).exits(1);
        assert!(ran.err.contains("is not this version of portway") || command == "health", "{ran}");
    }
}

const STATUS: &str = r#"{"version": "9.9.9", "pid": 7, "uptime_ms": 61000, "ready": true, "later": [1]}"#;
const MAPPINGS: &str = r#"{"mappings": [{"name": "web", "enabled": true, "sessions": 2,
    "listeners": [{"protocol": "tcp", "listen": "[::]:8080", "state": "listening"}],
    "targets": [{"address": "a-target-with-a-rather-long-name.example.org:8080", "state": "up"}]}]}"#;

#[test]
fn status_fits_the_terminal_and_has_colours_there_alone() {
    let fake = FakeApi::answering(&[("GET /v1/status", 200, STATUS), ("GET /v1/mappings", 200, MAPPINGS)]);
    let ran = ctl(&fake.socket(), ["status"]).exits(0).says("portway 9.9.9, ready, up 1m 1s (process 7)");
    assert!(ran.out.lines().any(|line| line.contains("web") && line.contains("0 B")), "one row: {ran}");
    assert!(!ran.out.contains('\u{1b}'), "{ran}");
    let ran = ctl(&fake.socket(), ["status", "--json"]).exits(0);
    assert_eq!(json(&ran), serde_json::from_str::<Value>(STATUS).expect("JSON"));
    crate::harness::with_tools(&["script", "stty"], || {
        let program = env!("CARGO_BIN_EXE_portway");
        let line = format!("stty cols 60; {program} status --socket {}", fake.socket().display());
        let on_terminal = |no_color: &str| {
            let mut command = Command::new("script");
            command.args(["-q", "-e", "-c", &line, "/dev/null"]).env_remove("COLUMNS").stdin(Stdio::null());
            Ran::of(command.env("NO_COLOR", no_color)).exits(0)
        };
        let plain = on_terminal("1");
        assert!(plain.out.lines().all(|line| line.trim_end().chars().count() <= 60), "{plain}");
        assert!(plain.out.contains("    a-target-with-a-rather-long-name.example.org:8080"), "{plain}");
        assert!(plain.out.contains("sessions 2") && !plain.out.contains('\u{1b}'), "{plain}");
        let coloured = on_terminal("");
        assert!(coloured.out.contains("\u{1b}[32mlistening\u{1b}[0m"), "{coloured}");
    });
}

#[test]
fn sessions_are_sorted_and_cut() {
    let fake = FakeApi::answering(&[(
        "GET /v1/sessions",
        200,
        r#"{"sessions": [{"id": 1, "client": "192.0.2.7:5000", "bytes_in": 5}, {"id": 2, "client": "192.0.2.8:5000", "bytes_in": 1258292}]}"#,
    )]);
    let ran = ctl(&fake.socket(), ["sessions", "--sort", "in", "--limit", "1"]).exits(0).says("1.2 MiB");
    assert!(!ran.out.contains("192.0.2.7") && ran.out.contains("There are more"), "{ran}");
    let ran = ctl(&fake.socket(), ["sessions", "--sort", "in", "--json"]).exits(0);
    assert_eq!(json(&ran)["sessions"][0]["id"], 2);
    // The daemon would cut before the list is sorted.
    assert!(fake.asked().iter().all(|asked| asked.line == "GET /v1/sessions"), "{:?}", fake.asked());
}

#[test]
fn a_reader_that_goes_away_is_not_a_failure() {
    let fake = FakeApi::answering(&[("GET /v1/bans", 200, r#"{"bans": []}"#)]);
    let line = format!(
        "set -o pipefail; {} bans --socket {} | true",
        env!("CARGO_BIN_EXE_portway"),
        fake.socket().display()
    );
    Ran::of(Command::new("bash").args(["-c", &line])).exits(0);
}

const TOLD: &[&str] = &[
    ": hello\n\n",
    "id: 4\nevent: banned\ndata: {\"id\": 4, \"at\": \"2026-11-29T14:11:20Z\", \"kind\": \"banned\", \"message\": \"a\"}\n\n",
    "event: lost\ndata: 12\n\n",
    "id: 17\ndata: {\"id\": 17, \"kind\": \"session-started\", \"mapping\": \"web\", \"message\": \"b\"}\n\n",
];

fn following(socket: &Path, more: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portway"));
    command.args(["events", "-f", "--socket"]).arg(socket).args(more);
    command.env_remove("PORTWAY_JSON").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program")
}

#[test]
fn events_are_lines_and_those_that_were_lost_are_counted() {
    let fake = FakeApi::telling(TOLD, End::Whole);
    let ran = ctl(&fake.socket(), ["events"]).exits(0).says("2026-11-29 14:11:20  banned            a\n");
    assert!(ran.out.contains("… 12 more events") && ran.out.contains("session-started   web: b\n"), "{ran}");
    let ran = ctl(&fake.socket(), ["events", "--mapping", "8080/tcp", "--json"]).exits(0);
    let lines: Vec<Value> =
        ran.out.lines().map(|line| serde_json::from_str(line).expect("JSON on each line")).collect();
    assert_eq!((&lines[1]["lost"], &lines[2]["id"], lines.len()), (&json!(12), &json!(17), 3), "{ran}");
    let asked = fake.asked();
    assert_eq!(asked[0].line, "GET /v1/events?follow=false");
    assert_eq!(asked[1].line, "GET /v1/events?mapping=8080%2Ftcp&follow=false");
    assert!(asked[0].head.contains(&"last-event-id: 0".to_owned()), "{asked:?}");
    ctl(&fake.socket(), ["events", "-f"]);
    ctl(&fake.socket(), ["events", "-f", "--recent"]);
    let asked = fake.asked();
    let from = |nth: usize| asked[nth].head.iter().any(|line| line.starts_with("last-event-id"));
    assert_eq!((&*asked[2].line, from(2), from(3)), ("GET /v1/events", false, true));
}

#[test]
fn following_events_ends_with_the_daemon_and_says_so() {
    for (end, said) in [(End::Whole, "the portway daemon ended"), (End::BreaksOff, "ended in the middle")] {
        let fake = FakeApi::telling(TOLD, end);
        let ran = ctl(&fake.socket(), ["events", "-f"]).exits(1);
        assert!(ran.out.contains("web: b") && ran.err.contains(said), "{ran}");
        let ran = ctl(&fake.socket(), ["events", "-f", "--json"]).exits(1);
        let last: Value = serde_json::from_str(ran.out.lines().last().unwrap_or_default()).expect("JSON");
        assert!(last["error"].as_str().is_some_and(|error| error.contains(said)), "{ran}");
    }
}

#[test]
fn following_events_ends_with_a_signal() {
    for asked in [Signal::INT, Signal::TERM] {
        let fake = FakeApi::telling(TOLD, End::Stays);
        let mut child = following(&fake.socket(), &[]);
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        assert!(lines.next().expect("an event").expect("text").contains("banned"));
        kill_process(Pid::from_child(&child), asked).expect("the test's own process");
        let status = eventually("the command ends", || child.try_wait().expect("its own process"));
        assert_eq!(status.code(), Some(0), "{asked:?}");
    }
}

#[test]
fn following_events_ends_when_no_reader_is_left_even_if_nothing_happens() {
    let fake = FakeApi::telling(TOLD, End::Stays);
    let mut child = following(&fake.socket(), &[]);
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    assert!(lines.next().expect("an event").is_ok());
    drop(lines);
    let status = eventually("the command ends", || child.try_wait().expect("its own process"));
    assert_eq!(status.code(), Some(0));
}
