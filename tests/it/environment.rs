//! What portway finds around it and did not ask for: variables that are meant for other programs, arguments that are
//! not text, a disk that is full. Nothing of that ends in a panic.

use std::{
    ffi::OsStr,
    fs::File,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    process::{Command, Stdio},
};

use crate::harness::{Client, Portway, Ran, TcpTarget, mapping, own_addr};

const PROGRAM: &str = env!("CARGO_BIN_EXE_portway");

#[test]
fn variables_of_other_programs_change_nothing() {
    let target = TcpTarget::echo();
    for (name, value) in [
        ("TOKIO_WORKER_THREADS", "0"),
        ("TOKIO_WORKER_THREADS", "auto"),
        ("TOKIO_WORKER_THREADS", ""),
        ("TOKIO_WORKER_THREADS", "64"),
        ("RUST_MIN_STACK", "1"),
        ("RUST_MIN_STACK", "many"),
        ("RUST_MIN_STACK", "9999999999999999"),
        ("RUST_LOG", "portway=[{"),
        ("RUST_BACKTRACE", "full"),
        ("NO_COLOR", "\u{1}"),
        ("COLUMNS", "0"),
        ("MALLOC_CONF", "narenas:0,junk"),
        ("HOME", "not/absolute"),
        ("STATE_DIRECTORY", ":"),
        ("JOURNAL_STREAM", "1:"),
        ("TZ", ":/dev/null/x"),
        ("LANG", "xx_YY.nothing"),
    ] {
        let at = own_addr(8080);
        let mut portway = Portway::with(&mapping(at, target.addr, "")).env(name, value).start();
        Client::to(at).ping();
        let threads = std::fs::read_dir(format!("/proc/{}/task", portway.pid())).expect("it runs").count();
        assert!(threads < 32, "{threads} threads with {name}={value}");
        assert!(portway.runs());
        let exit = portway.stop().with(0);
        assert!(!exit.log.contains("panicked"), "{name}={value}: {}", exit.log);
    }
}

#[test]
fn no_argument_ends_in_a_panic() {
    let odd: [&[u8]; 9] = [
        b"\xff",
        b"",
        b"-",
        b"--",
        b"\xf0\x9f\x92\xa9",
        b"--config=\xff\xfe",
        b"-p\xff:80",
        b"8080:80\n\x1b[31m",
        b"--=",
    ];
    let commands: [&[&str]; 6] =
        [&[], &["check"], &["check", "-p"], &["check", "-c"], &["check", "--json", "-p"], &["nonsense"]];
    for before in commands {
        for argument in odd {
            let ran = Ran::of(
                Command::new(PROGRAM)
                    .args(before)
                    .arg(OsStr::from_bytes(argument))
                    .env("PORTWAY_CONFIG", "/nowhere/portway.toml")
                    .env_remove("PORTWAY_PUBLISH"),
            );
            let ran = ran.never_says("panicked");
            assert!(matches!(ran.code, Some(0 | 1 | 2 | 78)), "{before:?} {argument:?}: {ran}");
        }
    }
}

#[test]
fn a_variable_that_is_not_text_never_ends_in_a_panic() {
    for name in [
        "PORTWAY_CONFIG",
        "PORTWAY_PUBLISH",
        "PORTWAY_ROUTER",
        "PORTWAY_STRICT",
        "PORTWAY_JSON",
        "PORTWAY_WATCH",
        "PORTWAY_UNKNOWN",
        "PORTWAY_\u{e9}",
        "HOME",
        "COLUMNS",
    ] {
        for value in [&b"\xff\xfe"[..], b"a\nb\x1b[2J", b"\xc3"] {
            let mut command = Command::new(PROGRAM);
            command.args(["check", "-p", "8080:127.0.0.1:80"]).env(name, OsStr::from_bytes(value));
            let ran = Ran::of(&mut command).never_says("panicked");
            assert!(matches!(ran.code, Some(0 | 1 | 2 | 78)), "{name}={value:?}: {ran}");
        }
    }
}

#[test]
fn a_program_without_a_name_still_runs() {
    let ran = Ran::of(Command::new(PROGRAM).arg0("").arg("--version")).never_says("panicked");
    ran.exits(0).says("portway");
}

/// The commands that print something.
const PRINTING: [&[&str]; 6] = [
    &["check", "-p", "8080:127.0.0.1:80"],
    &["check", "--json", "-p", "8080:127.0.0.1:80"],
    &["--help"],
    &["--version"],
    &["check", "--help"],
    &["help"],
];

#[test]
fn a_full_disk_is_a_failure_of_every_command_that_prints() {
    for args in PRINTING.into_iter().chain([&["demo"][..]]) {
        let full = File::options().write(true).open("/dev/full").expect("every Linux has it");
        let ran = Ran::of(Command::new(PROGRAM).args(args).stdout(full).stdin(Stdio::null()));
        assert_eq!(ran.code, Some(1), "{args:?}: {ran}");
        ran.says("standard output").never_says("panicked");
    }
}

#[test]
fn a_reader_that_has_gone_is_not_a_failure() {
    for args in PRINTING {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let ran = Ran::of(Command::new(PROGRAM).args(args).stdout(OwnedFd::from(writer)));
        ran.exits(0).never_says("panicked");
    }
}
