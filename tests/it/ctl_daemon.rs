//! The commands that talk to a daemon, against a running one.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use serde_json::Value;

use crate::harness::{
    Client, Portway, Ran, TcpTarget, as_root, eventually, mapping, messages, own_addr, portway,
};

impl Portway {
    /// Runs a command against this daemon.
    #[track_caller]
    pub(crate) fn ctl<const N: usize>(&self, args: [&str; N]) -> Ran {
        let socket = self.socket();
        portway(args.into_iter().chain(["--socket", socket.to_str().expect("a readable path")]))
    }

    /// The JSON of a command that succeeds.
    #[track_caller]
    fn ctl_json<const N: usize>(&self, args: [&str; N]) -> Value {
        let socket = self.socket();
        let socket = socket.to_str().expect("a readable path");
        let ran = portway(args.into_iter().chain(["--json", "--socket", socket])).exits(0);
        serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran}"))
    }

    /// The numbers of its sessions.
    #[track_caller]
    fn session_ids(&self) -> Vec<u64> {
        let sessions = self.ctl_json(["sessions"]);
        let all = sessions["sessions"].as_array().expect("a list");
        all.iter().filter_map(|session| session["id"].as_u64()).collect()
    }
}

#[test]
fn status_and_sessions_show_what_is_live_and_close_ends_it() {
    let target = TcpTarget::echo();
    let (at, other) = (own_addr(8080), own_addr(8081));
    let config =
        mapping(at, target.addr, "name = \"web\"") + &mapping(other, target.addr, "name = \"other\"");
    let mut portway = Portway::with(&config).start();
    let [mut first, mut second, mut third] = [at, at, other].map(|at| {
        let mut client = Client::to(at);
        client.ping();
        client
    });
    portway
        .ctl(["status"])
        .exits(0)
        .says("3 sessions")
        .says("web")
        .says("listening")
        .says(&target.addr.to_string());
    portway.ctl(["status", "web"]).exits(0).says("sessions: 2 live").says("a configuration file").says("up");
    portway.ctl(["status", "nothing"]).exits(1).says("`nothing`");
    assert_eq!(portway.ctl_json(["status"])["sessions"], 3);
    assert_eq!(portway.ctl_json(["status", "other"])["sessions"], 1);
    let ids = portway.session_ids();
    let table = portway.ctl(["sessions", "--mapping", "web", "--sort", "age"]).exits(0);
    assert_eq!(table.out.lines().count(), 3, "{table}");

    portway.ctl(["close", &ids[0].to_string()]).exits(0).says("closed 1 session");
    let line = portway.wait_session();
    assert_eq!((line.number("session.id"), line.text("reason")), (ids[0], "closed-by-operator"));
    first.until_closed();
    portway.ctl(["close", &ids[0].to_string()]).exits(1).says("there is no live session");
    portway.ctl(["close", "--mapping", "other"]).exits(0).says("closed 1 session");
    third.until_closed();
    second.ping();
    portway.ctl(["close", "--client", "127.0.0.0/8"]).exits(0).says("closed 1 session");
    second.until_closed();
    portway.ctl(["close", "--client", "192.0.2.7"]).exits(0).says("no live session matches");
    let ends = portway.wait_sessions(3);
    assert!(ends.iter().all(|line| line.text("reason") == "closed-by-operator"));
}

#[test]
fn reload_waits_and_exits_by_its_outcome() {
    let target = TcpTarget::echo();
    let (at, other) = (own_addr(8080), own_addr(8081));
    let web = mapping(at, target.addr, "name = \"web\"");
    let mut portway = Portway::with(&web).start();
    let mut client = Client::to(at);
    client.ping();
    let log = "\n[log]\nformat = \"json\"\n";
    let write = |portway: &Portway, text: &str| {
        fs::write(portway.config(), format!("{text}{log}")).expect("its file");
    };

    let moved = mapping(other, target.addr, "name = \"web\"");
    write(&portway, &moved);
    let dry = portway.ctl(["reload", "--dry-run"]).exits(0).says("dry run");
    assert!(dry.out.contains(&other.to_string()) && dry.out.contains("1 session would end"), "{dry}");
    client.ping();
    Client::to(at).ping();
    assert_eq!(portway.count(messages::RELOAD_APPLIED), 0);
    portway.ctl(["reload"]).exits(0).says("reload applied").says("closed").says(&at.to_string());
    Client::to(other).ping();

    write(&portway, &format!("{moved}idel = \"1s\"\n"));
    for args in [&["reload", "--dry-run"][..], &["reload"]] {
        let socket = portway.socket();
        let args = args.iter().copied().chain(["--socket", socket.to_str().expect("a readable path")]);
        crate::harness::portway(args).exits(1).says("portway.toml:4:1: ").says("`idel`").says("= help: ");
    }
    let taken = TcpTarget::echo();
    write(&portway, &mapping(taken.addr, target.addr, "name = \"web\""));
    portway.ctl(["reload"]).exits(1).says(&taken.addr.to_string());
    Client::to(other).ping();
    portway.wait_log(messages::RELOAD_REFUSED, |_| true);
}

#[test]
fn a_ban_is_made_listed_and_ended() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let portway = Portway::with(&(mapping(at, target.addr, "") + "[guard]\n")).start();
    let mut client = Client::to(at);
    client.ping();
    portway.ctl(["bans"]).exits(0).says("no client is banned");
    portway
        .ctl(["ban", "127.0.0.1", "--for", "1h", "--reason", "a test"])
        .exits(0)
        .says("banned 127.0.0.1 until ");
    client.until_closed();
    let bans = portway.ctl(["bans"]).exits(0).says("127.0.0.1").says("operator");
    assert!(bans.out.contains("59m") || bans.out.contains("1h"), "{bans}");
    portway.ctl(["unban", "127.0.0.1"]).exits(0).says("unbanned 127.0.0.1");
    portway.ctl(["unban", "127.0.0.1"]).exits(1);
    Client::to(at).ping();
    portway.ctl(["ban", "not-an-address"]).exits(2).says("not-an-address");
    portway.ctl(["ban", "192.0.2.7", "--for", "soon"]).exits(2).says("soon");
}

#[test]
fn health_router_and_the_level_of_the_log() {
    let target = TcpTarget::echo();
    let portway = Portway::with(&mapping(own_addr(8080), target.addr, "")).start();
    portway.ctl(["health"]).exits(0).says("ready");
    portway.ctl(["router"]).exits(0).says("router: not asked");
    portway.ctl(["log-level", "debug", "--for", "10m"]).exits(0).says("debug");
    eventually("the level is debug", || (portway.ctl_json(["status"])["log_level"] == "debug").then_some(()));
    let taken = TcpTarget::echo();
    let late = mapping(taken.addr, target.addr, "name = \"late\"");
    let waiting = Portway::with(&(mapping(own_addr(8080), target.addr, "") + &late)).start();
    let ran = waiting.ctl(["health"]).exits(1).says("late");
    assert!(ran.err.contains(&taken.addr.to_string()), "{ran}");
    waiting.ctl(["status"]).exits(0).says("not ready").says("waiting");
}

fn following(portway: &Portway) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portway"));
    command.args(["events", "-f", "--socket"]).arg(portway.socket()).env_remove("PORTWAY_JSON");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program")
}

#[test]
fn events_are_followed_until_the_daemon_dies() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let portway = Portway::with(&mapping(at, target.addr, "name = \"web\"")).start();
    let mut child = following(&portway);
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut line = || lines.next().map(|line| line.expect("text"));
    // The command is connected when it shows a session; one before that is not seen.
    let seen = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            eventually("an event was seen", || {
                Client::to(at).ping();
                seen.load(Relaxed).then_some(())
            });
        });
        let first = line().expect("an event");
        seen.store(true, Relaxed);
        assert!(first.contains("session-") && first.contains("web: "), "{first}");
    });
    let recent =
        portway.ctl(["events", "--mapping", "web"]).exits(0).says("session-started").says("session-ended");
    assert!(recent.out.lines().all(|line| line.contains("web: ")), "{recent}");
    portway.ctl(["events"]).exits(0).says("listening");
    portway.kill();
    while line().is_some() {}
    let status = eventually("the command ends", || child.try_wait().expect("its own process"));
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_user_without_the_right_to_the_socket_learns_so() {
    as_root(&["setpriv"], || {
        let target = TcpTarget::echo();
        let portway = Portway::with(&mapping(own_addr(8080), target.addr, "")).start();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let program = dir.path().join("portway");
        fs::copy(env!("CARGO_BIN_EXE_portway"), &program).expect("a copy of the program");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("its own directory");
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(program);
        command.args(["status", "--socket"]).arg(portway.socket());
        let ran = Ran::of(&mut command).exits(1).says("may not be opened: permission denied").says("sudo");
        assert!(ran.err.contains(portway.socket().to_str().expect("a readable path")), "{ran}");
    });
}
