//! The programs under test: where they are, what they can do, and how each is configured.
//!
//! All get equal terms: one thread or process for the work, no logs, time limits that never strike, room for every
//! session of every case. What a program cannot do is said, not measured.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use crate::{cases::Load, load::hello::NAME};

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
}

/// The peers, by name.
pub(crate) const PEERS: [(&str, Kind); 5] = [
    ("haproxy", Kind::Haproxy),
    ("nginx", Kind::Nginx),
    ("rinetd", Kind::Rinetd),
    ("socat", Kind::Socat),
    ("realm", Kind::Realm),
];

/// What a build of portway understands: an older one that is compared with may lack some of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Dialect {
    /// A configuration file at all; else only `-p`.
    file: bool,
    /// Limits of sessions, which are off here: all clients are one address, and no peer limits those.
    limits: bool,
    /// A control socket, which then lies in the temporary directory.
    api: bool,
    /// Names on one port, and PROXY headers.
    names: bool,
}

/// What a relay does before it forwards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum First {
    /// Nothing.
    #[default]
    Nothing,
    /// It looks for the name that a TLS client wants.
    Name,
    /// It sends a PROXY header to the target.
    Header,
}

/// One forwarding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Forward {
    pub(crate) listen: SocketAddr,
    pub(crate) target: SocketAddr,
    pub(crate) udp: bool,
    pub(crate) first: First,
}

impl Subject {
    /// A build of portway under a label.
    pub(crate) fn portway(label: &str, path: &Path) -> Result<Self> {
        let path = path.canonicalize().with_context(|| format!("find {}", path.display()))?;
        let version = version_of(Command::new(&path).arg("--version"));
        let dialect = Dialect::of(&path)?;
        Ok(Self { name: label.to_owned(), kind: Kind::Portway, path, version, dialect })
    }

    /// An installed peer; realm is wherever `REALM` says.
    pub(crate) fn peer(name: &str, kind: Kind) -> Option<Self> {
        let path = if kind == Kind::Realm {
            PathBuf::from(std::env::var_os("REALM")?).canonicalize().ok()?
        } else {
            let places = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"];
            places.iter().map(|place| Path::new(place).join(name)).find(|path| path.is_file())?
        };
        let flag = match kind {
            Kind::Socat => "-V",
            Kind::Portway | Kind::Realm => "--version",
            Kind::Haproxy | Kind::Nginx | Kind::Rinetd => "-v",
        };
        let version = version_of(Command::new(&path).arg(flag));
        Some(Self { name: name.to_owned(), kind, path, version, dialect: Dialect::default() })
    }

    /// Why it is not measured in a case, if it is not.
    pub(crate) fn declines(&self, load: Load) -> Option<&'static str> {
        match (self.kind, load) {
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
            (Kind::Portway, Load::Listeners { .. }) if !self.dialect.file => {
                Some("this build reads no configuration file: no reload")
            }
            _ => None,
        }
    }

    /// The signal that makes it read its configuration again.
    pub(crate) fn reload_signal(&self) -> Option<Signal> {
        match self.kind {
            Kind::Portway if !self.dialect.file => None,
            Kind::Portway | Kind::Nginx | Kind::Rinetd => Some(Signal::HUP),
            // Its master process takes this one for a reload.
            Kind::Haproxy => Some(Signal::USR2),
            Kind::Socat | Kind::Realm => None,
        }
    }

    /// Writes the configuration and returns the command that runs it.
    pub(crate) fn configure(&self, forwards: &[Forward], home: &Path, reload: bool) -> Result<Vec<String>> {
        let file = home.join("relay.conf");
        let text = match self.kind {
            Kind::Portway => self.dialect.text(forwards, home),
            Kind::Haproxy => haproxy(forwards),
            Kind::Nginx => nginx(forwards, home),
            Kind::Rinetd => rinetd(forwards, home),
            Kind::Realm => realm(forwards),
            Kind::Socat => String::new(),
        };
        fs::write(&file, text).context("write the relay's configuration")?;
        let file = file.display().to_string();
        let home = home.display().to_string();
        let arguments: Vec<String> = match self.kind {
            Kind::Portway if !self.dialect.file => {
                forwards.iter().flat_map(|forward| ["-p".to_owned(), publish(forward)]).collect()
            }
            Kind::Portway => words(&["run", "-c", &file]),
            Kind::Haproxy if reload => words(&["-W", "-db", "-f", &file]),
            Kind::Haproxy => words(&["-db", "-f", &file]),
            Kind::Nginx => words(&["-p", &home, "-e", "/dev/null", "-c", &file]),
            Kind::Rinetd => words(&["-f", "-c", &file]),
            Kind::Realm => words(&["-c", &file]),
            Kind::Socat => socat(forwards)?,
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

impl Dialect {
    /// Asks a build of portway, with checks that bind nothing.
    fn of(program: &Path) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let file = home.path().join("check.toml");
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let forward = Forward { listen: at(10_001), target: at(10_002), udp: false, first: First::Nothing };
        let understands = |dialect: Self| {
            let first = if dialect.names { First::Name } else { First::Nothing };
            fs::write(&file, dialect.text(&[Forward { first, ..forward }], home.path()))?;
            let check = Command::new(program).args(["check", "-c"]).arg(&file).output()?;
            // A build that reads no file does not know the command, or finds no mapping.
            let plan = String::from_utf8_lossy(&check.stdout);
            anyhow::Ok(check.status.success() && plan.contains("127.0.0.1:10001"))
        };
        let mut dialect = Self { file: true, ..Self::default() };
        if !understands(dialect)? {
            return Ok(Self::default());
        }
        dialect.limits = understands(Self { limits: true, ..dialect })?;
        dialect.api = understands(Self { api: true, ..dialect })?;
        dialect.names = understands(Self { names: true, ..dialect })?;
        Ok(dialect)
    }

    fn text(self, forwards: &[Forward], home: &Path) -> String {
        let plain = forwards.iter().filter(|forward| forward.first == First::Nothing);
        let specs: Vec<String> = plain.map(|forward| format!("{:?}", publish(forward))).collect();
        let mut text = format!("publish = [\n{}\n]\n", specs.join(",\n"));
        if self.limits {
            text += "[defaults]\nmax_sessions = \"unlimited\"\nmax_sessions_per_client = \"unlimited\"\n";
        }
        if self.api {
            text += &format!("[api]\nsocket = {:?}\n", home.join("portway.sock"));
        }
        for Forward { listen, target, first, .. } in forwards {
            let keys = match first {
                First::Nothing => continue,
                First::Name => format!("match = \"tls-sni\"\nhosts = {{ \"{NAME}\" = \"{target}\" }}\n"),
                First::Header => "send_proxy = \"v2\"\n".to_owned(),
            };
            text += &format!("[[mapping]]\nlisten = [\"{listen}\"]\ntargets = [\"{target}\"]\n{keys}");
        }
        text
    }
}

fn publish(forward: &Forward) -> String {
    format!("{}:{}{}", forward.listen, forward.target, if forward.udp { "/udp" } else { "" })
}

fn haproxy(forwards: &[Forward]) -> String {
    // Descriptors for the greatest case: two for each session, some for pipes, one for each listener.
    let sessions = if forwards.len() > 1 { 2_000 } else { 8_500 };
    let mut text = format!(
        "global\n  nbthread 1\n  maxconn {sessions}\n  maxpipes 500\ndefaults\n  mode tcp\n  maxconn {sessions}\n  \
         timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n  option splice-auto\n"
    );
    for (index, forward) in forwards.iter().enumerate() {
        let Forward { listen, target, first, .. } = forward;
        let name = match first {
            First::Name => format!(
                "  tcp-request inspect-delay 3s\n  tcp-request content accept if {{ req.ssl_hello_type 1 }}\n  \
                 use_backend named if {{ req.ssl_sni -i {NAME} }}\n"
            ),
            First::Nothing | First::Header => String::new(),
        };
        let header = if *first == First::Header { " send-proxy-v2" } else { "" };
        text += &format!("listen l{index}\n  bind {listen}\n{name}  server s {target}{header}\n");
        if *first == First::Name {
            text += &format!("backend named\n  server s {target}\n");
        }
    }
    text
}

fn nginx(forwards: &[Forward], home: &Path) -> String {
    let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
    let load = if Path::new(module).exists() { format!("load_module {module};\n") } else { String::new() };
    let home = home.display();
    let mut text = format!(
        "{load}user root;\ndaemon off;\nworker_processes 1;\nworker_rlimit_nofile 20000;\npid {home}/nginx.pid;\n\
         error_log /dev/null crit;\nevents {{ worker_connections 20000; multi_accept on; }}\nstream {{\n\
         access_log off;\nproxy_connect_timeout 5s;\nproxy_timeout 1h;\n"
    );
    for forward in forwards {
        let Forward { listen, target, udp, first } = forward;
        let kind = if *udp { "udp" } else { "backlog=4096" };
        let (to, more) = match first {
            First::Nothing => (target.to_string(), ""),
            First::Name => {
                let to = format!("{{ {NAME} {target}; default {target}; }}");
                text += &format!("map $ssl_preread_server_name $named {to}\n");
                ("$named".to_owned(), " ssl_preread on;")
            }
            First::Header => (target.to_string(), " proxy_protocol on;"),
        };
        text += &format!("server {{ listen {listen} {kind};{more} proxy_pass {to}; }}\n");
    }
    text + "}\n"
}

fn rinetd(forwards: &[Forward], home: &Path) -> String {
    let mut text = format!("pidlogfile {}/rinetd.pid\n", home.display());
    for Forward { listen, target, udp, .. } in forwards {
        let (kind, timeout) = if *udp { ("udp", " [timeout=3600]") } else { ("tcp", "") };
        let (from, to) = (listen.port(), target.port());
        text += &format!("{} {from}/{kind} {} {to}/{kind}{timeout}\n", listen.ip(), target.ip());
    }
    text
}

fn realm(forwards: &[Forward]) -> String {
    let udp = forwards.iter().any(|forward| forward.udp);
    let mut text = format!("[log]\nlevel = \"off\"\n[network]\nno_tcp = {udp}\nuse_udp = {udp}\n");
    for forward in forwards {
        text += &format!("[[endpoints]]\nlisten = \"{}\"\nremote = \"{}\"\n", forward.listen, forward.target);
    }
    text
}

fn socat(forwards: &[Forward]) -> Result<Vec<String>> {
    let [Forward { listen, target, udp, .. }] = forwards else { bail!("socat has one listener a process") };
    let (port, ip) = (listen.port(), listen.ip());
    let [from, to] = if *udp { ["UDP4-LISTEN", "UDP4"] } else { ["TCP4-LISTEN", "TCP4"] };
    let queue = if *udp { "" } else { ",backlog=4096" };
    Ok(vec![format!("{from}:{port},bind={ip},fork,reuseaddr{queue}"), format!("{to}:{target}")])
}
