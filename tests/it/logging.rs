//! The log and its reader: sessions do not wait for a slow reader, and the end of the daemon loses no line.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    thread,
    time::Duration,
};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use serde_json::Value;

use crate::harness::{Client, Portway, Setup, TcpTarget, echoes, eventually, mapping, own_addr, pass};

/// A pipe in the place of the daemon's standard error.
struct Pipe {
    dir: tempfile::TempDir,
    /// Both ends, so that it stays open; never waits.
    ends: File,
}

impl Pipe {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("log");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe with a name");
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("a flag of open(2)");
        let ends = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
        Self { dir, ends: ends.expect("the test's own pipe") }
    }

    /// One that takes nothing more; what is in it are empty lines.
    fn full() -> Self {
        let mut pipe = Self::new();
        while pipe.ends.write(&[b'\n'; 4096]).or_else(|_| pipe.ends.write(b"\n")).is_ok() {}
        pipe
    }

    fn as_log_of(&self, setup: Setup) -> Setup {
        let path = self.dir.path().join("log");
        setup.through(["sh", "-c", &format!("exec \"$@\" 2>'{}'", path.display()), "sh"])
    }

    /// Reads what is there into `log`.
    fn read(&mut self, log: &mut Vec<u8>) {
        match self.ends.read_to_end(log) {
            Ok(_) => {}
            Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}"),
        }
    }
}

/// The lines of a log, each of which is JSON.
fn lines(log: &[u8]) -> Vec<Value> {
    let text = str::from_utf8(log).expect("a log is text");
    let lines = text.lines().filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn message(line: &Value) -> &str {
    line["message"].as_str().expect("a line has a message")
}

/// Waits until the daemon serves, without a look at its log; says how many sessions that took.
fn wait_serving(at: SocketAddr) -> usize {
    eventually("the daemon serves", || echoes(at).then_some(1))
}

/// Opens so many short sessions, one after the other on each of two threads; every one is served.
fn short_sessions(at: SocketAddr, count: usize) -> usize {
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..count / 2).for_each(|_| Client::to(at).ping()));
        }
    });
    count / 2 * 2
}

#[test]
fn a_reader_of_the_log_that_does_not_read_stops_no_session_and_learns_what_it_missed() {
    const MAPPINGS: usize = 12;
    let (target, mut pipe) = (TcpTarget::echo(), Pipe::full());
    // So many that no mapping comes to the bound of its lines.
    let at = [(); MAPPINGS].map(|()| own_addr(8080));
    // Long names make long lines: more than the buffers hold.
    let named = |(n, at): (usize, &SocketAddr)| {
        mapping(*at, target.addr, &format!("name = \"{}{n:02}\"", "n".repeat(58)))
    };
    let config: String = at.iter().enumerate().map(named).collect();
    let portway = pipe.as_log_of(Portway::with(&config)).launch();
    let served: usize = at.iter().map(|at| wait_serving(*at)).sum();
    let sessions = served + at.iter().map(|at| short_sessions(*at, 10_000 / MAPPINGS)).sum::<usize>();

    let mut log = Vec::new();
    let lost_of = |log: &[u8]| -> Vec<usize> {
        let whole = log.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines = lines(&log[..whole]);
        let lost = lines.iter().filter(|line| message(line).starts_with("log lines lost"));
        lost.filter_map(|line| line["lines"].as_u64()?.try_into().ok()).collect()
    };
    eventually("it is said how many lines were lost", || {
        pipe.read(&mut log);
        (!lost_of(&log).is_empty()).then_some(())
    });
    // The end of the daemon has to wait for a reader that is slow, not only for one that is there.
    portway.signal(rustix::process::Signal::TERM);
    eventually("the end of the log", || {
        pipe.read(&mut log);
        log.ends_with(b"\"stopped\"}\n").then_some(())
    });
    portway.exit().with(0);
    let ended = lines(&log).iter().filter(|line| message(line) == "session ended").count();
    let lost: usize = lost_of(&log).iter().sum();
    assert!(lost > 0 && ended > 2_000, "{lost} lost, {ended} kept");
    assert_eq!(ended + lost, sessions);
}

#[test]
fn a_stop_does_not_wait_for_a_reader_of_the_log_that_does_not_read() {
    let (target, at, pipe) = (TcpTarget::echo(), own_addr(8080), Pipe::full());
    let portway = pipe.as_log_of(Portway::with(&mapping(at, target.addr, ""))).launch();
    wait_serving(at);
    portway.stop().with(0);
}

#[test]
fn a_log_that_lost_its_reader_neither_ends_the_daemon_nor_costs_processor_time() {
    let (target, at, pipe) = (TcpTarget::echo(), own_addr(8080), Pipe::new());
    let portway = pipe.as_log_of(Portway::with(&mapping(at, target.addr, ""))).launch();
    wait_serving(at);
    drop(pipe);
    short_sessions(at, 200);
    let (span, cpu) = (Duration::from_secs(2), portway.cpu_time());
    pass(span);
    let cpu = portway.cpu_time() - cpu;
    assert!(cpu < span / 10, "{cpu:?} of processor time in {span:?}");
    short_sessions(at, 2);
    portway.stop().with(0);
}

#[test]
fn all_that_was_said_is_there_when_the_daemon_has_ended() {
    let (target, at) = (TcpTarget::echo(), own_addr(8080));
    let portway = Portway::with(&mapping(at, target.addr, "")).start();
    let sessions = short_sessions(at, 200);
    let exit = portway.stop().with(0);
    assert_eq!(exit.sessions_ended().len(), sessions);
    assert!(exit.log.trim_end().ends_with("\"stopped\"}"), "{}", exit.log);
}
