use serde_json::json;

use super::*;
use crate::mapping::Protocol;

fn mapping(name: &str) -> Mapping {
    Mapping {
        name: name.into(),
        origin: MappingOrigin::File,
        place: Some("/etc/portway/portway.toml:3:1".into()),
        enabled: true,
        listeners: vec![Listener {
            protocol: Some(Protocol::Tcp),
            listen: "[::]:8080".into(),
            state: ListenerState::Listening,
            ..Listener::default()
        }],
        targets: vec![view::Target { address: "10.0.0.5:80".into(), sessions: 2, ..view::Target::default() }],
        sessions: 2,
        sessions_total: 9,
        bytes_in: 2048,
        bytes_out: 5,
        rate_in: Some(10),
        rate_out: Some(1014),
        ..Mapping::default()
    }
}

fn status() -> view::Status {
    view::Status {
        version: "0.1.0".into(),
        pid: 7,
        uptime_ms: 61_000,
        ready: true,
        mappings: 2,
        listeners: 1,
        sessions: 2,
        descriptors: view::Descriptors { open: 12, limit: 1024 },
        ..view::Status::default()
    }
}

#[test]
fn the_daemon_is_a_few_lines_and_a_row_for_each_mapping() {
    let paused = Mapping { paused: true, rate_in: None, listeners: Vec::new(), ..mapping("old") };
    assert_eq!(
        all(&status(), &[mapping("web"), paused], Terminal::default()),
        "portway 0.1.0, ready, up 1m 1s (process 7)\n\
         2 mappings, 1 listener, 2 sessions, 0 flows, 0 bans\n\
         descriptors: 12 of 1024\n\n\
         MAPPING  STATE      LISTEN         TARGET       SESSIONS       IN  OUT       RATE\n\
         web      listening  [::]:8080/tcp  10.0.0.5:80         2  2.0 KiB  5 B  1.0 KiB/s\n\
         old      paused     -              10.0.0.5:80         2  2.0 KiB  5 B          -\n"
    );
}

#[test]
fn what_is_wrong_stands_below_with_its_reason() {
    let mut status = status();
    status.ready = false;
    status.not_ready = vec!["web [::]:8080/tcp: address in use\u{7}".into()];
    status.warnings = vec![view::Problem { message: "it is odd".into(), ..view::Problem::default() }];
    status.last_reload = Some(view::LastReload {
        at: "2000-01-01T00:00:00Z".into(),
        outcome: "refused".into(),
        problems: vec![view::Problem {
            message: "no".into(),
            help: Some("yes".into()),
            ..view::Problem::default()
        }],
    });
    let text = all(&status, &[], Terminal::default());
    assert!(text.starts_with("portway 0.1.0, not ready, up 1m 1s"), "{text}");
    assert!(text.contains("\nlast reload: refused, "), "{text}");
    assert!(text.contains("\n  no (yes)\n"), "{text}");
    assert!(
        text.ends_with("\nnot ready:\n  web [::]:8080/tcp: address in use\\u{7}\n\nwarning: it is odd\n"),
        "{text}"
    );
}

#[test]
fn the_state_of_a_mapping_is_that_of_its_worst_part() {
    let with = |states: &[ListenerState], down: usize| {
        let mut mapping = mapping("web");
        let listener = mapping.listeners[0].clone();
        mapping.listeners =
            states.iter().map(|state| Listener { state: *state, ..listener.clone() }).collect();
        mapping.targets = vec![mapping.targets[0].clone(); 2];
        mapping.targets[..down].iter_mut().for_each(|target| target.state = TargetState::Down);
        state(&mapping)
    };
    use ListenerState::{Failed, Listening, Waiting};
    assert_eq!(with(&[Listening], 0), ("listening".into(), Colour::Good));
    assert_eq!(with(&[Listening, Waiting, Failed], 0), ("1 of 3 failed".into(), Colour::Bad));
    assert_eq!(with(&[Waiting], 2), ("waiting".into(), Colour::Bad));
    assert_eq!(with(&[Listening], 1), ("1 of 2 targets down".into(), Colour::Pale));
    assert_eq!(with(&[Listening], 2), ("target down".into(), Colour::Bad));
    let disabled = Mapping { enabled: false, ..mapping("web") };
    assert_eq!(state(&disabled).0, "disabled");
}

#[test]
fn one_mapping_is_shown_in_full() {
    let mut mapping = mapping("web");
    mapping.refused.insert("denied".into(), 4);
    mapping.until = Some("2026-11-29T14:11:20Z".into());
    mapping.policy =
        json!({ "allow": ["@office", "10.0.0.0/8"], "deny": [], "max_sessions": 20, "source": null })
            .as_object()
            .cloned()
            .unwrap();
    mapping.targets[0].state = TargetState::Down;
    mapping.targets[0].last_error = Some("refused".into());
    assert_eq!(
        one(&mapping, Terminal::default()),
        "web: target down\n\
         from: a configuration file, /etc/portway/portway.toml:3:1\n\
         until: 2026-11-29 14:11:20 (UTC)\n\
         sessions: 2 live, 9 since the start\n\
         bytes: 2.0 KiB (10 B/s) in, 5 B (1014 B/s) out\n\
         refused: denied 4\n\n\
         LISTEN         STATE      REASON  HOLDER\n\
         [::]:8080/tcp  listening  -       -\n\n\
         TARGET       STATE  SESSIONS  SINCE  LAST ERROR\n\
         10.0.0.5:80  down          2  -      refused\n\n\
         KEY           VALUE\n\
         allow         @office, 10.0.0.0/8\n\
         max_sessions  20\n"
    );
}

#[test]
fn targets_that_sessions_start_stand_below_with_their_state() {
    let wake = |state: &str| view::Wake {
        mapping: "game".into(),
        what: "unit game.service".into(),
        state: state.into(),
        ..view::Wake::default()
    };
    let starting = view::Wake { since_ms: Some(3_000), sessions: 2, ..wake("starting") };
    let failed = view::Wake { error: Some("no bus".into()), retry_ms: Some(4_000), ..wake("failed") };
    let running = view::Wake { sessions: 1, ..wake("running") };
    let status = view::Status { wakes: vec![starting, failed, running, wake("asleep")], ..status() };
    let text = all(&status, &[], Terminal::default());
    let (_, below) = text.split_once("started by sessions:\n").unwrap();
    assert_eq!(
        below,
        "  unit game.service of game: starting for 3s\n\
         \u{20} unit game.service of game: failed, again in 4s at the soonest: no bus\n\
         \u{20} unit game.service of game: running, 1 session\n\
         \u{20} unit game.service of game: asleep\n"
    );
}
