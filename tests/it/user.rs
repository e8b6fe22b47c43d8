//! The user that root gives itself up for: `[daemon] user` and `--user`.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use crate::{
    handover::hand_over,
    harness::{Client, Portway, TcpTarget, as_root, in_own_network, mapping},
};

/// A user of this test alone, without an entry in the database.
const USER: u32 = 54_321;
const BIND_LOW_PORTS: u64 = 1 << 10;
const ADMINISTER_NETWORKS: u64 = 1 << 12;

fn assert_has_only(portway: &Portway, rights: u64) {
    for name in ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"] {
        for text in portway.of_threads(name) {
            assert_eq!(u64::from_str_radix(&text, 16), Ok(rights), "{name}");
        }
    }
    for (name, value) in [("NoNewPrivs", "1"), ("Uid", "54321\t54321\t54321\t54321"), ("Groups", "54321")] {
        let all = portway.of_threads(name);
        assert!(all.len() > 1 && all.iter().all(|is| is == value), "{name}: {all:?}");
    }
}

#[test]
fn root_keeps_the_right_to_open_low_ports_and_no_other_on_every_thread_also_for_a_reload() {
    in_own_network(&[], || {
        let target = TcpTarget::echo();
        let low = |port: u16| mapping(([127, 0, 0, 1], port).into(), target.addr, "");
        let mut portway = Portway::with(&low(80)).going_on_as(USER).start();
        assert_has_only(&portway, BIND_LOW_PORTS);
        portway.wait_log("no more rights than these", |line| line.text("rights") == "CAP_NET_BIND_SERVICE");
        Client::to(([127, 0, 0, 1], 80).into()).ping();
        portway.reload_with(&format!("{}{}", low(80), low(443)));
        Client::to(([127, 0, 0, 1], 443).into()).ping();
        assert_has_only(&portway, BIND_LOW_PORTS);
        portway.stop().with(0);
    });
}

#[test]
fn a_new_program_is_that_user_with_that_right_and_no_session_ends() {
    in_own_network(&[], || {
        let target = TcpTarget::echo();
        let low = |port: u16| mapping(([127, 0, 0, 1], port).into(), target.addr, "");
        let mut portway = Portway::with(&low(80)).installed().going_on_as(USER).start();
        let mut client = Client::to(([127, 0, 0, 1], 80).into());
        client.ping();
        for _ in 0..2 {
            hand_over(&mut portway);
            assert_has_only(&portway, BIND_LOW_PORTS);
            client.ping();
        }
        portway.reload_with(&format!("{}{}", low(80), low(443)));
        Client::to(([127, 0, 0, 1], 443).into()).ping();
    });
}

#[test]
fn a_transparent_mapping_keeps_the_right_that_it_needs_and_a_later_one_says_why_it_has_none() {
    in_own_network(&[], || {
        let target = TcpTarget::echo();
        let plain = mapping(([127, 0, 0, 1], 80).into(), target.addr, "");
        let with = format!("{plain}transparent = true\n");
        let portway = Portway::with(&with).going_on_as(USER).start();
        assert_has_only(&portway, BIND_LOW_PORTS | ADMINISTER_NETWORKS);
        portway.stop().with(0);
        let mut portway = Portway::with(&plain).going_on_as(USER).start();
        let refused = portway.refused_reload_with(&with);
        assert!(refused.raw().contains("restart portway"), "{}", refused.raw());
        portway.stop().with(0);
    });
}

#[test]
fn the_file_names_the_user_and_a_reload_says_that_another_one_needs_a_restart() {
    in_own_network(&[], || {
        let target = TcpTarget::echo();
        let config = |user: u32| {
            let mapping = mapping(([127, 0, 0, 1], 80).into(), target.addr, "");
            format!("{mapping}[daemon]\nuser = \"{user}:{user}\"\n")
        };
        let mut portway = Portway::with(&config(USER)).for_user(USER).start();
        assert_has_only(&portway, BIND_LOW_PORTS);
        portway.reload_with(&config(USER + 1));
        portway.wait_text("takes effect when portway starts again");
        assert_has_only(&portway, BIND_LOW_PORTS);
    });
}

#[test]
fn what_the_user_needs_is_made_for_it_and_what_belongs_to_others_is_left_alone() {
    as_root(&[], || {
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("the test's own");
        let [run, state, log] =
            ["run/portway", "lib/portway", "log/portway.log"].map(|name| dir.path().join(name));
        for above in ["lib/portway", "log"] {
            fs::create_dir_all(dir.path().join(above)).expect("the test's own");
        }
        let [old, foreign, linked] = ["bans.json", "foreign", "linked"].map(|name| state.join(name));
        fs::write(&old, "{\"version\": 1, \"bans\": []}").expect("the test's own");
        fs::write(&foreign, "").expect("the test's own");
        std::os::unix::fs::chown(&foreign, Some(7), Some(7)).expect("the test's own");
        let secret = dir.path().join("secret");
        fs::write(&secret, "").expect("the test's own");
        std::os::unix::fs::symlink(&secret, state.join("link")).expect("the test's own");
        fs::hard_link(&secret, &linked).expect("the test's own");
        let config = format!("[log]\ntarget = \"file:{}\"\n", log.display());
        let mut portway = Portway::with(&config)
            .going_on_as(USER)
            .env("RUNTIME_DIRECTORY", run.to_str().expect("a path"))
            .env("STATE_DIRECTORY", state.to_str().expect("a path"))
            .launch();
        crate::harness::eventually("the log has the start", || {
            fs::read_to_string(&log).ok().filter(|log| log.contains("ready"))
        });
        let owner = |path: &Path| fs::symlink_metadata(path).expect("it is there").uid();
        for own in [&run, &state, &old, &log, &run.join("portway.sock")] {
            assert_eq!(owner(own), USER, "{}", own.display());
        }
        assert_eq!((owner(&foreign), owner(&secret), owner(&dir.path().join("log"))), (7, 0, 0));
        assert_eq!(fs::metadata(&run).expect("it is there").mode() & 0o777, 0o750);
        assert!(portway.runs());
        portway.stop().with(0);
    });
}

#[test]
fn a_user_that_cannot_be_had_is_told_with_the_cure_before_anything_opens() {
    as_root(&["setpriv"], || {
        let config = "publish = [\"127.0.0.1:1:2\"]\n";
        let unknown = Portway::with(config).args(["--user", "no-such-user"]).launch();
        unknown.exit().with(78).says("no user \"no-such-user\"").says("useradd");
        Portway::with(config).args(["--user", "0:no-such-group"]).launch().exit().with(78).says("groupadd");
        Portway::with("[daemon]\nuser = \"a b\"\n").launch().exit().with(78).says("names no user");
        Portway::with(config).args(["--user", "a:b:c"]).launch().exit().with(2).says("names no user");
        // Not root: only itself.
        Portway::with(config).user(USER).args(["--user", "root"]).launch().exit().with(1).says("only root");
        Portway::with("").user(USER).args(["--user", "54321"]).start().stop().with(0);
        // A container without the right to become another user.
        let no_right = ["setpriv", "--bounding-set=-setuid", "--inh-caps=-setuid", "--"];
        let refused = Portway::with(config).going_on_as(USER).through(no_right).launch();
        refused.exit().with(1).says("start it as that user");
    });
}

#[test]
fn a_file_that_the_user_cannot_read_fails_the_start_and_not_the_next_reload() {
    as_root(&[], || {
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("the test's own");
        let file = dir.path().join("portway.toml");
        fs::write(&file, format!("[daemon]\nuser = \"{USER}\"\n")).expect("the test's own");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("the test's own");
        let file = file.to_str().expect("a path");
        let portway = Portway::bare().args(["run", "-c", file]).for_user(USER).launch();
        portway.exit().with(78).says("may not read").says(file).says("chgrp 54321");
    });
}

#[test]
fn a_variable_names_the_user_too() {
    as_root(&[], || {
        let portway = Portway::with("").for_user(USER).env("PORTWAY_USER", "54321").start();
        assert_has_only(&portway, BIND_LOW_PORTS);
        let wrong = Portway::with("").env("PORTWAY_USER", "a b").launch();
        wrong.exit().with(2).says("PORTWAY_USER");
    });
}
