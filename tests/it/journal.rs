//! The log in the journal of systemd: each line has its priority.

use std::{
    io::{BufRead, BufReader},
    os::{fd::AsFd, unix::net::UnixStream},
    process::{Child, Command, Stdio},
};

use rustix::{
    fs::fstat,
    process::{Pid, Signal, kill_process},
};

use crate::harness::{Client, echoes, eventually, own_addr};

const PROGRAM: &str = env!("CARGO_BIN_EXE_portway");

/// A program whose standard error is a stream that may be the journal.
struct Run {
    child: Child,
    log: BufReader<UnixStream>,
}

impl Run {
    /// Starts it; `JOURNAL_STREAM` names the stream, or another inode.
    fn start(args: &[&str], names_it: bool) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let stat = fstat(theirs.as_fd()).expect("a socket has an inode");
        let inode = if names_it { stat.st_ino } else { stat.st_ino + 1 };
        let mut command = Command::new(PROGRAM);
        command.args(args).env("JOURNAL_STREAM", format!("{}:{inode}", stat.st_dev));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::os::fd::OwnedFd::from(theirs));
        let child = command.spawn().expect("the program");
        Self { child, log: BufReader::new(ours) }
    }

    fn stop(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("the test's own process");
    }

    /// All lines, once it has ended.
    fn lines(mut self) -> Vec<String> {
        let lines = (&mut self.log).lines().map(|line| line.expect("text")).collect();
        self.child.wait().expect("the test's own process");
        lines
    }
}

fn serve(args: &[&str], names_it: bool) -> Vec<String> {
    let at = own_addr(8080);
    let target = own_addr(9000);
    let spec = format!("{at}:{target}");
    let run = Run::start(&[&["run", "-p", spec.as_str()], args].concat(), names_it);
    eventually("the daemon listens", || Client::try_to(at).ok()).until_closed();
    assert!(!echoes(at), "nothing listens at the target");
    run.stop();
    run.lines()
}

#[test]
fn in_the_journal_each_line_has_its_priority_and_no_time() {
    let lines = serve(&[], true);
    assert!(lines.iter().any(|line| line.starts_with("<6>INFO listening ")), "{lines:#?}");
    for line in &lines {
        let level = match line.get(..3) {
            Some("<3>") => "ERROR ",
            Some("<4>") => "WARN ",
            Some("<6>") => "INFO ",
            other => panic!("{other:?} in {lines:#?}"),
        };
        assert!(line[3..].starts_with(level), "{line}");
    }
}

#[test]
fn another_stream_than_the_journal_has_the_time_and_no_priority() {
    let lines = serve(&[], false);
    assert!(lines.iter().all(|line| line.starts_with("20") && line.contains('T')), "{lines:#?}");
}

#[test]
fn json_in_the_journal_is_json_behind_the_priority() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = dir.path().join("portway.toml");
    std::fs::write(&config, "publish = []\n[log]\nformat = \"json\"\n").expect("the test's own file");
    let run = Run::start(&["run", "-c", config.to_str().expect("a readable path")], true);
    let mut log = run.log.get_ref().try_clone().map(BufReader::new).expect("the test's own socket");
    let mut lines = Vec::new();
    while !lines.last().is_some_and(|line: &String| line.contains("\"ready\"")) {
        let mut line = String::new();
        assert!(log.read_line(&mut line).expect("text") > 0, "{lines:#?}");
        lines.push(line);
    }
    run.stop();
    let warning = lines.iter().find(|line| line.starts_with("<4>{")).expect("an empty plan is a warning");
    for line in [warning, lines.last().expect("a line")] {
        let fields: serde_json::Value = serde_json::from_str(&line[3..]).expect("JSON");
        assert!(fields["level"].is_string() && fields["timestamp"].is_string(), "{line}");
    }
    assert!(run.lines().iter().all(|line| line.starts_with('<')));
}

#[test]
fn why_the_daemon_does_not_start_is_an_error_in_the_journal() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = dir.path().join("portway.toml");
    std::fs::write(&config, "publish = [\"8080\", \"nonsense\"]\n").expect("the test's own file");
    let run = Run::start(&["run", "-c", config.to_str().expect("a readable path")], true);
    let lines = run.lines();
    assert!(lines.len() > 1 && lines.iter().all(|line| line.starts_with("<3>")), "{lines:#?}");
}
