//! A reload: whole or not at all, and without cost to the sessions that live.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    harness::{
        Client, Line, Portway, TcpTarget, UdpTarget, echoes, eventually, mapping, messages, own_addr,
        udp_client, udp_mapping,
    },
    session_lines::sum,
};

#[test]
fn two_hundred_reloads_under_load_lose_no_session_and_no_descriptor() {
    let (tcp, udp) = (TcpTarget::echo(), UdpTarget::echo());
    let (main, extra, datagrams) = (own_addr(8080), own_addr(8081), own_addr(5353));
    let plan = |idle: &str, extra: &str| {
        // Clients come faster than a busy machine sees others go: the cap is not what is tested here.
        let terms = format!("idle_timeout = \"{idle}\"\nmax_sessions_per_client = \"unlimited\"");
        mapping(main, tcp.addr, &terms) + &udp_mapping(datagrams, udp.addr, "") + extra
    };
    let plans = [plan("10m", ""), plan("20m", &mapping(extra, tcp.addr, ""))];
    let mut portway = Portway::with(&plans[0]).start();
    let base = portway.fds();
    let mut steady: Vec<Client> = (0..20).map(|_| Client::to(main)).collect();
    let flow = udp_client(datagrams);
    let (done, short) = (AtomicBool::new(false), AtomicUsize::new(0));

    thread::scope(|scope| {
        let connects = scope.spawn(|| {
            while !done.load(Relaxed) {
                Client::to(main).ping();
                short.fetch_add(1, Relaxed);
            }
        });
        let pings = scope.spawn(|| {
            while !done.load(Relaxed) {
                steady.iter_mut().for_each(Client::ping);
                flow.send(b"ping").expect("the client sends");
                assert_eq!(flow.recv(&mut [0; 10]).expect("the answer comes"), 4);
            }
        });
        // On a busy machine more of them, until the load was one; and the last one brings the first plan back.
        let enough = |reloads| reloads >= 200 && reloads % 2 == 0 && short.load(Relaxed) > 200;
        let mut reloads = 0;
        while !enough(reloads) && !connects.is_finished() && !pings.is_finished() {
            reloads += 1;
            portway.reload_with(&plans[reloads % 2]);
        }
        done.store(true, Relaxed);
    });

    steady.iter_mut().for_each(Client::ping);
    let sources: Vec<SocketAddr> = udp.got().into_iter().map(|(from, _)| from).collect();
    assert!(sources.iter().all(|from| *from == sources[0]), "the flow moved");
    drop(steady);
    // The flow still holds its one descriptor.
    portway.wait_fds(base + 1);
    portway.signal(Signal::TERM);
    let exit = portway.stop().with(0);
    // A mapping has a budget of lines. A fast client on a busy machine goes beyond it.
    let tcp = |line: &&&Line| line.text("protocol") == "tcp";
    let (ended, summed) = (exit.sessions_ended(), exit.lines(messages::SESSION_LINES_LEFT_OUT));
    assert_eq!(ended.iter().filter(tcp).count() + sum(&summed, "count"), 20 + short.load(Relaxed));
}

#[test]
fn a_bad_file_is_refused_whole_and_the_next_good_one_is_taken() {
    let target = TcpTarget::echo();
    let (old, new) = (own_addr(8080), own_addr(8081));
    let good = mapping(old, target.addr, "");
    let mut portway = Portway::with(&good).start();
    let mut client = Client::to(old);
    client.ping();

    let bad = mapping(new, target.addr, "") + "[[mapping]]\npublish = \"8080:\"\nidle_timout = \"1s\"\n";
    let refused = portway.refused_reload_with(&bad);
    assert!(!refused.text("error").is_empty(), "{}", refused.raw());
    portway.refused_reload_with("this is not TOML [");
    assert!(Client::try_to(new).is_err(), "half of a refused file is live");
    client.ping();
    Client::to(old).ping();

    portway.reload_with(&(good + &mapping(new, target.addr, "")));
    Client::to(new).ping();
    client.ping();
}

#[test]
fn a_reload_that_cannot_bind_changes_nothing() {
    let target = TcpTarget::echo();
    let (old, free, taken) = (own_addr(8080), own_addr(8081), own_addr(8082));
    let holder = std::net::TcpListener::bind(taken).expect("an address of its own");
    let mut portway = Portway::with(&mapping(old, target.addr, "")).start();
    let base = portway.fds();
    let wanted = mapping(free, target.addr, "") + &mapping(taken, target.addr, "");
    let refused = portway.refused_reload_with(&wanted);
    assert!(refused.text("error").contains(&taken.to_string()), "{}", refused.raw());
    assert!(refused.text("error").contains(&std::process::id().to_string()), "{}", refused.raw());
    Client::to(old).ping();
    assert!(Client::try_to(free).is_err(), "half of a refused plan is live");
    portway.wait_fds(base);

    drop(holder);
    portway.reload_with(&wanted);
    Client::to(free).ping();
    Client::to(taken).ping();
    assert!(Client::try_to(old).is_err(), "a removed mapping still listens");
}

#[test]
fn sessions_of_a_removed_mapping_get_the_grace_and_then_end() {
    let target = TcpTarget::echo();
    let (kept, removed) = (own_addr(8080), own_addr(8081));
    let grace = "[shutdown]\ngrace = \"2s\"\n";
    let both = mapping(kept, target.addr, "") + &mapping(removed, target.addr, "");
    let mut portway = Portway::with(&(both + grace)).start();
    let (mut stays, mut goes) = (Client::to(kept), Client::to(removed));
    stays.ping();
    goes.ping();

    portway.reload_with(&(mapping(kept, target.addr, "") + grace));
    assert!(Client::try_to(removed).is_err(), "a removed mapping still listens");
    goes.ping();
    goes.until_closed();
    let line = portway.wait_session();
    assert_eq!((line.text("mapping"), line.text("reason")), ("8081/tcp", "reload"));
    stays.ping();
}

#[test]
fn sessions_of_a_changed_mapping_go_on() {
    let (one, two) = (TcpTarget::echo(), TcpTarget::echo());
    let at = own_addr(8080);
    let mut portway = Portway::with(&mapping(at, one.addr, "")).start();
    let mut before = Client::to(at);
    before.ping();

    let applied = portway.reload_with(&mapping(at, two.addr, "name = \"renamed\"\nidle_timeout = \"5m\""));
    assert_eq!((applied.number("opened"), applied.number("closed"), applied.number("retuned")), (0, 0, 1));
    before.ping();
    Client::to(at).ping();
    eventually("a new session goes to the new target", || (two.accepted() == 1).then_some(()));
    assert_eq!(one.accepted(), 1);
}

#[test]
fn a_disabled_mapping_is_closed_and_an_enabled_one_opened() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let other = mapping(own_addr(8081), target.addr, "");
    let mut portway = Portway::with(&(mapping(at, target.addr, "enabled = false") + &other)).start();
    assert!(Client::try_to(at).is_err(), "a disabled mapping listens");
    let applied = portway.reload_with(&(mapping(at, target.addr, "enabled = true") + &other));
    assert_eq!(applied.number("opened"), 1);
    Client::to(at).ping();
    let applied = portway.reload_with(&(mapping(at, target.addr, "enabled = false") + &other));
    assert_eq!(applied.number("closed"), 1);
    assert!(Client::try_to(at).is_err(), "a disabled mapping listens");
}

#[test]
fn a_listener_may_grow_to_every_address_and_shrink_again() {
    let target = TcpTarget::echo();
    let port = crate::harness::free_port();
    let narrow = SocketAddr::from(([127, 0, 0, 1], port));
    let beside = SocketAddr::from(([127, 0, 0, 2], port));
    let wide = format!("publish = [\"{port}:{}\"]\n", target.addr);
    let mut portway = Portway::with(&mapping(narrow, target.addr, "")).start();
    let mut client = Client::to(narrow);
    client.ping();
    portway.reload_with(&wide);
    Client::to(beside).ping();
    Client::to(narrow).ping();
    client.ping();
    portway.reload_with(&mapping(narrow, target.addr, ""));
    Client::to(narrow).ping();
    assert!(Client::try_to(beside).is_err(), "it still listens on every address");
    client.ping();
}

#[test]
fn the_same_file_again_changes_nothing() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let config = mapping(at, target.addr, "");
    let mut portway = Portway::with(&config).start();
    let applied = portway.reload_with(&config);
    for count in ["opened", "closed", "retuned", "replaced"] {
        assert_eq!(applied.number(count), 0, "{count}");
    }
}

#[test]
fn specs_of_the_command_line_survive_a_reload() {
    let target = TcpTarget::echo();
    let (by_flag, by_file) = (own_addr(8080), own_addr(8081));
    let spec = format!("{by_flag}:{}", target.addr);
    let mut portway = Portway::with("").args(["-p", &spec]).start();
    portway.reload_with(&mapping(by_file, target.addr, ""));
    Client::to(by_flag).ping();
    Client::to(by_file).ping();
}

/// A daemon that watches its file, which holds nothing but one mapping.
fn watcher(target: SocketAddr) -> (Portway, String) {
    let first = mapping(own_addr(8080), target, "");
    (Portway::with(&first).args(["--watch"]).start(), first)
}

#[test]
fn a_watched_file_saved_by_rename_is_taken() {
    let target = TcpTarget::echo();
    let (portway, first) = watcher(target.addr);
    for _ in 0..3 {
        let at = own_addr(8081);
        let new = portway.dir().join(".portway.toml.swp");
        fs::write(&new, first.clone() + &mapping(at, target.addr, "")).expect("the test's own directory");
        fs::rename(&new, portway.config()).expect("the test's own directory");
        eventually("the new file is live", || echoes(at).then_some(()));
    }
}

#[test]
fn a_watched_file_written_in_place_is_taken() {
    let target = TcpTarget::echo();
    let (mut portway, first) = watcher(target.addr);
    let mut client = Client::to(first.split('"').nth(1).and_then(listen_of).expect("a spec"));
    for _ in 0..3 {
        let at = own_addr(8081);
        // Opened, cut to nothing, and written: what most editors do.
        fs::write(portway.config(), first.clone() + &mapping(at, target.addr, ""))
            .expect("its own directory");
        eventually("the new file is live", || echoes(at).then_some(()));
    }
    client.ping();
    assert!(portway.runs());
}

/// The listen address of a full spec, `IP:PORT:IP:PORT`.
fn listen_of(spec: &str) -> Option<SocketAddr> {
    let mut parts = spec.split(':');
    format!("{}:{}", parts.next()?, parts.next()?).parse().ok()
}

#[test]
fn a_watched_file_behind_a_swapped_link_is_taken() {
    let target = TcpTarget::echo();
    let dir = tempfile::tempdir().expect("a temporary directory");
    // As in a volume of Kubernetes: portway.toml -> ..data/portway.toml, ..data -> ..version
    let version = |name: &str, at: SocketAddr| {
        let folder = dir.path().join(name);
        fs::create_dir(&folder).expect("the test's own directory");
        let log = "[log]\nformat = \"json\"\n";
        fs::write(folder.join("portway.toml"), mapping(at, target.addr, "") + log)
            .expect("its own directory");
        symlink(name, dir.path().join("..new")).expect("the test's own directory");
        fs::rename(dir.path().join("..new"), dir.path().join("..data")).expect("the test's own directory");
    };
    let at = [own_addr(8080), own_addr(8080), own_addr(8080)];
    version("..v1", at[0]);
    let config = dir.path().join("portway.toml");
    symlink("..data/portway.toml", &config).expect("the test's own directory");
    let path = config.to_str().expect("a readable path");
    let _portway = Portway::bare().args(["run", "-c", path, "--watch"]).start();
    Client::to(at[0]).ping();
    for (name, old, new) in [("..v2", at[0], at[1]), ("..v3", at[1], at[2])] {
        version(name, new);
        eventually("the new file is live", || echoes(new).then_some(()));
        eventually("the old one is not", || Client::try_to(old).is_err().then_some(()));
    }
}

#[test]
fn without_watch_a_new_file_waits_for_the_signal() {
    let target = TcpTarget::echo();
    let (first, second) = (own_addr(8080), own_addr(8081));
    let mut portway = Portway::with(&mapping(first, target.addr, "")).start();
    let log = "[log]\nformat = \"json\"\n";
    let text = mapping(first, target.addr, "") + &mapping(second, target.addr, "") + log;
    fs::write(portway.config(), text).expect("the test's own directory");
    crate::harness::pass(Duration::from_secs(2));
    assert!(Client::try_to(second).is_err(), "a reload happened without a request");
    portway.signal(Signal::HUP);
    portway.wait_log(messages::RELOAD_APPLIED, |line| line.number("opened") == 1);
    Client::to(second).ping();
}

#[test]
fn the_lines_of_a_reload_name_what_opened_closed_and_changed_and_where_it_leads() {
    let target = TcpTarget::echo();
    let at = [(); 14].map(|()| own_addr(8080));
    let named = |n: usize, more: &str| mapping(at[n], target.addr, &format!("name = \"m{n:02}\"\n{more}"));
    let mut portway = Portway::with(&(named(0, "") + &named(1, "") + &named(2, ""))).start();
    let line = portway.wait_log(messages::LISTENING, |line| line.text("mapping") == "m01");
    assert_eq!(line.text("targets"), target.addr.to_string());

    let changed = named(1, "idle_timeout = \"1h\"\n") + &named(2, "") + &named(3, "");
    let line = portway.reload_with(&changed);
    let names = ["opened", "closed", "changed"].map(|what| format!("{what}.names"));
    assert_eq!(names.each_ref().map(|name| line.text(name)), ["m03", "m00", "m01"], "{}", line.raw());

    let many: String = (2..14).map(|n| named(n, "")).collect();
    let line = portway.reload_with(&many);
    assert_eq!(line.text("closed.names"), "m01");
    let line = portway.reload_with(&named(2, ""));
    let first = (3..13).map(|n| format!("m{n:02}")).collect::<Vec<_>>().join(", ");
    assert_eq!(line.text("closed.names"), format!("{first} and 1 more"), "{}", line.raw());
}
