//! What is seen at several sizes, by the lines of a terminal that is kept in memory.

use ratatui::{Terminal, backend::TestBackend};

use super::*;
use crate::{
    cli::top::state::{
        Action, Deed, News, Picture,
        tests::{press, session, status},
    },
    mapping::Protocol,
    status::view::{
        Ban, Descriptors, Event, History, LastReload, Listener, ListenerState, Mapping, Opening, Point,
        Problem, Router, Session, Status, Target, TargetState,
    },
    text::is_plain,
};

const SIZES: [(u16, u16); 3] = [(80, 24), (40, 12), (200, 50)];

fn screen(state: &State, (width, height): (u16, u16)) -> Buffer {
    screen_in(state, (width, height), Theme { colour: true })
}

fn screen_in(state: &State, (width, height): (u16, u16), theme: Theme) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(state, theme, frame)).unwrap();
    terminal.backend().buffer().clone()
}

fn lines(state: &State, size: (u16, u16)) -> Vec<String> {
    let buffer = screen(state, size);
    let line = |y| (0..size.0).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..size.1).map(|y| line(y).trim_end().to_owned()).collect()
}

#[track_caller]
fn line_with<'l>(lines: &'l [String], text: &str) -> &'l str {
    let found = lines.iter().find(|line| line.contains(text));
    found.unwrap_or_else(|| panic!("{text:?} is missing in\n{}", lines.join("\n")))
}

fn listener(listen: &str, state: ListenerState) -> Listener {
    Listener { protocol: Some(Protocol::Tcp), listen: listen.into(), state, ..Listener::default() }
}

fn mappings() -> Vec<Mapping> {
    let web = Mapping {
        name: "web".into(),
        enabled: true,
        listeners: vec![listener("0.0.0.0:8080", ListenerState::Listening)],
        targets: vec![Target { address: "10.0.0.5:80".into(), sessions: 12, ..Target::default() }],
        sessions: 12,
        sessions_total: 99,
        rate_in: Some(2048),
        rate_out: Some(3_145_728),
        refused: [("denied".to_owned(), 4)].into(),
        ..Mapping::default()
    };
    let waiting = Listener {
        error: Some("address in use".into()),
        holder: Some("nginx (12)".into()),
        ..listener("10.9.9.9:25565", ListenerState::Waiting)
    };
    let down = Target {
        address: "10.0.0.20:25565".into(),
        state: TargetState::Down,
        last_error: Some("connection refused".into()),
        ..Target::default()
    };
    let mc =
        Mapping { name: "minecraft".into(), listeners: vec![waiting], targets: vec![down], ..web.clone() };
    vec![mc, web]
}

/// A daemon with something of everything.
fn full() -> State {
    let mut state = State::default();
    let status = Status {
        uptime_ms: 192_000,
        sessions: 12,
        flows: 3,
        bans: 2,
        external: Some("203.0.113.7".into()),
        descriptors: Descriptors { open: 34, limit: 1024 },
        ..status()
    };
    let ban = |client: &str| Ban { client: client.into(), reason: "trap".into(), count: 2, ..Ban::default() };
    let opening = Opening {
        mapping: "minecraft".into(),
        protocol: Some(Protocol::Tcp),
        listen: "[::]:25565".into(),
        state: "conflict".into(),
        external_port: 25_565,
        error: Some("held by 192.168.1.9".into()),
        ..Opening::default()
    };
    let router = Router {
        state: "ready".into(),
        gateway: Some("192.168.1.1".into()),
        external: Some("203.0.113.7".into()),
        leases: vec![opening],
        ..Router::default()
    };
    let sessions: Vec<Session> =
        (1..=60).map(|id| session(id, "web", &format!("192.0.2.{id}:5000"), id * 1_048_576)).collect();
    state.take(News::Picture(Box::new(Picture {
        status,
        mappings: mappings(),
        sessions: Some(sessions),
        router: Some(router),
        bans: Some(vec![ban("203.0.113.9"), ban("2001:db8::/64")]),
    })));
    let points = (0..900).map(|n| Point { bytes_in: n, bytes_out: 2 * n, ..Point::default() }).collect();
    let history = History { mapping: Some("web".into()), points, ..History::default() };
    state.take(News::History(Box::new(history)));
    state.take(News::Event(Box::new(Event {
        id: 1,
        at: "2026-11-29T14:11:20.5Z".into(),
        kind: "target-down".into(),
        mapping: Some("minecraft".into()),
        message: "target 10.0.0.20:25565 is down".into(),
        ..Event::default()
    })));
    state.take(News::Lost(12));
    state
}

#[test]
fn the_header_says_which_daemon_and_how_it_is() {
    let mut state = full();
    let seen = lines(&state, (80, 24));
    assert_eq!(seen[0], "portway 1.2.3  ready  up 3m 12s  external 203.0.113.7  process 7");
    assert_eq!(seen[1], "12 sessions  3 flows  in 4.0 KiB/s  out 6.0 MiB/s  34 of 1024 descriptors");
    assert_eq!(seen[2], "  1 Mappings   2 Sessions   3 Events   4 Router   5 Bans".replacen("  ", " ", 1));
    let narrow = lines(&state, (40, 12));
    assert_eq!(narrow[0], "portway 1.2.3  ready  up 3m 12s");
    assert_eq!(narrow[1], "12 sessions  3 flows  in 4.0 KiB/s");
    assert_eq!(narrow[2], " 1 Mappings   2   3   4   5");
    state.picture.status.ready = false;
    state.picture.status.not_ready = vec!["mc 10.9.9.9:25565/tcp: address in use".into(), "other".into()];
    let seen = lines(&state, (80, 24));
    assert!(seen[0].starts_with("portway 1.2.3  not ready  up"), "{}", seen[0]);
    assert_eq!(seen[2], "not ready: mc 10.9.9.9:25565/tcp: address in use (and 1 more)");
}

#[test]
fn what_an_operator_should_know_has_a_line() {
    let mut state = full();
    state.picture.status.warnings = vec![Problem::default(), Problem::default()];
    assert_eq!(lines(&state, (80, 24))[2], "2 warnings; `portway status` shows them");
    let problem = Problem { message: "unknown key".into(), ..Problem::default() };
    state.picture.status.last_reload =
        Some(LastReload { outcome: "refused".into(), problems: vec![problem], ..LastReload::default() });
    assert_eq!(lines(&state, (80, 24))[2], "the last reload was refused: unknown key");
}

#[test]
fn mappings_show_state_rates_sessions_and_targets_in_80_columns() {
    let state = full();
    let seen = lines(&state, (80, 24));
    let heading = line_with(&seen, "MAPPING");
    for word in ["STATE", "LIVE", "IN", "OUT", "5 MINUTES", "TARGET"] {
        assert!(heading.contains(word), "{heading}");
    }
    let web = line_with(&seen, "web ");
    for part in ["listening", " 12 ", "2.0 KiB/s", "3.0 MiB/s", "▅▆▆▆▆▇▇▇▇█", "10.0.0.5:80"]
    {
        assert!(web.contains(part), "{part:?} in {web}");
    }
    assert!(line_with(&seen, "minecraft ").contains("waiting"));
    // The first one is selected, and described below.
    line_with(&seen, " minecraft ────");
    assert_eq!(
        line_with(&seen, "held by"),
        "waiting     10.9.9.9:25565/tcp: address in use, held by nginx (12)"
    );
    assert_eq!(line_with(&seen, "target down"), "target down 10.0.0.20:25565, 0 live: connection refused");
    line_with(&seen, "in 2.0 KiB/s, at most");
}

#[test]
fn every_tab_shows_its_rows_at_every_size() {
    for size in SIZES {
        let mut state = full();
        for (tab, row) in [
            ("1", "minecraft"),
            ("2", "192.0.2.60:5000"),
            ("3", "target 10.0.0.20"),
            ("4", "conflict"),
            ("5", "203.0.113.9"),
        ] {
            press(&mut state, tab);
            if tab == "2" {
                press(&mut state, "i");
            }
            let seen = lines(&state, size);
            line_with(&seen, row);
            let keys = seen.last().unwrap();
            assert!(keys.contains("? keys") && keys.contains("q quit"), "{size:?}: {keys}");
        }
    }
}

#[test]
fn the_columns_that_fit_are_whole() {
    let mut state = full();
    press(&mut state, "2i");
    let heading = |state: &State, size| line_with(&lines(state, size), "CLIENT").to_owned();
    assert_eq!(
        heading(&state, (40, 12)).split_whitespace().collect::<Vec<_>>(),
        ["ID", "MAPPING", "CLIENT", "IN▼"]
    );
    for by in ["ID", "MAPPING", "CLIENT", "AGE", "IN▼", "OUT", "RATE"] {
        assert!(heading(&state, (80, 24)).contains(by), "{by}");
    }
    for by in ["ID", "MAPPING", "CLIENT", "TARGET", "PROTOCOL", "AGE", "IDLE", "IN▼", "OUT", "RATE"] {
        assert!(heading(&state, (200, 50)).contains(by), "{by}");
    }
    press(&mut state, "lr");
    assert!(heading(&state, (40, 12)).contains("IDLE▲"));
}

#[test]
fn a_long_sentence_is_cut_before_its_time_is_left_out() {
    let mut state = full();
    let message = "tcp session from 192.0.2.7:5000 to 10.0.0.5:80 ended: closed-by-operator ".repeat(3);
    let event = Event {
        at: "2026-11-29T14:12:00Z".into(),
        kind: "session-ended".into(),
        message,
        ..Event::default()
    };
    state.take(News::Event(Box::new(event)));
    press(&mut state, "3");
    let seen = lines(&state, (80, 24));
    let line = line_with(&seen, "session-ended");
    assert!(line.starts_with("14:12:00  session-ended") && line.ends_with('…'), "{line}");
}

#[test]
fn the_selected_row_is_always_seen() {
    let mut state = full();
    press(&mut state, "2d");
    for id in 1..=60 {
        for size in SIZES {
            let buffer = screen(&state, size);
            let reversed = |y: &u16| *y > 3 && buffer[(0, *y)].modifier.contains(Modifier::REVERSED);
            let y = (0..size.1).find(reversed).unwrap_or_else(|| panic!("session {id} at {size:?}"));
            assert!(lines(&state, size)[usize::from(y)].contains(&format!("192.0.2.{id}:5000")));
        }
        press(&mut state, "↓");
    }
}

#[test]
fn a_graph_is_never_turned_around() {
    let mut state = full();
    press(&mut state, "↓");
    let buffer = screen(&state, (80, 24));
    let y = (3..24).find(|y| buffer[(0, *y)].modifier.contains(Modifier::REVERSED)).unwrap();
    let is_bar = |x: &u16| buffer[(*x, y)].symbol() == "█";
    let bar = (0..80).find(is_bar).unwrap();
    assert!(!buffer[(bar, y)].modifier.contains(Modifier::REVERSED));
    assert!(buffer[(79, y)].modifier.contains(Modifier::REVERSED));
}

#[test]
fn a_question_is_in_the_middle_and_says_what_ends() {
    for size in SIZES {
        let mut state = full();
        press(&mut state, "2dx");
        let seen = lines(&state, size).join(" ").replace(['│', '╭', '╮', '─', '╯', '╰'], " ");
        let words = seen.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains("End session 1 of web"), "{words}");
        assert!(words.contains("y yes any other key no"), "{words}");
        assert_eq!(press(&mut state, "y"), Some(Action::Do(Deed::EndSession(1))));
    }
}

#[test]
fn help_names_every_key() {
    let mut state = full();
    press(&mut state, "?");
    for size in [(80, 24), (200, 50)] {
        let seen = lines(&state, size);
        for text in [
            "q, Ctrl-C",
            "reverse",
            "end the selected",
            "d id, m mapping, c client",
            "b rate",
            "filter by words",
        ] {
            line_with(&seen, text);
        }
    }
    line_with(&lines(&state, (40, 12)), "q, Ctrl-C");
    press(&mut state, "x");
    assert!(!lines(&state, (80, 24)).iter().any(|line| line.contains("Ctrl-C")));
}

#[test]
fn a_filter_is_seen_while_it_is_written_and_after() {
    let mut state = full();
    press(&mut state, "2/.17:");
    assert!(
        lines(&state, (80, 24))[23].starts_with("filter: .17:   Enter keeps"),
        "{:?}",
        lines(&state, (80, 24))
    );
    press(&mut state, "\n");
    let seen = lines(&state, (80, 24));
    assert!(seen[23].starts_with("filter: .17:  Esc clears"), "{}", seen[23]);
    line_with(&seen, "192.0.2.17:5000");
    assert!(!seen.iter().any(|line| line.contains("192.0.2.18:5000")));
    press(&mut state, "/none\n");
    line_with(&lines(&state, (80, 24)), "nothing matches the filter");
}

#[test]
fn a_daemon_that_is_gone_is_said_above_its_grey_picture() {
    let mut state = full();
    state.take(News::Gone("no portway daemon answers at /run/portway.sock".into()));
    for theme in [Theme { colour: true }, Theme { colour: false }] {
        let buffer = screen_in(&state, (80, 24), theme);
        let is_grey = |cell: &ratatui::buffer::Cell| match theme.colour {
            true => cell.fg == Color::DarkGray,
            false => cell.modifier.contains(Modifier::DIM),
        };
        assert!(buffer.content()[80..].iter().all(is_grey));
        assert!(!is_grey(&buffer[(16, 0)]));
    }
    let seen = lines(&state, (80, 24));
    assert_eq!(seen[0], "portway 1.2.3  not reached: no portway daemon answers at /run/portway.sock");
    line_with(&seen, "10.9.9.9:25565");
    let mut never = State::default();
    never.take(News::Gone("no portway daemon answers at /run/portway.sock".into()));
    assert_eq!(
        lines(&never, (80, 24))[0],
        "portway  not reached: no portway daemon answers at /run/portway.sock"
    );
    assert_eq!(lines(&State::default(), (80, 24))[0], "portway  asking the daemon …");
}

#[test]
fn without_colours_no_cell_has_one() {
    let mut state = full();
    for keys in ["1", "2", "x", "n", "3", "4", "5", "?"] {
        press(&mut state, keys);
        let buffer = screen_in(&state, (80, 24), Theme { colour: false });
        assert!(
            buffer.content().iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset),
            "{keys}"
        );
    }
}

#[test]
fn an_empty_daemon_says_so() {
    let mut state = State::default();
    let nothing = || Picture {
        status: status(),
        sessions: Some(vec![]),
        bans: Some(vec![]),
        router: Some(Router { state: "off".into(), ..Router::default() }),
        ..Picture::default()
    };
    state.take(News::Picture(Box::new(nothing())));
    for (tab, said) in [
        ("1", "no mappings"),
        ("2", "no live sessions"),
        ("3", "nothing has happened yet"),
        ("4", "no mapping that is open has `router = true`"),
        ("5", "no client is banned"),
    ] {
        press(&mut state, tab);
        for size in [(80, 24), (200, 50)] {
            line_with(&lines(&state, size), said);
        }
    }
}

#[test]
fn no_size_is_too_small() {
    let mut state = full();
    for keys in ["1", "2", "/a\n", "\u{1b}", "x", "n", "3", "4", "5", "u", "n", "?"] {
        press(&mut state, keys);
        for width in [0, 1, 2, 3, 7, 19, 20, 30, 79, 300] {
            for height in [0, 1, 2, 3, 4, 7, 8, 9, 10, 13, 16, 100] {
                screen(&state, (width, height));
            }
        }
    }
}

/// A mapping whose every text is `text`.
fn mapping_of(text: &str) -> Mapping {
    let some = || Some(text.to_owned());
    Mapping {
        name: text.into(),
        place: some(),
        until: some(),
        enabled: true,
        listeners: vec![Listener {
            listen: text.into(),
            error: some(),
            holder: some(),
            ..Listener::default()
        }],
        targets: vec![Target {
            address: text.into(),
            last_error: some(),
            since: some(),
            ..Target::default()
        }],
        refused: [(text.to_owned(), 1)].into(),
        router: Some(vec![opening_of(text)]),
        ..Mapping::default()
    }
}

/// The same of an opening.
fn opening_of(text: &str) -> Opening {
    let some = || Some(text.to_owned());
    Opening {
        mapping: text.into(),
        listen: text.into(),
        state: text.into(),
        external: some(),
        error: some(),
        ..Opening::default()
    }
}

/// The same of a daemon.
fn status_of(text: &str) -> Status {
    let problem = Problem { message: text.into(), ..Problem::default() };
    let reload =
        LastReload { outcome: "refused".into(), problems: vec![problem.clone()], ..LastReload::default() };
    Status {
        version: text.into(),
        external: Some(text.to_owned()),
        warnings: vec![problem],
        last_reload: Some(reload),
        ..status()
    }
}

/// The same of all that is shown.
fn of(text: &str) -> State {
    let some = || Some(text.to_owned());
    let session =
        Session { target: some(), country: some(), listen: text.into(), ..session(1, text, text, 1) };
    let router = Router {
        state: text.into(),
        error: some(),
        gateway: some(),
        protocol: some(),
        model: some(),
        external: some(),
        verdict: some(),
        leases: vec![opening_of(text)],
    };
    let ban = Ban { client: text.into(), reason: text.into(), until: some(), ..Ban::default() };
    let mut state = State::default();
    state.take(News::Picture(Box::new(Picture {
        status: status_of(text),
        mappings: vec![mapping_of(text)],
        sessions: Some(vec![session]),
        router: Some(router),
        bans: Some(vec![ban]),
    })));
    let event = Event {
        at: text.into(),
        kind: text.into(),
        mapping: some(),
        message: text.into(),
        ..Event::default()
    };
    state.take(News::Event(Box::new(event)));
    state
}

#[test]
fn no_text_of_another_program_reaches_the_terminal_as_it_is() {
    for text in ["\u{1b}[2J\u{202e}\r\n\t\u{9b}31m\u{200b}", "\u{1b}]0;x\u{7}", "a\u{e0041}b\u{7f}漢字"] {
        let mut state = of(text);
        for keys in ["1", "2", "x", "n", "3", "4", "5", "u", "n", "/"] {
            press(&mut state, keys);
            for news in [
                None,
                Some(News::Done(text.into())),
                Some(News::Failed(text.into())),
                Some(News::Gone(text.into())),
            ] {
                if let Some(news) = news {
                    state.take(news);
                }
                for cell in screen(&state, (200, 50)).content() {
                    assert!(cell.symbol().chars().all(is_plain), "{keys}: {:?}", cell.symbol());
                }
            }
            state.take(News::Picture(Box::new(Picture {
                mappings: state.picture.mappings.clone(),
                ..state.picture.clone()
            })));
        }
    }
}
