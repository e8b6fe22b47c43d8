//! The programs under test: where they are, what they can do, and how each is started.
//!
//! What a program cannot do is said, not measured. Two subjects are no programs. They are the floor that no relay can
//! go below: the kernel's own forwarding, and the load that talks to the target without any relay.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use crate::{
    cases::{Disturbance, Growth, Load},
    config::{self, Dialect, First, Forward, Setup, publish},
};

/// A program under test.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// Its column in the table.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) path: PathBuf,
    pub(crate) version: String,
    /// How portway is configured: what this build of it understands.
    dialect: Dialect,
}

/// Which program it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Portway,
    Haproxy,
    Nginx,
    Rinetd,
    Socat,
    Realm,
    /// The kernel forwards by a rule.
    Kernel,
    /// The load talks to the target.
    Direct,
}

/// The peers by name, and the floor.
pub(crate) const PEERS: [(&str, Kind); 7] = [
    ("haproxy", Kind::Haproxy),
    ("nginx", Kind::Nginx),
    ("rinetd", Kind::Rinetd),
    ("socat", Kind::Socat),
    ("realm", Kind::Realm),
    ("kernel", Kind::Kernel),
    ("direct", Kind::Direct),
];

impl Kind {
    /// Whether it is no program, and a floor rather than a peer.
    pub(crate) fn is_floor(self) -> bool {
        matches!(self, Self::Kernel | Self::Direct)
    }
}

impl Subject {
    /// A build of portway under a label.
    pub(crate) fn portway(label: &str, path: &Path) -> Result<Self> {
        let path = path.canonicalize().with_context(|| format!("find {}", path.display()))?;
        let version = version_of(Command::new(&path).arg("--version"));
        let dialect = dialect_of(&path)?;
        Ok(Self { name: label.to_owned(), kind: Kind::Portway, path, version, dialect })
    }

    /// An installed peer, or the one that a variable such as `HAPROXY` names. The kernel may be asked to forward only in
    /// a network of our own.
    pub(crate) fn peer(name: &str, kind: Kind, own_network: bool) -> Option<Self> {
        let places = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"];
        let find =
            |name: &str| places.iter().map(|place| Path::new(place).join(name)).find(|path| path.is_file());
        let path = match std::env::var_os(name.to_uppercase()) {
            _ if kind == Kind::Direct => PathBuf::new(),
            _ if kind == Kind::Kernel => own_network.then(|| find("nft"))??,
            Some(given) => PathBuf::from(given).canonicalize().ok()?,
            None if kind == Kind::Realm => return None,
            None => find(name)?,
        };
        let flag = match kind {
            Kind::Socat => "-V",
            Kind::Portway | Kind::Realm | Kind::Kernel => "--version",
            Kind::Haproxy | Kind::Nginx | Kind::Rinetd | Kind::Direct => "-v",
        };
        let version = match kind {
            Kind::Direct => "the load talks to the target".to_owned(),
            Kind::Kernel => format!("DNAT by {}", version_of(Command::new(&path).arg(flag))),
            _ => version_of(Command::new(&path).arg(flag)),
        };
        Some(Self { name: name.to_owned(), kind, path, version, dialect: Dialect::default() })
    }

    /// Whether it is measured in a case at all: how costs grow is measured beside the two peers that come nearest.
    pub(crate) fn takes_part(&self, load: Load) -> bool {
        match load {
            Load::Grow { by: Growth::Connections | Growth::Flows, .. } if self.kind.is_floor() => true,
            Load::Grow { .. } => matches!(self.kind, Kind::Portway | Kind::Haproxy | Kind::Nginx),
            _ => true,
        }
    }

    /// Why it is not measured in a case, if it is not.
    pub(crate) fn declines(&self, load: Load) -> Option<&'static str> {
        match (self.kind, load) {
            (Kind::Kernel | Kind::Direct, Load::Idle { .. } | Load::Listeners { .. }) => {
                Some("keeps no memory of a process")
            }
            (Kind::Kernel | Kind::Direct, Load::Named { .. } | Load::Greeted { .. }) => {
                Some("looks at no byte and sends none")
            }
            (Kind::Haproxy, load) if load.is_udp() => Some("relays no UDP"),
            (Kind::Socat, Load::Idle { .. } | Load::Flows { .. } | Load::Ping { connections: 1000 }) => {
                Some("a process for each session: not measured with thousands")
            }
            (Kind::Socat, Load::Listeners { .. }) => Some("a process for each listener"),
            (Kind::Rinetd | Kind::Socat, Load::Named { .. }) => Some("does not route by name"),
            (Kind::Rinetd | Kind::Socat, Load::Greeted { .. }) => Some("sends no PROXY header"),
            (Kind::Realm, Load::Named { .. } | Load::Greeted { .. }) => Some("not configured for it here"),
            (Kind::Portway, Load::Named { .. } | Load::Greeted { .. }) if !self.dialect.names => {
                Some("this build knows neither names nor PROXY headers")
            }
            (_, Load::Under(what)) => self.cannot(what),
            (Kind::Nginx, Load::Grow { by: Growth::Bans, .. }) => Some("has no bans"),
            (Kind::Portway, Load::Listeners { .. } | Load::Grow { .. }) if !self.dialect.file => {
                Some("this build reads no configuration file: no reload")
            }
            _ => None,
        }
    }

    /// Why the same cannot go on beside it as beside portway.
    fn cannot(&self, what: Disturbance) -> Option<&'static str> {
        match (self.kind, what) {
            (Kind::Portway, _) if !self.dialect.file => Some("this build reads no configuration file"),
            (Kind::Portway | Kind::Haproxy, _) => None,
            (Kind::Socat, _) => Some("a process for each listener"),
            (Kind::Kernel | Kind::Direct, _) => Some("nothing that the load would wait for"),
            (Kind::Nginx | Kind::Rinetd, Disturbance::Bulk | Disturbance::Refused | Disturbance::Reload)
            | (Kind::Realm, Disturbance::Bulk) => None,
            (Kind::Realm, Disturbance::Refused) => Some("refuses no client"),
            (Kind::Realm, Disturbance::Reload) => Some("no reload"),
            (Kind::Nginx | Kind::Rinetd | Kind::Realm, Disturbance::Dashboard) => Some("no dashboard"),
        }
    }

    /// The signal that makes it read its configuration again.
    pub(crate) fn reload_signal(&self) -> Option<Signal> {
        match self.kind {
            Kind::Portway if !self.dialect.file => None,
            Kind::Portway | Kind::Nginx | Kind::Rinetd => Some(Signal::HUP),
            // Its master process takes this one for a reload.
            Kind::Haproxy => Some(Signal::USR2),
            Kind::Socat | Kind::Realm | Kind::Kernel | Kind::Direct => None,
        }
    }

    /// Writes the configuration and returns the command that runs it.
    pub(crate) fn configure(&self, setup: &Setup, home: &Path) -> Result<Vec<String>> {
        let file = home.join("relay.conf");
        let text = match self.kind {
            Kind::Portway => self.dialect.text(setup, home),
            Kind::Haproxy => config::haproxy(setup, home),
            // The module of the distribution fits the program of the distribution only.
            Kind::Nginx => config::nginx(setup, home, self.path.starts_with("/usr/sbin")),
            Kind::Rinetd => config::rinetd(setup, home),
            Kind::Realm => config::realm(setup),
            Kind::Socat => String::new(),
            Kind::Kernel | Kind::Direct => bail!("no program, no configuration"),
        };
        fs::write(&file, text).context("write the relay's configuration")?;
        let file = file.display().to_string();
        let home = home.display().to_string();
        let arguments: Vec<String> = match self.kind {
            Kind::Portway if !self.dialect.file => {
                setup.forwards.iter().flat_map(|forward| ["-p".to_owned(), publish(forward)]).collect()
            }
            Kind::Portway => words(&["run", "-c", &file]),
            Kind::Haproxy if setup.reload => words(&["-W", "-db", "-f", &file]),
            Kind::Haproxy => words(&["-db", "-f", &file]),
            Kind::Nginx => words(&["-p", &home, "-e", "/dev/null", "-c", &file]),
            Kind::Rinetd => words(&["-f", "-c", &file]),
            Kind::Realm => words(&["-c", &file]),
            Kind::Socat => config::socat(setup)?,
            Kind::Kernel | Kind::Direct => Vec::new(),
        };
        Ok(std::iter::once(self.path.display().to_string()).chain(arguments).collect())
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// The first line with a number in what a program says of itself.
fn version_of(command: &mut Command) -> String {
    let Ok(output) = command.output() else { return "unknown".to_owned() };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| line.contains(|c: char| c.is_ascii_digit())).unwrap_or("unknown");
    line.chars().take(60).collect::<String>().trim().to_owned()
}

/// Asks a build of portway what it understands, with checks that bind nothing.
fn dialect_of(program: &Path) -> Result<Dialect> {
    let home = tempfile::tempdir()?;
    let file = home.path().join("check.toml");
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let forward = Forward { listen: at(10_001), target: at(10_002), udp: false, first: First::Nothing };
    let understands = |dialect: Dialect| {
        let first = if dialect.names { First::Name } else { First::Nothing };
        fs::write(&file, dialect.text(&Setup::of(vec![Forward { first, ..forward }]), home.path()))?;
        let check = Command::new(program).args(["check", "-c"]).arg(&file).output()?;
        // A build that reads no file does not know the command, or finds no mapping.
        let plan = String::from_utf8_lossy(&check.stdout);
        anyhow::Ok(check.status.success() && plan.contains("127.0.0.1:10001"))
    };
    let mut dialect = Dialect { file: true, ..Dialect::default() };
    if !understands(dialect)? {
        return Ok(Dialect::default());
    }
    dialect.limits = understands(Dialect { limits: true, ..dialect })?;
    dialect.api = understands(Dialect { api: true, ..dialect })?;
    dialect.names = understands(Dialect { names: true, ..dialect })?;
    Ok(dialect)
}
