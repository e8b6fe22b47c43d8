//! `portway import`: what other tools have becomes a file that `check` takes, and what is lost is said.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::harness::{Ran, portway};

/// A directory with one file.
fn written(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join(name);
    fs::write(&path, text).expect("the test's own directory");
    let path = path.display().to_string();
    (dir, path)
}

const RINETD: &str = "0.0.0.0 8080 10.0.0.3 80\nsomething else\n";

#[test]
fn what_it_prints_is_a_good_configuration_and_what_is_lost_is_on_standard_error() {
    let (dir, file) = written("rinetd.conf", RINETD);
    let ran = portway(["import", &file]).exits(0);
    assert!(ran.out.contains("publish = \"0.0.0.0:8080:10.0.0.3:80\""), "{ran}");
    assert!(
        ran.out.contains(&format!("# not carried over: {file}:2: something else: not understood")),
        "{ran}"
    );
    assert_eq!(ran.err.trim(), format!("{file}:2: something else: not understood"));
    let made = dir.path().join("portway.toml");
    fs::write(&made, &ran.out).expect("the test's own directory");
    portway([Path::new("check"), Path::new("-c"), &made]).exits(0).says("8080");
}

#[test]
fn a_file_is_written_and_never_overwritten() {
    let (dir, file) = written("rinetd.conf", RINETD);
    let made = dir.path().join("made.toml").display().to_string();
    portway(["import", &file, "-o", &made]).exits(0).says("portway check -c");
    let first = fs::read_to_string(&made).expect("it was written");
    portway(["import", &file, "-o", &made]).exits(1).says("never overwritten");
    assert_eq!(fs::read_to_string(&made).expect("it is there"), first);
    portway(["check", "-c", &made]).exits(0);
}

#[test]
fn nothing_imported_exits_1_and_says_why() {
    let (_dir, file) = written("notes.txt", "nothing of any tool\n");
    portway(["import", &file]).exits(1).says("--from");
    portway(["import", &file, "--from", "haproxy"]).exits(1).says("nothing was imported");
    portway(["import", "/no/such/file"]).exits(1).says("/no/such/file");
    portway(["import"]).exits(2);
    portway(["import", &file, "--from", "cisco"]).exits(2).says("rinetd");
}

#[test]
fn standard_input_is_a_file_and_a_large_one_is_refused() {
    let (_dir, file) =
        written("rules", "-A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 10.0.0.5\n");
    let import =
        |from: Stdio| Ran::of(Command::new(env!("CARGO_BIN_EXE_portway")).args(["import", "-"]).stdin(from));
    let open = |path: &str| Stdio::from(fs::File::open(path).expect("a file"));
    import(open(&file)).exits(0).says("80:10.0.0.5:80").says("-:1: ".trim_end_matches(": "));
    import(open("/dev/zero")).exits(1).says("4 MiB");
}

#[test]
fn variables_stand_in_for_flags_and_a_wrong_one_is_named() {
    let (dir, file) = written("rules", "-A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 10.0.0.5\n");
    let made = dir.path().join("made.toml");
    let import = |from: &str, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portway"));
        command.args(["import", &file]).args(args);
        Ran::of(command.env("PORTWAY_IMPORT_FROM", from).env("PORTWAY_IMPORT_OUTPUT", &made))
    };
    import("cisco", &[]).exits(2).says("PORTWAY_IMPORT_FROM").says("rinetd");
    import("iptables", &[]).exits(0).says("is written");
    assert!(fs::read_to_string(&made).expect("it was written").contains("80:10.0.0.5:80"));
    import("iptables", &[]).exits(1).says("never overwritten");
    fs::remove_file(&made).expect("the test's own file");
    // A flag goes before its variable, and an empty one counts as unset.
    import("haproxy", &["--from", "iptables"]).exits(0);
    fs::remove_file(&made).expect("the test's own file");
    import("", &[]).exits(0);
}

#[test]
fn a_script_and_units_are_read_with_their_variables_and_the_cause_of_a_loss_is_said() {
    let script = "#!/bin/sh\nPORT=8080\nnohup socat TCP-LISTEN:$PORT,fork TCP:10.0.0.5:80 >/dev/null 2>&1 &\n\
                  socat TCP-LISTEN:$1,fork TCP:10.0.0.5:81\n";
    let (_dir, file) = written("forward.sh", script);
    let ran = portway(["import", &file]).exits(0);
    assert!(ran.out.contains("publish = \"8080:10.0.0.5:80\""), "{ran}");
    assert!(ran.err.contains(&format!("{file}:4: ")) && ran.err.contains("it has a variable"), "{ran}");
    let (_dir, unit) =
        written("tunnel.service", "[Service]\nExecStart=/usr/bin/ssh -NL 8340:localhost:8341 me@gate\n");
    let ran = portway(["import", &unit]).exits(0);
    assert!(ran.out.contains("name = \"tunnel\"\npublish = \"127.0.0.1:8340:gate:8341\""), "{ran}");
}
