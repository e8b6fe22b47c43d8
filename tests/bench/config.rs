//! How each program is configured for a case.
//!
//! All get equal terms: time limits that never strike, room for every session of the case, as many threads or processes
//! as they have cores. Whatever a program reads lies in the run's directory.

use std::{fs, io::Write as _, net::Ipv4Addr, net::SocketAddr, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::load::hello::NAME;

/// The clients that a case wants refused come from here.
pub(crate) const REFUSED: &str = "127.66.0.0/16";
/// Sessions that a relay with one listener has room for, and one with many.
const ROOM: [usize; 2] = [8_500, 2_000];
/// The list that keeps clients out, one network a line.
const LIST: &str = "blocked.txt";
/// The same as bans, in the file that portway keeps them in.
const BANS: &str = "bans.json";
/// The same as nginx reads it.
const GEO: &str = "blocked.geo";

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

/// Which clients may not enter. Those of the load may, but for [`REFUSED`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum KeepOut {
    #[default]
    Nobody,
    /// The networks of a list with so many entries.
    Listed(usize),
    /// So many banned addresses.
    Banned(usize),
    /// [`REFUSED`].
    Refused,
}

/// All that a configuration says.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) forwards: Vec<Forward>,
    /// It will be asked to read its configuration again.
    pub(crate) reload: bool,
    pub(crate) threads: usize,
    /// Sessions at a time.
    pub(crate) room: usize,
    pub(crate) keep_out: KeepOut,
    /// Where its dashboard is asked for.
    pub(crate) window: Option<SocketAddr>,
}

impl Setup {
    /// Plain forwards.
    pub(crate) fn of(forwards: Vec<Forward>) -> Self {
        let room = if forwards.len() > 1 { ROOM[1] } else { ROOM[0] };
        Self { forwards, reload: false, threads: 1, room, keep_out: KeepOut::Nobody, window: None }
    }
}

/// What a build of portway understands: an older one that is compared with may lack some of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Dialect {
    /// A configuration file at all; else only `-p`.
    pub(crate) file: bool,
    /// Limits of sessions, which are off here: all clients are one address, and no peer limits those.
    pub(crate) limits: bool,
    /// A control socket, which then lies in the temporary directory.
    pub(crate) api: bool,
    /// Names on one port, and PROXY headers.
    pub(crate) names: bool,
}

impl Dialect {
    /// The configuration file of portway.
    pub(crate) fn text(self, setup: &Setup, home: &Path) -> String {
        let Setup { forwards, keep_out, .. } = setup;
        let plain = forwards.iter().filter(|forward| forward.first == First::Nothing);
        let specs: Vec<String> = plain.map(|forward| format!("{:?}", publish(forward))).collect();
        let mut text = format!("publish = [\n{}\n]\n[defaults]\n", specs.join(",\n"));
        if self.limits {
            text += "max_sessions = \"unlimited\"\nmax_sessions_per_client = \"unlimited\"\n";
        }
        text += &match keep_out {
            KeepOut::Nobody => String::new(),
            KeepOut::Refused => format!("deny = [\"{REFUSED}\"]\n"),
            KeepOut::Listed(_) => {
                format!("deny = [\"@blocked\"]\n[lists]\nblocked = {{ file = {:?} }}\n", home.join(LIST))
            }
            KeepOut::Banned(_) => format!("[guard]\nstate = {:?}\n", home.join(BANS)),
        };
        if self.api {
            text += &format!("[api]\nsocket = {:?}\n", home.join("portway.sock"));
            text += &setup.window.map_or(String::new(), |window| format!("listen = \"{window}\"\n"));
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

/// As it is given to `-p`.
pub(crate) fn publish(forward: &Forward) -> String {
    format!("{}:{}{}", forward.listen, forward.target, if forward.udp { "/udp" } else { "" })
}

/// Writes the list of those that may not enter, in each of its forms.
pub(crate) fn write_lists(keep_out: KeepOut, home: &Path) -> Result<()> {
    let (entries, longest) = match keep_out {
        KeepOut::Nobody | KeepOut::Refused => return Ok(()),
        KeepOut::Listed(entries) => (entries, 9),
        KeepOut::Banned(entries) => (entries, 1),
    };
    let create = |name| fs::File::create(home.join(name)).map(std::io::BufWriter::new);
    let (mut list, mut bans, mut geo) = (create(LIST)?, create(BANS)?, create(GEO)?);
    write!(bans, "{{\"version\":1,\"bans\":[")?;
    for (index, n) in (0..u32::try_from(entries)?).enumerate() {
        // Spread over all of 64.0.0.0/2, in no order; networks of different lengths, or single addresses.
        let length = 32 - n % longest;
        let bits = 0x4000_0000 | (n.wrapping_mul(0x9E37_79B1) >> 2);
        let address = Ipv4Addr::from(bits & (u32::MAX << (32 - length)));
        writeln!(list, "{address}/{length}")?;
        writeln!(geo, "{address}/{length} 127.0.0.1:1;")?;
        let comma = if index > 0 { "," } else { "" };
        write!(bans, "{comma}{{\"client\":\"{address}\",\"since\":\"2026-01-01T00:00:00Z\",\"until\":null,")?;
        write!(bans, "\"reason\":\"operator\",\"repeats\":0}}")?;
    }
    write!(bans, "],\"past\":[]}}")?;
    [list.flush(), bans.flush(), geo.flush()].into_iter().collect::<Result<_, _>>().context("write the lists")
}

/// The configuration file of HAProxy.
pub(crate) fn haproxy(setup: &Setup, home: &Path) -> String {
    let Setup { forwards, threads, room, keep_out, window, .. } = setup;
    // Descriptors for the greatest case: two for each session, some for pipes, one for each listener.
    let mut text = format!(
        "global\n  nbthread {threads}\n  maxconn {room}\n  maxpipes 500\ndefaults\n  mode tcp\n  maxconn {room}\n  \
         timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n  option splice-auto\n"
    );
    let refuse = match keep_out {
        KeepOut::Nobody => String::new(),
        KeepOut::Refused => format!("  tcp-request connection reject if {{ src {REFUSED} }}\n"),
        KeepOut::Listed(_) | KeepOut::Banned(_) => {
            format!("  tcp-request connection reject if {{ src -f {} }}\n", home.join(LIST).display())
        }
    };
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
        text += &format!("listen l{index}\n  bind {listen}\n{refuse}{name}  server s {target}{header}\n");
        if *first == First::Name {
            text += &format!("backend named\n  server s {target}\n");
        }
    }
    if let Some(window) = window {
        text += &format!("listen stats\n  mode http\n  bind {window}\n  stats enable\n  stats uri /\n");
    }
    text
}

/// The configuration file of nginx.
pub(crate) fn nginx(setup: &Setup, home: &Path, modular: bool) -> String {
    let Setup { forwards, threads, room, keep_out, .. } = setup;
    let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
    let load = modular && Path::new(module).exists();
    let load = if load { format!("load_module {module};\n") } else { String::new() };
    let place = home.display();
    let descriptors = (2 * room + forwards.len() + 1_000).max(20_000);
    let mut text = format!(
        "{load}user root;\ndaemon off;\nworker_processes {threads};\nworker_rlimit_nofile {descriptors};\n\
         pid {place}/nginx.pid;\nerror_log /dev/null crit;\n\
         events {{ worker_connections {descriptors}; multi_accept on; }}\nstream {{\n\
         access_log off;\nproxy_connect_timeout 5s;\nproxy_timeout 1h;\n"
    );
    let mut refuse = String::new();
    match (keep_out, forwards.first()) {
        // It has lists as variables only: a client that is in it would go where nothing listens.
        (KeepOut::Listed(_), Some(forward)) => {
            text += &format!("geo $to {{ default {}; include {place}/{GEO}; }}\n", forward.target);
        }
        (KeepOut::Refused, _) => refuse = format!(" deny {REFUSED};"),
        _ => {}
    }
    for forward in forwards {
        let Forward { listen, target, udp, first } = forward;
        let kind = match udp {
            true => "udp",
            // One queue for each of its processes.
            false if *threads > 1 => "backlog=4096 reuseport",
            false => "backlog=4096",
        };
        let (to, more) = match first {
            First::Nothing if matches!(keep_out, KeepOut::Listed(_)) => ("$to".to_owned(), ""),
            First::Nothing => (target.to_string(), ""),
            First::Name => {
                let to = format!("{{ {NAME} {target}; default {target}; }}");
                text += &format!("map $ssl_preread_server_name $named {to}\n");
                ("$named".to_owned(), " ssl_preread on;")
            }
            First::Header => (target.to_string(), " proxy_protocol on;"),
        };
        text += &format!("server {{ listen {listen} {kind};{refuse}{more} proxy_pass {to}; }}\n");
    }
    text + "}\n"
}

/// The configuration file of rinetd.
pub(crate) fn rinetd(setup: &Setup, home: &Path) -> String {
    let mut text = format!("pidlogfile {}/rinetd.pid\n", home.display());
    if setup.keep_out == KeepOut::Refused {
        // It compares text.
        text += &format!("deny {}\n", REFUSED.replace("0.0/16", "*"));
    }
    for Forward { listen, target, udp, .. } in &setup.forwards {
        let (kind, timeout) = if *udp { ("udp", " [timeout=3600]") } else { ("tcp", "") };
        let (from, to) = (listen.port(), target.port());
        text += &format!("{} {from}/{kind} {} {to}/{kind}{timeout}\n", listen.ip(), target.ip());
    }
    text
}

/// The configuration file of realm.
pub(crate) fn realm(setup: &Setup) -> String {
    let udp = setup.forwards.iter().any(|forward| forward.udp);
    let mut text = format!("[log]\nlevel = \"off\"\n[network]\nno_tcp = {udp}\nuse_udp = {udp}\n");
    for forward in &setup.forwards {
        text += &format!("[[endpoints]]\nlisten = \"{}\"\nremote = \"{}\"\n", forward.listen, forward.target);
    }
    text
}

/// The arguments of socat.
pub(crate) fn socat(setup: &Setup) -> Result<Vec<String>> {
    let [Forward { listen, target, udp, .. }] = setup.forwards[..] else {
        bail!("socat has one listener a process")
    };
    let (port, ip) = (listen.port(), listen.ip());
    let [from, to] = if udp { ["UDP4-LISTEN", "UDP4"] } else { ["TCP4-LISTEN", "TCP4"] };
    let queue = if udp { "" } else { ",backlog=4096" };
    Ok(vec![format!("{from}:{port},bind={ip},fork,reuseaddr{queue}"), format!("{to}:{target}")])
}
