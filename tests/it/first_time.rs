//! The first time: from a machine with a Minecraft server to players from outside, by the commands of the README.
//!
//! The README has them with their output. This test runs those very commands in a household of its own, and compares.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use tokio::time::Instant;

use crate::harness::{
    Program, Ran, RouterLab, eventually, eventually_within, in_router_lab_with_minecraft, messages,
    portway_program,
};

/// How long a person may wait for the commands, all together.
const PATIENCE: Duration = Duration::from_secs(180);
/// The port of Minecraft.
const PORT: u16 = 25565;
/// What the players see in their list of servers.
const MOTD: &str = "Come in";
/// Addresses of the lab, and what the README has in their place.
const ADDRESSES: [(&str, &str); 2] = [("192.168.77.", "192.168.10."), ("11.22.33.1", "93.184.216.34")];

/// The commands of the README and what they say, as a terminal shows it.
fn transcript() -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(readme).expect("the README");
    let (_, block) = readme.split_once("```console\n").expect("a transcript in the README");
    block.split_once("```").expect("its end").0.to_owned()
}

fn replaced(
    text: &str,
    names: impl Fn(&(&'static str, &'static str)) -> (&'static str, &'static str),
) -> String {
    ADDRESSES.iter().map(names).fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// A machine of the household on which nobody has used portway.
struct Machine<'l> {
    lab: &'l RouterLab,
    dir: tempfile::TempDir,
    /// What it runs in the background.
    background: Option<Pid>,
}

impl<'l> Machine<'l> {
    fn new(lab: &'l RouterLab) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in ["bin", "run", "state", "home"] {
            fs::create_dir(dir.path().join(name)).expect("the test's own directory");
        }
        std::os::unix::fs::symlink(portway_program(), dir.path().join("bin/portway")).expect("a link");
        Self { lab, dir, background: None }
    }

    /// Runs a command as a shell does in which a person types it.
    fn types(&mut self, command: &str) -> Ran {
        // A package of portway on the machine of the test does not count.
        let script = format!(
            "if [ -d /etc/portway ]; then mount -t tmpfs -o ro tmpfs /etc/portway; fi; cd \"$HOME\"\n{command}\n"
        );
        let in_background = command.ends_with('&');
        let script = if in_background { script + "echo $!\n" } else { script };
        let dir = self.dir.path();
        let mut shell = Command::new("ip");
        shell.args(["netns", "exec", &self.lab.network("lan"), "unshare", "--mount", "sh", "-c", &script]);
        shell.env_clear().env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", dir.join("bin").display()));
        for (variable, name) in [("RUNTIME_DIRECTORY", "run"), ("STATE_DIRECTORY", "state"), ("HOME", "home")]
        {
            shell.env(variable, dir.join(name));
        }
        let mut ran = Ran::of(shell.stdin(Stdio::null()));
        if in_background {
            let pid = std::mem::take(&mut ran.out).trim().parse().ok().and_then(Pid::from_raw);
            self.background = Some(pid.unwrap_or_else(|| panic!("no process id: {ran}")));
        }
        ran
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("home/portway.log")).unwrap_or_default()
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("-- the log of portway\n{}", self.log());
        }
        let Some(pid) = self.background else { return };
        let _ = kill_process(pid, Signal::TERM);
        eventually("portway ends", || test_kill_process(pid).is_err().then_some(()));
    }
}

/// What a player on the internet sees.
fn sees(lab: &RouterLab, modules: &str, what: &str) -> Value {
    let client = format!("{}/tests/lab/minecraft/client.js", env!("CARGO_MANIFEST_DIR"));
    let (to, port) = (RouterLab::WAN.to_string(), PORT.to_string());
    let mut command = Command::new("ip");
    command.args([
        "netns",
        "exec",
        &lab.network("wan"),
        "node",
        &client,
        what,
        &to,
        &port,
        "play.example.org",
    ]);
    let ran = Ran::of(command.env("NODE_PATH", modules).stdin(Stdio::null())).exits(0);
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error} in {ran}"))
}

#[test]
fn four_commands_of_the_readme_lead_players_from_outside_to_a_minecraft_server() {
    in_router_lab_with_minecraft(&["unshare"], [("IPV6", "no")], |lab, modules| {
        let script = format!("{}/tests/lab/minecraft/server.js", env!("CARGO_MANIFEST_DIR"));
        let (network, path, port) = (lab.network("lan2"), format!("NODE_PATH={modules}"), PORT.to_string());
        let server = ["netns", "exec", &network, "env", &path, "node", &script, &port, MOTD, "0.0.0.0"];
        let _server = Program::start("ip", &server);
        let at = SocketAddr::from(([127, 0, 0, 1], PORT));
        eventually("the Minecraft server listens", || lab.inside("lan2", || TcpStream::connect(at).ok()));

        let expected = transcript();
        let commands: Vec<&str> = expected.lines().filter_map(|line| line.strip_prefix("# ")).collect();
        assert_eq!(commands.len(), 4, "{commands:#?}");
        let mut machine = Machine::new(lab);
        let (started, mut shown) = (Instant::now(), String::new());
        for command in commands {
            let ran = machine.types(&replaced(command, |(lab, readme)| (readme, lab))).exits(0);
            assert_eq!(ran.err, "", "of {command}");
            shown += &format!("# {command}\n{}", replaced(&ran.out, |names| *names));
            if machine.background.is_some() {
                // A person is not so fast.
                eventually("portway has opened the router", || {
                    machine.log().contains(messages::OPEN_ON_THE_ROUTER).then_some(())
                });
            }
        }
        let lines = |text: &str| text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
        assert_eq!(lines(&shown), lines(&expected), "the README has not what a terminal shows:\n{shown}");
        // A player tries again when a busy server takes too long.
        for (what, is_good) in [
            ("status", (|seen| seen["description"]["text"] == MOTD) as fn(&Value) -> bool),
            ("join", |seen| seen["joined"] == true),
        ] {
            eventually_within(PATIENCE, &format!("{what} of a player"), || {
                let seen = sees(lab, modules, what);
                if !is_good(&seen) {
                    eprintln!("{what}: {seen}");
                }
                is_good(&seen).then_some(())
            });
        }
        let took = started.elapsed();
        assert!(took < PATIENCE, "it took {took:?}");
        eprintln!("from nothing to a player inside: {took:?}");
    });
}
