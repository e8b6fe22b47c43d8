//! `portway doctor` names the hop where a mapping cannot be reached, and its cure makes it reachable.
//!
//! A real household in networks of its own: `wan` is the internet, `rtr` a router with miniupnpd, `lan` the machine of
//! portway, `lan2` the one with the service. Each way to be unreachable is a row of a table: what breaks it, the hop
//! that alone has to fail, what stands in its evidence, and how the cure is applied. A cure that is a command is run as
//! the doctor printed it.

mod server;
mod ways;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::harness::{
    HomeRouter as _, Portway, Program, Ran, RouterLab, eventually, in_router_lab, portway_program,
};
use server::Server;
use ways::{FIREWALL, INTERNET, LAN, LISTENER, ROUTER, TARGET, Way};

/// The port of the mapping, here and on the router.
const PORT: u16 = 9080;
/// The port of the service on `lan2`.
const SERVICE: u16 = 7000;
/// What the mapping usually is.
const USUAL: &str = "publish = \"9080:192.168.77.3:7000\"\nrouter = true\n";
/// Further programs of the lab.
const TOOLS: [&str; 4] = ["upnpc", "iptables", "python3", "unshare"];
/// Leaves the network of `lan` as it was at first; does nothing where it is.
const RESTORED: &str = "
    ip link set eth0 up mtu 1500 gso_max_segs 65535
    ip route replace default via 192.168.77.1 metric 100
    ip route show default | grep -v 'via 192.168.77.1 dev eth0 metric 100' | while read -r route; do
        ip route del $route
    done
    ip rule | sed -n 's/^\\([0-9]*\\):.*/\\1/p' | grep -vxE '0|32766|32767' | while read -r priority; do
        ip rule del priority $priority
    done
    ip route flush table 100 2>/dev/null || :
    ip link del wg0 2>/dev/null || :
    ip addr del 192.168.77.60/24 dev eth0 2>/dev/null || :
";

/// Runs a program as in a container: with a mark of the engine, and no process of others in sight.
const AS_CONTAINER: &str = r#"
    root=/mnt
    mount -t tmpfs tmpfs "$root"
    for entry in /*; do
        if [ "$entry" = "$root" ]; then continue
        elif [ -L "$entry" ]; then cp -P "$entry" "$root"
        elif [ -d "$entry" ]; then mkdir "$root$entry"; mount --rbind "$entry" "$root$entry"; fi
    done
    : >"$root/.dockerenv"
    mount -t proc proc "$root/proc"
    exec chroot "$root" "$@"
"#;

/// A household with a mapping named `web`.
struct Home<'l> {
    lab: &'l mut RouterLab,
    dir: tempfile::TempDir,
    config: String,
    portway: Option<Portway>,
    services: Vec<Server>,
    /// The machine that portway runs on: `lan`, or `box` for a container.
    on: &'static str,
    /// A program in the way.
    other: Option<Program>,
    /// Where a client of the internet goes.
    port: u16,
}

impl<'l> Home<'l> {
    fn new(lab: &'l mut RouterLab) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut home = Self {
            lab,
            dir,
            config: String::new(),
            portway: None,
            services: vec![],
            on: "lan",
            other: None,
            port: PORT,
        };
        home.serve();
        home.configure(USUAL);
        home.start();
        home
    }

    /// The usual service on `lan2`, over TCP and UDP.
    fn serve(&mut self) {
        self.services.clear();
        self.services = vec![Server::tcp(self.lab, SERVICE), Server::udp(self.lab, SERVICE)];
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("portway.toml")
    }

    /// Writes the mapping, with its own check of the router.
    fn configure(&mut self, mapping: &str) {
        self.configure_with(mapping, "5s");
    }

    fn configure_with(&mut self, mapping: &str, check_every: &str) {
        self.config = format!(
            "[[mapping]]\nname = \"web\"\n{mapping}[router]\ncheck_every = \"{check_every}\"\n[log]\nformat = \"json\"\n"
        );
        std::fs::write(self.file(), &self.config).expect("the test's own directory");
    }

    fn start(&mut self) {
        let state = self.dir.path().display().to_string();
        let setup = Portway::with(&self.config).env("STATE_DIRECTORY", &state);
        self.portway = Some(self.lab.place(setup, self.on).start());
    }

    fn stop(&mut self) {
        if let Some(portway) = self.portway.take() {
            portway.stop();
        }
    }

    /// Another mapping, by a restart: every listener and opening begins again.
    fn restart_with(&mut self, mapping: &str) {
        self.stop();
        self.configure(mapping);
        self.start();
    }

    fn socket(&self) -> PathBuf {
        self.portway.as_ref().map_or_else(|| self.dir.path().join("none.sock"), Portway::socket)
    }

    /// A command of the program on `lan`.
    fn portway(&self, args: &[&str]) -> Ran {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.lab.network(self.on)]);
        if self.on == "box" {
            let apart = ["unshare", "--mount", "--pid", "--fork", "sh", "-ec", AS_CONTAINER, "sh"];
            command.args(apart);
        }
        command.arg(portway_program());
        Ran::of(command.args(args).arg("--socket").arg(self.socket()).stdin(Stdio::null()))
    }

    /// What the doctor finds, and its exit code.
    fn doctor(&self) -> (Vec<Value>, Option<i32>) {
        let file = self.file();
        let file = file.to_str().expect("a plain path");
        // Without a daemon, the mapping comes from the file.
        let named: &[&str] = if self.portway.is_some() { &[] } else { &["-c", file] };
        let ran = self.portway(&[&["doctor", "web", "--json"], named].concat());
        let json: Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran}"));
        (json["hops"].as_array().expect("a list").clone(), ran.code)
    }

    /// Runs a command of the shell on a machine.
    #[track_caller]
    fn sh(&self, on: &str, command: &str) {
        let mut shell = Command::new("ip");
        shell.args(["netns", "exec", &self.lab.network(on), "sh", "-ec", command]).stdin(Stdio::null());
        Ran::of(shell.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")).exits(0);
    }

    fn is_reached(&self) -> bool {
        let to = SocketAddr::new(IpAddr::V4(RouterLab::WAN), self.port);
        if self.config.contains("/udp") {
            self.lab.reaches_udp("wan", to)
        } else {
            self.lab.reaches_much("wan", to)
        }
    }

    #[track_caller]
    fn wait_reached(&self, when: &str) {
        eventually(&format!("the service is reached from the internet {when}"), || {
            self.is_reached().then_some(())
        });
    }

    /// Everything as it was.
    fn restore(&mut self) {
        self.other = None;
        if self.on != "lan" {
            self.stop();
            self.on = "lan";
        }
        self.lab.run("box down");
        self.sh("lan", &format!("nft flush ruleset\n{RESTORED}"));
        self.lab.run("vpn off");
        self.lab.run("link up");
        self.lab.run("behind off");
        self.sh("rtr", "ip link set p1 mtu 1500; ip link set br0 mtu 1500");
        self.serve();
        self.port = PORT;
        let changed = std::mem::take(&mut self.config);
        self.configure(USUAL);
        if self.portway.is_none() || self.config != changed {
            self.restart_with(USUAL);
        }
        self.wait_reached("again");
    }
}

/// Breaks the household in one way, asks the doctor, and applies its cure.
#[track_caller]
fn walk(home: &mut Home<'_>, way: &Way) {
    let Way { name, hop, evidence, breaks, cures } = way;
    breaks(home);
    let mut last = String::new();
    let finding = crate::harness::eventually_within(
        std::time::Duration::from_secs(90),
        &format!("{name}: {hop} alone fails"),
        || {
            let (hops, code) = home.doctor();
            last = format!("{hops:#?}");
            let failing: Vec<&Value> = hops.iter().filter(|found| found["verdict"] == "fail").collect();
            let is_it = failing.len() == 1 && failing[0]["hop"] == *hop;
            let is_said =
                is_it && failing[0]["evidence"].as_str().is_some_and(|words| words.contains(evidence));
            if !is_said && std::env::var_os("PORTWAY_TEST_SHOW").is_some() {
                eprintln!("{name}: {failing:#?}");
            }
            (is_said && code == Some(1)).then(|| failing[0].clone())
        },
    );
    assert!(!home.is_reached(), "{name}: it is reached although {hop} fails: {finding}");
    let cure = finding["cure"].as_str().unwrap_or_default();
    assert!(!cure.is_empty(), "{name}: {finding}");
    cures(home, cure);
    home.wait_reached(&format!("after the cure of {name}: {cure}"));
    eprintln!("{name}: {hop}: {} -> {cure}", finding["evidence"].as_str().unwrap_or_default());
}

/// Walks all of a table, in one household.
#[track_caller]
fn walk_all(lab: &mut RouterLab, tables: &[&[Way]]) {
    let mut home = Home::new(lab);
    home.wait_reached("at first");
    let (hops, code) = home.doctor();
    let of = |hop: &str| {
        hops.iter().find(|found| found["hop"] == hop).expect("every hop is there")["verdict"].clone()
    };
    let verdicts = ["target", "listener", "firewall", "lan", "router", "internet"].map(of);
    assert_eq!(verdicts, ["ok", "ok", "ok", "ok", "ok", "unknown"], "{hops:#?}");
    assert_eq!((hops.len(), code), (6, Some(0)));
    let mut failed = Vec::new();
    for way in tables.iter().copied().flatten() {
        // One that fails does not hide the others.
        let walked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| walk(&mut home, way)));
        failed.extend(walked.is_err().then_some(way.name));
        home.restore();
    }
    assert_eq!(failed, [""; 0]);
}

#[test]
fn what_is_wrong_with_a_target_or_a_listener_is_named_and_its_cure_helps() {
    in_router_lab(&TOOLS, [("IPV6", "no")], |lab| walk_all(lab, &[TARGET, LISTENER]));
}

#[test]
fn what_is_wrong_with_the_firewall_is_named_and_its_cure_helps() {
    in_router_lab(&TOOLS, [("IPV6", "no")], |lab| walk_all(lab, &[FIREWALL]));
}

#[test]
fn what_is_wrong_with_the_network_is_named_and_its_cure_helps() {
    in_router_lab(&TOOLS, [("IPV6", "no")], |lab| walk_all(lab, &[LAN]));
}

#[test]
fn what_is_wrong_with_the_router_is_named_and_its_cure_helps() {
    in_router_lab(&TOOLS, [("IPV6", "no")], |lab| walk_all(lab, &[ROUTER]));
}

#[test]
fn what_is_wrong_in_front_of_the_router_is_named_and_its_cure_helps() {
    in_router_lab(&TOOLS, [("IPV6", "no")], |lab| walk_all(lab, &[INTERNET]));
}
