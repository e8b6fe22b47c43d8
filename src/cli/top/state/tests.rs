//! Keys and news, without a terminal.

use super::*;
use crate::status::view::Point;

pub(in crate::cli::top) fn session(id: u64, mapping: &str, client: &str, moved: u64) -> Session {
    Session {
        id,
        mapping: mapping.into(),
        protocol: Some(crate::mapping::Protocol::Tcp),
        client: client.into(),
        target: Some("10.0.0.5:80".into()),
        age_ms: 60_000,
        bytes_in: moved,
        ..Session::default()
    }
}

pub(in crate::cli::top) fn status() -> Status {
    Status { version: "1.2.3".into(), pid: 7, started: "a".into(), ready: true, ..Status::default() }
}

fn sessions(sessions: Vec<Session>) -> News {
    News::Picture(Box::new(Picture { status: status(), sessions: Some(sessions), ..Picture::default() }))
}

pub(in crate::cli::top) fn press(state: &mut State, keys: &str) -> Option<Action> {
    let code = |c| match c {
        '\n' => KeyCode::Enter,
        '\u{1b}' => KeyCode::Esc,
        '\u{8}' => KeyCode::Backspace,
        '↓' => KeyCode::Down,
        '↑' => KeyCode::Up,
        c => KeyCode::Char(c),
    };
    keys.chars().map(|c| state.key(code(c).into())).last().flatten()
}

/// The numbers of the sessions as they are shown.
fn shown(state: &State) -> Vec<u64> {
    state.order().iter().map(|index| state.sessions[*index].session.id).collect()
}

fn selected(state: &State) -> u64 {
    shown(state)[state.at()]
}

fn three() -> State {
    let mut state = State::default();
    press(&mut state, "2d");
    state.take(sessions(vec![
        session(1, "web", "192.0.2.10:1", 5),
        session(2, "mc", "192.0.2.9:1", 9),
        session(3, "web", "[::1]:1", 7),
    ]));
    state
}

#[test]
fn sessions_are_sorted_by_any_column_and_reversed() {
    let mut state = three();
    for (key, order) in [
        ("d", [1, 2, 3]),
        ("m", [2, 1, 3]),
        ("c", [2, 1, 3]),
        ("t", [1, 2, 3]),
        ("p", [1, 2, 3]),
        ("a", [1, 2, 3]),
        ("l", [1, 2, 3]),
        ("i", [2, 3, 1]),
        ("o", [1, 2, 3]),
        ("b", [1, 2, 3]),
    ] {
        press(&mut state, key);
        assert_eq!(shown(&state), order, "{key}");
    }
    press(&mut state, "ir");
    assert_eq!(shown(&state), [1, 3, 2]);
    press(&mut state, "dr");
    assert_eq!(shown(&state), [3, 2, 1]);
    press(&mut state, "b");
    for column in Column::ALL {
        press(&mut state, "s");
        assert_eq!(state.column, column);
    }
    press(&mut state, "S");
    assert_eq!(state.column, Column::Out);
}

#[test]
fn the_rate_of_a_session_is_what_moved_between_two_pictures() {
    let mut state = three();
    assert_eq!(state.sessions[1].rate, None);
    let later = |moved| Session { age_ms: 62_000, ..session(2, "mc", "192.0.2.9:1", moved) };
    state.take(sessions(vec![later(2009)]));
    assert_eq!(state.sessions[0].rate, Some(1000));
    state.take(sessions(vec![later(2009)]));
    assert_eq!(state.sessions[0].rate, Some(1000), "a picture of the same moment");
}

#[test]
fn a_filter_keeps_the_rows_with_all_its_words_and_stays_in_its_tab() {
    let mut state = three();
    press(&mut state, "/WEB 192");
    assert_eq!((shown(&state), state.mode.clone()), (vec![1], Mode::Filter));
    press(&mut state, "\u{8}\u{8}\u{8}\u{8}\nx");
    assert_eq!((shown(&state), state.filter()), (vec![1, 3], "WEB"));
    press(&mut state, "n1");
    assert_eq!(state.filter(), "");
    press(&mut state, "2");
    assert_eq!(state.filter(), "WEB");
    press(&mut state, "\u{1b}");
    assert_eq!(shown(&state), [1, 2, 3]);
    press(&mut state, "/nothing\u{1b}");
    assert_eq!((state.filter(), &state.mode), ("", &Mode::Table));
}

#[test]
fn a_key_of_a_command_is_text_while_a_filter_is_written() {
    let mut state = three();
    assert_eq!(press(&mut state, "/xq?"), None);
    assert_eq!((state.filter(), &state.mode), ("xq?", &Mode::Filter));
    let control = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(state.key(control), Some(Action::Quit));
}

#[test]
fn a_session_ends_after_a_yes_alone() {
    let mut state = three();
    press(&mut state, "↓");
    assert_eq!(press(&mut state, "x"), None);
    let Mode::Question { text, .. } = &state.mode else { panic!("{:?}", state.mode) };
    assert_eq!(text, "End session 2 of mc, client 192.0.2.9:1?");
    assert_eq!(press(&mut state, "y"), Some(Action::Do(Deed::EndSession(2))));
    for no in ["n", "q", "\u{1b}", "\n", "x", "d"] {
        press(&mut state, "x");
        assert_eq!((press(&mut state, no), &state.mode), (None, &Mode::Table), "{no:?}");
    }
}

#[test]
fn a_question_is_about_the_session_that_it_named() {
    let mut state = three();
    press(&mut state, "x");
    state.take(sessions(vec![session(9, "web", "192.0.2.1:1", 5)]));
    assert_eq!(press(&mut state, "y"), Some(Action::Do(Deed::EndSession(1))));
}

#[test]
fn nothing_is_asked_where_nothing_is_selected() {
    let mut state = State::default();
    for tab in ["1", "2", "3", "4", "5"] {
        press(&mut state, tab);
        for key in ["x", "u", "↓", "↑"] {
            assert_eq!((press(&mut state, key), &state.mode), (None, &Mode::Table));
        }
    }
}

#[test]
fn a_selection_holds_on_to_its_session() {
    let mut state = three();
    press(&mut state, "↓");
    assert_eq!(selected(&state), 2);
    press(&mut state, "i");
    assert_eq!((selected(&state), state.at()), (2, 0));
    state.take(sessions(vec![
        session(1, "web", "a", 50),
        session(2, "mc", "a", 9),
        session(3, "mc", "a", 20),
    ]));
    assert_eq!((selected(&state), state.at()), (2, 2));
    // It ends: its neighbour is selected, and then followed.
    state.take(sessions(vec![session(1, "web", "a", 50), session(3, "mc", "a", 20)]));
    assert_eq!(selected(&state), 3);
    state.take(sessions(vec![session(1, "web", "a", 5), session(3, "mc", "a", 20)]));
    assert_eq!((selected(&state), state.at()), (3, 0));
    state.take(sessions(vec![]));
    state.take(sessions(vec![session(4, "web", "a", 5)]));
    assert_eq!(selected(&state), 4);
}

#[test]
fn the_first_row_stays_selected_while_rows_come_before_it() {
    let mut state = State::default();
    press(&mut state, "3");
    let event = |id| News::Event(Box::new(Event { id, ..Event::default() }));
    (0..5).for_each(|id| state.take(event(id)));
    assert_eq!(state.at(), 0);
    press(&mut state, "↓↓↑");
    (5..10).for_each(|id| state.take(event(id)));
    assert_eq!(state.at(), 6);
    press(&mut state, "g");
    state.take(event(10));
    assert_eq!(state.at(), 0);
}

#[test]
fn events_are_bounded_and_the_newest_comes_first() {
    let mut state = State::default();
    for id in 0..(EVENTS as u64 + 5) {
        state.take(News::Event(Box::new(Event { id, ..Event::default() })));
    }
    state.take(News::Lost(12));
    press(&mut state, "3");
    assert_eq!((state.events.len(), state.order().len()), (EVENTS, EVENTS));
    assert_eq!(state.events[0].1, Happened::Lost(12));
}

#[test]
fn a_ban_ends_after_a_question() {
    let mut state = State::default();
    let bans = ["203.0.113.9", "2001:db8::/64"].map(|client| Ban { client: client.into(), ..Ban::default() });
    press(&mut state, "5");
    let picture = Picture { status: status(), bans: Some(bans.into()), ..Picture::default() };
    state.take(News::Picture(Box::new(picture)));
    assert_eq!(press(&mut state, "↓u"), None);
    assert_eq!(press(&mut state, "y"), Some(Action::Do(Deed::Unban("2001:db8::/64".into()))));
}

#[test]
fn a_daemon_that_is_gone_leaves_its_last_picture() {
    let mut state = three();
    state.take(News::Gone("it ended".into()));
    assert_eq!((&state.link, shown(&state).len()), (&Link::Gone("it ended".into()), 3));
    assert_eq!(press(&mut state, "q"), Some(Action::Quit));
}

#[test]
fn another_run_of_the_daemon_begins_with_nothing_of_the_old_one() {
    let mut state = three();
    let mapping = |rate| Mapping {
        name: "web".into(),
        rate_in: Some(rate),
        rate_out: Some(rate),
        ..Mapping::default()
    };
    let picture = |pid, rate| {
        let status = Status { pid, ..status() };
        News::Picture(Box::new(Picture { status, mappings: vec![mapping(rate)], ..Picture::default() }))
    };
    state.take(picture(7, 5));
    assert_eq!(state.sessions.len(), 3, "what was not asked for is kept");
    state.take(picture(8, 9));
    assert_eq!((state.sessions.len(), state.sessions_known), (0, false));
    assert_eq!(state.rates("web").map(|rates| rates.cells(2, 2, |(a, _)| a)), Some(vec![None, Some(9)]));
}

#[test]
fn rates_go_on_where_the_history_ends_and_go_with_their_mapping() {
    let mut state = State::default();
    let picture = |names: &[&str]| {
        let mapping = |name: &&str| Mapping {
            name: (*name).to_owned(),
            rate_in: Some(30),
            rate_out: Some(3),
            ..Mapping::default()
        };
        let mappings = names.iter().map(mapping).collect();
        News::Picture(Box::new(Picture { status: status(), mappings, ..Picture::default() }))
    };
    state.take(picture(&["mc", "web"]));
    let points = [10, 20].map(|bytes_in| Point { bytes_in, bytes_out: 1, ..Point::default() });
    let history = History { mapping: Some("web".into()), points: points.into(), ..History::default() };
    state.take(News::History(Box::new(history)));
    state.take(picture(&["web"]));
    let cells = |state: &State| state.rates("web").unwrap().cells(4, 4, |(a, b)| a + b);
    assert_eq!(cells(&state), [None, Some(11), Some(21), Some(33)]);
    assert_eq!(state.rates("mc"), None);
}

#[test]
fn a_cell_has_the_highest_rate_of_its_part_and_keeps_it() {
    let mut rates = Rates::default();
    (1..=7).for_each(|n| rates.push((n, 0)));
    let cells = |rates: &Rates| rates.cells(9, 3, |(a, _)| a);
    assert_eq!(cells(&rates), [Some(3), Some(6), Some(7)]);
    rates.push((1, 0));
    assert_eq!(cells(&rates), [Some(3), Some(6), Some(7)]);
    (0..2 * SECONDS).for_each(|_| rates.push((4, 0)));
    assert_eq!(rates.cells(2 * SECONDS, 2, |(a, _)| a).last(), Some(&Some(4)));
    assert_eq!(rates.cells(9, 0, |(a, _)| a), []);
}

#[test]
fn a_rate_that_the_daemon_does_not_measure_is_what_moved_between_two_pictures() {
    let mut state = State::default();
    let picture = |uptime_ms, bytes_in| {
        let status = Status { uptime_ms, ..status() };
        let mapping = Mapping { name: "web".into(), bytes_in, ..Mapping::default() };
        News::Picture(Box::new(Picture { status, mappings: vec![mapping], ..Picture::default() }))
    };
    state.take(picture(1000, 100));
    assert_eq!(state.picture.mappings[0].rate_in, None);
    state.take(picture(3000, 700));
    let mapping = &state.picture.mappings[0];
    assert_eq!((mapping.rate_in, mapping.rate_out), (Some(300), Some(0)));
}
