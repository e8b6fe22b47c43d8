//! `portway top` in a real terminal.

use std::net::SocketAddr;

use rustix::process::{Signal, kill_process};

use crate::harness::{
    Client, Portway, RealTerminal, TcpTarget, eventually, mapping, own_addr, portway, with_tools,
};

/// A daemon that answers on a socket.
fn served(listen: SocketAddr, target: SocketAddr, socket: &str) -> Portway {
    let api = format!("[api]\nsocket = \"{socket}\"\n");
    Portway::with(&format!("{api}{}", mapping(listen, target, "name = \"web\""))).start()
}

#[test]
fn top_needs_a_terminal() {
    portway(["top", "--socket", "/nonexistent/portway.sock"])
        .exits(1)
        .says("`top` needs a terminal")
        .says("portway status");
}

#[test]
fn top_shows_a_session_ends_it_after_a_question_and_survives_the_daemon() {
    with_tools(&RealTerminal::TOOLS, || {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("portway.sock").display().to_string();
        let (target, listen) = (TcpTarget::echo(), own_addr(8080));
        let mut daemon = served(listen, target.addr, &socket);
        let mut client = Client::to(listen);
        client.ping();
        let terminal = RealTerminal::open(80, 24);
        terminal.start_portway("", &format!("top --socket {socket}"));
        let screen = terminal.wait_screen("listening");
        assert!(screen.contains("web") && screen.contains(&listen.to_string()), "{screen}");
        terminal.writes("2");
        let of_client = |client: &Client| client.0.local_addr().unwrap().to_string();
        terminal.wait_screen(&of_client(&client));

        terminal.writes("x");
        let screen = terminal.wait_screen("End session");
        assert!(screen.contains(&of_client(&client)), "{screen}");
        terminal.writes("n");
        eventually("the question is gone", || (!terminal.screen().contains("End session")).then_some(()));
        client.ping();
        terminal.writes("x");
        terminal.wait_screen("End session");
        terminal.writes("y");
        client.until_closed();
        assert_eq!(daemon.wait_session().text("reason"), "closed-by-operator");
        terminal.wait_screen("no live sessions");

        daemon.kill();
        let screen = terminal.wait_screen("not reached");
        assert!(screen.contains(&socket[..20]), "{screen}");
        let _daemon = served(listen, target.addr, &socket);
        let mut client = Client::to(listen);
        client.ping();
        let screen = terminal.wait_screen(&of_client(&client));
        assert!(screen.contains("ready") && !screen.contains("not reached"), "{screen}");
        terminal.writes("3");
        terminal.wait_screen("session-started");
        terminal.writes("q");
        terminal.wait_screen("code=0");
    });
}

/// Waits for the shell, and fails unless its terminal is as it was.
#[track_caller]
fn given_back(terminal: &RealTerminal, code: i32) {
    terminal.wait_screen(&format!("code={code}"));
    assert!(!terminal.is_full_screen());
    terminal.writes("stty -a");
    terminal.key("Enter");
    let screen = terminal.wait_screen("icanon");
    let words: Vec<&str> = screen.split_whitespace().collect();
    for word in ["icanon", "echo", "isig", "opost"] {
        assert!(words.contains(&word), "{word} is off in {screen}");
    }
}

#[test]
fn the_terminal_is_given_back_however_top_ends() {
    with_tools(&RealTerminal::TOOLS, || {
        let terminal = RealTerminal::open(80, 24);
        type End = (&'static str, fn(&RealTerminal));
        let signal = |terminal: &RealTerminal, signal| kill_process(terminal.portway_pid(), signal).unwrap();
        let ends: [End; 4] = [
            ("q", |terminal| terminal.writes("q")),
            ("Ctrl-C", |terminal| terminal.key("C-c")),
            ("SIGTERM", |_| {}),
            ("SIGINT", |_| {}),
        ];
        for (name, end) in ends {
            terminal.start_portway("", "top --socket /nonexistent/portway.sock");
            terminal.wait_screen("not reached: no portway daemon answers at /nonexistent/portway.sock");
            assert!(terminal.is_full_screen());
            end(&terminal);
            match name {
                "SIGTERM" => signal(&terminal, Signal::TERM),
                "SIGINT" => signal(&terminal, Signal::INT),
                _ => {}
            }
            // It never reached a daemon: that is a failure, and it is still said.
            given_back(&terminal, 1);
            let screen = terminal.screen();
            assert!(screen.contains("portway: no portway daemon answers at"), "{name}: {screen}");
        }
    });
}

#[test]
fn top_fits_a_terminal_that_changes_its_size_and_has_no_colour_where_none_is_wanted() {
    with_tools(&RealTerminal::TOOLS, || {
        let terminal = RealTerminal::open(80, 24);
        terminal.start_portway("NO_COLOR=1", "top --socket /nonexistent/portway.sock");
        terminal.wait_screen("5 Bans");
        terminal.wait_screen("not reached");
        let screen = terminal.coloured_screen();
        // 39 and 49 take a colour away.
        let codes = screen.split("\u{1b}[").skip(1).filter_map(|part| part.split_once('m'));
        let codes = codes.flat_map(|(codes, _)| codes.split(';')).filter_map(|code| code.parse::<u32>().ok());
        assert!(codes.clone().any(|code| code == 1), "bold shows that sequences are seen: {screen:?}");
        assert!(codes.clone().all(|code| code < 10 || code == 39 || code == 49), "{screen:?}");
        terminal.resize(40, 12);
        eventually("the tabs are short", || {
            let screen = terminal.screen();
            let lines: Vec<&str> = screen.lines().collect();
            (lines.get(2) == Some(&" 1 Mappings   2   3   4   5")).then_some(())
        });
        terminal.resize(100, 30);
        terminal.wait_screen("5 Bans");
        terminal.writes("?");
        terminal.wait_screen("Ctrl-C");
        terminal.writes("q");
        terminal.writes("q");
        terminal.wait_screen("code=1");
    });
}
