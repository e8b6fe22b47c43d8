//! What is logged, how, and where to: `[log]`.
//!
//! Owns the words of a log target ([`LogTarget::parse`]), also for the command line. Opens nothing:
//! whether a file can be written is found out by the logger.

use std::{fmt, path::PathBuf};

use serde::Serialize;

use crate::{
    config::text::{
        Keys, Kind, Reader, Refusal,
        cure::{self},
        table::{closest, word},
    },
    log_level::LogLevel,
    mapping::{
        Protocol, TargetAddr,
        publish::{Protocols, TargetSpec},
    },
};

/// What is logged, how, and where to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// The least important line that is written.
    pub level: LogLevel,
    /// The form of a line.
    pub format: LogFormat,
    /// Where lines go.
    pub target: LogTarget,
}

/// What the command line or the environment says in place of `[log]`. It holds for reloads, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOverride {
    /// In place of `level`.
    pub level: Option<LogLevel>,
    /// In place of `format`.
    pub format: Option<LogFormat>,
    /// In place of `target`.
    pub target: Option<LogTarget>,
}

impl LogOverride {
    /// The settings with what is said here in place of theirs.
    pub(crate) fn over(&self, settings: LogSettings) -> LogSettings {
        LogSettings {
            level: self.level.unwrap_or(settings.level),
            format: self.format.unwrap_or(settings.format),
            target: self.target.clone().unwrap_or(settings.target),
        }
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs: an object a line.
    Json,
}

impl LogFormat {
    /// Every format.
    pub const ALL: [Self; 2] = [Self::Text, Self::Json];

    /// The word for it in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }

    /// The format with this name, in upper or lower case.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str().eq_ignore_ascii_case(name))
    }
}

/// Where log lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard error.
    #[default]
    Stderr,
    /// The journal of systemd, by its own protocol.
    Journald,
    /// The syslog of this machine (`/dev/log`).
    Syslog,
    /// A syslog server elsewhere.
    Server(SyslogServer),
    /// A file.
    File(PathBuf),
}

/// A syslog server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogServer {
    /// By datagrams or by a stream.
    pub(crate) protocol: Protocol,
    /// Where it is.
    pub(crate) address: TargetAddr,
}

/// Every form of a target.
const FORMS: &str = "it is \"stderr\", \"journald\", \"syslog\", \"syslog:udp://HOST:PORT\", \
    \"syslog:tcp://HOST:PORT\" or \"file:/PATH\"";
const TARGET: Kind = Kind { forms: FORMS, guesses };
/// The port of syslog over UDP (RFC 5426), which most servers have for TCP, too.
const PORT: u16 = 514;

impl LogTarget {
    /// Reads a target: `stderr`, `journald`, `syslog`, `syslog:udp://HOST:PORT`,
    /// `syslog:tcp://HOST:PORT`, `file:/PATH`.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        match text {
            "stderr" => return Ok(Self::Stderr),
            "journald" => return Ok(Self::Journald),
            "syslog" => return Ok(Self::Syslog),
            _ => {}
        }
        if let Some(path) = text.strip_prefix("file:") {
            let is_file = path.starts_with('/') && !path.ends_with('/') && !path.contains('\0');
            return if is_file {
                Ok(Self::File(path.into()))
            } else {
                let message = format!("the log file `{path}` is not an absolute path of a file");
                Err(Refusal::new(message, "write it as in \"file:/var/log/portway.log\""))
            };
        }
        let schemes = [("syslog:udp://", Protocol::Udp), ("syslog:tcp://", Protocol::Tcp)];
        let server = schemes.into_iter().find_map(|(scheme, p)| Some((p, text.strip_prefix(scheme)?)));
        let Some((protocol, server)) = server else {
            return Err(Refusal::new(format!("unknown log target `{text}`"), FORMS));
        };
        Ok(Self::Server(SyslogServer { protocol, address: address(server, protocol)? }))
    }
}

/// Reads `HOST:PORT`.
fn address(text: &str, protocol: Protocol) -> Result<TargetAddr, Refusal> {
    let forms = || format!("write HOST:PORT, as in \"syslog:{protocol}://10.0.0.5:{PORT}\"");
    let protocols = match protocol {
        Protocol::Tcp => Protocols::Tcp,
        Protocol::Udp => Protocols::Udp,
    };
    let no_services = |_: &str, _: Protocol| None;
    let spec = TargetSpec::parse(text, protocols, &no_services);
    let spec = spec.map_err(|error| Refusal::new(format!("the syslog server `{text}`: {error}"), forms()))?;
    // A port alone would be of this machine, which has a target of its own.
    if !text.contains(':') || spec.ports.count() != 1 {
        return Err(Refusal::new(
            format!("the syslog server `{text}` is not one host and one port"),
            forms(),
        ));
    }
    Ok(TargetAddr { host: spec.host, port: spec.ports.first() })
}

impl fmt::Display for LogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stderr => f.write_str("stderr"),
            Self::Journald => f.write_str("journald"),
            Self::Syslog => f.write_str("syslog"),
            Self::Server(server) => write!(f, "syslog:{}://{}", server.protocol, server.address),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl LogSettings {
    /// Reads `[log]`.
    pub(crate) fn read(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>) -> Self {
        let levels = LogLevel::ALL.map(|l| (l.as_str(), l));
        let formats = LogFormat::ALL.map(|f| (f.as_str(), f));
        let level = keys.get("level").and_then(|v| word(reader, "level", v, &levels));
        let format = keys.get("format").and_then(|v| word(reader, "format", v, &formats));
        let target =
            keys.get("target").and_then(|v| cure::read(reader, "target", v, &TARGET, LogTarget::parse));
        Self {
            level: level.unwrap_or_default(),
            format: format.unwrap_or_default(),
            target: target.unwrap_or_default(),
        }
    }
}

/// What a wrong target may have been meant to be.
fn guesses(text: &str) -> Vec<String> {
    let lower = text.trim().to_ascii_lowercase();
    let word = match &*lower {
        "journal" | "systemd" | "journald" => "journald",
        "stderr" | "stdout" | "console" | "/dev/stderr" => "stderr",
        "syslog" | "rsyslog" | "/dev/log" => "syslog",
        other if other.contains([':', '/']) => "",
        other => closest(other, &["stderr", "journald", "syslog"]).unwrap_or_default(),
    };
    let mut guesses = vec![word.to_owned()];
    if let Some(path) = text.strip_prefix("file://") {
        guesses.push(format!("file:{path}"));
    }
    if text.starts_with('/') {
        guesses.push(format!("file:{text}"));
    }
    if !lower.contains("://") && !lower.starts_with("syslog:") {
        return guesses;
    }
    let (scheme, rest) = lower.split_once("://").unwrap_or(("syslog:udp", &lower));
    let scheme = match scheme {
        "tcp" | "syslog+tcp" | "syslog:tcp" => "syslog:tcp",
        _ => "syslog:udp",
    };
    let server = rest.strip_prefix("syslog:").unwrap_or(rest);
    guesses.push(format!("{scheme}://{server}"));
    guesses.push(format!("{scheme}://{server}:{PORT}"));
    guesses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_shown_as_it_is_read() {
        for text in [
            "stderr",
            "journald",
            "syslog",
            "syslog:udp://10.0.0.5:514",
            "syslog:tcp://[2001:db8::5]:6514",
            "syslog:tcp://logs.lan:601",
            "file:/var/log/portway.log",
        ] {
            assert_eq!(LogTarget::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_wrong_target_is_refused_with_its_cure() {
        let none: Option<&str> = None;
        for (text, cure) in [
            ("", none),
            ("loud", none),
            ("file:portway.log", none),
            ("file:/var/log/", none),
            ("syslog:udp://514", none),
            ("syslog:udp://10.0.0.5:0", none),
            ("syslog:udp://10.0.0.5:514-515", none),
            ("jornald", Some("journald")),
            ("journal", Some("journald")),
            ("STDERR", Some("stderr")),
            ("/dev/log", Some("syslog")),
            ("/var/log/portway.log", Some("file:/var/log/portway.log")),
            ("syslog:udp://10.0.0.5", Some("syslog:udp://10.0.0.5:514")),
            ("syslog://10.0.0.5:514", Some("syslog:udp://10.0.0.5:514")),
            ("tcp://logs.lan:601", Some("syslog:tcp://logs.lan:601")),
            ("syslog:10.0.0.5:514", Some("syslog:udp://10.0.0.5:514")),
        ] {
            assert!(LogTarget::parse(text).is_err(), "{text}");
            assert_eq!(TARGET.cure(text, LogTarget::parse).as_deref(), cure, "{text}");
        }
    }
}
