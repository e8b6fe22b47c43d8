//! What a configuration calls a file reaches neither a terminal nor a log as a command or as a line of its own.

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Portway, Ran, messages, portway};

/// An escape, line ends, a C1 control, what turns the direction of writing, and what has no width.
const ODD: &str = "li\u{1b}[31m\nFORGED\u{9b}2J\r\t\u{7f}\u{85}\u{ad}\u{61c}\u{180e}\u{200b}\u{200e}\u{200f}\u{2028}\
    \u{2029}\u{202a}\u{202e}\u{2060}\u{2066}\u{2069}\u{feff}\u{fff9}\u{e0041}.";
/// The same in a basic string of TOML.
const ODD_TOML: &str = "li\\u001b[31m\\nFORGED\\u009b2J\\r\\t\\u007f\\u0085\\u00ad\\u061c\\u180e\\u200b\\u200e\\u200f\\u2028\
    \\u2029\\u202a\\u202e\\u2060\\u2066\\u2069\\ufeff\\ufff9\\U000e0041.";

/// Fails if a text holds what a terminal obeys, or a line that starts as a forged one.
#[track_caller]
fn is_plain(text: &str) {
    let is_odd = |c: char| c != '\n' && (c.is_control() || !c.is_ascii() && ODD.contains(c));
    let odd: Vec<char> = text.chars().filter(|c| is_odd(*c)).collect();
    assert!(odd.is_empty(), "{odd:?} in {text:?}");
    assert!(!text.lines().any(|line| line.starts_with("FORGED")), "a forged line in {text:?}");
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).expect("the test's own directory");
        path
    }

    fn check(&self, text: &str, json: bool) -> Ran {
        let path = self.write("portway.toml", text);
        let more: &[&str] = if json { &["--json"] } else { &[] };
        portway([Path::new("check"), Path::new("-c"), &path].into_iter().chain(more.iter().map(Path::new)))
    }
}

#[test]
fn check_shows_names_of_files_escaped() {
    let files = Files::new();
    files.write(&format!("{ODD}.txt"), "10.0.0.1\n");
    let state = files.0.path().join("bans").display().to_string();
    let sound = format!(
        "publish = [\"7100:10.0.0.1:1\"]\n[defaults]\ndeny = [\"@b\"]\n[lists]\nb = {{ file = \"{ODD_TOML}.txt\" }}\n\
         [guard]\nstate = \"{state}/{ODD_TOML}.json\"\n"
    );
    for json in [false, true] {
        let ran = files.check(&sound, json).exits(0);
        is_plain(&ran.out);
        is_plain(&ran.err);
    }
    let ran = files.check(&sound, true);
    let report: Value = serde_json::from_str(&ran.out).expect("JSON");
    let file = report["lists"][0]["file"].as_str().expect("the file of the list");
    assert!(file.ends_with(&format!("{ODD}.txt")), "JSON says what it is: {file:?}");
}

#[test]
fn check_shows_names_of_files_that_are_not_unicode() {
    let files = Files::new();
    let dir = files.0.path().join(OsStr::from_bytes(b"li\xff\xc3"));
    fs::create_dir(&dir).expect("the test's own directory");
    fs::write(dir.join("list.txt"), "10.0.0.1\n").expect("the test's own directory");
    let config = dir.join("portway.toml");
    let text = "publish = \"7100:10.0.0.1:1\"\n[lists]\nb = { file = \"list.txt\" }\n[guard]\nstate = \"bans.json\"\n";
    fs::write(&config, text).expect("the test's own directory");
    let check = [Path::new("check"), Path::new("-c"), &config];
    portway(check).exits(0).says("li\u{fffd}\u{fffd}/list.txt").says("li\u{fffd}\u{fffd}/bans.json");
    let ran = portway(check.into_iter().chain([Path::new("--json")])).exits(0);
    let report: Value = serde_json::from_str(&ran.out).expect("JSON");
    for path in [&report["lists"][0]["file"], &report["guard"]["state"]] {
        assert!(path.as_str().is_some_and(|path| path.contains("/li\u{fffd}\u{fffd}/")), "{path}");
    }
    fs::write(&config, "publish = 1\n").expect("the test's own directory");
    let ran = portway(check.into_iter().chain([Path::new("--json")])).exits(78);
    let report: Value = serde_json::from_str(&ran.out).expect("JSON");
    let file = report["problems"][0]["file"].as_str();
    assert!(file.is_some_and(|file| file.ends_with("/li\u{fffd}\u{fffd}/portway.toml")), "{file:?}");
}

#[test]
fn problems_show_every_text_escaped() {
    let files = Files::new();
    let other =
        files.write(&format!("{ODD}.toml"), &format!("publish = [\"{ODD_TOML}\"]\nx\u{9b} = \u{1b}1\n"));
    files.write(&format!("{ODD}.txt"), "10.0.0.1\nnonsense\u{1b}[31m\u{202e}\n");
    for text in [
        format!("publish = [\"{ODD_TOML}\"]\n"),
        format!(
            "include = [\"{ODD_TOML}.toml\", \"{ODD_TOML}/x*.toml\", \"{ODD_TOML}-none\", \"[{ODD_TOML}\"]\n"
        ),
        format!(
            "publish = \"8080:80\"\n[lists]\nb = {{ file = \"{ODD_TOML}.txt\" }}\n\"{ODD_TOML}\" = [\"{ODD_TOML}\"]\n"
        ),
        format!(
            "publish = \"8080:80\"\n[lists]\nb = {{ file = \"{ODD_TOML}.gone\" }}\n[geoip]\ndatabase = \"{ODD_TOML}\"\n"
        ),
        format!(
            "\"{ODD_TOML}\" = 1\n[[mapping]]\nname = \"{ODD_TOML}\"\npublish = \"8080:{ODD_TOML}:80\"\nidle_timeout = \"{ODD_TOML}\"\n\
                 allow = [\"@{ODD_TOML}\", \"{ODD_TOML}\"]\nsource = \"{ODD_TOML}\"\nrefuse = \"{ODD_TOML}\"\nnew_sessions = \"{ODD_TOML}\"\n"
        ),
        format!("a = {ODD}\n[[\u{202e}]]\n"),
        "publish = \"${ODD}:80\"\n[log]\nlevel = \"${ODD}\"\n".to_owned(),
    ] {
        for json in [false, true] {
            let path = files.write("portway.toml", &text);
            let mut command = Command::new(env!("CARGO_BIN_EXE_portway"));
            command.arg("check").arg("-c").arg(&path).args(json.then_some("--json")).env("ODD", ODD);
            let ran = Ran::of(&mut command).exits(78);
            is_plain(&ran.out);
            is_plain(&ran.err);
        }
    }
    let ran = portway([Path::new("check"), Path::new("-c"), &other]).exits(78);
    is_plain(&ran.err);
    let ran = portway([Path::new("run"), Path::new("-c"), &other]).exits(78);
    is_plain(&ran.err);
}

#[test]
fn arguments_are_repeated_escaped() {
    for args in [&[ODD][..], &["check", ODD], &["run", &format!("--{ODD}")], &["check", "-p", ODD]] {
        let ran = portway(args);
        assert!(matches!(ran.code, Some(2 | 78)), "{ran}");
        is_plain(&ran.err);
    }
}

#[test]
fn the_log_shows_names_of_files_escaped() {
    for format in ["text", "json"] {
        let files = Files::new();
        let list = format!("{ODD}.txt");
        files.write(&list, "10.0.0.1\n");
        let state = files.0.path().join("gone").display().to_string();
        let text = format!(
            "[defaults]\ndeny = [\"@b\"]\n[lists]\nb = {{ file = \"{ODD_TOML}.txt\" }}\n\
             [guard]\nstate = \"{state}{ODD_TOML}/x/bans.json\"\n[log]\nformat = \"{format}\"\n"
        );
        let path = files.write("portway.toml", &text);
        let mut daemon = Portway::bare().args(["run", "-c", path.to_str().expect("a plain path")]).launch();
        daemon.wait_text(messages::READY);
        files.write(&list, "10.0.0.1\nnonsense\u{1b}[31m\u{202e}\n");
        daemon.wait_text("not usable");
        fs::write(&path, format!("publish = [\"{ODD_TOML}\"]\ninclude = [\"{ODD_TOML}\"]\n"))
            .expect("the file");
        daemon.signal(Signal::HUP);
        daemon.wait_text(messages::RELOAD_REFUSED);
        let log = daemon.log();
        is_plain(&log);
        if format == "json" {
            assert!(log.lines().skip(1).all(|line| serde_json::from_str::<Value>(line).is_ok()), "{log}");
        }
    }
}
