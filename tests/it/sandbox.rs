//! The sandbox that portway makes for itself: what is closed, and that nothing which is configured stops working.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use rustix::process::Signal;

use crate::{
    handover::hand_over,
    harness::{
        Client, Portway, TcpTarget, as_root, eventually, in_own_network, mapping, messages, own_addr,
        portway, with_tools,
    },
};

/// A user of this test alone.
const USER: u32 = 54_321;
const WHOLE: &str = "files, system calls";

/// Whether every thread has given up what it is about, by the kernel's own words, and once.
#[track_caller]
fn assert_confined(portway: &Portway) {
    for (name, value) in [("NoNewPrivs", "1"), ("Seccomp", "2"), ("Seccomp_filters", "1")] {
        let all = portway.of_threads(name);
        assert!(all.len() > 1 && all.iter().all(|is| is == value), "{name}: {all:?}");
    }
}

fn says(portway: &mut Portway, restricts: &str, reason: &str) {
    portway.wait_log(messages::SANDBOX, |line| line.text("restricts") == restricts);
    assert!(reason.is_empty() || portway.log().contains(reason), "{}", portway.log());
}

/// A list in a directory of its own, which is not beside the configuration.
fn foreign_list() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).expect("the test's own");
    let file = dir.path().join("list");
    fs::write(&file, "192.0.2.1\n").expect("the test's own");
    let table = format!("[lists]\na = {{ file = {file:?} }}\n");
    (dir, table)
}

#[test]
fn every_thread_gives_up_system_calls_and_privileges_and_the_log_says_so_once() {
    let (target, at) = (TcpTarget::echo(), own_addr(8080));
    for (setup, restricts) in [("auto", "system calls"), ("on", WHOLE)] {
        let mut portway = Portway::with(&mapping(at, target.addr, "")).env("PORTWAY_SANDBOX", setup).start();
        assert_confined(&portway);
        says(&mut portway, restricts, "");
        assert_eq!(portway.count(messages::SANDBOX), 1);
        Client::to(at).ping();
        portway.stop().with(0);
    }
}

#[test]
fn a_sandbox_that_is_not_asked_for_keeps_no_reload_from_a_new_file_or_command() {
    let (target, at) = (TcpTarget::echo(), own_addr(8080));
    let plain = mapping(at, target.addr, "");
    let mut daemon = Portway::with(&plain).start();
    assert_confined(&daemon);
    let (_dir, list) = foreign_list();
    daemon.reload_with(&format!("{plain}{list}"));
    daemon.reload_with(&mapping(at, target.addr, "wake = { command = [\"/bin/true\"] }\n"));
    Client::to(at).ping();
}

#[test]
fn a_reload_cannot_read_or_write_elsewhere_and_says_that_a_restart_can() {
    let (target, at) = (TcpTarget::echo(), own_addr(8080));
    let plain = mapping(at, target.addr, "");
    let mut daemon = Portway::with(&plain).confined().start();
    let (dir, list) = foreign_list();
    let elsewhere = dir.path().display();
    let [managed, bans, log, include, glob] = [
        format!("{plain}[api]\nmanaged = \"{elsewhere}/managed.toml\"\n"),
        format!("{plain}[guard]\nstate = \"{elsewhere}/bans/bans.json\"\n"),
        format!("{plain}[log]\nformat = \"json\"\ntarget = \"file:{elsewhere}/log\"\n"),
        format!("include = [\"{elsewhere}/list\"]\n{plain}"),
        format!("include = [\"{elsewhere}/*.toml\"]\n{plain}"),
    ];
    for (config, what) in [
        (format!("{plain}{list}"), "list"),
        (managed, "does not let it write in"),
        (bans, "does not let it write in"),
        (log, "does not let it write in"),
        (include, "list"),
        (glob, "*.toml"),
    ] {
        let refused = daemon.refused_reload_with(&config);
        let text = refused.text("error");
        assert!(text.contains("restart portway") && text.contains(what), "{text}");
        Client::to(at).ping();
    }
    assert_eq!(fs::read_dir(dir.path()).expect("the test's own").count(), 1, "nothing was written");
    // A restart can, and a reload of what lies beside it as well.
    daemon.stop().with(0);
    let mut daemon = Portway::with(&format!("{plain}{list}")).confined().start();
    assert_confined(&daemon);
    fs::write(dir.path().join("new"), "192.0.2.2\n").expect("the test's own");
    fs::rename(dir.path().join("new"), dir.path().join("list")).expect("the test's own");
    daemon.reload_with(&format!("{plain}{}", list.replace("a =", "b =")));
}

#[test]
fn a_command_is_not_restricted_and_one_that_a_reload_brings_asks_for_a_restart() {
    let (target, at) = (TcpTarget::echo(), own_addr(8080));
    let dir = tempfile::tempdir().expect("a directory");
    let status = dir.path().join("status");
    // Without a listening target, the command runs.
    let idle = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let closed = idle.local_addr().expect("it is bound");
    drop(idle);
    let command = format!(
        "wake = {{ command = [\"/bin/sh\", \"-c\", \"cat /proc/self/status > {}; exit 1\"], wait = \"5s\" }}\n",
        status.display()
    );
    let (with, plain) = (mapping(at, closed, &command), mapping(at, target.addr, ""));
    let mut daemon = Portway::with(&with).confined().start();
    says(&mut daemon, "", "starts a command");
    let mut client = TcpStream::connect(at).expect("it listens");
    let _ = client.write_all(b"x");
    let _ = client.read(&mut [0]);
    let seen = eventually("the command runs", || {
        fs::read_to_string(&status).ok().filter(|text| text.contains("Seccomp:"))
    });
    for line in ["NoNewPrivs:\t0", "Seccomp:\t0"] {
        assert!(seen.contains(line), "{seen}");
    }
    daemon.stop().with(0);
    let mut daemon = Portway::with(&plain).confined().start();
    let refused = daemon.refused_reload_with(&with);
    let text = refused.text("error");
    assert!(text.contains("starts a command") && text.contains("restart portway"), "{text}");
    Client::to(at).ping();
    daemon.reload_with(&format!("{plain}# the same\n"));
}

#[test]
fn hand_overs_add_nothing_however_many_there_are_and_a_replaced_program_can_be_executed() {
    // The kernel refuses a seventeenth layer.
    const HAND_OVERS: usize = 18;
    let (target, at) = (TcpTarget::echo(), own_addr(8080));
    let mut daemon = Portway::with(&mapping(at, target.addr, "")).confined().installed().start();
    let mut client = Client::to(at);
    client.ping();
    for round in 0..HAND_OVERS {
        if round == 1 {
            // Another file in its place, as a package installs it.
            let (new, real) = (daemon.dir().join("portway.new"), fs::canonicalize(daemon.installed()));
            fs::copy(real.expect("the program"), &new).expect("the test's own directory");
            fs::rename(&new, daemon.installed()).expect("the test's own directory");
        }
        hand_over(&mut daemon);
        assert_confined(&daemon);
        client.ping();
    }
    let (_dir, list) = foreign_list();
    let config = format!("{}{list}", mapping(at, target.addr, ""));
    assert!(daemon.refused_reload_with(&config).text("error").contains("restart portway"));
}

#[test]
fn a_program_with_one_thread_needs_no_second_start() {
    let (target, at) = (TcpTarget::echo(), own_addr(8080));
    // As in a static build, the allocator has no thread.
    let setup = Portway::with(&mapping(at, target.addr, ""))
        .confined()
        .env("_RJEM_MALLOC_CONF", "background_thread:false");
    let mut daemon = setup.installed().start();
    let executed_itself = |daemon: &Portway| {
        let variables = fs::read(format!("/proc/{}/environ", daemon.pid())).expect("it runs");
        String::from_utf8_lossy(&variables).contains("PORTWAY_SANDBOXED")
    };
    assert!(!executed_itself(&daemon));
    let (_dir, list) = foreign_list();
    let config = format!("{}{list}", mapping(at, target.addr, ""));
    for _ in 0..3 {
        assert_confined(&daemon);
        assert!(daemon.refused_reload_with(&config).text("error").contains("restart portway"));
        daemon.reload_with(&format!("{}# as before\n", mapping(at, target.addr, "")));
        hand_over(&mut daemon);
    }
    assert!(executed_itself(&daemon), "the next one hears of it");
}

#[test]
fn what_the_daemon_keeps_is_written_and_its_log_is_rotated() {
    let (target, at, added) = (TcpTarget::echo(), own_addr(8080), own_addr(8081));
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    let config = format!(
        "{}[log]\nformat = \"json\"\ntarget = \"file:{}\"\n[api]\nmanaged = {:?}\n[guard]\nstate = {:?}\n",
        mapping(at, target.addr, ""),
        path("log/portway.log").display(),
        path("managed/managed.toml"),
        path("bans/bans.json"),
    );
    fs::create_dir(path("log")).expect("the test's own");
    let log = |name: &str| fs::read_to_string(path(name)).unwrap_or_default();
    let daemon = Portway::with(&config).confined().launch();
    eventually("it is ready", || log("log/portway.log").contains("\"ready\"").then_some(()));
    assert_confined(&daemon);
    let socket = daemon.socket();
    let ctl = |words: &[&str]| {
        let socket = ["--socket", socket.to_str().expect("a path")];
        portway(words.iter().copied().chain(socket)).exits(0)
    };
    ctl(&["add", &format!("{added}:{}", target.addr)]);
    Client::to(added).ping();
    ctl(&["ban", "192.0.2.7"]);
    fs::rename(path("log/portway.log"), path("log/old")).expect("the test's own");
    daemon.signal(Signal::USR1);
    eventually("a new log", || path("log/portway.log").exists().then_some(()));
    daemon.stop().with(0);
    assert!(log("log/portway.log").contains("stopped"), "{}", log("log/portway.log"));
    assert!(log("managed/managed.toml").contains(&added.to_string()));
    assert!(log("bans/bans.json").contains("192.0.2.7"));
}

#[test]
fn a_user_without_rights_is_confined_as_well_and_its_commands_lose_system_calls_alone() {
    in_own_network(&[], || {
        let target = TcpTarget::echo();
        let low = |port: u16| mapping(([127, 0, 0, 1], port).into(), target.addr, "");
        let mut daemon = Portway::with(&low(80)).confined().going_on_as(USER).start();
        assert_confined(&daemon);
        says(&mut daemon, WHOLE, "");
        daemon.reload_with(&format!("{}{}", low(80), low(443)));
        Client::to(([127, 0, 0, 1], 443).into()).ping();
        let (_dir, list) = foreign_list();
        let refused = daemon.refused_reload_with(&format!("{}{list}", low(80)));
        assert!(refused.text("error").contains("restart portway"), "{}", refused.raw());
        daemon.stop().with(0);
        let with = format!("{}wake = {{ command = [\"/bin/true\"] }}\n", low(80));
        let mut daemon = Portway::with(&with).confined().going_on_as(USER).start();
        assert_confined(&daemon);
        says(&mut daemon, "system calls", "starts a command");
        // Its files are open.
        let (_dir, list) = foreign_list();
        daemon.reload_with(&format!("{with}{list}"));
    });
}

#[test]
fn a_right_that_the_file_carries_outlives_the_second_start_and_a_hand_over() {
    in_own_network(&["setcap", "setpriv"], || {
        let target = TcpTarget::echo();
        let carry = "setcap cap_net_bind_service=p \"$1\" && exec setpriv --reuid 54321 --regid 54321 --clear-groups -- \"$@\"";
        let low = mapping(([127, 0, 0, 1], 80).into(), target.addr, "");
        let setup = Portway::with(&low).confined().for_user(USER).installed();
        let mut daemon = setup.through(["/bin/sh", "-c", carry, "sh"]).start();
        assert_confined(&daemon);
        for _ in 0..2 {
            // What a thread may use; the allocator's has it not in force.
            let all = daemon.of_threads("CapPrm");
            assert!(all.iter().all(|is| is.ends_with("0400")), "{all:?}");
            Client::to(([127, 0, 0, 1], 80).into()).ping();
            hand_over(&mut daemon);
        }
    });
}

#[test]
fn it_can_be_switched_off_by_the_file_the_argument_and_the_variable() {
    let config = "[daemon]\nsandbox = \"off\"\n";
    for setup in [
        Portway::with(config),
        Portway::with("").args(["--sandbox", "off"]),
        Portway::with("").env("PORTWAY_SANDBOX", "off"),
        Portway::with("[daemon]\nsandbox = \"auto\"\n").args(["--sandbox", "OFF"]),
    ] {
        let mut daemon = setup.start();
        says(&mut daemon, "", "switched off");
        assert!(daemon.of_threads("Seccomp").iter().all(|is| is == "0"));
    }
    let mut daemon = Portway::with(config).args(["--sandbox", "auto"]).start();
    assert_confined(&daemon);
    daemon.reload_with("[daemon]\nsandbox = \"off\"\n# changed\n");
    Portway::with("[daemon]\nsandbox = \"of\"\n").launch().exit().with(78).says("\"off\"");
    Portway::with("")
        .args(["--sandbox", "x"])
        .launch()
        .exit()
        .with(2)
        .says("[possible values: auto, on, off]");
    Portway::with("").env("PORTWAY_SANDBOX", "x").launch().exit().with(2).says("use one of auto, on, off");
}

/// Becomes the rest of the arguments, on a kernel that seems not to have this system call.
const WITHOUT_A_CALL: &str = "
import ctypes, os, struct, sys
libc = ctypes.CDLL(None)
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, int(sys.argv[1])), (6, 0, 0, 0x50026), (6, 0, 0, 0x7fff0000)]
program = b''.join(struct.pack('HBBI', *step) for step in steps)
program = ctypes.create_string_buffer(program, len(program))
header = ctypes.create_string_buffer(struct.pack('@HP', len(steps), ctypes.addressof(program)))
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(header), 0, 0) == 0
os.execvp(sys.argv[2], sys.argv[2:])
";

#[test]
fn what_the_kernel_lacks_is_told_once_and_the_rest_is_in_force() {
    // `landlock_create_ruleset` has one number everywhere.
    const LANDLOCK: &str = "444";
    with_tools(&["python3"], || {
        for (setup, missing) in
            [(Portway::with(""), None), (Portway::with("").args(["--sandbox", "on"]), Some("no Landlock"))]
        {
            let mut daemon = setup.through(["python3", "-c", WITHOUT_A_CALL, LANDLOCK]).start();
            says(&mut daemon, "system calls", missing.unwrap_or_default());
            let lines = daemon.lines(messages::SANDBOX);
            assert_eq!((lines.len(), lines[0].text("level") == "WARN"), (1, missing.is_some()));
            assert!(daemon.of_threads("Seccomp_filters").iter().all(|is| is == "2"));
            let (_dir, list) = foreign_list();
            daemon.reload_with(&list);
        }
    });
}

#[test]
fn a_variable_that_was_set_by_hand_is_not_believed() {
    let mut daemon = Portway::with("").confined().env("PORTWAY_SANDBOXED", WHOLE).start();
    assert_confined(&daemon);
    let (_dir, list) = foreign_list();
    assert!(daemon.refused_reload_with(&list).text("error").contains("restart portway"));
}

#[test]
fn system_calls_that_a_forwarder_never_makes_are_refused_to_what_it_starts() {
    as_root(&["setpriv", "unshare"], || {
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).expect("the test's own");
        let said = dir.path().join("said");
        let probe = |name: &str, call: &str| {
            format!("{call} 2>/dev/null && echo {name} passes || echo {name} refused;")
        };
        let script = [probe("namespace", "unshare --user true"), probe("fork", "/bin/true")];
        let script = format!("({}) > {}", script.concat(), said.display());
        let file = dir.path().join("start");
        fs::write(&file, format!("#!/bin/sh\n{script}\necho end >> {}\nexit 1\n", said.display()))
            .expect("the test's own");
        fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).expect("the test's own");
        let at = own_addr(8080);
        let text = run_by_a_command(at, &file, &said);
        assert!(text.contains("namespace refused") && text.contains("fork passes"), "{text}");
    });
}

/// What a script says that a session of an unprivileged daemon starts.
fn run_by_a_command(at: std::net::SocketAddr, script: &Path, said: &Path) -> String {
    let closed = own_addr(9009);
    let wake = format!("wake = {{ command = [\"{}\"], wait = \"5s\" }}\n", script.display());
    let mut daemon = Portway::with(&mapping(at, closed, &wake)).confined().going_on_as(USER).start();
    says(&mut daemon, "system calls", "starts a command");
    let mut client = TcpStream::connect(at).expect("it listens");
    let _ = client.write_all(b"x");
    let _ = client.read(&mut [0]);
    eventually("the script has run", || fs::read_to_string(said).ok().filter(|text| text.ends_with("end\n")))
}
