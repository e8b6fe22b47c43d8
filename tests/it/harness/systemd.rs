//! A real systemd with the project's own units and the program under test: see `tests/lab/systemd/lab.sh`.
//!
//! One lab of each suite serves all tests of this process, one test after the other. It is booted for the first one, and ends
//! with this process, because its standard input does.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{Network, Ran, eventually, portway_program};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/systemd/lab.sh");
const UNITS: &str = "/usr/lib/systemd/system";
/// What an administrator's files are in.
const OWN_UNITS: &str = "/etc/systemd/system";

/// The releases of Debian whose systemd the unit is tried with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    /// systemd 257.
    Trixie,
    /// systemd 252.
    Bookworm,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Trixie => "trixie",
            Self::Bookworm => "bookworm",
        }
    }

    fn lab(self) -> &'static Mutex<Option<SystemdLab>> {
        static TRIXIE: Mutex<Option<SystemdLab>> = Mutex::new(None);
        static BOOKWORM: Mutex<Option<SystemdLab>> = Mutex::new(None);
        match self {
            Self::Trixie => &TRIXIE,
            Self::Bookworm => &BOOKWORM,
        }
    }
}

/// A systemd that runs.
#[derive(Debug)]
pub(crate) struct SystemdLab {
    /// Its process 1, as this machine numbers it.
    pid: u32,
    _life: (Child, ChildStdin),
}

impl SystemdLab {
    pub(super) const TOOLS: [&'static str; 6] =
        ["ip", "mmdebstrap", "mount", "nsenter", "pivot_root", "unshare"];

    /// Runs `body` in the network of the lab, with a portway that is installed, not configured, and not running.
    #[track_caller]
    pub(super) fn with(suite: Suite, body: impl FnOnce(&Self) + Send) {
        let mut lab = suite.lab().lock().unwrap_or_else(PoisonError::into_inner);
        let lab = lab.get_or_insert_with(|| Self::boot(suite));
        lab.reset();
        let (lab, network) = (&*lab, lab.network());
        let inside = move || {
            network.enter();
            body(lab);
        };
        let ended = std::thread::scope(|scope| scope.spawn(inside).join());
        if let Err(panic) = ended {
            eprintln!("{}", lab.journal());
            std::panic::resume_unwind(panic);
        }
    }

    /// Makes the root of the suite, if there is none yet.
    ///
    /// # Errors
    /// What the script says.
    pub(super) fn prepare(suite: Suite) -> Result<(), String> {
        let ran = Ran::of(Command::new(SCRIPT).args(["root", suite.name()]).stdin(Stdio::null()));
        if ran.code == Some(0) { Ok(()) } else { Err(format!("no Debian root: {}", ran.err.trim())) }
    }

    /// Runs `body` in the network of a lab of its own, without portway: it has only these files, each at its place.
    #[track_caller]
    pub(super) fn bare(suite: Suite, files: &[(PathBuf, &str)], body: impl FnOnce(&Self) + Send) {
        let files = files.iter().map(|(file, place)| format!("{}:{place}", file.display()));
        let lab = Self::boot_with(suite, files.collect());
        let network = Network::of(lab.pid);
        let inside = || {
            network.enter();
            body(&lab);
        };
        let ended = std::thread::scope(|scope| scope.spawn(inside).join());
        if let Err(panic) = ended {
            eprintln!("{}", lab.journal());
            std::panic::resume_unwind(panic);
        }
    }

    fn boot(suite: Suite) -> Self {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
        let mut files = vec![format!("{}:/usr/bin/portway", portway_program().display())];
        let mut install = |file: &str, place: &str| {
            files.push(format!("{}:{place}", project.join(file).display()));
        };
        install("portway.service", &format!("{UNITS}/portway.service"));
        install("portway.socket", &format!("{UNITS}/portway.socket"));
        install("portway.sysusers", "/usr/lib/sysusers.d/portway.conf");
        install("portway.tmpfiles", "/usr/lib/tmpfiles.d/portway.conf");
        if suite == Suite::Trixie {
            let file = "portway.service.d/growing-pauses.conf";
            install(file, &format!("{UNITS}/{file}"));
        }
        let lab = Self::boot_with(suite, files);
        lab.run("systemd-sysusers");
        lab.run("systemd-tmpfiles --create portway.conf");
        lab
    }

    fn boot_with(suite: Suite, files: Vec<String>) -> Self {
        let mut command = Command::new(SCRIPT);
        command.args(["boot", suite.name()]).args(files);
        let started = Instant::now();
        let mut lab = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the script runs");
        let stdin = lab.stdin.take().expect("it is piped");
        let mut line = String::new();
        let said = lab.stdout.take().expect("it is piped");
        BufReader::new(said).read_line(&mut line).expect("the script speaks");
        let pid = line.trim().strip_prefix("up ").and_then(|pid| pid.parse().ok());
        let pid = pid.unwrap_or_else(|| panic!("the lab did not come up, and said {line:?}"));
        eprintln!("systemd of {} is up in {:?}", suite.name(), started.elapsed());
        Self { pid, _life: (lab, stdin) }
    }

    /// Takes back what the test before did.
    fn reset(&self) {
        self.sh(&format!(
            "systemctl stop portway.socket portway.service; rm -rf {OWN_UNITS}/portway.* /etc/portway/*.toml \
             /etc/default/portway /var/lib/portway; systemctl daemon-reload; \
             systemctl reset-failed portway.service portway.socket; journalctl --rotate --vacuum-time=1s"
        ));
    }

    /// Its network, for a thread that moves there.
    #[track_caller]
    pub(crate) fn network(&self) -> Network {
        Network::of(self.pid)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid.to_string(), "-a", "--"]).args(words).stdin(Stdio::null()).env_clear();
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("SYSTEMD_COLORS", "0")
            .env("SYSTEMD_PAGER", "");
        command
    }

    /// Runs a command inside, which may fail.
    pub(crate) fn try_run(&self, command: &str) -> Ran {
        Ran::of(&mut self.command(&command.split_whitespace().collect::<Vec<_>>()))
    }

    /// Runs a command inside, and gives what it says.
    #[track_caller]
    pub(crate) fn run(&self, command: &str) -> String {
        self.try_run(command).exits(0).out
    }

    /// Runs a line of shell inside, whatever comes of it.
    pub(crate) fn sh(&self, line: &str) -> Ran {
        Ran::of(&mut self.command(&["sh", "-c", line]))
    }

    /// Writes a file inside, and makes its directory.
    #[track_caller]
    pub(crate) fn write(&self, path: &str, text: &str) {
        let line = format!("mkdir -p $(dirname {path}) && cat > {path}");
        let mut writer =
            self.command(&["sh", "-c", &line]).stdin(Stdio::piped()).spawn().expect("sh is there");
        writer.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("sh reads");
        assert!(writer.wait().expect("sh ends").success(), "{path} can be written");
    }

    /// Writes the configuration.
    #[track_caller]
    pub(crate) fn configure(&self, text: &str) {
        self.write("/etc/portway/portway.toml", text);
    }

    /// Adds what an administrator says to a unit.
    #[track_caller]
    pub(crate) fn edit(&self, unit: &str, text: &str) {
        self.write(&format!("{OWN_UNITS}/{unit}.d/test.conf"), text);
        self.run("systemctl daemon-reload");
    }

    /// A property of the service.
    #[track_caller]
    pub(crate) fn show(&self, property: &str) -> String {
        self.run(&format!("systemctl show portway.service --value --property {property}")).trim().to_owned()
    }

    /// Waits until the line of the service's status fits.
    #[track_caller]
    pub(crate) fn wait_status(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        let look = || {
            last = self.show("StatusText");
            fits(&last).then(|| last.clone())
        };
        eventually(&format!("the status says {what}"), look)
    }

    /// Waits until the service's state is this one.
    #[track_caller]
    pub(crate) fn wait_state(&self, state: &str) {
        eventually(&format!("the service is {state}"), || (self.show("SubState") == state).then_some(()));
    }

    /// What the journal has of this test.
    pub(crate) fn journal(&self) -> String {
        let mut text = String::new();
        let ran = self.try_run("journalctl -b --no-pager --no-hostname -o short-monotonic -n 150");
        // Writing to a string does not fail.
        let _ = write!(text, "{}{}", ran.out, ran.err);
        text
    }

    /// Waits until the journal has this text.
    #[track_caller]
    pub(crate) fn wait_journal(&self, text: &str) {
        eventually(&format!("the journal has {text:?}"), || self.journal().contains(text).then_some(()));
    }

    /// How long a restart after a failure takes, at the most.
    pub(crate) const RESTART: Duration = Duration::from_secs(10);
}
