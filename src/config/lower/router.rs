//! `[router]`: how the home router is asked; and the key `router` of a mapping: whether it is.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    time::Duration,
};

use toml::de::DeValue;

use crate::{
    config::{
        keys,
        text::{
            Code, Keys, Reader, Value,
            bounded::Bounds,
            hint::{bare_address, instead},
            table::{truth, word},
        },
    },
    gateway::{OnConflict, RouterProtocol, RouterSettings},
    mapping::{Exposure, WhileDown, Zone, canonical, is_of_one_machine},
};

/// What the key `router` of a mapping says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Stay closed.
    Closed,
    /// Be open; with a range, the external port is the first of as many.
    Open(Exposure),
}

/// The words of `while_down`.
const WHILE_DOWN: [(&str, WhileDown); 2] =
    [(WhileDown::Keep.as_str(), WhileDown::Keep), (WhileDown::Close.as_str(), WhileDown::Close)];

/// Reads the key `router` of a mapping.
pub(crate) fn wish(reader: &mut Reader<'_>, key: &str, value: &Value<'_>) -> Option<Wish> {
    Some(match value.get_ref() {
        DeValue::Boolean(true) => Wish::Open(Exposure::default()),
        DeValue::Boolean(false) => Wish::Closed,
        DeValue::Table(table) => {
            let mut keys = Keys::of(table, &keys::OPENING);
            let exposure = Exposure {
                external_port: keys.get("external_port").and_then(|v| port(reader, v)),
                ipv6: keys.get("ipv6").and_then(|v| reader.flag("ipv6", v)).unwrap_or(false),
                while_down: keys
                    .get("while_down")
                    .and_then(|v| word(reader, "while_down", v, &WHILE_DOWN))
                    .unwrap_or_default(),
            };
            keys.refuse_others(reader, "of `router`");
            Wish::Open(exposure)
        }
        _ => {
            let port = value.get_ref().as_integer().and_then(|i| i.as_str().parse().ok());
            let meant = match (value.get_ref().as_str().and_then(truth), port) {
                (Some(meant), _) => format!("write {meant}"),
                (None, Some(port @ 0..=1)) => format!("write {}", port == 1),
                (None, Some(port @ 2_u16..)) => format!("write {{ external_port = {port} }}"),
                (None, None) => "write true, false or { external_port = 30000 }".to_owned(),
            };
            reader.wrong_type(key, value, "true, false or a table { external_port = 30000 }").hint(meant);
            return None;
        }
    })
}

fn port(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<NonZeroU16> {
    const KEY: &str = "external_port";
    let DeValue::Integer(integer) = value.get_ref() else {
        let number = value.get_ref().as_str().and_then(|text| text.trim().parse::<NonZeroU16>().ok());
        let hint = number.map_or("as in external_port = 30000".to_owned(), |port| format!("write {port}"));
        reader.wrong_type(KEY, value, "a port number").hint(hint);
        return None;
    };
    let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
    let port = number.and_then(|n| u16::try_from(n).ok()).and_then(NonZeroU16::new);
    if port.is_none() {
        let span = reader.span(value.span());
        reader
            .diagnostics
            .problem(Code::InvalidValue, span, format!("{integer} is not a port"))
            .hint("use a port from 1 to 65535");
    }
    port
}

impl RouterSettings {
    /// Reads `[router]`.
    pub(crate) fn read(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>) -> Self {
        let default = Self::default();
        let words = [("fail", OnConflict::Fail), ("any-port", OnConflict::AnyPort)];
        Self {
            protocols: protocols(reader, keys).unwrap_or(default.protocols),
            gateway: keys.get("gateway").and_then(|v| gateway(reader, v)),
            interface: keys.get("interface").and_then(|v| interface(reader, v)),
            lease: keys.get("lease").and_then(|v| LEASE.read(reader, "lease", v)).unwrap_or(default.lease),
            on_conflict: keys
                .get("on_conflict")
                .and_then(|v| word(reader, "on_conflict", v, &words))
                .unwrap_or(default.on_conflict),
            check_every: keys
                .get("check_every")
                .and_then(|v| CHECK_EVERY.read(reader, "check_every", v))
                .unwrap_or(default.check_every),
        }
    }
}

fn protocols(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>) -> Option<Vec<RouterProtocol>> {
    const KEY: &str = "protocols";
    let value = keys.get(KEY)?;
    let all = [RouterProtocol::Upnp, RouterProtocol::Pcp, RouterProtocol::NatPmp].map(|p| (p.as_str(), p));
    let items: Vec<&Value<'_>> = match value.get_ref() {
        DeValue::Array(items) => items.iter().collect(),
        _ => vec![value],
    };
    let mut protocols = Vec::new();
    for item in &items {
        if let Some(several) = several(item, &all) {
            let span = reader.span(item.span());
            reader
                .diagnostics
                .problem(Code::InvalidValue, span, "several protocols in one text")
                .hint(format!("write {KEY} = {several}"));
            continue;
        }
        let Some(protocol) = word(reader, "protocol", item, &all) else { continue };
        if protocols.contains(&protocol) {
            let span = reader.span(item.span());
            let message = format!("the protocol \"{}\" stands there twice", protocol.as_str());
            reader
                .diagnostics
                .problem(Code::DuplicateEntry, span, message)
                .hint("they are tried in the order in which they stand; name each once");
        } else {
            protocols.push(protocol);
        }
    }
    if items.is_empty() {
        let span = reader.span(value.span());
        reader
            .diagnostics
            .problem(Code::Empty, span, format!("`{KEY}` is empty"))
            .hint("name at least one of upnp, pcp, natpmp; `router = false` keeps a mapping closed");
    }
    (!protocols.is_empty()).then_some(protocols)
}

/// A list of the protocols that stand in one string.
fn several(item: &Value<'_>, all: &[(&str, RouterProtocol)]) -> Option<String> {
    let words: Vec<_> =
        item.get_ref().as_str()?.split([',', ' ', ';']).filter(|word| !word.is_empty()).collect();
    let is_known = |word: &&str| all.iter().any(|(known, _)| known == word);
    (words.len() > 1 && words.iter().all(is_known)).then(|| format!("[\"{}\"]", words.join("\", \"")))
}

/// The router's address, with the port of its UPnP search where that is given.
fn gateway(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<(IpAddr, Option<NonZeroU16>)> {
    let text = reader.text("gateway", value).filter(|text| text.value != "auto")?;
    let bare = text.value.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(&text.value);
    let (ip, port) = match (bare.parse::<IpAddr>(), text.value.parse::<SocketAddr>()) {
        (Ok(ip), _) => (ip, None),
        (_, Ok(addr)) => (addr.ip(), Some(addr.port())),
        _ if text.value.contains('%') => {
            return reader.refuse_text(
                "the gateway",
                &text,
                "names an interface",
                "say which by `interface`",
            );
        }
        _ => {
            const FORMS: &str =
                "use \"auto\", or the router's IP address, as in \"192.168.1.1\" or \"[fd00::1]:1900\"";
            let meant = bare_address(&text.value).map(|ip| instead(&text, &format!("\"{ip}\"")));
            return reader.refuse_text(
                "the gateway",
                &text,
                "is not an address",
                meant.unwrap_or_else(|| FORMS.to_owned()),
            );
        }
    };
    let ip = canonical(ip);
    if !is_of_one_machine(ip) {
        return reader.refuse_text("the gateway", &text, "is not the address of one machine", "use \"auto\"");
    }
    match port.map(NonZeroU16::new) {
        Some(None) => {
            reader.refuse_text("the gateway", &text, "has port 0", "leave the port out: then it is 1900")
        }
        port => Some((ip, port.flatten())),
    }
}

fn interface(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<String> {
    let text = reader.text("interface", value).filter(|text| text.value != "auto")?;
    if Zone::new(&text.value).is_none() {
        let message = format!("`{}` is not the name of an interface", text.value);
        reader
            .diagnostics
            .problem(Code::InvalidValue, text.span(), message)
            .text(&text.value)
            .hint("use \"auto\", or a name of at most 15 characters, as `ip link` shows it");
        return None;
    }
    Some(text.value)
}

/// Leases below some minutes are renewed all the time; longer ones outlive the program that asked
/// (RFC 6886, section 3.3, recommends two hours).
const LEASE: Bounds = Bounds {
    least: Duration::from_secs(10),
    sensible: Duration::from_secs(120),
    most: Duration::from_secs(7 * 86_400),
    words: "use a time from \"10s\" to \"7d\"; the lease is renewed before it ends",
    warning: Some("below two minutes `lease` keeps the router busy, and ends when one renewal is late"),
};
const CHECK_EVERY: Bounds = Bounds {
    least: Duration::from_secs(1),
    sensible: Duration::from_secs(5),
    most: Duration::from_secs(86_400),
    words: "use a time from \"1s\" to \"1d\"",
    warning: Some("below five seconds `check_every` keeps the router busy"),
};
