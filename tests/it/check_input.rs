//! What `check` reads: a file, standard input, and a copy of a file that stands elsewhere.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use crate::harness::{Ran, portway};

/// `portway check` with `text` on its standard input.
fn check(directory: &Path, args: &[&str], text: &str) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portway"));
    command.current_dir(directory).arg("check").args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut input = child.stdin.take().expect("it is piped");
    // A program that refuses its arguments reads nothing.
    let _ = input.write_all(text.as_bytes());
    drop(input);
    let output = child.wait_with_output().expect("its own child");
    Ran {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A directory as /etc/portway would be: an include, a list and a list of the included file.
fn installed() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, text: &str| {
        fs::create_dir_all(dir.path().join("conf.d")).expect("the test's own directory");
        fs::write(dir.path().join(name), text).expect("the test's own directory");
    };
    write("conf.d/web.toml", "publish = [\"8082:192.0.2.10:80\"]\n[lists]\nnear = { file = \"near.txt\" }\n");
    write("conf.d/near.txt", "192.0.2.0/28\n192.0.2.64/28\n");
    write("office.txt", "203.0.113.0/24\n");
    dir
}

const MAIN: &str = "include = [\"conf.d/*.toml\"]\n[[mapping]]\npublish = \"8080:192.0.2.7:80\"\nallow = \"@office\"\n\
                    [lists]\noffice = { file = \"office.txt\" }\n";

#[test]
fn check_reads_standard_input() {
    let dir = installed();
    let ran = check(dir.path(), &["-c", "-"], MAIN).exits(0).never_says("warning");
    ran.says("192.0.2.7:80")
        .says("192.0.2.10:80")
        .says("list @office: 1 entry")
        .says("list @near: 2 entries");
    let bad = check(dir.path(), &["-c", "-"], "publish = [\"8080:80\"]\nfoo = 1\n").exits(78);
    bad.says("standard input:2:1: unknown key `foo`");
    check(dir.path(), &["--json", "-c", "-"], "foo = 1\n").exits(78).says("\"file\": \"standard input\"");
    check(dir.path(), &["-c", "-"], "").exits(0).says("nothing is forwarded");
}

#[test]
fn standard_input_may_be_a_file_or_a_pipe_in_pieces() {
    let dir = installed();
    let program = env!("CARGO_BIN_EXE_portway");
    fs::write(dir.path().join("main.toml"), MAIN).expect("the test's own directory");
    for line in [
        format!("{program} check -c - <main.toml"),
        format!("(head -c 9 main.toml; sleep 0.1; tail -c +10 main.toml) | {program} check --config -"),
        format!("PORTWAY_CONFIG=- {program} check <main.toml"),
    ] {
        let mut command = Command::new("bash");
        Ran::of(command.args(["-c", &line]).current_dir(dir.path())).exits(0).says("192.0.2.10:80");
    }
    let endless = format!("{program} check -c - </dev/zero");
    Ran::of(Command::new("bash").args(["-c", &endless])).exits(78).says("more than 4 MiB");
}

#[test]
fn a_copy_is_checked_as_if_it_stood_in_the_base_directory() {
    let dir = installed();
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let copy = elsewhere.path().join("ansible-copy");
    fs::write(&copy, MAIN).expect("the test's own directory");
    let (copy, base) = (copy.to_str().expect("readable"), dir.path().to_str().expect("readable"));
    // Without it, the list is looked for beside the copy.
    portway(["check", "-c", copy]).exits(78).says("office.txt cannot be read");
    let ran = portway(["check", "-c", copy, "--base-dir", base]).exits(0).never_says("warning");
    ran.says("192.0.2.10:80").says("list @office: 1 entry").says("list @near: 2 entries");
    let stdin = check(elsewhere.path(), &["-c", "-", "--base-dir", base], MAIN).exits(0);
    stdin.says("192.0.2.10:80").says(&format!("{base}/office.txt"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_portway"));
    command.args(["check", "-c", copy]).env("PORTWAY_BASE_DIR", base);
    Ran::of(&mut command).exits(0).says("192.0.2.10:80");
    portway(["run", "-c", copy, "--base-dir", base]).exits(2);
}

#[test]
fn the_daemon_does_not_take_standard_input_for_a_file() {
    portway(["run", "-c", "-"]).exits(2).says("/dev/stdin");
    portway(["-c", "-"]).exits(2).says("/dev/stdin");
}
