//! The variables `PORTWAY_…` of the environment: their names, and the words of a switch.
//!
//! Owns the list of names. A name that is not on it is most likely a slip, and worth a warning
//! ([`strays`]): a mapping or a term that it should have set is missing. Does not read the
//! environment itself: the caller passes it in.

use std::{
    cell::{OnceCell, RefCell},
    collections::HashSet,
    ffi::OsStr,
    net::IpAddr,
    ops::RangeInclusive,
};

use crate::{
    config::{
        host::HostView,
        text::{Code, Diagnostics, Span, table::closest},
    },
    mapping::Protocol,
};

/// What the names of all variables of portway begin with.
const PREFIX: &str = "PORTWAY_";
/// What a portway says to the one that takes over from it, or to itself when it executes itself.
const OF_SUCCESSORS: [&str; 2] = ["PORTWAY_HANDOVER", "PORTWAY_SANDBOXED"];
/// Variables of portway's own tests.
const OF_TESTS: [&str; 2] = ["PORTWAY_TEST_", "PORTWAY_SEED"];

/// The variables that say yes or no.
pub(crate) const SWITCHES: [&str; 5] =
    ["PORTWAY_ROUTER", "PORTWAY_WATCH", "PORTWAY_STRICT", "PORTWAY_JSON", "PORTWAY_FAST_PATHS"];
/// The variables that hold something else.
pub(crate) const VALUES: [&str; 11] = [
    "PORTWAY_CONFIG",
    "PORTWAY_PUBLISH",
    "PORTWAY_BASE_DIR",
    "PORTWAY_SOCKET",
    "PORTWAY_LOG_LEVEL",
    "PORTWAY_LOG_FORMAT",
    "PORTWAY_LOG_TARGET",
    "PORTWAY_USER",
    "PORTWAY_SANDBOX",
    "PORTWAY_FROM",
    "PORTWAY_TOKEN_FILE",
];

/// The variables of the commands that write a file. They are no part of what runs.
pub(crate) const OF_WRITERS: [&str; 8] = [
    "PORTWAY_INIT_PRESET",
    "PORTWAY_INIT_TARGET",
    "PORTWAY_INIT_PORT",
    "PORTWAY_INIT_NAME",
    "PORTWAY_INIT_ALLOW",
    "PORTWAY_INIT_OUTPUT",
    "PORTWAY_IMPORT_FROM",
    "PORTWAY_IMPORT_OUTPUT",
];

/// Reads the word of a switch, in upper or lower case. Nothing for any other word.
pub(crate) fn switch(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// The variables of an environment that look like portway's and are not. Sorted.
pub(crate) fn strays<V: AsRef<OsStr>>(variables: impl IntoIterator<Item = (V, V)>) -> Vec<String> {
    let mut strays: Vec<String> = variables
        .into_iter()
        .filter_map(|(name, value)| {
            let name = name.as_ref().to_str()?;
            let is_known = SWITCHES.contains(&name)
                || VALUES.contains(&name)
                || OF_WRITERS.contains(&name)
                || OF_SUCCESSORS.contains(&name)
                || OF_TESTS.iter().any(|of_tests| name.starts_with(of_tests));
            let is_stray =
                name.starts_with(PREFIX) && !is_known && !is_of_an_orchestrator(name, value.as_ref());
            is_stray.then(|| name.to_owned())
        })
        .collect();
    strays.sort();
    strays
}

/// Whether Kubernetes or a Docker link made the variable: they describe a service named `portway`,
/// or `portway-…`, to its neighbours this way.
fn is_of_an_orchestrator(name: &str, value: &OsStr) -> bool {
    let is_url = value.to_str().is_some_and(|v| v.starts_with("tcp://") || v.starts_with("udp://"));
    let is_of_port = ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| {
        let rest = name.rsplit_once(protocol).map(|(port, rest)| (port.rsplit_once("_PORT_"), rest));
        matches!(rest, Some((Some((_, port)), "" | "_PROTO" | "_PORT" | "_ADDR"))
            if !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()))
    });
    let is_of_service = name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT");
    (is_url && name.ends_with("_PORT")) || is_of_port || is_of_service
}

/// Warns of the `strays` that the configuration did not ask for by `${NAME}`.
pub(super) fn warn_of_strays(
    strays: &[String],
    asked: &Asked<'_>,
    span: Span,
    diagnostics: &mut Diagnostics,
) {
    let suffixes: Vec<String> = SWITCHES.iter().chain(&VALUES).map(|name| suffix(name)).collect();
    let suffixes: Vec<&str> = suffixes.iter().map(String::as_str).collect();
    for name in strays.iter().filter(|name| !asked.for_name(name)) {
        let hint = match closest(&suffix(name), &suffixes) {
            Some(near) => format!("did you mean {PREFIX}{}?", near.to_ascii_uppercase()),
            None => format!("the variables are {}", [&VALUES[..], &SWITCHES[..]].concat().join(", ")),
        };
        let message = format!("unknown variable {name} in the environment: it has no effect");
        diagnostics.warning(Code::UnknownKey, span, message).hint(hint);
    }
}

/// A name without the prefix, in lower case.
fn suffix(name: &str) -> String {
    name.strip_prefix(PREFIX).unwrap_or(name).to_ascii_lowercase()
}

/// A machine that remembers which variables the configuration asked for. What every mapping asks
/// is asked of the machine once.
pub(super) struct Asked<'a> {
    host: &'a dyn HostView,
    names: RefCell<HashSet<String>>,
    ephemeral_ports: OnceCell<Option<RangeInclusive<u16>>>,
}

impl<'a> Asked<'a> {
    pub(super) fn new(host: &'a dyn HostView) -> Self {
        Self { host, names: RefCell::default(), ephemeral_ports: OnceCell::new() }
    }

    /// One that remembers what an earlier reading asked for.
    pub(super) fn again(host: &'a dyn HostView, names: &HashSet<String>) -> Self {
        Self { names: RefCell::new(names.clone()), ..Self::new(host) }
    }

    /// The variables that were asked for.
    pub(super) fn names(&self) -> HashSet<String> {
        self.names.borrow().clone()
    }

    fn for_name(&self, name: &str) -> bool {
        self.names.borrow().contains(name)
    }
}

impl HostView for Asked<'_> {
    fn env(&self, name: &str) -> Option<String> {
        let mut names = self.names.borrow_mut();
        if name.starts_with(PREFIX) && !names.contains(name) {
            names.insert(name.to_owned());
        }
        self.host.env(name)
    }

    fn service(&self, name: &str, protocol: Protocol) -> Option<u16> {
        self.host.service(name, protocol)
    }

    fn addresses(&self) -> HashSet<IpAddr> {
        self.host.addresses()
    }

    fn broadcasts(&self) -> HashSet<IpAddr> {
        self.host.broadcasts()
    }

    fn ephemeral_ports(&self) -> Option<RangeInclusive<u16>> {
        self.ephemeral_ports.get_or_init(|| self.host.ephemeral_ports()).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_has_eight_words_in_any_case() {
        for (word, on) in [("true", true), ("1", true), ("Yes", true), ("ON", true), ("on", true)] {
            assert_eq!(switch(word), Some(on), "{word}");
        }
        for word in ["false", "0", "No", "OFF", "off"] {
            assert_eq!(switch(word), Some(false), "{word}");
        }
        for word in ["", "disabled", "2", "tru", " true", "true\r", "y"] {
            assert_eq!(switch(word), None, "{word:?}");
        }
    }

    #[test]
    fn variables_of_portway_of_its_tests_and_of_orchestrators_are_no_strays() {
        let variables = [
            ("PATH", "/bin"),
            ("PORTWAY_PUBLSH", "8080:80"),
            ("PORTWAY_PUBLISH", "8080:80"),
            ("PORTWAY_FAST_PATHS", "off"),
            ("PORTWAY_TEST_SKIPS", "x"),
            ("PORTWAY_SERVICE_HOST", "10.0.0.1"),
            ("PORTWAY_SERVICE_PORT", "8080"),
            ("PORTWAY_SERVICE_PORT_HTTP", "8080"),
            ("PORTWAY_PORT", "tcp://10.0.0.1:8080"),
            ("PORTWAY_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("PORTWAY_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("PORTWAY_UDP_PORT_53_UDP_PORT", "53"),
            ("PORTWAY_LOGLEVEL", "info"),
        ];
        assert_eq!(strays(variables), ["PORTWAY_LOGLEVEL", "PORTWAY_PUBLSH"]);
        assert_eq!(strays([("PORTWAY_PORT", "8080")]), ["PORTWAY_PORT"]);
    }
}
