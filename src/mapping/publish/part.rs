//! The parts of a spec: cutting it at its colons, and reading each part as an address, a host or
//! ports.
//!
//! A [`Part`] keeps its offset in the spec, so that an error can point at it. Nothing here knows
//! which part comes first: that is the grammar, one level up.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU16,
};

use super::{Protocols, Services, SpecError};
use crate::mapping::{Host, PortSpan, Protocol, Zone, canonical, is_nowhere};

const PORT_HINT: &str = "use a port from 1 to 65535";
const FORM_HINT: &str =
    "a spec is made of addresses, host names, ports and colons, as in 8080:80 or 8080:10.0.0.5:80";

/// A piece of the text, and where it begins.
#[derive(Clone, Copy)]
pub(super) struct Part<'t> {
    pub(super) text: &'t str,
    at: usize,
}

impl<'t> Part<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    fn sub(self, from: usize, to: usize) -> Self {
        Self { text: &self.text[from..to], at: self.at + from }
    }

    fn split_at(self, at: usize) -> (Self, Self) {
        (self.sub(0, at), self.sub(at, self.text.len()))
    }

    pub(super) fn error(self, message: impl Into<String>) -> SpecError {
        SpecError { at: self.at, len: self.text.len(), message: message.into(), hint: None }
    }
}

impl SpecError {
    /// Says what would be right.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What a port is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Listen,
    Target,
}

/// Takes the protocol off the end; without one it is TCP.
pub(super) fn split_protocol(spec: Part<'_>) -> Result<(Part<'_>, Protocols), SpecError> {
    let Some(slash) = protocol_slash(spec) else { return Ok((spec, Protocols::Tcp)) };
    let (front, tail) = spec.split_at(slash);
    Ok((front, protocols(tail.sub(1, tail.text.len()))?))
}

/// The address, if there is one, and the ports of an entry of the long form.
pub(super) fn halves<'t>(text: &'t str, form: &str) -> Result<(Option<Part<'t>>, Part<'t>), SpecError> {
    let spec = without_protocol(plain(Part::new(text))?)?;
    match *cut(spec)?.as_slice() {
        [ports] => Ok((None, ports)),
        [address, ports] => Ok((Some(address), ports)),
        _ => Err(too_many(spec, form)),
    }
}

/// Refuses a protocol where the long form has a key for it.
fn without_protocol(spec: Part<'_>) -> Result<Part<'_>, SpecError> {
    let Some(slash) = protocol_slash(spec) else { return Ok(spec) };
    let (_, tail) = spec.split_at(slash);
    let word = &tail.text[1..];
    let word = if protocols(Part::new(word)).is_ok() { word } else { "tcp+udp" };
    Err(tail
        .error("an address has no protocol here")
        .hint(format!("name it once for the mapping: protocol = \"{word}\"")))
}

/// The first slash that is not in brackets.
fn protocol_slash(spec: Part<'_>) -> Option<usize> {
    let from = spec.text.rfind(']').unwrap_or(0);
    spec.text[from..].find('/').map(|i| from + i)
}

pub(super) fn protocols(word: Part<'_>) -> Result<Protocols, SpecError> {
    match word.text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocols::Tcp),
        "udp" => Ok(Protocols::Udp),
        "tcp+udp" | "udp+tcp" => Ok(Protocols::Both),
        "" => Err(word.error("the protocol is missing").hint("use tcp, udp or tcp+udp")),
        _ if word.text.starts_with(|c: char| c.is_ascii_digit()) => {
            Err(word.error(format!("`/{}` is not a protocol", word.text)).hint("use tcp, udp or tcp+udp"))
        }
        _ => Err(word.error(format!("unknown protocol `{}`", word.text)).hint("use tcp, udp or tcp+udp")),
    }
}

/// Refuses what no spec holds, before anything else is made of it.
pub(super) fn plain(spec: Part<'_>) -> Result<Part<'_>, SpecError> {
    if let Some(at) = spec.text.find("://") {
        let from = spec.text[..at].rfind(|c: char| !c.is_ascii_alphanumeric()).map_or(0, |i| i + 1);
        let scheme = spec.sub(from, at + 3);
        return Err(scheme.error(format!("a spec has no `{}`", scheme.text)).hint(FORM_HINT));
    }
    let is_foreign = |c: char| !(c.is_ascii_alphanumeric() || ".:-_/+*%[]".contains(c));
    match spec.text.char_indices().find(|(_, c)| is_foreign(*c)) {
        Some((at, c)) if !in_zone(spec.text, at) => {
            let what = foreign(c, &spec.text[at..]);
            Err(spec.sub(at, at + c.len_utf8()).error(format!("{what} does not belong here")).hint(FORM_HINT))
        }
        _ => Ok(spec),
    }
}

/// The name of an interface may hold nearly every character.
fn in_zone(text: &str, at: usize) -> bool {
    let open = text[..at].rfind('[');
    open.is_some_and(|open| text[open..at].contains('%') && !text[open..at].contains(']'))
}

fn foreign(c: char, rest: &str) -> String {
    match c {
        '\t' => "a tab".to_owned(),
        '\r' => "a carriage return".to_owned(),
        '\n' => "a line break".to_owned(),
        c if c.is_whitespace() => "a space".to_owned(),
        '"' | '\'' | '`' | '\u{2018}'..='\u{201f}' | '«' | '»' => "a quotation mark".to_owned(),
        '\u{2010}'..='\u{2015}' | '\u{2212}' => format!("`{c}` (a long dash)"),
        '>' => "an arrow".to_owned(),
        '=' if rest.starts_with("=>") => "an arrow".to_owned(),
        c => format!("`{c}`"),
    }
}

/// Cuts a spec at the colons that are not in brackets; never empty.
pub(super) fn cut(spec: Part<'_>) -> Result<Vec<Part<'_>>, SpecError> {
    let mut parts = Vec::new();
    let mut rest = spec;
    loop {
        let end = match rest.text.strip_prefix('[') {
            None => rest.text.find(':').unwrap_or(rest.text.len()),
            Some(_) => match rest.text.find(']') {
                Some(bracket) => bracket + 1,
                None => {
                    return Err(rest
                        .error("the bracket is not closed")
                        .hint("close it after the address, as in [2001:db8::5]:80"));
                }
            },
        };
        let (part, tail) = rest.split_at(end);
        parts.push(part);
        if tail.text.is_empty() {
            break;
        }
        if !tail.text.starts_with(':') {
            return Err(tail
                .error(format!("`{}` follows a closing bracket", tail.text))
                .hint("a colon follows it, as in [2001:db8::5]:80"));
        }
        rest = tail.sub(1, tail.text.len());
    }
    if is_bare_v6(spec.text, &parts) {
        return Err(spec
            .error("an IPv6 address stands in brackets")
            .hint("set the address off from its port, as in [2001:db8::5]:80"));
    }
    Ok(parts)
}

/// Whether the colons of an IPv6 address without brackets made these parts.
fn is_bare_v6(text: &str, parts: &[Part<'_>]) -> bool {
    let hex = |p: &Part<'_>| p.text.len() <= 4 && p.text.bytes().all(|c| c.is_ascii_hexdigit());
    let letter = |p: &Part<'_>| hex(p) && p.text.bytes().any(|c| c.is_ascii_alphabetic());
    let zone = |p: &Part<'_>| p.text.contains('%');
    let doubled = parts.len() > 2 && parts[1..parts.len() - 1].iter().any(|p| p.text.is_empty());
    (doubled && (text.starts_with("::") || parts.iter().any(|p| letter(p) || zone(p))))
        || (parts.len() > 4 && (doubled || parts.iter().filter(|p| hex(p)).count() >= 8))
}

pub(super) fn too_many(spec: Part<'_>, form: &str) -> SpecError {
    spec.error("too many parts between colons").hint(format!("the form is {form}"))
}

pub(super) fn target_missing(only: Part<'_>) -> SpecError {
    if only.text.is_empty() {
        return only.error("the spec is empty").hint("write LISTEN_PORT:TARGET_PORT, as in 8080:80");
    }
    let is_ports = only.text.bytes().all(|c| c.is_ascii_digit() || c == b'-') && only.text != "-";
    let message =
        if is_ports || only.text.contains('.') { "the target is missing" } else { "this is not a spec" };
    only.error(message).hint("write LISTEN_PORT:TARGET_PORT, as in 8080:80, or LISTEN_PORT:HOST:TARGET_PORT")
}

/// Whether it is an address literal, or clearly meant as one.
pub(super) fn is_address(part: Part<'_>) -> bool {
    let bare = part.text.split('%').next().unwrap_or(part.text);
    part.text.starts_with('[')
        || (bare.contains('.') && bare.bytes().all(|c| c.is_ascii_digit() || c == b'.'))
        || part.text.eq_ignore_ascii_case("localhost")
        || part.text == "*"
}

/// Whether a part that should be a port is a host: an address, or a name with a dot.
pub(super) fn is_host_without_port(part: Part<'_>) -> bool {
    is_address(part) || (part.text.contains('.') && Host::name(part.text).is_some())
}

pub(super) fn listen_ip(part: Part<'_>) -> Result<(IpAddr, Option<Zone>), SpecError> {
    match part.text {
        "" => Err(part
            .error("the listen address is empty")
            .hint("leave out its colon to listen on every address of this machine")),
        "*" => Err(part
            .error("`*` is not an address")
            .hint("leave it out to listen on every address of this machine")),
        text if text.eq_ignore_ascii_case("localhost") => Err(part
            .error("a listen address is an IP address, not a name")
            .hint("use 127.0.0.1, or [::1] for IPv6")),
        _ => ip(part)?.ok_or_else(|| {
            part.error(format!("`{}` is not an IP address of this machine", part.text)).hint(
                "a listen address is an IP address such as 192.168.1.2 or [::1]; leave it out for every address",
            )
        }),
    }
}

pub(super) fn target_host(part: Part<'_>) -> Result<Host, SpecError> {
    if part.text.is_empty() {
        return Err(part
            .error("the target host is empty")
            .hint("leave out its colon to lead to this machine (127.0.0.1)"));
    }
    match ip(part)? {
        Some((ip, _)) if is_nowhere(ip) => {
            let this = if ip.is_ipv4() { "127.0.0.1" } else { "[::1]" };
            Err(part
                .error(format!("`{}` is not an address to connect to", part.text))
                .hint(format!("{this} is this machine")))
        }
        Some((ip, zone)) => Ok(Host::Ip(ip, zone)),
        None if Host::srv(part.text).is_some() => Err(part
            .error("the records of a service name have the port")
            .hint(format!("leave the port out: {}", part.text))),
        None => Host::name(part.text).ok_or_else(|| {
            part.error(format!("`{}` is neither an IP address nor a host name", part.text))
                .hint("as in 10.0.0.5, [2001:db8::5] or nas.lan")
        }),
    }
}

/// An address literal, `None` where the part is none, an error where it is a broken one.
fn ip(part: Part<'_>) -> Result<Option<(IpAddr, Option<Zone>)>, SpecError> {
    if part.text.starts_with('[') {
        return bracketed(part.sub(1, part.text.len() - 1)).map(Some);
    }
    let bare = part.text.split('%').next().unwrap_or(part.text);
    match bare.parse::<Ipv4Addr>() {
        Ok(_) if bare.len() < part.text.len() => {
            let (_, zone) = part.split_at(bare.len());
            Err(zone.error("an IPv4 address has no zone").hint("a zone follows a link-local IPv6 address"))
        }
        Ok(ip) => Ok(Some((ip.into(), None))),
        Err(_) if is_address(part) && bare.contains('.') => {
            Err(part.error(format!("`{}` is not an IPv4 address", part.text)).hint("as in 192.168.1.2"))
        }
        Err(_) => Ok(None),
    }
}

fn bracketed(inner: Part<'_>) -> Result<(IpAddr, Option<Zone>), SpecError> {
    let percent = inner.text.find('%');
    let (address, tail) = inner.split_at(percent.unwrap_or(inner.text.len()));
    let Ok(ip) = address.text.parse::<Ipv6Addr>() else {
        let error = address.error(format!("`{}` is not an IPv6 address", address.text));
        let is_v4 = address.text.parse::<Ipv4Addr>().is_ok();
        return Err(error.hint(if is_v4 { "brackets are for IPv6 only" } else { "as in [2001:db8::5]" }));
    };
    let zone = match percent {
        None => None,
        Some(_) => {
            let name = tail.sub(1, tail.text.len());
            Some(Zone::new(name.text).ok_or_else(|| {
                name.error(format!("`{}` is not the name of an interface", name.text))
                    .hint("as in [fe80::1%eth0]")
            })?)
        }
    };
    // A multicast address of the link may name its interface; without it, the kernel chooses one.
    let is_multicast_of_link = ip.octets()[..2] == [0xff, 0x02];
    match (ip.is_unicast_link_local(), &zone) {
        (false, Some(_)) if is_multicast_of_link => Ok((ip.into(), zone)),
        (true, None) => Err(inner
            .error("a link-local address needs its interface")
            .hint(format!("write its name behind the address, as in [{ip}%eth0]"))),
        (false, Some(_)) => {
            Err(tail.error("only a link-local address has a zone").hint("leave the zone out"))
        }
        _ => Ok((canonical(ip.into()), zone)),
    }
}

/// A port, a range of ports or the name of a service.
pub(super) fn ports(
    part: Part<'_>,
    role: Role,
    protocols: Protocols,
    services: Services<'_>,
) -> Result<PortSpan, SpecError> {
    let text = part.text;
    if text.is_empty() {
        let which = if role == Role::Listen { "listen" } else { "target" };
        return Err(part.error(format!("the {which} port is empty")).hint(PORT_HINT));
    }
    if is_number(text) {
        return Ok(PortSpan::single(port(part, role)?));
    }
    if let Some((first, last)) = text.split_once('-')
        && is_number(first)
        && is_number(last)
    {
        let (low, rest) = part.split_at(first.len());
        let (first, last) = (port(low, role)?, port(rest.sub(1, rest.text.len()), role)?);
        return PortSpan::new(first, last).ok_or_else(|| {
            part.error(format!("the range {text} is reversed")).hint("the lower port comes first")
        });
    }
    let number = protocols.iter().find_map(|p| services(text, p)).and_then(NonZeroU16::new);
    number.map(PortSpan::single).ok_or_else(|| no_ports(part, role, protocols, services))
}

fn no_ports(part: Part<'_>, role: Role, protocols: Protocols, services: Services<'_>) -> SpecError {
    let text = part.text;
    let other =
        [Protocol::Tcp, Protocol::Udp].into_iter().find(|p| services(text, *p).is_some_and(|n| n != 0));
    let is_name = text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b'+'))
        && text.bytes().any(|c| c.is_ascii_alphabetic());
    let is_range = text.bytes().all(|c| c.is_ascii_digit() || c == b'-');
    if let Some(other) = other {
        part.error(format!("the service `{text}` is not known for {protocols}, only for {other}"))
            .hint("use the port number, or that protocol")
    } else if is_range {
        part.error(format!("`{text}` is not a range of ports")).hint("as in 5000-5010")
    } else if is_name {
        part.error(format!("unknown service `{text}`")).hint(match role {
            Role::Target => format!(
                "use a port number or a name in /etc/services; a host needs its port, as in {text}:80"
            ),
            Role::Listen if text.contains('.') => "a listen address is an IP address, not a name".into(),
            Role::Listen => "use a port number or a name in /etc/services".into(),
        })
    } else {
        part.error(format!("`{text}` is not a port")).hint(PORT_HINT)
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit())
}

fn port(part: Part<'_>, role: Role) -> Result<NonZeroU16, SpecError> {
    let significant = part.text.trim_start_matches('0');
    match significant.parse::<u16>().map(NonZeroU16::new) {
        Ok(Some(port)) => Ok(port),
        _ if significant.is_empty() => {
            let verb = if role == Role::Listen { "listened on" } else { "connected to" };
            Err(part.error(format!("port 0 cannot be {verb}")).hint(PORT_HINT))
        }
        _ => Err(part.error(format!("port {} is above 65535", part.text)).hint(PORT_HINT)),
    }
}
