//! The lines of sessions: which of them a mapping writes, and that strangers cannot fill a disk with them.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use tokio::time::Instant;

use crate::harness::{
    Client, DEADLINE, Line, Portway, TcpTarget, UdpTarget, mapping, messages, own_addr, own_ip, pass,
    udp_client_from, udp_mapping,
};

/// The lines that a mapping may write at once after a quiet time, and each second.
const AT_ONCE: usize = 1_000;
const A_SECOND: usize = 100;

/// Opens and ends so many sessions of an echo, on four threads.
fn short_sessions(at: SocketAddr, count: usize) {
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..count / 4).for_each(|_| Client::to(at).ping()));
        }
    });
}

fn of<'l>(lines: &[&'l Line], mapping: &str) -> Vec<&'l Line> {
    lines.iter().copied().filter(|line| line.text("mapping") == mapping).collect()
}

pub(crate) fn sum(lines: &[&Line], field: &str) -> usize {
    lines.iter().map(|line| usize::try_from(line.number(field)).expect("a small number")).sum()
}

#[test]
fn strangers_cannot_fill_a_disk_with_session_lines_and_what_is_left_out_is_summed_up() {
    const SESSIONS: usize = 4_000;
    let (target, one, other, quiet) = (TcpTarget::echo(), own_addr(8080), own_addr(8080), own_addr(8080));
    let flooded = format!(
        "[[mapping]]\nname = \"flooded\"\nlisten = [\"{one}\", \"{other}\"]\ntargets = [\"{}\"]\n",
        target.addr
    );
    let mut portway = Portway::with(&(flooded + &mapping(quiet, target.addr, "name = \"quiet\""))).start();
    let start = Instant::now();
    short_sessions(one, SESSIONS / 2);
    short_sessions(other, SESSIONS / 2);
    let early = portway.wait_log(messages::SESSION_LINES_LEFT_OUT, |_| true);
    assert_eq!(early.text("mapping"), "flooded");
    short_sessions(quiet, 20);
    let exit = portway.stop().with(0);
    let seconds = usize::try_from(start.elapsed().as_secs()).expect("a short time") + 1;

    let ended = exit.sessions_ended();
    let (written, summed) = (of(&ended, "flooded"), exit.lines(messages::SESSION_LINES_LEFT_OUT));
    let most = AT_ONCE + A_SECOND * seconds;
    assert!(written.len() >= AT_ONCE && written.len() <= most, "{} of {most} lines", written.len());
    assert_eq!(written.len() + sum(&summed, "count"), SESSIONS);
    for bytes in ["bytes.in", "bytes.out"] {
        assert_eq!(sum(&written, bytes) + sum(&summed, bytes), 4 * SESSIONS, "{bytes}");
    }
    assert!(summed.iter().all(|line| line.text("reasons").starts_with("client-closed ")), "{summed:?}");
    // One while it lasts, and one for the rest at the end.
    assert!(summed.len() <= 2 + seconds / 60, "{} summaries", summed.len());
    assert_eq!(of(&ended, "quiet").len(), 20, "the flood of one mapping hides no line of another");
}

#[test]
fn a_crowd_of_udp_clients_that_ends_at_once_is_summed_up() {
    const CLIENTS: usize = 1_500;
    let (target, at) = (UdpTarget::echo(), own_addr(8080));
    let config = format!(
        "[[mapping]]\npublish = \"{at}:{}/udp\"\nmax_sessions_per_client = \"unlimited\"\n",
        target.addr
    );
    let portway = Portway::with(&(config + "[shutdown]\ngrace = \"0s\"\n")).start();
    let ip = own_ip();
    for port in (12_000..).take(CLIENTS) {
        // A port of its own: one that the kernel chooses may come again, and belongs to the same flow then.
        let client = UdpSocket::bind((ip, port)).expect("the test's own address");
        client.connect(at).expect("a client chooses its peer");
        client.set_read_timeout(Some(DEADLINE)).expect("a socket takes a timeout");
        client.send(b"ping").expect("a client sends");
        client.recv(&mut [0; 4]).expect("a client hears the echo");
    }
    let start = Instant::now();
    let exit = portway.stop().with(0);
    let seconds = usize::try_from(start.elapsed().as_secs()).expect("a short time") + 1;
    let (written, summed) = (exit.sessions_ended().len(), exit.lines(messages::SESSION_LINES_LEFT_OUT));
    assert_eq!(written + sum(&summed, "count"), CLIENTS);
    assert!((AT_ONCE..=AT_ONCE + A_SECOND * seconds).contains(&written), "{written} lines");
    assert!(summed[0].text("reasons").starts_with("shutdown "), "{summed:?}");
}

#[test]
fn a_session_line_says_which_session_it_was_and_how_it_went() {
    let (tcp, udp) = (TcpTarget::echo(), UdpTarget::echo());
    let at = [(); 2].map(|()| own_addr(8080));
    let config =
        mapping(at[0], tcp.addr, "name = \"stream\"") + &udp_mapping(at[1], udp.addr, "name = \"datagrams\"");
    let mut portway = Portway::with(&(config + "[shutdown]\ngrace = \"0s\"\n")).start();
    let (mut stream, datagrams) = (Client::to(at[0]), udp_client_from(own_ip(), at[1]));
    let from =
        [stream.0.local_addr(), datagrams.local_addr()].map(|addr| addr.expect("an address").to_string());
    stream.ping();
    drop(stream);
    portway.wait_session();
    datagrams.send(b"ping").expect("a client sends");
    datagrams.recv(&mut [0; 4]).expect("a client hears the echo");
    let exit = portway.stop().with(0);
    let ended = exit.sessions_ended();
    let ways = [("stream", "tcp", tcp.addr, "client-closed"), ("datagrams", "udp", udp.addr, "shutdown")];
    assert_eq!(ended.len(), ways.len(), "{}", exit.log);
    for (nth, (mapping, protocol, target, reason)) in ways.into_iter().enumerate() {
        let line = ended[nth];
        assert_eq!(line.number("session.id"), nth as u64 + 1, "sessions are numbered across mappings");
        assert_eq!([line.number("bytes.in"), line.number("bytes.out")], [4, 4]);
        line.number("duration_ms");
        for (field, text) in [
            ("level", "INFO"),
            ("mapping", mapping),
            ("protocol", protocol),
            ("client.addr", &from[nth]),
            ("listen.addr", &at[nth].to_string()),
            ("target.addr", &target.to_string()),
            ("reason", reason),
        ] {
            assert_eq!(line.text(field), text, "{field} in {}", line.raw());
        }
    }
}

#[test]
fn a_mapping_writes_the_lines_that_it_is_asked_for_from_the_next_end_on() {
    let (target, at) = (TcpTarget::echo(), [(); 3].map(|()| own_addr(8080)));
    let dead = SocketAddr::new(own_ip(), 9);
    let config = |second: &str| {
        String::from("[defaults]\nlog = \"errors\"\n")
            + &mapping(at[0], target.addr, "name = \"well\"")
            + &mapping(at[1], dead, "name = \"ill\"")
            + &mapping(at[2], target.addr, &format!("name = \"second\"\nlog = \"{second}\""))
    };
    let mut portway = Portway::with(&config("none")).start();
    let mut lives = Client::to(at[2]);
    lives.ping();
    Client::to(at[0]).ping();
    Client::to(at[2]).ping();
    Client::to(at[1]).until_closed();
    assert_eq!(portway.wait_session().text("reason"), "unreachable");
    portway.reload_with(&config("all"));
    lives.ping();
    drop(lives);
    let line = portway.wait_log(messages::SESSION_ENDED, |line| line.text("mapping") == "second");
    assert_eq!(line.number("bytes.in"), 8, "the session that lived before the reload");
    let exit = portway.stop().with(0);
    let ended = exit.sessions_ended();
    assert_eq!(ended.len(), 2, "{}", exit.log);
    assert!(
        exit.lines(messages::SESSION_LINES_LEFT_OUT).is_empty(),
        "lines that the level leaves out are not summed up"
    );
}

#[test]
fn datagrams_to_many_ports_that_lead_nowhere_write_no_more_lines_than_one_mapping_may() {
    const PORTS: u16 = 2_500;
    let ip = own_ip();
    let silent = own_ip();
    let spec = format!("{ip}:12000-{last}:{silent}:12000-{last}/udp", last = 11_999 + PORTS);
    let config = format!("[[mapping]]\npublish = \"{spec}\"\nmax_sessions_per_client = \"unlimited\"\n");
    let portway = Portway::with(&config).start();
    let start = Instant::now();
    for port in (12_000..).take(PORTS.into()) {
        let client = udp_client_from(own_ip(), SocketAddr::new(ip, port));
        // The second one finds a flow whose target has refused the first.
        for _ in 0..2 {
            let _ = client.send(b"ping");
        }
    }
    pass(Duration::from_secs(2));
    let seconds = usize::try_from(start.elapsed().as_secs()).expect("a short time") + 1;
    let lines = portway.count(messages::DATAGRAMS_DROPPED);
    assert!(lines <= AT_ONCE + A_SECOND * seconds, "{lines} lines");
}
