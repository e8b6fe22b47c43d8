//! The environment: switches, slips in names, and the default file that the command line passes over.

use std::{path::Path, process::Command};

use crate::harness::{Client, Portway, Ran, TcpTarget, as_root, messages, own_addr};

/// `portway` with arguments and these variables, and no other of its own.
fn with<'v>(args: &[&str], variables: impl IntoIterator<Item = (&'v str, &'v str)>) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portway"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PORTWAY_")) {
        command.env_remove(name);
    }
    Ran::of(command.args(args).envs(variables).stdin(std::process::Stdio::null()))
}

const SPEC: [&str; 3] = ["check", "-p", "8080:192.0.2.7:80"];
const SWITCHES: [&str; 5] =
    ["PORTWAY_ROUTER", "PORTWAY_WATCH", "PORTWAY_STRICT", "PORTWAY_JSON", "PORTWAY_FAST_PATHS"];

#[test]
fn a_switch_is_on_or_off_by_eight_words_in_any_case() {
    for (words, is_on) in [
        (["true", "1", "yes", "on", "TRUE", "Yes"], true),
        (["false", "0", "no", "off", "False", "OFF"], false),
    ] {
        for word in words {
            let ran = with(&SPEC, [("PORTWAY_ROUTER", word)]).exits(0);
            assert_eq!(ran.out.contains("router=8080"), is_on, "{word}: {ran}");
        }
    }
}

#[test]
fn any_other_word_for_a_switch_is_refused_and_named() {
    for name in SWITCHES {
        for word in ["disabled", "2", "tru", "enable", "on ", "\"true\""] {
            let ran = with(&SPEC, [(name, word)]).exits(2);
            assert!(ran.err.contains(&format!("{name} is {word:?}")) && ran.out.is_empty(), "{ran}");
        }
    }
    let at = own_addr(8080).to_string();
    with(&["run", "-p", &format!("{at}:9")], [("PORTWAY_WATCH", "disabled")]).exits(2).says("PORTWAY_WATCH");
    // A carriage return, as a file from Windows leaves it, is visible.
    with(&SPEC, [("PORTWAY_ROUTER", "true\r")])
        .exits(2)
        .says("PORTWAY_ROUTER is \"true\\r\"")
        .never_says("\r");
}

#[test]
fn an_unknown_variable_is_a_warning_with_what_was_meant() {
    for (name, meant) in [
        ("PORTWAY_PUBLSH", "PORTWAY_PUBLISH"),
        ("PORTWAY_ROUTR", "PORTWAY_ROUTER"),
        ("PORTWAY_LOGLEVEL", "PORTWAY_LOG_LEVEL"),
        ("PORTWAY_CONFIG_FILE", "PORTWAY_CONFIG"),
    ] {
        let ran = with(&SPEC, [(name, "x")]).exits(0);
        assert!(ran.out.contains("warning: ") && ran.out.contains(name), "{ran}");
        assert!(ran.out.contains(&format!("did you mean {meant}?")), "{ran}");
    }
    with(&SPEC, [("PORTWAY_QQQ", "x")]).exits(0).says("PORTWAY_QQQ").says("the variables are PORTWAY_CONFIG");
}

#[test]
fn a_slip_in_the_name_is_shown_although_the_configuration_is_refused() {
    if Path::new("/etc/portway/portway.toml").exists() {
        eprintln!("SKIPPED: this machine has the default file");
        return;
    }
    for command in ["run", "check"] {
        with(&[command], [("PORTWAY_PUBLSH", "8080:80")]).exits(78).says("did you mean PORTWAY_PUBLISH?");
    }
}

#[test]
fn the_daemon_logs_an_unknown_variable_once() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let spec = format!("{at}:{}", target.addr);
    let mut portway = Portway::bare().args(["run", "-p", &spec]).env("PORTWAY_WACH", "1").start();
    portway.wait_text("PORTWAY_WACH");
    Client::to(at).ping();
    portway.stop().with(0).says("did you mean PORTWAY_WATCH?");
}

#[test]
fn known_variables_those_of_orchestrators_and_those_of_the_file_are_no_slips() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("portway.toml");
    std::fs::write(&file, "publish = [\"8080:${PORTWAY_UPSTREAM}:80\"]\n").expect("the test's own directory");
    let file = file.to_str().expect("a readable path");
    let variables = [
        ("PORTWAY_UPSTREAM", "192.0.2.7"),
        ("PORTWAY_CONFIG", file),
        ("PORTWAY_FAST_PATHS", "off"),
        ("PORTWAY_LOG_LEVEL", "warn"),
        ("PORTWAY_LOG_FORMAT", "json"),
        ("PORTWAY_ROUTER", "no"),
        ("PORTWAY_STRICT", "yes"),
        ("PORTWAY_WATCH", "on"),
        ("PORTWAY_PORT", "tcp://10.0.0.1:8080"),
        ("PORTWAY_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("PORTWAY_SERVICE_HOST", "10.0.0.1"),
    ];
    with(&["check"], variables).exits(0).never_says("warning").says("192.0.2.7:80");
}

/// Gives a program a file system in which the default file says `text`, and becomes that program.
fn default_file(text: &str) -> String {
    format!(
        "mount -t tmpfs none /etc && mkdir /etc/portway && printf '{text}' >/etc/portway/portway.toml && exec \"$@\""
    )
}

#[test]
fn a_default_file_that_is_passed_over_is_named() {
    as_root(&["unshare", "mount"], || {
        let at = own_addr(8080);
        let other = own_addr(8081);
        let spec = format!("{at}:192.0.2.7:80");
        let script = default_file(&format!("publish = [\"{other}:192.0.2.8:80\"]\\n"));
        let program = env!("CARGO_BIN_EXE_portway");
        let ran = |args: &[&str], variables: &[(&str, &str)]| {
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", &script, "sh", program]).args(args);
            Ran::of(command.envs(variables.iter().copied()))
        };
        let why = "/etc/portway/portway.toml is not read";
        let cure = "-c /etc/portway/portway.toml";
        ran(&["check", "-p", &spec], &[]).exits(0).says(why).says("-p").says(cure).never_says("192.0.2.8");
        let by_variable = ran(&["check"], &[("PORTWAY_PUBLISH", &spec)]).exits(0);
        by_variable.says(why).says("PORTWAY_PUBLISH names").says(cure);
        ran(&["check", "-p", &spec], &[("PORTWAY_CONFIG", "")]).exits(0).says(why);
        ran(&["check", "--json", "-p", &spec], &[]).exits(0).says(why);
        ran(&["check", "--strict", "-p", &spec], &[]).exits(78).says(why);
        // What the warning offers reads both.
        let both = ran(&["check", "-p", &spec, "-c", "/etc/portway/portway.toml"], &[]).exits(0);
        both.says("192.0.2.7").says("192.0.2.8").never_says("is not read");
        let named = [("PORTWAY_CONFIG", "/etc/portway/portway.toml")];
        ran(&["check", "-p", &spec], &named).exits(0).says("192.0.2.8").never_says("is not read");
        ran(&["check"], &[]).exits(0).says("192.0.2.8").never_says("is not read");

        let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
        for setup in [
            Portway::publishing(&spec),
            Portway::bare().args(["-p", &spec]),
            Portway::bare().args(["run"]).env("PORTWAY_PUBLISH", &spec),
        ] {
            let exit = setup.through(wrapper).start().stop().with(0).says(why).says(cure);
            assert!(!exit.log.contains("192.0.2.8"), "{}", exit.log);
        }
    });
}

#[test]
fn level_and_format_of_the_log_come_from_flags_and_variables() {
    let at = own_addr(8080);
    let spec = format!("{at}:9");
    let by_flag = Portway::publishing(&spec).args(["--log-format", "json", "--log-level", "debug"]).start();
    assert_eq!(by_flag.lines(messages::READY).len(), 1, "{}", by_flag.log());
    by_flag.stop().with(0);
    let set =
        || Portway::publishing(&spec).env("PORTWAY_LOG_FORMAT", "json").env("PORTWAY_LOG_LEVEL", "WARN");
    let mut quiet = set().launch();
    crate::harness::eventually("it listens", || Client::try_to(at).ok());
    assert!(quiet.runs());
    let exit = quiet.stop().with(0);
    assert!(!exit.log.contains("ready"), "{}", exit.log);
    // A flag goes before its variable, and both before the file, at a start and in a reload.
    let config = format!("publish = [\"{spec}\"]\n[log]\nlevel = \"off\"\nformat = \"text\"\n");
    let args = ["--log-level", "info", "--log-format", "json"];
    let mut portway = Portway::with(&config).args(args).env("PORTWAY_LOG_LEVEL", "error").start();
    portway.reload_with(&config.replace("off", "error"));
    portway.stop().with(0);
    for (name, word) in [("PORTWAY_LOG_LEVEL", "loud"), ("PORTWAY_LOG_FORMAT", "xml")] {
        with(&SPEC, [(name, word)]).exits(2).says(&format!("{name} is {word:?}"));
    }
    with(&["check", "--log-level", "loud", "-p", "8080:80"], []).exits(2).says("loud").says("debug");
}
