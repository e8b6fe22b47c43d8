//! The mapping keys that also stand in `[defaults]`, and how the two come together.

use std::{borrow::Cow, net::IpAddr, num::NonZeroU64, time::Duration};

use toml::de::DeTable;

use super::{
    amount,
    cure::{self, Kind, Refusal},
    duration::{self, DURATION},
    expand::Text,
    hint::bare_address,
    hint::{bare, instead},
    policy::{self, PolicyOverrides},
    router::{self, Wish},
    span::Span,
    table::{Given, Reader, Value, closest, entry, word},
};
use crate::{
    mapping::{Timeout, canonical, publish::Protocols},
    meter::SessionLines,
    relay::{tcp::TcpOptions, udp::UdpOptions},
};

/// The keys that a mapping and `[defaults]` share.
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    OPTIONS.into_iter().chain(policy::KEYS).chain(REACH)
}

const OPTIONS: [&str; 8] = [
    "protocol",
    "enabled",
    "connect_timeout",
    "idle_timeout",
    "half_close_timeout",
    "keepalive",
    "source",
    "log",
];
const REACH: [&str; 2] = ["bandwidth_per_session", "router"];

/// The longest TCP keepalive time of the kernel (`MAX_TCP_KEEPIDLE`).
const LONGEST_KEEPALIVE: Duration = Duration::from_secs(32_767);

/// What was given of the shared keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Overrides {
    /// The key `protocol` and its value, where that could be read.
    pub(super) protocol: Option<Given<Option<Protocols>>>,
    pub(super) enabled: Option<bool>,
    pub(super) connect_timeout: Option<Given<Duration>>,
    pub(super) idle_timeout: Option<Given<Timeout>>,
    pub(super) half_close_timeout: Option<Given<Timeout>>,
    pub(super) keepalive: Option<Given<Timeout>>,
    pub(super) source: Option<Given<IpAddr>>,
    pub(super) log: Option<SessionLines>,
    pub(super) policy: PolicyOverrides,
    /// Bytes a second; `None` is unlimited.
    pub(super) bandwidth: Option<Option<NonZeroU64>>,
    pub(super) router: Option<Given<Wish>>,
}

impl Overrides {
    /// Takes the shared keys out of a table.
    pub(super) fn read(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Self {
        Self {
            protocol: entry(reader, table, "protocol")
                .map(|(span, value)| Given { value: protocol(reader, value), span }),
            enabled: table.get("enabled").and_then(|v| reader.flag("enabled", v)),
            connect_timeout: connect_timeout(reader, table),
            idle_timeout: timeout(reader, table, "idle_timeout"),
            half_close_timeout: timeout(reader, table, "half_close_timeout"),
            keepalive: keepalive(reader, table),
            source: table.get("source").and_then(|v| source(reader, v)),
            log: table.get("log").and_then(|v| log(reader, v)),
            policy: PolicyOverrides::read(reader, table),
            bandwidth: table
                .get("bandwidth_per_session")
                .and_then(|v| amount::size(reader, "bandwidth_per_session", v)),
            router: table.get("router").and_then(|v| router::wish(reader, v)),
        }
    }

    /// The keys given here that mean nothing to UDP, with their places and what does instead.
    pub(super) fn tcp_only(&self) -> impl Iterator<Item = (&'static str, Span, &'static str)> {
        const FLOW: &str = "remove it; a flow ends by its `idle_timeout`";
        const SILENT: &str = "remove it; a refused datagram is never answered";
        [
            self.connect_timeout.as_ref().map(|g| ("connect_timeout", g.span, FLOW)),
            self.half_close_timeout.as_ref().map(|g| ("half_close_timeout", g.span, FLOW)),
            self.keepalive.as_ref().map(|g| ("keepalive", g.span, FLOW)),
            self.policy.tcp_only().map(|(key, span)| (key, span, SILENT)),
        ]
        .into_iter()
        .flatten()
    }

    /// The key given here that means nothing to TCP, with its place.
    pub(super) fn udp_only(&self) -> Option<(&'static str, Span)> {
        self.policy.udp_only()
    }

    /// The options of a TCP listener: these keys, then those of `defaults`, then the built-in ones.
    pub(super) fn tcp(&self, defaults: &Self) -> TcpOptions {
        let built_in = TcpOptions::default();
        TcpOptions {
            connect_timeout: first(&self.connect_timeout, &defaults.connect_timeout)
                .unwrap_or(built_in.connect_timeout),
            idle_timeout: first(&self.idle_timeout, &defaults.idle_timeout).unwrap_or(built_in.idle_timeout),
            half_close_timeout: first(&self.half_close_timeout, &defaults.half_close_timeout)
                .unwrap_or(built_in.half_close_timeout),
            keepalive: first(&self.keepalive, &defaults.keepalive).unwrap_or(built_in.keepalive),
            source: first(&self.source, &defaults.source).or(built_in.source),
            bandwidth: self.bandwidth.or(defaults.bandwidth).unwrap_or(built_in.bandwidth),
        }
    }

    /// The options of a UDP listener, in the same order.
    pub(super) fn udp(&self, defaults: &Self) -> UdpOptions {
        let built_in = UdpOptions::default();
        UdpOptions {
            idle_timeout: first(&self.idle_timeout, &defaults.idle_timeout).unwrap_or(built_in.idle_timeout),
            source: first(&self.source, &defaults.source).or(built_in.source),
            bandwidth: self.bandwidth.or(defaults.bandwidth).unwrap_or(built_in.bandwidth),
        }
    }
}

fn first<T: Copy>(own: &Option<Given<T>>, default: &Option<Given<T>>) -> Option<T> {
    own.as_ref().or(default.as_ref()).map(|g| g.value)
}

fn protocol(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Protocols> {
    const FORMS: &str = "use \"tcp\", \"udp\" or \"tcp+udp\"";
    if let Some(words) = value.get_ref().as_array() {
        let has = |word: &str| {
            words.iter().any(|w| w.get_ref().as_str().is_some_and(|w| w.eq_ignore_ascii_case(word)))
        };
        let hint = if has("tcp") && has("udp") { "write \"tcp+udp\"" } else { FORMS };
        reader.wrong_type("protocol", value, "a string").hint(hint);
        return None;
    }
    let kind = Kind { forms: FORMS, guesses: protocol_guesses };
    cure::read(reader, "protocol", value, &kind, |text| {
        Protocols::parse(text).map_err(|e| Refusal::new(e.message, FORMS))
    })
    .map(|given| given.value)
}

/// What was meant by another way to write the protocols.
fn protocol_guesses(text: &str) -> Vec<String> {
    let text = bare(text).to_ascii_lowercase();
    let words: Vec<&str> =
        text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let has = |word| words.contains(&word);
    if (has("tcp") && has("udp")) || ["both", "any", "all", "tcpudp"].into_iter().any(has) {
        return vec!["tcp+udp".to_owned()];
    }
    closest(&text, &["tcp", "udp", "tcp+udp"]).map(str::to_owned).into_iter().collect()
}

fn timeout(reader: &mut Reader<'_>, table: &DeTable<'_>, key: &str) -> Option<Given<Timeout>> {
    cure::read(reader, key, table.get(key)?, &DURATION, duration::parse)
}

fn connect_timeout(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Option<Given<Duration>> {
    const KEY: &str = "connect_timeout";
    const FORMS: &str = "a client waits this long for a dead target; use a time such as \"5s\" or \"500ms\"";
    cure::read(
        reader,
        KEY,
        table.get(KEY)?,
        &Kind { forms: FORMS, ..DURATION },
        |text| match duration::parse(text) {
            Ok(Timeout::After(limit)) => Ok(limit),
            Ok(Timeout::Never) => Err(Refusal::new("`connect_timeout` cannot be \"never\"", FORMS)),
            Err(refusal) => Err(Refusal { hint: FORMS.into(), ..refusal }),
        },
    )
}

fn keepalive(reader: &mut Reader<'_>, table: &DeTable<'_>) -> Option<Given<Timeout>> {
    const KEY: &str = "keepalive";
    const FORMS: &str = "use whole seconds from \"1s\" to \"32767s\", as the kernel does; or \"never\"";
    cure::read(
        reader,
        KEY,
        table.get(KEY)?,
        &Kind { forms: FORMS, ..DURATION },
        |text| match duration::parse(text) {
            Ok(Timeout::After(d)) if d.subsec_nanos() != 0 || d > LONGEST_KEEPALIVE => {
                Err(Refusal::new("`keepalive` is whole seconds, from 1s to 32767s", FORMS))
            }
            Ok(limit) => Ok(limit),
            Err(refusal) => Err(Refusal { hint: FORMS.into(), ..refusal }),
        },
    )
}

fn source(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Given<IpAddr>> {
    let text = reader.text("source", value)?;
    let span = text.span();
    let bare = text.value.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(&text.value);
    match bare.parse::<IpAddr>().map(canonical) {
        Ok(ip) if ip.is_unspecified() => refuse_source(
            reader,
            &text,
            "stands for every address",
            "leave `source` out, and the kernel chooses the address",
        ),
        Ok(ip) if ip.is_multicast() || ip == IpAddr::from([255; 4]) => refuse_source(
            reader,
            &text,
            "is not the address of one machine",
            "use an address of this machine",
        ),
        Ok(value) => Some(Given { value, span }),
        Err(_) => {
            let hint = match bare_address(&text.value) {
                Some(ip) => instead(&text, &format!("\"{ip}\"")),
                None => {
                    "use an address of this machine, without port or zone, as in \"192.168.1.2\"".to_owned()
                }
            };
            refuse_source(reader, &text, "is not an IP address", hint)
        }
    }
}

fn log(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<SessionLines> {
    let words =
        [SessionLines::All, SessionLines::Errors, SessionLines::None].map(|lines| (lines.as_str(), lines));
    word(reader, "log", value, &words)
}

fn refuse_source<T>(
    reader: &mut Reader<'_>,
    text: &Text,
    why: &str,
    hint: impl Into<Cow<'static, str>>,
) -> Option<T> {
    let message = format!("the source `{}` {why}", text.value);
    reader.diagnostics.problem(text.span(), message).text(&text.value).hint(hint);
    None
}
