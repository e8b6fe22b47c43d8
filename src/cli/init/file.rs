//! The file that the answers make.
//!
//! Pure. Invariant: what a person answered becomes a string or nothing; the reader of portway has
//! the last word about the outcome.

use std::fmt::Write as _;

use super::{
    super::fresh::quoted,
    presets::{Ports, Preset},
};

/// The networks of homes.
const HOME: &str = "[\"192.168.0.0/16\", \"10.0.0.0/8\", \"172.16.0.0/12\", \"fd00::/8\", \"fe80::/10\"]";

/// Which clients may enter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Every client.
    Everyone,
    /// Those of the own networks.
    Home,
    /// Those of the own networks, and these.
    These(Vec<String>),
}

/// The answers.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    pub(super) preset: &'static Preset,
    /// The name of the mapping.
    pub(super) name: String,
    /// The host where it runs.
    pub(super) host: String,
    /// Its port there, in place of that of the preset.
    pub(super) port: Option<String>,
    /// The protocol, with `port`.
    pub(super) protocol: String,
    pub(super) who: Who,
    pub(super) router: bool,
}

/// One mapping of the file.
struct One<'a> {
    suffix: &'a str,
    listen: String,
    target: String,
    protocol: &'a str,
    keys: &'a [(&'a str, &'a str)],
}

impl Answers {
    /// The file.
    pub(super) fn file(&self) -> String {
        let Preset { title, note, .. } = self.preset;
        let mut text = "# Made by `portway init`. After a change: portway check -c FILE\n\n".to_owned();
        let _ = writeln!(text, "# {title}.");
        if !note.is_empty() {
            let _ = writeln!(text, "# {note}");
        }
        for one in self.all() {
            self.mapping(&mut text, &one);
            text.push('\n');
        }
        if self.who != Who::Everyone {
            text += "[lists]\n# The networks at home.\n";
            let _ = writeln!(text, "home = {HOME}");
            if let Who::These(clients) = &self.who {
                text += "# Others that may enter: addresses or networks on the internet.\n";
                let clients = clients.iter().map(|client| quoted(client));
                let _ = writeln!(text, "friends = [{}]", clients.collect::<Vec<_>>().join(", "));
            } else {
                text += "# To let in others: add their addresses here, and \"@friends\" to `allow` above.\n";
                text += "# friends = [\"203.0.113.7\", \"2001:db8:7::/48\"]\n";
            }
            text.push('\n');
        }
        if self.preset.is_delicate {
            text += "# A client that is refused more often than this is banned from everything here: for an hour, then two, …\n";
            text += "# Leave this table out where all clients seem to have one address (another proxy in front).\n";
            let exempt = if self.who == Who::Everyone { "" } else { "\"@home\", " };
            let _ = writeln!(
                text,
                "[guard]\nrefusals = \"10/min\"\nban = \"1h\"\nexempt = [{exempt}\"127.0.0.0/8\", \"::1\"]"
            );
        }
        format!("{}\n", text.trim_end())
    }

    fn is_here(&self) -> bool {
        ["127.0.0.1", "localhost", "::1", "[::1]"].contains(&self.host.as_str())
    }

    fn all(&self) -> Vec<One<'_>> {
        let one = |ports: &'static Ports| {
            let listen = ports.listen.unwrap_or(ports.ports).to_owned();
            self.one(ports.suffix, listen, ports.ports, ports.protocol, ports.keys)
        };
        match &self.port {
            // Of several mappings, the first is the one that the port is of.
            Some(port) if !self.preset.ports.is_empty() => {
                let first = &self.preset.ports[0];
                let listen = first.listen.unwrap_or(first.ports).to_owned();
                let mut all = vec![self.one(first.suffix, listen, port, first.protocol, first.keys)];
                all.extend(self.preset.ports[1..].iter().map(one));
                all
            }
            Some(port) => vec![self.one("", port.clone(), port, &self.protocol, &[])],
            None => self.preset.ports.iter().map(one).collect(),
        }
    }

    fn one<'a>(
        &'a self,
        suffix: &'a str,
        listen: String,
        port: &str,
        protocol: &'a str,
        keys: &'a [(&'a str, &'a str)],
    ) -> One<'a> {
        let listen = if self.is_here() && listen == port { moved(&listen) } else { listen };
        let host = if self.host.contains(':') && !self.host.starts_with('[') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        One { suffix, listen, target: format!("{host}:{port}"), protocol, keys }
    }

    fn mapping(&self, text: &mut String, one: &One<'_>) {
        let One { suffix, listen, target, protocol, keys } = one;
        let _ = writeln!(text, "[[mapping]]\nname = {}", quoted(&format!("{}{suffix}", self.name)));
        let is_moved = self.is_here() && !target.ends_with(&format!(":{listen}"));
        if is_moved && self.preset.ports.iter().all(|ports| ports.listen.is_none()) {
            text.push_str(
                "# The service itself has the usual port of this machine, so portway listens beside it.\n",
            );
        }
        let protocol = if *protocol == "tcp" { String::new() } else { format!("/{protocol}") };
        let _ = writeln!(text, "publish = {}", quoted(&format!("{listen}:{target}{protocol}")));
        match &self.who {
            Who::Everyone => {}
            Who::Home => text.push_str("# Which clients may enter: see [lists].\nallow = [\"@home\"]\n"),
            Who::These(_) => {
                text.push_str("# Which clients may enter: see [lists].\nallow = [\"@home\", \"@friends\"]\n");
            }
        }
        if self.router {
            text.push_str("# Ask the home router to forward the port to this machine.\n");
            let port = target.rsplit(':').next().unwrap_or_default();
            if is_moved && self.preset.ports.iter().all(|ports| ports.listen.is_none()) {
                let first = port.split('-').next().unwrap_or(port);
                let _ = writeln!(text, "router = {{ external_port = {first} }}");
            } else {
                text.push_str("router = true\n");
            }
        }
        for (comment, line) in *keys {
            let _ = writeln!(text, "# {comment}\n{line}");
        }
    }
}

/// A port or a range beside the usual one: the service on this machine has that.
fn moved(ports: &str) -> String {
    let by = |port: &str, step: u16| {
        let port: u16 = port.parse().unwrap_or(0);
        port.checked_add(step).unwrap_or_else(|| port.saturating_sub(step)).max(1)
    };
    match ports.split_once('-') {
        Some((first, last)) => format!("{}-{}", by(first, 100), by(last, 100)),
        None => by(ports, 1).to_string(),
    }
}
