//! Where the log goes: files, the journal, syslog. None of them slows a session, and what is lost is counted.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::{Path, PathBuf},
    thread,
};

use rustix::process::Signal;
use serde_json::Value;
use socket2::SockRef;

use crate::harness::{
    Client, Portway, Setup, TcpTarget, as_root, echoes, eventually, mapping, messages, own_addr, portway,
};

/// A mapping named `web`, and a log with these lines in its table.
fn config(at: SocketAddr, target: SocketAddr, log: &str) -> String {
    format!("{}[log]\n{log}\n", mapping(at, target, "name = \"web\""))
}

fn wait_serving(at: SocketAddr) {
    eventually("the daemon serves", || echoes(at).then_some(()));
}

/// A log file, each line of which is JSON.
struct LogFile {
    dir: tempfile::TempDir,
}

impl LogFile {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn target(&self, name: &str) -> String {
        format!("format = \"json\"\ntarget = \"file:{}\"", self.path(name).display())
    }

    /// The lines so far; the last one may not be whole yet.
    fn lines(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }

    fn count(&self, name: &str, message: &str) -> usize {
        self.lines(name).iter().filter(|line| says(line, message)).count()
    }

    fn wait_for(&self, name: &str, message: &str) -> Value {
        eventually(&format!("{message:?} in {name}"), || {
            self.lines(name).into_iter().find(|line| says(line, message))
        })
    }
}

fn says(line: &Value, message: &str) -> bool {
    line["message"].as_str().is_some_and(|said| said.starts_with(message))
}

#[test]
fn a_log_file_has_the_lines_and_is_closed_to_others() {
    let (target, at, file) = (TcpTarget::echo(), own_addr(8080), LogFile::new());
    fs::write(file.path("log"), "{\"message\":\"before\"}\n").expect("the test's own file");
    let daemon = || Portway::with(&config(at, target.addr, &file.target("log"))).launch();
    let portway = daemon();
    file.wait_for("log", messages::READY);
    (0..2).for_each(|_| Client::to(at).ping());
    let exit = portway.stop().with(0);
    assert_eq!(exit.log, "", "nothing beside the log");
    let ended = file.lines("log").into_iter().filter(|line| says(line, messages::SESSION_ENDED));
    let ended: Vec<Value> = ended.collect();
    assert!(ended.len() >= 2, "{ended:?}");
    for line in &ended {
        assert_eq!(
            (&line["mapping"], &line["protocol"], &line["bytes.in"].is_u64()),
            (&"web".into(), &"tcp".into(), &true)
        );
        assert!(line["session.id"].is_u64() && line["client.addr"].is_string(), "{line}");
    }
    assert_eq!(file.count("log", "before"), 1, "it is appended to");
    assert_eq!(file.lines("log").last().map(|line| says(line, messages::STOPPED)), Some(true));

    let other = LogFile::new();
    let portway = Portway::with(&config(at, target.addr, &other.target("new"))).launch();
    other.wait_for("new", messages::READY);
    let mode = fs::metadata(other.path("new")).expect("the log file").permissions().mode();
    assert_eq!(mode & 0o777 & !0o640, 0, "{mode:o}");
    portway.stop().with(0);
}

#[test]
fn a_rotated_log_loses_no_line() {
    let (target, at, file) = (TcpTarget::echo(), own_addr(8080), LogFile::new());
    let portway = Portway::with(&config(at, target.addr, &file.target("log"))).launch();
    file.wait_for("log", messages::READY);
    const ROTATIONS: usize = 5;
    const SESSIONS: usize = 200;
    thread::scope(|scope| {
        let load = scope.spawn(|| (0..SESSIONS).for_each(|_| Client::to(at).ping()));
        for n in 0..ROTATIONS {
            fs::rename(file.path("log"), file.path(&format!("log.{n}"))).expect("the test's own file");
            portway.signal(Signal::USR1);
            eventually("the log file is there again", || file.path("log").exists().then_some(()));
        }
        load.join().expect("every session is served");
    });
    portway.stop().with(0);
    let names = (0..ROTATIONS).map(|n| format!("log.{n}")).chain(["log".to_owned()]);
    let ended: usize = names.map(|name| file.count(&name, messages::SESSION_ENDED)).sum();
    assert_eq!(ended, SESSIONS);
}

#[test]
fn a_reload_that_leaves_the_target_does_not_open_the_file_again() {
    let (target, at, file) = (TcpTarget::echo(), own_addr(8080), LogFile::new());
    let portway = Portway::with(&config(at, target.addr, &file.target("log"))).launch();
    file.wait_for("log", messages::READY);
    fs::rename(file.path("log"), file.path("old")).expect("the test's own file");
    portway.signal(Signal::HUP);
    file.wait_for("old", messages::RELOAD_APPLIED);
    portway.stop().with(0);
    assert_eq!(file.count("old", messages::STOPPED), 1);
    assert!(!file.path("log").exists());
}

#[test]
fn a_log_file_that_cannot_be_opened_again_stays() {
    let (target, at, file) = (TcpTarget::echo(), own_addr(8080), LogFile::new());
    let portway = Portway::with(&config(at, target.addr, &file.target("log"))).launch();
    file.wait_for("log", messages::READY);
    fs::rename(file.path("log"), file.path("old")).expect("the test's own file");
    fs::create_dir(file.path("log")).expect("the test's own directory");
    portway.signal(Signal::USR1);
    file.wait_for("old", messages::LOG_FILE_NOT_REOPENED);
    Client::to(at).ping();
    file.wait_for("old", messages::SESSION_ENDED);
    portway.stop().with(0);
}

#[test]
fn a_log_file_that_cannot_be_opened_is_an_error_at_the_start() {
    let (target, at, file) = (TcpTarget::echo(), own_addr(8080), LogFile::new());
    let config = config(at, target.addr, &file.target("no/log"));
    Portway::with(&config).launch().exit().with(1).says("open the log target file:").says("No such file");
    let path = file.path("portway.toml");
    fs::write(&path, config).expect("the test's own file");
    portway(["check", "--config", path.to_str().expect("a readable path")]).exits(0);
    let log = format!("file:{}", file.dir.path().display());
    portway(["run", "--log-target", &log, "-p", &format!("{at}:{}", target.addr)]).exits(1).says("directory");
}

#[test]
fn a_reload_changes_the_target_or_keeps_the_old_one() {
    let (target, at, file) = (TcpTarget::echo(), own_addr(8080), LogFile::new());
    let mut portway = Portway::with(&config(at, target.addr, "format = \"json\"")).start();
    let reload = |log: &str| {
        fs::write(portway.config(), config(at, target.addr, log)).expect("the test's own file");
        portway.signal(Signal::HUP);
    };
    reload(&file.target("one"));
    file.wait_for("one", messages::LOG_TARGET_CHANGED);
    reload(&file.target("two"));
    file.wait_for("two", messages::LOG_TARGET_CHANGED);
    for (log, error) in [
        (file.target("no/log"), "No such file"),
        (format!("target = \"syslog:tcp://{}\"", unused()), "refused"),
    ] {
        let before = file.count("two", messages::LOG_TARGET_NOT_CHANGED);
        reload(&log);
        eventually("it is said", || {
            (file.count("two", messages::LOG_TARGET_NOT_CHANGED) > before).then_some(())
        });
        let line = file.lines("two").into_iter().rfind(|line| says(line, messages::LOG_TARGET_NOT_CHANGED));
        assert!(line.is_some_and(|line| line["error"].as_str().is_some_and(|e| e.contains(error))));
    }
    Client::to(at).ping();
    file.wait_for("two", messages::SESSION_ENDED);
    assert_eq!(file.count("one", messages::SESSION_ENDED), 0);
    reload("format = \"json\"");
    portway.wait_log(messages::LOG_TARGET_CHANGED, |_| true);
    portway.stop().with(0).says("\"stopped\"");
}

/// An address of this machine where nothing listens.
fn unused() -> SocketAddr {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    socket.local_addr().expect("its address")
}

#[test]
fn a_full_disk_is_reported_once_and_stops_no_session() {
    let (target, at) = (TcpTarget::echo(), own_addr(8080));
    let mut portway = Portway::with(&config(at, target.addr, "target = \"file:/dev/full\"")).launch();
    wait_serving(at);
    for _ in 0..20 {
        Client::to(at).ping();
    }
    portway.wait_text("the log target file:/dev/full takes no lines: No space left on device");
    let log = portway.stop().with(0).log;
    assert_eq!(log.matches("No space left").count(), 1, "{log}");
}

#[test]
fn the_flag_and_its_variable_stand_in_for_the_key() {
    let (target, at, file) = (TcpTarget::echo(), own_addr(8080), LogFile::new());
    let config = config(at, target.addr, &file.target("config"));
    let [flag, variable] = ["flag", "variable"].map(|name| format!("file:{}", file.path(name).display()));
    for (setup, name) in [
        (Portway::with(&config).args(["--log-target", &flag]).env("PORTWAY_LOG_TARGET", &variable), "flag"),
        (Portway::with(&config).env("PORTWAY_LOG_TARGET", &variable), "variable"),
    ] {
        let portway = setup.launch();
        file.wait_for(name, messages::READY);
        portway.signal(Signal::HUP);
        file.wait_for(name, messages::RELOAD_APPLIED);
        portway.stop().with(0);
        assert!(!file.path("config").exists());
    }
    portway(["check", "-p", "8080:80", "--log-target", "loud"]).exits(2).says("loud").says("journald");
}

#[test]
fn a_syslog_server_gets_datagrams_with_the_fields() {
    let (target, at) = (TcpTarget::echo(), own_addr(8080));
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    server.set_read_timeout(Some(crate::harness::DEADLINE)).expect("the test's own socket");
    let log = format!("target = \"syslog:udp://{}\"", server.local_addr().expect("its address"));
    let portway = Portway::with(&config(at, target.addr, &log)).launch();
    wait_serving(at);
    let next = || {
        let mut bytes = [0; 9000];
        let len = server.recv(&mut bytes).expect("a datagram");
        String::from_utf8(bytes[..len].to_vec()).expect("text")
    };
    let ended = loop {
        let line = next();
        let pid = format!(" portway {} - ", portway.pid());
        assert!(line.starts_with('<') && line.contains(">1 20") && line.contains(&pid), "{line}");
        if line.ends_with(&format!("] {}", messages::SESSION_ENDED)) {
            break line;
        }
    };
    assert!(ended.starts_with("<30>1 ") && ended.contains(" mapping=\"web\" "), "{ended}");
    for field in ["session.id", "client.addr", "target.addr", "bytes.in", "duration_ms", "reason"] {
        assert!(ended.contains(&format!(" {field}=\"")), "{field} is missing in {ended}");
    }
    assert_eq!(portway.stop().with(0).log, "");
}

/// The next message of a stream: its length, a space, and so many bytes.
fn frame(stream: &mut TcpStream) -> Option<String> {
    let mut length = 0;
    loop {
        let mut digit = [0];
        stream.read_exact(&mut digit).ok()?;
        match digit[0] {
            digit @ b'0'..=b'9' => length = length * 10 + usize::from(digit - b'0'),
            b' ' => break,
            other => panic!("{other:?} in a length"),
        }
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).expect("a whole message");
    Some(String::from_utf8(message).expect("text"))
}

/// A syslog server on a port of its own.
struct Server(TcpListener);

impl Server {
    fn new() -> Self {
        Self(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"))
    }

    fn log(&self) -> String {
        format!("target = \"syslog:tcp://{}\"", self.0.local_addr().expect("its address"))
    }

    fn accept(&self) -> TcpStream {
        let (stream, _) = self.0.accept().expect("the daemon connects");
        stream.set_read_timeout(Some(crate::harness::DEADLINE)).expect("the test's own socket");
        stream
    }
}

/// Reads messages until one ends with `end`.
fn read_until(stream: &mut TcpStream, end: &str) -> String {
    loop {
        let message = frame(stream).unwrap_or_else(|| panic!("{end:?} comes before the end"));
        if message.ends_with(end) {
            return message;
        }
    }
}

#[test]
fn a_syslog_server_gets_a_stream_and_gets_it_again_after_a_restart() {
    let (target, at, server) = (TcpTarget::echo(), own_addr(8080), Server::new());
    let portway = Portway::with(&config(at, target.addr, &server.log())).launch();
    let mut stream = server.accept();
    let ready = read_until(&mut stream, &format!("] {}", messages::READY));
    assert!(ready.contains(" version=\""), "{ready}");
    drop(stream);
    Client::to(at).ping();
    let mut stream = server.accept();
    let ended = read_until(&mut stream, &format!("] {}", messages::SESSION_ENDED));
    assert!(ended.contains(" mapping=\"web\" "), "{ended}");
    portway.stop().with(0);
    read_until(&mut stream, &format!(" {}", messages::STOPPED));
    assert_eq!(frame(&mut stream), None);
}

#[test]
fn a_syslog_server_may_come_later() {
    let (target, at) = (TcpTarget::echo(), own_addr(8080));
    let addr = unused();
    let log = format!("target = \"syslog:tcp://{addr}\"");
    let mut portway = Portway::with(&config(at, target.addr, &log)).launch();
    portway.wait_text("takes no lines: Connection refused");
    wait_serving(at);
    let server = Server(TcpListener::bind(addr).expect("the port is still free"));
    let mut stream = server.accept();
    read_until(&mut stream, &format!("] {}", messages::READY));
    let log = portway.stop().with(0).log;
    assert_eq!(log.lines().count(), 1, "{log}");
}

/// Opens so many short sessions on each of two threads; every one is served.
fn short_sessions(at: &[SocketAddr], each: usize) -> usize {
    let both = |at: SocketAddr| {
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..each).for_each(|_| Client::to(at).ping()));
            }
        });
        2 * each
    };
    at.iter().map(|at| both(*at)).sum()
}

#[test]
fn a_syslog_server_that_stops_reading_slows_no_session_and_learns_what_it_missed() {
    const MAPPINGS: usize = 12;
    let (target, server) = (TcpTarget::echo(), Server::new());
    let at = [(); MAPPINGS].map(|()| own_addr(8080));
    // Long names make long lines, and so many mappings that none comes to the bound of its lines.
    let named = |(n, at): (usize, &SocketAddr)| {
        mapping(*at, target.addr, &format!("name = \"{}{n:02}\"", "n".repeat(58)))
    };
    let mappings: String = at.iter().enumerate().map(named).collect();
    // The system holds little of what is not read.
    SockRef::from(&server.0).set_recv_buffer_size(4096).expect("the test's own socket");
    let mut portway = Portway::with(&format!("{mappings}[log]\n{}\n", server.log())).launch();
    let mut stream = server.accept();
    read_until(&mut stream, &format!("] {}", messages::READY));
    let (mut kept, mut lost) = (0, 0);
    let sessions = short_sessions(&at, 400);
    assert!(portway.runs());
    portway.signal(Signal::TERM);
    while let Some(message) = frame(&mut stream) {
        kept += usize::from(message.ends_with(&format!("] {}", messages::SESSION_ENDED)));
        if message.contains(&format!("] {}", messages::LOG_LINES_LOST)) {
            let (_, count) = message.split_once("lines=\"").expect("it has the count");
            lost += count.split_once('"').and_then(|(n, _)| n.parse::<usize>().ok()).expect("a number");
        }
    }
    portway.exit().with(0);
    assert_eq!(kept + lost, sessions, "{lost} lost, {kept} kept");
    assert!(lost > 0, "{kept} kept of {sessions}");
}

#[test]
fn a_reload_leaves_a_server_that_reads_nothing() {
    let (target, at, server, file) = (TcpTarget::echo(), own_addr(8080), Server::new(), LogFile::new());
    let portway =
        Portway::with(&config(at, target.addr, &format!("level = \"trace\"\n{}", server.log()))).launch();
    let stream = server.accept();
    wait_serving(at);
    // Whether it is full does not matter: nothing is read.
    short_sessions(&[at], 500);
    fs::write(portway.config(), config(at, target.addr, &file.target("log"))).expect("the test's own file");
    portway.signal(Signal::HUP);
    file.wait_for("log", messages::LOG_TARGET_CHANGED);
    Client::to(at).ping();
    file.wait_for("log", messages::SESSION_ENDED);
    portway.stop().with(0);
    drop(stream);
}

/// A socket with a name, which takes datagrams.
fn named_socket(path: &Path) -> UnixDatagram {
    let _ = fs::remove_file(path);
    let socket = UnixDatagram::bind(path).expect("the test's own socket");
    socket.set_read_timeout(Some(crate::harness::DEADLINE)).expect("the test's own socket");
    socket
}

fn datagram(socket: &UnixDatagram) -> Vec<u8> {
    let mut bytes = vec![0; 64 << 10];
    let len = socket.recv(&mut bytes).expect("a datagram");
    bytes.truncate(len);
    bytes
}

/// The daemon in a mount namespace of its own, where `script` puts the directory `$0` in its place.
fn in_place(setup: Setup, script: &str, dir: &Path) -> Setup {
    let script = format!("{script} && exec \"$@\"");
    let dir = dir.to_str().expect("a readable path");
    setup.through(["unshare", "--mount", "--", "sh", "-c", &script, dir])
}

/// The fields of an entry of the journal.
fn entry(mut bytes: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let line = str::from_utf8(&bytes[..end]).expect("text");
        bytes = &bytes[end + 1..];
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => {
                let (length, rest) = bytes.split_first_chunk().expect("a length");
                let length = usize::try_from(u64::from_le_bytes(*length)).expect("a length");
                bytes = &rest[length + 1..];
                (line, String::from_utf8(rest[..length].to_vec()).expect("text"))
            }
        };
        fields.insert(name.to_owned(), value);
    }
    fields
}

#[test]
fn the_journal_gets_the_fields_also_after_its_restart() {
    as_root(&["unshare", "mount"], || {
        let (target, at) = (TcpTarget::echo(), own_addr(8080));
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("socket");
        let script = "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && \
                      mount --bind \"$0\" /run/systemd/journal";
        let first = named_socket(&path);
        let daemon = Portway::with(&config(at, target.addr, "target = \"journald\""));
        let portway = in_place(daemon, script, dir.path()).launch();
        let next = |socket: &UnixDatagram, message: &str| loop {
            let fields = entry(&datagram(socket));
            assert_eq!(fields["SYSLOG_IDENTIFIER"], "portway");
            if fields["MESSAGE"] == message {
                break fields;
            }
        };
        assert_eq!(next(&first, messages::READY)["PRIORITY"], "6");
        Client::to(at).ping();
        let ended = next(&first, messages::SESSION_ENDED);
        assert_eq!(
            (&*ended["MAPPING"], &*ended["PROTOCOL"], &*ended["REASON"]),
            ("web", "tcp", "client-closed")
        );
        for field in ["SESSION_ID", "CLIENT_ADDR", "LISTEN_ADDR", "TARGET_ADDR", "BYTES_IN", "DURATION_MS"] {
            assert!(ended.contains_key(field), "{field} is missing in {ended:?}");
        }
        drop(first);
        Client::to(at).ping();
        let second = named_socket(&path);
        next(&second, messages::SESSION_ENDED);
        portway.stop().with(0);
        next(&second, messages::STOPPED);
    });
}

#[test]
fn the_syslog_of_the_machine_gets_lines() {
    as_root(&["unshare", "mount"], || {
        let (target, at) = (TcpTarget::echo(), own_addr(8080));
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("log");
        let script = "mount -t tmpfs none /dev && ln -s \"$0/log\" /dev/log";
        let first = named_socket(&path);
        let daemon = Portway::with(&config(at, target.addr, "target = \"syslog\""));
        let portway = in_place(daemon, script, dir.path()).launch();
        let tag = format!(" portway[{}]: ", portway.pid());
        let next = |socket: &UnixDatagram, message: &str| loop {
            let line = String::from_utf8(datagram(socket)).expect("text");
            let (head, said) = line.split_once(&tag).unwrap_or_else(|| panic!("{line}"));
            assert_eq!((&head[..1], head.len()), ("<", "<30>Nov 29 14:00:00".len()), "{line}");
            if said.starts_with(message) {
                break said.to_owned();
            }
        };
        next(&first, messages::READY);
        Client::to(at).ping();
        let ended = next(&first, messages::SESSION_ENDED);
        assert!(ended.contains(" mapping=web ") && ended.contains(" client.addr=127."), "{ended}");
        drop(first);
        Client::to(at).ping();
        let second = named_socket(&path);
        next(&second, messages::SESSION_ENDED);
        portway.stop().with(0);
        next(&second, messages::STOPPED);
    });
}

#[test]
fn a_pipe_in_place_of_a_log_file_stops_no_session() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let (target, at, file) = (TcpTarget::echo(), own_addr(8080), LogFile::new());
    mknodat(CWD, file.path("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe with a name");
    let config = config(at, target.addr, &file.target("pipe"));
    Portway::with(&config).launch().exit().with(1).says("No such device");
    let mut options = fs::OpenOptions::new();
    let mut ends = options.read(true).write(true).open(file.path("pipe")).expect("the test's own pipe");
    let portway = Portway::with(&config).launch();
    wait_serving(at);
    short_sessions(&[at], 500);
    let mut text = vec![0; 64 << 10];
    let len = ends.read(&mut text).expect("the test's own pipe");
    assert!(text[..len].starts_with(b"{\"timestamp\""));
    portway.stop().with(0);
}
