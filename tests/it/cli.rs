//! The front door: arguments, exit codes, `check`, signals.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Write,
    net::SocketAddr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    Client, Line, Portway, Ran, TcpTarget, UdpTarget, eventually, mapping, messages, own_addr, portway,
    udp_client,
};

/// A directory with one configuration file.
struct Written(tempfile::TempDir);

impl Written {
    fn new(text: impl AsRef<[u8]>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join("portway.toml"), text).expect("the test's own directory");
        Self(dir)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("portway.toml")
    }

    fn check(&self) -> Ran {
        check(&self.path())
    }
}

fn check(config: &Path) -> Ran {
    portway([Path::new("check"), Path::new("--config"), config])
}

/// Fails unless all of it is said, in this order.
#[track_caller]
fn in_order(ran: &Ran, texts: &[&str]) {
    let said = format!("{}{}", ran.out, ran.err);
    let mut rest = &*said;
    for text in texts {
        let Some((_, after)) = rest.split_once(text) else {
            panic!("{text:?} is missing, or not after those before it, in {ran}");
        };
        rest = after;
    }
}

#[test]
fn wrong_usage_exits_2() {
    for args in [&["--no-such-flag"][..], &["no-such-command"], &["run", "--config"], &["check", "-p"]] {
        portway(args).exits(2);
    }
}

#[test]
fn a_slip_in_a_command_is_corrected() {
    portway(["no-such-command"]).exits(2);
    portway(["chekc"]).exits(2).says("check");
}

#[test]
fn help_and_version_exit_0() {
    portway(["--help"]).exits(0).says("portway").says("run").says("check").says("demo");
    portway(["--version"]).exits(0).says(env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_version_names_the_commit_that_was_built() {
    let commit = env!("COMMIT_OF_PORTWAY");
    portway(["--version"]).exits(0).says(&format!("(commit {commit})"));
    portway(["-V"]).exits(0).says(commit);
}

#[test]
fn every_command_has_a_man_page_and_a_shell_knows_it() {
    let dir = tempfile::tempdir().expect("a directory");
    portway(["man", "--all", &dir.path().display().to_string()]).exits(0);
    let help = portway(["--help"]).exits(0).out;
    let (_, commands) = help.split_once("Commands:").expect("a list of commands");
    let commands = commands.lines().skip(1).take_while(|line| !line.is_empty());
    let words = commands.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let words: Vec<&str> = words.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(words.len() > 3, "{help}");
    let completions = ["bash", "zsh", "fish"].map(|shell| portway(["completions", shell]).exits(0).out);
    for word in words.into_iter().filter(|word| *word != "help") {
        let page = portway(["man", word]).exits(0).out;
        let file = dir.path().join(format!("portway-{word}.8"));
        let file = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(page.trim_end(), file.trim_end());
        assert!(page.contains(&format!(".TH portway-{word} 8 ")), "{page}");
        for part in [".SH NAME", ".SH SYNOPSIS", ".SH \"EXIT STATUS\"", ".SH \"SEE ALSO\""] {
            assert!(page.contains(part), "{word} has no {part}: {page}");
        }
        assert!(completions.iter().all(|script| script.contains(word)), "{word} is not completed");
    }
    let whole = portway(["man"]).exits(0).out;
    for part in [".TH portway 8", "SIGHUP", "PORTWAY_CONFIG", "/etc/portway/portway.toml", "portway\\-status"]
    {
        assert!(whole.contains(part), "no {part}: {whole}");
    }
    portway(["man", "no-such"]).exits(2).says("no page");
    portway(["completions", "cmd"]).exits(2).says("bash");
}

#[test]
fn a_bad_spec_exits_78_for_every_command() {
    for command in ["run", "check"] {
        for spec in [
            "8080",
            "0:80",
            "8080:0",
            "99999:80",
            "8080:80/sctp",
            "5010-5000:80",
            "5000-5002:80-81",
            "no-such-service:80",
        ] {
            portway([command, "-p", spec]).exits(78).never_says("panicked");
        }
    }
    portway(["-p", "8080:80:90:100:110"]).exits(78);
}

#[test]
fn a_missing_file_exits_78_and_is_named() {
    for command in ["run", "check"] {
        portway([command, "-c", "/nowhere/portway.toml"]).exits(78).says("/nowhere/portway.toml");
    }
}

#[test]
fn check_prints_the_plan_and_binds_nothing() {
    let taken = own_addr(8080);
    let holder = std::net::TcpListener::bind(taken).expect("an address of its own");
    let config = Written::new(format!(
        "[[mapping]]\nname = \"camera\"\npublish = \"{taken}:192.0.2.7:554/tcp+udp\"\n"
    ));
    let ran = config.check().exits(0).says("camera").says(&taken.to_string()).says("192.0.2.7:554");
    for protocol in ["tcp", "udp"] {
        assert!(ran.out.contains(protocol), "{ran}");
    }
    drop(holder);
}

#[test]
fn check_without_a_file_takes_specs() {
    portway(["check", "-p", "8080:80", "-p", "5353:192.0.2.53:53/udp"])
        .exits(0)
        .says("127.0.0.1:80")
        .says("192.0.2.53:53");
}

#[test]
fn check_json_is_json_for_a_good_and_for_a_bad_file() {
    let ran = portway(["check", "--json", "-p", "8080:192.0.2.7:80"]).exits(0);
    let plan: Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran}"));
    assert!(plan.to_string().contains("192.0.2.7:80"), "{ran}");
    let ran = portway(["check", "--json", "-p", "8080:80/sctp"]).exits(78);
    let problems: Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran}"));
    assert!(problems.to_string().contains("sctp"), "{ran}");
}

#[test]
fn every_problem_is_listed_with_its_place_in_file_order() {
    let config = Written::new(
        "publish = [\"8080:80\", \"8081:0\"]\n\n[[mapping]]\npublish = \"5010-5000:80\"\n\n[[mapping]]\npublish = \
         \"9000:90\"\nidle_timout = \"1s\"\n\n[log]\nlevel = \"loud\"\n",
    );
    let ran = config.check().exits(78).says("did you mean").says("idle_timeout");
    in_order(&ran, &["portway.toml:1:", "portway.toml:4:", "portway.toml:8:", "portway.toml:11:"]);
}

#[test]
fn two_listeners_for_one_socket_are_refused_and_two_protocols_are_not() {
    portway(["check", "-p", "8080:80", "-p", "127.0.0.1:8080:81"]).exits(78).says("8080");
    portway(["check", "-p", "8080:80", "-p", "8080:81"]).exits(78).says("8080");
    portway(["check", "-p", "8080:80/tcp", "-p", "8080:80/udp"]).exits(0);
}

#[test]
fn a_mapping_to_itself_is_refused() {
    portway(["check", "-p", "127.0.0.1:8080:127.0.0.1:8080"]).exits(78).says("8080");
    portway(["check", "-p", "8080:8080"]).exits(78).says("8080");
    // Two that lead to each other are a loop as well.
    portway(["check", "-p", "127.0.0.1:8080:8081", "-p", "127.0.0.1:8081:8080"]).exits(78).says("8081");
}

#[test]
fn includes_and_the_environment_are_taken_in() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir(dir.path().join("conf.d")).expect("the test's own directory");
    let main = dir.path().join("main.toml");
    fs::write(&main, "include = [\"conf.d/*.toml\"]\npublish = [\"8080:${UPSTREAM}:80\", \"8081:${NOT_SET:-192.0.2.9}:80\"]\n")
        .expect("the test's own directory");
    fs::write(dir.path().join("conf.d/a.toml"), "publish = [\"8082:192.0.2.10:80\"]\n")
        .expect("its own directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_portway"));
    command.args(["check", "-c"]).arg(&main).env("UPSTREAM", "192.0.2.8");
    Ran::of(&mut command).exits(0).says("192.0.2.8:80").says("192.0.2.9:80").says("192.0.2.10:80");
    command.env_remove("UPSTREAM");
    Ran::of(&mut command).exits(78).says("UPSTREAM");
    fs::write(dir.path().join("conf.d/b.toml"), "publish = [\"8083:80/sctp\"]\n").expect("its own directory");
    command.env("UPSTREAM", "192.0.2.8");
    Ran::of(&mut command).exits(78).says("b.toml:1:");
}

#[test]
fn a_list_of_an_included_file_is_used_and_followed() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (included, list) = (dir.path().join("lists.toml"), dir.path().join("blocked.txt"));
    fs::write(&included, "[lists]\nblocked = { file = \"blocked.txt\" }\n")
        .expect("the test's own directory");
    fs::write(&list, "# empty so far\n192.0.2.1\n").expect("the test's own directory");
    let config = format!("include = [{included:?}]\n") + &mapping(at, target.addr, "deny = \"@blocked\"");
    let mut portway = Portway::with(&config).start();
    let mut client = Client::to(at);
    client.ping();

    fs::write(&list, "127.0.0.0/8\n").expect("the test's own directory");
    let line = portway.wait_log(messages::LIST_RELOADED, |_| true);
    assert_eq!((line.text("list"), line.text("file")), ("blocked", list.to_str().expect("a readable path")));
    client.until_closed();
    fs::write(&included, "[lists]\nblocked = [\"192.0.2.0/24\"]\n").expect("the test's own directory");
    portway.signal(Signal::HUP);
    portway.wait_log(messages::RELOAD_APPLIED, |_| true);
    Client::to(at).ping();
}

/// The processor time of a check of so many mappings, after `head` and with `more` in each.
#[track_caller]
fn checked(head: &str, mappings: usize, more: &str, says: &str) -> Duration {
    let mut text = String::from(head);
    for n in 0..mappings {
        let (high, low) = (n / 250, n % 250 + 1);
        text += &format!(
            "[[mapping]]\nname = \"m{n}\"\npublish = \"127.1.{high}.{low}:8080:10.0.{high}.{low}:80\"\n{more}"
        );
    }
    let config = Written::new(text);
    let mut command = Command::new("bash");
    command.args(["-c", "TIMEFORMAT=%U; time \"$@\"", "bash", env!("CARGO_BIN_EXE_portway"), "check", "-c"]);
    let ran = Ran::of(command.arg(config.path()).stdin(Stdio::null())).exits(0);
    let seconds = ran.err.lines().last().and_then(|line| line.parse().ok()).expect("a time");
    ran.says(&format!("m{}", mappings - 1)).says(says);
    Duration::from_secs_f64(seconds)
}

/// Fails unless the work for ten thousand mappings grows as their number does.
#[track_caller]
fn the_work_grows_as_the_number(head: &str, more: &str, says: &str) {
    let (some, all) = (checked(head, 2_500, more, says), checked(head, 10_000, more, says));
    // Four times as many: sixteen times the work if each were compared with every other.
    assert!(all < some * 8 + Duration::from_millis(500), "{all:?}, a quarter of them {some:?}");
}

#[test]
fn the_work_of_a_check_grows_as_the_number_of_mappings() {
    the_work_grows_as_the_number("", "idle_timeout = \"5m\"\n", "m0");
}

#[test]
fn the_work_of_a_check_grows_as_the_number_of_mappings_under_terms_of_their_defaults() {
    let head = "[defaults]\nallow = [\"10.0.0.0/8\", \"@office\"]\ndeny = \"10.9.0.0/16\"\nnew_sessions_per_client = \"20/min\"\n\
         max_sessions = 100\nrefuse = \"drop\"\n[lists]\noffice = [\"203.0.113.0/24\"]\n";
    the_work_grows_as_the_number(head, "", "new_sessions_per_client=20/min");
}

#[test]
fn check_shows_the_access_rules_and_the_decoys() {
    let config = Written::new(
        "[[mapping]]\nname = \"desktop\"\npublish = \"3389:192.0.2.7:3389\"\nallow = \"@office\"\nmax_sessions = 5\n\
         router = { external_port = 30000 }\n[lists]\noffice = [\"203.0.113.0/24\"]\n\
         [guard]\ntrap = [\"23\"]\nstate = \"/var/lib/portway/bans.json\"\n",
    );
    let ran = config.check().exits(0).never_says("warning");
    in_order(&ran, &["23/tcp", "trap", "desktop", "allow=@office max_sessions=5 router=30000"]);
    in_order(&ran, &["list @office: 1 entry", "guard: refusals=10/min", "1 mapping, 1 listener, 1 trap: ok"]);
    let ran = portway([Path::new("check"), Path::new("--json"), Path::new("-c"), &config.path()]).exits(0);
    let plan: Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran}"));
    let of = |name: &str| {
        let all = plan["mappings"].as_array().expect("a list");
        all.iter().find(|m| m["name"] == name).unwrap_or_else(|| panic!("{name} in {ran}")).clone()
    };
    assert_eq!(
        (&of("23/tcp")["trap"], &of("desktop")["max_sessions"]),
        (&Value::from(true), &Value::from(5))
    );
    assert_eq!(of("desktop")["router"]["external_port"], 30_000);
}

#[test]
fn a_refused_term_names_its_place_and_what_would_be_right() {
    let config = Written::new(
        "[[mapping]]\npublish = \"8080:192.0.2.7:80\"\nallow = [\"@ofice\"]\nnew_sessions = \"20\"\nmax_sessions = 0\n\
         [lists]\noffice = []\nblocked = { file = \"gone.txt\" }\n[guard]\nban = \"never\"\n",
    );
    let ran =
        config.check().exits(78).says("did you mean \"@office\"").says("gone.txt").never_says("panicked");
    in_order(&ran, &["toml:3:", "toml:4:", "toml:5:", "toml:8:", "toml:10:"]);
}

#[test]
fn a_default_name_is_written_in_one_way() {
    for name in ["+28080/tcp", "0080/udp"] {
        let config =
            Written::new(format!("[[mapping]]\nname = \"{name}\"\npublish = \"8080:192.0.2.7:80\"\n"));
        config.check().exits(78).says("toml:2:9:").says(name);
    }
}

#[test]
fn a_session_may_be_as_slow_as_one_likes() {
    let config = Written::new(
        "[defaults]\nbandwidth_per_session = \"1B\"\n[[mapping]]\npublish = \"8080:192.0.2.7:80\"\n\
         [[mapping]]\npublish = \"8081:192.0.2.7:80\"\nbandwidth_per_session = \"500B\"\n",
    );
    config.check().exits(0).says("bandwidth_per_session=1B").says("bandwidth_per_session=500B");
}

#[test]
fn a_default_may_suit_only_some_mappings() {
    let config = Written::new(
        "[defaults]\nburst = 5\nhalf_close_timeout = \"1m\"\n[[mapping]]\npublish = \"127.0.0.1:8080:80\"\n\
         new_sessions = \"10/s\"\n[[mapping]]\npublish = \"127.0.0.1:5353:53/udp\"\n",
    );
    config.check().exits(0).says("new_sessions=10/s burst=5").never_says("warning");
}

#[test]
fn a_key_that_means_nothing_to_the_protocol_is_a_warning() {
    let config = Written::new(
        "[[mapping]]\npublish = \"5353:192.0.2.7:53/udp\"\nhalf_close_timeout = \"1m\"\nrefuse = \"reset\"\n",
    );
    let ran = config.check().exits(0);
    in_order(&ran, &["warning: ", "toml:3:23: `half_close_timeout`", "toml:4:11: `refuse`", ": ok"]);
}

#[test]
fn the_router_flag_opens_what_does_not_say_otherwise() {
    for args in [&["check", "--router", "-p", "8080:192.0.2.7:80"][..], &["check", "-p", "8080:192.0.2.7:80"]]
    {
        let ran = portway(args).exits(0);
        assert_eq!(ran.out.contains("router=8080"), args.contains(&"--router"), "{ran}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_portway"));
    command.args(["check", "-p", "8080:192.0.2.7:80"]).env("PORTWAY_ROUTER", "1");
    Ran::of(&mut command).exits(0).says("router=8080");
    Ran::of(command.env("PORTWAY_ROUTER", "0")).exits(0).never_says("router=");
    let config = Written::new("[[mapping]]\npublish = \"8080:192.0.2.7:80\"\nrouter = false\n");
    portway([Path::new("check"), Path::new("--router"), Path::new("-c"), &config.path()])
        .exits(0)
        .never_says("router=");
}

#[test]
fn bans_go_to_the_state_directory_of_the_service() {
    let config = Written::new("publish = [\"8080:192.0.2.7:80\"]\n[guard]\n");
    let mut command = Command::new(env!("CARGO_BIN_EXE_portway"));
    command.args(["check", "-c"]).arg(config.path()).env_remove("STATE_DIRECTORY");
    Ran::of(&mut command).exits(0).says("kept in memory only").says("(as a service, systemd gives a place)");
    command.env("STATE_DIRECTORY", "/var/lib/portway");
    Ran::of(&mut command).exits(0).says("state=/var/lib/portway/bans.json").never_says("memory only");
}

#[test]
fn a_huge_file_is_refused_before_it_is_read() {
    let config = Written::new("");
    File::create(config.path()).and_then(|file| file.set_len(1 << 30)).expect("a sparse file");
    // With half of the memory that its contents would take.
    let mut command = Command::new("prlimit");
    command.args(["--as=536870912", "--", env!("CARGO_BIN_EXE_portway"), "check", "-c"]).arg(config.path());
    Ran::of(&mut command).exits(78).says("portway.toml").never_says("panicked");
}

#[test]
fn a_file_that_never_ends_is_refused() {
    check(Path::new("/dev/zero")).exits(78).never_says("panicked");
    check(Path::new("/")).exits(78).never_says("panicked");
}

#[test]
fn a_pipe_without_a_writer_is_refused_and_not_waited_for() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let pipe = dir.path().join("pipe");
    mkfifo(&pipe);
    check(&pipe).exits(78).says("pipe").says("nothing came out of it");
    let text = format!(
        "publish = [\"8080:192.0.2.7:80\"]\ninclude = [{pipe:?}]\n[lists]\nx = {{ file = {pipe:?} }}\n"
    );
    let ran = Written::new(text).check().exits(78);
    in_order(&ran, &["toml:2:", "it is not a regular file", "toml:4:", "it is not a regular file"]);
}

#[test]
fn a_configuration_may_come_out_of_a_pipe() {
    let program = env!("CARGO_BIN_EXE_portway");
    let text = "publish = [\"8080:192.0.2.7:80\"]";
    // The writer takes its time, and writes in pieces.
    let slow = "sleep 0.2; echo 'publish = ['; sleep 0.2; echo '\"8080:192.0.2.7:80\"]'";
    for line in [
        format!("{program} check -c <({slow})"),
        format!("({slow}) | {program} check -c /dev/stdin"),
        format!("{program} check -c /dev/stdin <<< '{text}'"),
        format!("{program} check -c /dev/null -p 8080:192.0.2.7:80"),
    ] {
        Ran::of(Command::new("bash").args(["-c", &line])).exits(0).says("192.0.2.7:80");
    }

    let dir = tempfile::tempdir().expect("a temporary directory");
    let pipe = dir.path().join("pipe");
    mkfifo(&pipe);
    // Open for both, so that it does not wait for the reader; what it wrote stays while it has the pipe open.
    let mut writer = File::options().read(true).write(true).open(&pipe).expect("the test's own pipe");
    let mut child = Command::new(program)
        .args(["check", "-c"])
        .arg(&pipe)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    writer.write_all(text.as_bytes()).expect("the test's own pipe");
    eventually("it has read all of it", || (unread(&writer) == 0).then_some(()));
    assert!(child.try_wait().expect("its own child").is_none(), "it waits for the end");
    drop(writer);
    let output = child.wait_with_output().expect("its own child");
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("192.0.2.7:80"));
}

fn mkfifo(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0)
        .expect("the test's own directory");
}

/// How many bytes wait in a pipe.
fn unread(pipe: &File) -> u64 {
    rustix::io::ioctl_fionread(pipe).expect("a pipe knows")
}

#[test]
fn deep_nesting_is_refused_and_not_a_crash() {
    for (open, close) in [("[", "]"), ("{a=", "}")] {
        let text = format!("publish = {}{}\n", open.repeat(100_000), close.repeat(100_000));
        Written::new(text).check().exits(78).never_says("panicked");
    }
    Written::new(format!("[{}]\n", vec!["a"; 100_000].join("."))).check().exits(78).never_says("panicked");
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    Written::new(b"publish = [\"8080:80\"]\n# caf\xe9\n")
        .check()
        .exits(78)
        .says("UTF-8")
        .says("portway.toml");
}

#[test]
fn a_loop_of_includes_ends() {
    let config = Written::new("include = [\"portway.toml\"]\npublish = [\"8080:80\"]\n");
    config.check().exits(78).never_says("panicked");
}

#[test]
fn publish_specs_come_from_the_environment_too() {
    let target = TcpTarget::echo();
    let datagrams = UdpTarget::echo();
    let (one, two, three) = (own_addr(8080), own_addr(8081), own_addr(5353));
    let specs = format!("{one}:{t},{two}:{t}\n{three}:{}/udp", datagrams.addr, t = target.addr);
    let _portway = Portway::bare().args(["run"]).env("PORTWAY_PUBLISH", &specs).start();
    Client::to(one).ping();
    Client::to(two).ping();
    let client = udp_client(three);
    client.send(b"ping").expect("the client sends");
    assert_eq!(client.recv(&mut [0; 9]).expect("the answer comes"), 4);
}

#[test]
fn the_file_comes_from_the_environment_too() {
    let config = Written::new("publish = [\"8080:192.0.2.7:80\"]\n");
    let mut command = Command::new(env!("CARGO_BIN_EXE_portway"));
    Ran::of(command.arg("check").env("PORTWAY_CONFIG", config.path())).exits(0).says("192.0.2.7:80");
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portway"));
    let names = ["PORTWAY_CONFIG", "PORTWAY_PUBLISH", "PORTWAY_ROUTER", "PORTWAY_WATCH", "PORTWAY_JSON"];
    command.envs(names.map(|name| (name, "")));
    Ran::of(command.args(["check", "-p", "28080:192.0.2.7:80"]))
        .exits(0)
        .says("192.0.2.7:80")
        .never_says("router=");
    let at = own_addr(8080);
    let spec = format!("{at}:9");
    Portway::bare().args(["-p", &spec]).env("PORTWAY_CONFIG", "").start().stop().with(0);
    // An argument that is empty is a mistake, such as a variable of the shell that is not set.
    portway(["check", "-c", "", "-p", "28080:80"]).exits(2);
}

#[test]
fn a_wrong_spec_is_blamed_on_where_it_stands() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portway"));
    command.arg("check").env("PORTWAY_PUBLISH", "8080:80,8081:0");
    Ran::of(&mut command).exits(78).says("PORTWAY_PUBLISH \"8081:0\" (column 6): port 0").never_says("-p ");
    portway(["check", "-p", "8081:0"]).exits(78).says("-p \"8081:0\" (column 6)").never_says("PORTWAY_");
    let config = Written::new("publish = [\"8080:192.0.2.7:80\"]\n");
    let mut command = Command::new(env!("CARGO_BIN_EXE_portway"));
    command.args(["check", "-c"]).arg(config.path());
    command.env("PORTWAY_PUBLISH", OsStr::from_bytes(b"8081:192.0.2.8\xff:80"));
    Ran::of(&mut command).exits(2).says("PORTWAY_PUBLISH is not UTF-8 text").never_says("192.0.2.7");
}

#[test]
fn without_a_mapping_it_says_how_to_name_one() {
    if Path::new("/etc/portway/portway.toml").exists() {
        eprintln!("SKIPPED: this machine has the default file");
        return;
    }
    for args in [&[][..], &["run"], &["check"]] {
        let ran = portway(args).exits(78).says("/etc/portway/portway.toml").never_says("check the path");
        let (_, hint) = ran.err.split_once("as in portway ").unwrap_or_else(|| panic!("{ran}"));
        assert!(hint.starts_with("run -p 8080:80, or a file, as in portway run -c FILE"), "{ran}");
    }
    portway(["check", "-c", "/nowhere/portway.toml"]).exits(78).says("check the path").never_says("-p 8080");
}

#[test]
fn publish_alone_is_the_daemon() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let spec = format!("{at}:{}", target.addr);
    let portway = Portway::bare().args(["-p", &spec]).start();
    Client::to(at).ping();
    portway.stop().with(0);
}

#[test]
fn every_listener_is_announced() {
    let (one, two) = (own_addr(8080), own_addr(8081));
    let config = mapping(one, own_addr(8000), "name = \"web\"") + &mapping(two, own_addr(8000), "");
    let mut portway = Portway::with(&config).start();
    for (name, at) in [("web", one), ("8081/tcp", two)] {
        let line = portway.wait_log(messages::LISTENING, |line| line.text("mapping") == name);
        assert_eq!((line.text("protocol"), line.text("listen.addr")), ("tcp", &*at.to_string()));
    }
}

#[test]
fn what_is_said_of_a_configuration_in_the_log_has_its_cure() {
    let at = own_addr(8080);
    let idle = |rest: &str| mapping(at, own_addr(8000), "") + "[router]\n" + rest;
    let cure = "(say `router = true` in one, or in [defaults] for all)";
    let mut portway = Portway::with(&idle("")).start();
    let is_it =
        |line: &Line| line.text("warning").contains("portway.toml:") && line.text("warning").ends_with(cure);
    portway.wait_log(messages::CONFIGURATION, is_it);
    let mark = portway.log_len();
    portway.reload_with(&idle("lease = \"2h\"\n"));
    portway.wait_log_after(mark, messages::CONFIGURATION, is_it);
    let refused = portway.refused_reload_with(&idle("leese = \"2h\"\n"));
    assert!(refused.text("error").ends_with("(did you mean `lease`?)"), "{}", refused.raw());
    assert_eq!(portway.count(messages::CONFIGURATION), 2, "a file that is not applied causes no warning");
}

/// A daemon with a session, asked to stop with this grace.
fn stopping(grace: &str) -> (TcpTarget, SocketAddr, Portway, Client) {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let config = mapping(at, target.addr, "") + &format!("[shutdown]\ngrace = \"{grace}\"\n");
    let portway = Portway::with(&config).start();
    let mut client = Client::to(at);
    client.ping();
    portway.signal(Signal::TERM);
    eventually("it no longer listens", || Client::try_to(at).is_err().then_some(()));
    (target, at, portway, client)
}

#[test]
fn a_stop_waits_for_the_sessions() {
    let (_target, _at, mut portway, mut client) = stopping("60s");
    client.ping();
    assert!(portway.runs());
    drop(client);
    let exit = portway.exit().with(0);
    let ends = exit.sessions_ended();
    let waited_for = ends.iter().find(|line| line.number("bytes.in") == 8).expect("its line");
    assert_eq!(waited_for.text("reason"), "client-closed");
}

#[test]
fn a_second_signal_stops_at_once() {
    let (_target, _at, mut portway, mut client) = stopping("60s");
    client.ping();
    portway.signal(Signal::INT);
    eventually("it ends", || (!portway.runs()).then_some(()));
    let exit = portway.exit().says("shutdown");
    assert!(exit.code.is_some(), "it ended by the signal itself");
    client.until_closed();
}

#[test]
fn a_stop_without_grace_ends_sessions_at_once() {
    for none in ["0s", "0ms"] {
        let (_target, _at, portway, mut client) = stopping(none);
        client.until_closed();
        let exit = portway.exit().with(0);
        let ends = exit.sessions_ended();
        assert!(ends.iter().any(|line| line.text("reason") == "shutdown"), "{}", exit.log);
    }
}

#[test]
fn a_stop_with_no_session_takes_no_grace() {
    let at = own_addr(8080);
    let config = mapping(at, own_addr(8000), "") + "[shutdown]\ngrace = \"10m\"\n";
    Portway::with(&config).start().stop().with(0);
}

#[test]
fn there_is_no_colour_without_a_terminal_nor_with_no_color() {
    const ESCAPE: char = '\u{1b}';
    let bad = Written::new("publish = [\"8080:80/sctp\"]\n[nonsense]\n");
    let ran = bad.check().exits(78);
    assert!(!ran.out.contains(ESCAPE) && !ran.err.contains(ESCAPE), "{ran}");
    let at = own_addr(8080);
    let exit = Portway::publishing(&format!("{at}:9")).start().stop();
    assert!(!exit.log.contains(ESCAPE), "{}", exit.log);

    // `script` gives the program a terminal.
    let line = format!("{} check -c {}", env!("CARGO_BIN_EXE_portway"), bad.path().display());
    let mut command = Command::new("script");
    command
        .args(["-q", "-e", "-c", &line, "/dev/null"])
        .env("NO_COLOR", "1")
        .stdin(std::process::Stdio::null());
    let ran = Ran::of(&mut command).exits(78).says("sctp");
    assert!(!ran.out.contains(ESCAPE), "{ran}");
}

#[test]
fn a_pipe_that_closes_early_does_not_crash_it() {
    let mut text = String::new();
    for n in 1..=2_000 {
        text += &format!("[[mapping]]\nname = \"m{n}\"\npublish = \"{}:192.0.2.1:80\"\n", 10_000 + n);
    }
    let config = Written::new(text);
    let line = format!("{} check -c {} | head -n 1", env!("CARGO_BIN_EXE_portway"), config.path().display());
    Ran::of(Command::new("sh").args(["-c", &line])).exits(0).never_says("panicked");
}

#[test]
fn a_log_without_a_reader_does_not_end_the_daemon() {
    let target = TcpTarget::echo();
    let at = own_addr(8080);
    let spec = format!("{at}:{}", target.addr);
    let mut child = Command::new(env!("CARGO_BIN_EXE_portway"))
        .args(["run", "-p", &spec])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stderr.take());
    let served = std::panic::catch_unwind(|| {
        eventually("it serves", || Client::try_to(at).ok());
        (0..20).for_each(|_| Client::to(at).ping());
    });
    let _ = child.kill();
    let _ = child.wait();
    served.expect("it serves on");
}
