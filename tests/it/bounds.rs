//! What a configuration may ask for is bounded: a small file takes neither the memory nor the time of the machine.
//!
//! The address space is limited in the tests, so that a fault takes the program and not the machine.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::harness::Ran;

/// What a look at any small file has to get by with, in bytes of address space. Threads and libraries take part of it.
const ROOM: u64 = 600 << 20;

/// `check` of a file in little room.
fn check(dir: &Path, text: &str, variables: &[(&str, &str)]) -> Ran {
    let path = dir.join("portway.toml");
    fs::write(&path, text).expect("the test's own directory");
    let mut command = Command::new("prlimit");
    command.arg(format!("--as={ROOM}")).arg(env!("CARGO_BIN_EXE_portway"));
    command.args(["check", "-c"]).arg(path).envs(variables.iter().copied()).stdin(Stdio::null());
    Ran::of(&mut command)
}

fn many(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(", ")
}

fn target(i: usize) -> String {
    format!("\"10.0.{}.{}:1\"", i / 250, i % 250 + 1)
}

#[test]
fn targets_times_listeners_are_bounded_at_their_place() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let targets = many(1000, target);
    let ranges = [("1-65535", targets.clone()), ("1-65535", targets.replace(":1\"", ":1-65535\""))];
    for (listen, targets) in ranges {
        let text =
            format!("[[mapping]]\nlisten = [\"{listen}\"]\nprotocol = \"tcp+udp\"\ntargets = [{targets}]\n");
        let ran = check(dir.path(), &text, &[])
            .exits(78)
            .says("more than 1048576 targets of all listeners together");
        assert!(ran.err.contains("portway.toml:2:12: "), "{ran}");
        assert!(ran.err.len() < 2000, "{ran}");
    }
    let listeners = many(3000, |i| format!("\"127.0.{}.{}:1\"", i / 250, i % 250 + 1));
    let text = format!("[[mapping]]\nlisten = [{listeners}]\ntargets = [{}]\n", many(3000, target));
    check(dir.path(), &text, &[]).exits(78).says("targets of all listeners together");
}

#[test]
fn ports_that_lead_to_the_same_targets_share_them() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let text = format!("[[mapping]]\nlisten = [\"2000-2999\"]\ntargets = [{}]\n", many(1000, target));
    check(dir.path(), &text, &[]).exits(0).says("1 mapping, 1000 listeners: ok");
}

#[test]
fn variables_are_bounded_at_their_place() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let long = "x".repeat(100_000);
    let text = format!("publish = [\"{}\"]\n", "${BIG}".repeat(50_000));
    let ran = check(dir.path(), &text, &[("BIG", &long)]).exits(78);
    assert!(
        ran.err.contains("portway.toml:1:13: variables make this string longer than 64 KiB"),
        "{}",
        ran.err.len()
    );
    assert!(ran.err.len() < 2000, "{}", ran.err.len());

    let text = format!("publish = [{}]\n", many(500, |_| "\"${BIG}\"".to_owned()));
    check(dir.path(), &text, &[("BIG", &long[..60_000])])
        .exits(78)
        .says("variables make this configuration longer than 4 MiB");
}

#[test]
fn problems_and_their_texts_are_bounded() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let keys: String = (0..60_000).map(|i| format!("x{i}=1\n")).collect();
    for text in [
        keys,
        "= 1\n".repeat(200_000),
        format!("a = {}", "[".repeat(500_000)),
        format!("{} = 1\n", "a".repeat(1_000_000)),
        format!("[[mapping]]\nname = \"{}\"\npublish = \"8080:80\"\n", "a b".repeat(300_000)),
    ] {
        let ran = check(dir.path(), &text, &[]).exits(78);
        assert!(ran.err.len() < 200_000, "{} bytes are said of {:?}...", ran.err.len(), &text[..20]);
    }
}

#[test]
fn mappings_share_the_entries_of_the_defaults() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let allow = many(1000, |i| format!("\"10.{}.{}.1\"", i / 250, i % 250 + 1));
    let mappings: String = (1..=15_000)
        .map(|i| format!("[[mapping]]\npublish = \"{i}:10.0.0.1:1\"\nmax_sessions = {i}\n"))
        .collect();
    let text = format!("[defaults]\nallow = [{allow}]\ndeny = [{allow}]\n{mappings}");
    check(dir.path(), &text, &[]).exits(0).says("15000 mappings");
}

#[test]
fn an_include_that_matches_thousands_of_files_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir(dir.path().join("conf.d")).expect("the test's own directory");
    for i in 0..4100 {
        fs::write(dir.path().join(format!("conf.d/{i}.toml")), "").expect("the test's own directory");
    }
    let ran = check(dir.path(), "include = [\"conf.d/*.toml\"]\n", &[]).exits(78);
    assert!(ran.err.contains("portway.toml:1:13: include conf.d/*.toml: more than 4096 files"), "{ran}");
}
