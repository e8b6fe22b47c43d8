//! `portway init`: a first file from flags, or from a conversation on a real terminal.

use std::{fs, path::Path, process::Command};

use crate::harness::{Ran, RealTerminal, portway, with_tools};

/// A directory, and the path of a file in it that does not exist.
fn place() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("made.toml").display().to_string();
    (dir, path)
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn flags_make_a_file_that_check_takes_and_the_next_commands_are_said() {
    let (_dir, file) = place();
    let ran =
        portway(["init", "--preset", "minecraft", "--target", "10.0.0.20", "--router", "-o", &file]).exits(0);
    for next in ["portway check -c", "portway run -c", "portway router"] {
        assert!(ran.out.contains(next), "{next}: {ran}");
    }
    let made = text(&file);
    assert!(made.contains("publish = \"25565:10.0.0.20:25565\"") && made.contains("router = true"), "{made}");
    portway(["check", "-c", &file]).exits(0).says("minecraft").says("10.0.0.20:25565");
}

#[test]
fn what_attackers_look_for_is_for_the_home_alone_unless_others_are_named() {
    let (_dir, file) = place();
    portway(["init", "--preset", "rdp", "--target", "10.0.0.7", "-o", &file]).exits(0);
    let made = text(&file);
    assert!(made.contains("allow = [\"@home\"]") && made.contains("[guard]"), "{made}");
    portway(["check", "-c", &file]).exits(0);
    let (_dir, file) = place();
    portway(["init", "--preset", "ssh", "--target", "10.0.0.7", "--allow", "203.0.113.7", "-o", &file])
        .exits(0);
    assert!(text(&file).contains("friends = [\"203.0.113.7\"]"), "{}", text(&file));
    portway(["check", "-c", &file]).exits(0);
}

#[test]
fn no_file_is_overwritten_and_a_wrong_answer_is_named() {
    let (_dir, file) = place();
    fs::write(&file, "mine").expect("the test's own directory");
    portway(["init", "--preset", "web", "--target", "10.0.0.7", "-o", &file])
        .exits(1)
        .says("never overwritten");
    assert_eq!(text(&file), "mine");
    let wrong = |args: &[&str], word: &str| {
        portway(["init"].iter().chain(args)).exits(2).says(word);
    };
    wrong(&["--preset", "minecraft"], "--target");
    wrong(&[], "--preset minecraft --target");
    wrong(&["--preset", "quake", "--target", "a"], "minecraft-bedrock");
    wrong(&["--preset", "web", "--target", "a b"], "--target");
    wrong(&["--preset", "web", "--target", "10.0.0.7", "--allow", "friends"], "--allow");
    wrong(&["--preset", "web", "--target", "10.0.0.7", "--name", "a b"], "--name");
    wrong(&["--preset", "other", "--target", "10.0.0.7"], "--port");
    wrong(&["--preset", "other", "--target", "10.0.0.7", "--port", "0"], "--port");
}

#[test]
fn the_file_goes_where_it_is_told_or_beside() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_portway"));
    command
        .current_dir(dir.path())
        .args(["init", "--preset", "other", "--port", "9000/udp", "--target", "nas.lan"]);
    let default = Path::new("/etc/portway/portway.toml");
    if default.exists() || !Path::new("/etc/portway").exists() {
        Ran::of(&mut command).exits(0).says("portway.toml is written").says("-c portway.toml");
        let made = text(&dir.path().join("portway.toml").display().to_string());
        assert!(made.contains("publish = \"9000:nas.lan:9000/udp\""), "{made}");
    }
}

#[test]
fn a_conversation_makes_the_file_and_wrong_answers_are_asked_again() {
    with_tools(&RealTerminal::TOOLS, || {
        let (_dir, file) = place();
        let terminal = RealTerminal::open(100, 60);
        let answer = |text: &str| {
            terminal.writes(text);
            terminal.key("Enter");
        };
        terminal.start_portway("", &format!("init -o {file}"));
        terminal.wait_screen("What do you want to expose?");
        answer("99");
        terminal.wait_screen("use a number from 1 to");
        answer("vnc");
        terminal.wait_screen("Where does it run?");
        answer("10.0.0.9");
        let screen = terminal.wait_screen("Who may come?");
        assert!(screen.contains("Number [2]"), "{screen}");
        answer("3");
        terminal.wait_screen("with commas");
        answer("not an address");
        answer("203.0.113.7, 198.51.100.0/24");
        terminal.wait_screen("Open the port on the home router");
        answer("y");
        terminal.wait_screen("code=0");
        let made = text(&file);
        assert!(made.contains("publish = \"5900:10.0.0.9:5900\""), "{made}");
        assert!(made.contains("friends = [\"203.0.113.7\", \"198.51.100.0/24\"]"), "{made}");
        assert!(made.contains("router = true"), "{made}");
        portway(["check", "-c", &file]).exits(0);
    });
}

#[test]
fn the_end_of_input_and_an_interrupt_leave_no_file() {
    with_tools(&RealTerminal::TOOLS, || {
        let (_dir, file) = place();
        let terminal = RealTerminal::open(100, 60);
        terminal.start_portway("", &format!("init -o {file}"));
        terminal.wait_screen("What do you want to expose?");
        terminal.key("C-d");
        terminal.wait_screen("nothing was written");
        terminal.wait_screen("code=1");
        terminal.start_portway("", &format!("init --preset web -o {file}"));
        terminal.wait_screen("Where does it run?");
        terminal.key("C-c");
        // The shell is back. It says no code: the interrupt ends its line, too.
        terminal.wait_screen("here>");
        assert!(!Path::new(&file).exists());
    });
}

#[test]
fn the_schema_is_json_that_describes_the_keys() {
    let ran = portway(["schema"]).exits(0);
    let schema: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    let mapping = &schema["properties"]["mapping"]["items"]["properties"];
    assert!(mapping["idle_timeout"]["description"].is_string(), "{mapping}");
    assert_eq!(schema["properties"]["defaults"]["properties"]["publish"], serde_json::Value::Null);
}

#[test]
fn variables_stand_in_for_flags_and_a_wrong_one_is_named() {
    let (_dir, file) = place();
    let init = |variables: &[(&str, &str)], args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portway"));
        command.arg("init").args(args).envs(variables.iter().copied());
        Ran::of(&mut command)
    };
    let all = [
        ("PORTWAY_INIT_PRESET", "other"),
        ("PORTWAY_INIT_TARGET", "nas.lan"),
        ("PORTWAY_INIT_PORT", "9000/udp"),
        ("PORTWAY_INIT_NAME", "files"),
        ("PORTWAY_INIT_ALLOW", "203.0.113.7, 198.51.100.0/24"),
        ("PORTWAY_ROUTER", "yes"),
        ("PORTWAY_INIT_OUTPUT", &file),
    ];
    init(&all, &[]).exits(0).says("is written");
    let made = text(&file);
    for part in
        ["name = \"files\"", "publish = \"9000:nas.lan:9000/udp\"", "\"198.51.100.0/24\"", "router = true"]
    {
        assert!(made.contains(part), "{part}: {made}");
    }
    let (_dir, other) = place();
    init(&all, &["--target", "10.0.0.9", "-o", &other]).exits(0);
    assert!(text(&other).contains("9000:10.0.0.9:9000/udp"), "a flag goes before its variable");
    init(&[("PORTWAY_INIT_PRESET", "quake")], &[]).exits(2).says("PORTWAY_INIT_PRESET").says("minecraft");
    init(&[("PORTWAY_ROUTER", "maybe")], &[]).exits(2).says("PORTWAY_ROUTER");
}
