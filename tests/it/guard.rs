//! Bans: what earns one, what it means, how long it lasts, and that it outlives the daemon.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use crate::harness::{
    Client, Portway, TcpTarget, add_address, enters, eventually, in_own_network, is_reset, mapping, messages,
    own_addr, own_ip, reset_seen, run,
};

/// A daemon with an open mapping, one that is closed to everyone, and a decoy.
struct Box {
    target: TcpTarget,
    open: SocketAddr,
    closed: SocketAddr,
    decoy: SocketAddr,
}

impl Box {
    fn new() -> Self {
        Self {
            target: TcpTarget::echo(),
            open: own_addr(8080),
            closed: own_addr(8081),
            decoy: own_addr(2323),
        }
    }

    fn config(&self, guard: &str) -> String {
        mapping(self.open, self.target.addr, "name = \"open\"")
            + &mapping(self.closed, self.target.addr, "name = \"closed\"\ndeny = \"127.0.0.0/8\"")
            + &format!("[guard]\ntrap = [\"{}\"]\nrefusals = \"3/h\"\n{guard}\n", self.decoy)
    }

    /// One touch of the decoy, which resets.
    fn touch(&self, ip: IpAddr) {
        assert!(is_reset_at(ip, self.decoy), "a decoy resets");
    }
}

/// Whether a client is reset, possibly before it knows that it was connected.
fn is_reset_at(ip: IpAddr, at: SocketAddr) -> bool {
    Client::try_from_ip(ip, at).map_or_else(|error| is_reset(&error), |mut client| reset_seen(&mut client.0))
}

fn keeping_bans_in(state: &Path) -> String {
    format!("state = {state:?}")
}

#[test]
fn a_client_that_is_refused_too_often_is_banned_from_everything_and_its_sessions_end() {
    let world = Box::new();
    let (foe, friend) = (own_ip(), own_ip());
    let mut portway = Portway::with(&world.config("")).start();
    let (mut bad, mut good) = (Client::from(foe, world.open), Client::from(friend, world.open));
    bad.ping();
    good.ping();
    for _ in 0..3 {
        assert!(!enters(foe, world.closed));
    }
    bad.ping();
    assert!(!enters(foe, world.closed), "one too many");
    let line = portway.wait_log(messages::CLIENT_BANNED, |line| line.text("client.addr") == foe.to_string());
    assert_eq!((line.text("reason"), line.text("ban.for")), ("refusals", "1h"));
    let ended = portway.wait_session();
    assert_eq!(ended.text("reason"), "policy");
    bad.until_closed();
    assert!(!enters(foe, world.open));
    good.ping();
    assert_eq!(portway.count(messages::CLIENT_BANNED), 1, "further attempts are not reported");
}

#[test]
fn a_client_that_touches_a_trap_is_reset_and_banned_at_once_and_opens_nothing() {
    let world = Box::new();
    let (foe, friend) = (own_ip(), own_ip());
    let mut portway = Portway::with(&world.config(&format!("exempt = [\"{friend}\"]"))).start();
    portway.wait_log(messages::LISTENING, |line| {
        line.text("listen.addr") == world.decoy.to_string() && line.raw().contains("\"trap\":true")
    });
    let mut live = Client::from(foe, world.open);
    live.ping();
    world.touch(foe);
    let line = portway.wait_log(messages::CLIENT_BANNED, |_| true);
    assert_eq!((line.text("client.addr"), line.text("reason")), (foe.to_string().as_str(), "trap"));
    assert_eq!(portway.wait_session().text("reason"), "policy");
    live.until_closed();
    assert!(!enters(foe, world.open));

    for _ in 0..10 {
        world.touch(friend);
    }
    assert!(enters(friend, world.open), "an exempt client is never banned");
    assert_eq!(world.target.accepted(), 2, "a decoy leads nowhere");
}

#[test]
fn a_ban_ends_and_the_next_one_is_twice_as_long() {
    let world = Box::new();
    let foe = own_ip();
    let mut portway = Portway::with(&world.config("ban = \"3s\"")).start();
    for length in ["3s", "6s", "12s"] {
        let mark = portway.log_len();
        world.touch(foe);
        let line = portway.wait_log_after(mark, messages::CLIENT_BANNED, |_| true);
        assert_eq!(line.text("ban.for"), length);
        assert!(!enters(foe, world.open));
        eventually("the ban ends", || enters(foe, world.open).then_some(()));
    }
}

#[test]
fn a_ban_is_lifted_by_an_exemption_and_a_reload() {
    let world = Box::new();
    let (foe, other) = (own_ip(), own_ip());
    let mut portway = Portway::with(&world.config("")).start();
    world.touch(foe);
    world.touch(other);
    assert!(!enters(foe, world.open) && !enters(other, world.open));
    portway.reload_with(&world.config(&format!("exempt = [\"{foe}\"]")));
    assert!(enters(foe, world.open) && !enters(other, world.open));
}

#[test]
fn a_ban_is_lifted_by_taking_it_out_of_the_file_while_the_daemon_is_down() {
    let world = Box::new();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let state = dir.path().join("bans.json");
    let config = world.config(&keeping_bans_in(&state));
    let (foe, other) = (own_ip(), own_ip());
    let portway = Portway::with(&config).start();
    world.touch(foe);
    world.touch(other);
    portway.stop().with(0);
    let text = fs::read_to_string(&state).expect("the saved bans");
    let mut saved: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    saved["bans"].as_array_mut().expect("a list").retain(|ban| ban["client"] != foe.to_string());
    fs::write(&state, saved.to_string()).expect("the test's own directory");
    let _portway = Portway::with(&config).start();
    assert!(enters(foe, world.open) && !enters(other, world.open));
}

#[test]
fn bans_outlive_a_restart_and_a_kill() {
    let world = Box::new();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let state = dir.path().join("state").join("bans.json");
    let config = world.config(&keeping_bans_in(&state));
    let (first, second) = (own_ip(), own_ip());
    let portway = Portway::with(&config).start();
    world.touch(first);
    portway.stop().with(0);

    let mut portway = Portway::with(&config).start();
    let line = portway.wait_log(messages::BANS_RESTORED, |_| true);
    assert_eq!(line.number("bans"), 1);
    assert!(!enters(first, world.open));
    assert!(enters(second, world.open));
    world.touch(second);
    eventually("the ban is saved", || {
        fs::read_to_string(&state).ok().filter(|text| text.contains(&second.to_string()))
    });
    portway.kill();

    let _portway = Portway::with(&config).start();
    assert!(!enters(first, world.open) && !enters(second, world.open));
}

#[test]
fn a_broken_file_of_bans_is_set_aside_and_the_daemon_starts() {
    let world = Box::new();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let state = dir.path().join("bans.json");
    fs::write(&state, "{\"bans\": [").expect("the test's own directory");
    let mut portway = Portway::with(&world.config(&keeping_bans_in(&state))).start();
    portway.wait_log(messages::BANS_NOT_RESTORED, |_| true);
    assert!(dir.path().join("bans.json.broken").exists());
    assert!(enters(own_ip(), world.open));
    world.touch(own_ip());
    eventually("bans are saved again", || state.exists().then_some(()));
}

#[test]
fn a_file_of_bans_that_cannot_be_read_is_set_aside_and_never_overwritten() {
    let world = Box::new();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let state = dir.path().join("bans.json");
    // A link to itself: not even root can read it.
    std::os::unix::fs::symlink(&state, &state).expect("the test's own directory");
    let mut portway = Portway::with(&world.config(&keeping_bans_in(&state))).start();
    portway.wait_log(messages::BANS_NOT_RESTORED, |line| line.text("error").contains("bans.json.unreadable"));
    eventually("there is a file from the start on", || fs::read_to_string(&state).ok());
    let aside = dir.path().join("bans.json.unreadable");
    assert_eq!(fs::read_link(aside).expect("what was there"), state);
}

#[test]
fn a_state_directory_that_cannot_be_written_is_reported_at_the_start_and_bans_hold() {
    in_own_network(&["sh", "mount"], || {
        let world = Box::new();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let state = dir.path().join("bans.json");
        let at = dir.path().to_str().expect("a readable path");
        let script = "mount -t tmpfs -o ro none \"$0\" && exec \"$@\"";
        let mut portway = Portway::with(&world.config(&keeping_bans_in(&state)))
            .through(["unshare", "--mount", "--", "sh", "-c", script, at])
            .start();
        let line = portway.wait_log(messages::BANS_NOT_SAVED, |_| true);
        assert!(line.text("error").contains("bans are kept in memory only"), "{line:?}");
        let foe = own_ip();
        assert!(enters(foe, world.open));
        world.touch(foe);
        portway.wait_log(messages::CLIENT_BANNED, |line| line.text("client.addr") == foe.to_string());
        assert!(!enters(foe, world.open) && enters(own_ip(), world.open));
        let exit = portway.stop().with(0);
        let told = exit.lines(messages::BANS_NOT_SAVED);
        assert_eq!(told.len(), 2, "at the start and at the end");
        assert!(told[1].number("failures") >= 2);
    });
}

#[test]
fn bans_move_to_the_next_directory_when_the_one_of_the_service_cannot_be_written() {
    in_own_network(&["sh", "mount"], || {
        let world = Box::new();
        let (service, user) = (dir(), dir());
        let start = || {
            let at = service.path().to_str().expect("a readable path");
            let script =
                "mount -t tmpfs -o ro none \"$0\" && mount -t tmpfs -o ro none /var/lib && exec \"$@\"";
            Portway::with(&world.config(""))
                .env("STATE_DIRECTORY", at)
                .env("XDG_STATE_HOME", &user.path().display().to_string())
                .through(["unshare", "--mount", "--", "sh", "-c", script, at])
                .start()
        };
        let state = user.path().join("portway/bans.json");
        let mut portway = start();
        let line = portway.wait_log(messages::BANS_SAVED_IN_THE_NEXT_DIRECTORY, |_| true);
        assert_eq!(line.text("file"), state.display().to_string());
        let foe = own_ip();
        world.touch(foe);
        portway.wait_log(messages::CLIENT_BANNED, |line| line.text("client.addr") == foe.to_string());
        let exit = portway.stop().with(0);
        assert!(exit.lines(messages::BANS_NOT_SAVED).is_empty());
        let mut portway = start();
        portway.wait_log(messages::BANS_RESTORED, |line| line.number("bans") == 1);
        assert!(!enters(foe, world.open) && enters(own_ip(), world.open));
    });
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[test]
fn a_decoy_and_a_mapping_take_each_others_place_by_a_reload() {
    let world = Box::new();
    let mut portway = Portway::with(&world.config("")).start();
    let mut live = Client::from(own_ip(), world.open);
    live.ping();
    let swapped = mapping(world.decoy, world.target.addr, "")
        + &format!("[guard]\ntrap = [\"{}\"]\n[shutdown]\ngrace = \"never\"\n", world.open);
    portway.reload_with(&swapped);
    live.ping();
    let foe = own_ip();
    assert!(enters(foe, world.decoy), "it is a mapping now");
    assert!(is_reset_at(foe, world.open));
    assert!(!enters(foe, world.decoy));
    portway.reload_with(&world.config(""));
    Client::from(own_ip(), world.open).ping();
    live.ping();
}

#[test]
fn a_decoy_whose_port_is_taken_is_an_error() {
    let world = Box::new();
    let _taken = std::net::TcpListener::bind(world.decoy).expect("the test's own address");
    let portway = Portway::with(&world.config("")).args(["--strict"]).launch();
    portway.exit().with(1).says(&format!("bind {}/tcp: the address is in use", world.decoy));
}

#[test]
fn a_scanner_that_finds_the_decoy_is_banned_before_it_is_done() {
    in_own_network(&["nmap"], || {
        let (here, home): (IpAddr, IpAddr) = ([10, 9, 0, 1].into(), [10, 9, 0, 2].into());
        add_address(here);
        add_address(home);
        let target = TcpTarget::echo();
        let at = [8080, 9090].map(|port| SocketAddr::new(here, port));
        let config = mapping(at[0], target.addr, "")
            + &mapping(at[1], target.addr, "")
            + &format!("[guard]\ntrap = [\"{here}:23\", \"{here}:445\"]\nexempt = \"{home}\"\n");
        let mut portway = Portway::with(&config).start();
        assert!(enters(here, at[0]));
        run(&format!("nmap -sT -Pn -n -T4 -p 1-10000 {here}"));
        let line = portway.wait_log(messages::CLIENT_BANNED, |_| true);
        assert_eq!(line.text("reason"), "trap");
        assert_eq!(line.text("client.addr"), here.to_string());
        assert!(!enters(here, at[0]) && !enters(here, at[1]));
        assert!(enters(home, at[0]), "everyone else is served");
        assert!(portway.runs());
        portway.stop().with(0);
    });
}

#[test]
fn bans_fall_on_the_sessions_of_a_listener_that_retires() {
    let world = Box::new();
    let foe = own_ip();
    let mut portway = Portway::with(&world.config("")).start();
    let mut live = Client::from(foe, world.open);
    live.ping();
    let without = mapping(world.closed, world.target.addr, "name = \"closed\"")
        + &format!("[guard]\ntrap = [\"{}\"]\n[shutdown]\ngrace = \"1h\"\n", world.decoy);
    portway.reload_with(&without);
    live.ping();
    world.touch(foe);
    assert_eq!(portway.wait_session().text("reason"), "policy");
    live.0.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket takes a timeout");
    live.until_closed();
}
