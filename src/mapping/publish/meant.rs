//! What a text that is not a spec was most likely meant to be: the specs that an error may offer.
//!
//! Pure. Invariant: every text that comes out of here is read by the grammar, so an error never
//! offers what would be refused in turn. The likeliest guess comes first. A guess changes form, not
//! meaning: where a port or a host would have to be invented, there is none, but for
//! [`PLACEHOLDER`].

use std::net::{IpAddr, Ipv6Addr};

use super::{
    ListenSpec, Protocols, Publish, Services, TargetSpec, part,
    part::Part,
    tidy::{Tidy, tidy, unquoted},
};

/// Stands for the target's address where only its port is known. It is a host name, so that it
/// reads as a spec.
pub(crate) const PLACEHOLDER: &str = "HOST";

/// A longer text is not a typing error.
const LONGEST: usize = 300;
/// More specs than this in one text are better shown by an example.
const MOST: usize = 8;

/// What `text` may have been meant to be, the likeliest first: one spec, or several that stand in
/// one text.
pub(crate) fn publish(text: &str, services: Services<'_>) -> Vec<Vec<String>> {
    let takes = |spec: &str| Publish::parse(spec, services).is_ok();
    guesses(text, &publish_shapes, &takes)
}

/// The same for an entry of `listen`, whose protocol stands elsewhere.
pub(crate) fn listen(text: &str, protocols: Protocols, services: Services<'_>) -> Vec<Vec<String>> {
    let takes = |spec: &str| ListenSpec::parse(spec, protocols, services).is_ok();
    guesses(text, &|tidy| no_other_protocol(tidy, protocols, listen_shapes), &takes)
}

/// The same for an entry of `targets`.
pub(crate) fn target(text: &str, protocols: Protocols, services: Services<'_>) -> Vec<Vec<String>> {
    let takes = |spec: &str| TargetSpec::parse(spec, protocols, services).is_ok();
    guesses(text, &|tidy| no_other_protocol(tidy, protocols, target_shapes), &takes)
}

type Shapes<'a> = &'a dyn Fn(&Tidy) -> Vec<String>;

fn guesses(text: &str, shapes: Shapes<'_>, takes: &dyn Fn(&str) -> bool) -> Vec<Vec<String>> {
    if text.len() > LONGEST {
        return Vec::new();
    }
    let of = |text: &str| shapes(&tidy(text)).into_iter().filter(|spec| takes(spec));
    let mut all: Vec<Vec<String>> = of(text).map(|spec| vec![spec]).collect();
    let pieces: Vec<&str> = unquoted(text)
        .split(|c: char| c.is_whitespace() || matches!(c, ',' | ';'))
        .filter(|piece| !piece.is_empty())
        .collect();
    if (2..=MOST).contains(&pieces.len()) {
        // Each has to be whole: half of a host name is not a spec.
        let whole = |piece: &&str| of(piece).next().filter(|spec| !is_filled_up(piece, spec));
        if let Some(specs) = pieces.iter().map(whole).collect::<Option<Vec<String>>>() {
            // `docker ps` names IPv4 and IPv6 by themselves: the one without an address is both.
            let shortest = specs.iter().min_by_key(|spec| spec.len()).cloned();
            let same = shortest.filter(|short| specs.iter().all(|spec| spec.ends_with(&**short)));
            all.push(specs);
            all.extend(same.map(|spec| vec![spec]));
        }
        all.extend(of(&pieces.join(":")).map(|spec| vec![spec]));
    }
    all.dedup();
    all
}

/// Whether a guess has more parts than the text.
fn is_filled_up(text: &str, spec: &str) -> bool {
    tidy(text).text.trim_start_matches(':').matches(':').count() < spec.matches(':').count()
}

/// A protocol that the mapping does not have cannot be left out without changing what is meant.
fn no_other_protocol(tidy: &Tidy, protocols: Protocols, shapes: fn(&str) -> Vec<String>) -> Vec<String> {
    let is_other = tidy.protocols.is_some_and(|named| named != protocols);
    if is_other { Vec::new() } else { shapes(&tidy.text) }
}

fn listen_shapes(text: &str) -> Vec<String> {
    let text = on_every_address(text);
    let ends_in_address = bare_v6(text).into_iter().filter(|(before, ..)| before.is_empty());
    let v6 = ends_in_address.map(|(_, ip, after)| format!("[{ip}]:{after}"));
    let mut all: Vec<String> = v6.collect();
    all.extend([mended(text), mended(&loopback(text))]);
    all
}

fn target_shapes(text: &str) -> Vec<String> {
    let v6 = bare_v6(text).into_iter().filter(|(before, ..)| before.is_empty());
    let mut all: Vec<String> = v6.map(|(_, ip, after)| format!("[{ip}]:{after}")).collect();
    let text = text.trim_start_matches(':');
    let here = text.strip_prefix("0.0.0.0:").or(text.strip_prefix("*:")).or(text.strip_prefix("[::]:"));
    all.extend([mended(text), mended(here.unwrap_or(text))]);
    all
}

fn publish_shapes(tidy: &Tidy) -> Vec<String> {
    let text = on_every_address(&tidy.text);
    let mut all = v6_shapes(text);
    all.extend([text.to_owned(), loopback(text)]);
    if let Ok(parts) = part::cut(Part::new(text)) {
        let parts: Vec<&str> = parts.iter().map(|part| part.text).filter(|part| !part.is_empty()).collect();
        all.push(parts.join(":"));
        all.extend(by_parts(&parts));
    }
    let protocol = |spec: String| match tidy.protocols {
        None | Some(Protocols::Tcp) => spec,
        Some(protocols) => format!("{spec}/{protocols}"),
    };
    all.into_iter().map(|spec| protocol(mended(&spec))).collect()
}

/// What is missing from a short spec, from what is there.
fn by_parts(parts: &[&str]) -> Vec<String> {
    let is_ports = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit() || c == b'-');
    match *parts {
        [only] if is_ports(only) => vec![format!("{only}:{PLACEHOLDER}:{only}")],
        [ip, ports] if is_ports(ports) && !is_ports(ip) => {
            let host = loopback_of(ip);
            let there = format!("{ports}:{host}:{ports}");
            let here = format!("{host}:{ports}:{PLACEHOLDER}:{ports}");
            if is_of_this_machine(&host) { vec![here] } else { vec![there, here] }
        }
        [ports, host] if is_ports(ports) => {
            vec![format!("{ports}:{host}:{ports}")]
        }
        [listen, "0.0.0.0" | "*" | "[::]", target] => vec![format!("{listen}:{target}")],
        _ => Vec::new(),
    }
}

/// Whether an address is certainly one to listen on, not one to lead to.
fn is_of_this_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}

fn loopback_of(host: &str) -> String {
    if host.eq_ignore_ascii_case("localhost") { "127.0.0.1".to_owned() } else { host.to_owned() }
}

/// A listen address that is a name for this machine, as an address.
fn loopback(text: &str) -> String {
    match text.split_once(':') {
        Some((host, rest)) => format!("{}:{rest}", loopback_of(host)),
        None => text.to_owned(),
    }
}

/// Drops what other programs write for "every address".
fn on_every_address(text: &str) -> &str {
    let rest = text.strip_prefix(":::").or_else(|| text.strip_prefix("*:"));
    let rest = rest.or_else(|| text.strip_prefix("::")).or_else(|| text.strip_prefix(':'));
    // `::1:8080` is an address and a port.
    rest.filter(|rest| !is_v6_with_rest(text) && !rest.is_empty()).unwrap_or(text)
}

fn is_v6_with_rest(text: &str) -> bool {
    text.starts_with("::1:") && !text.starts_with("::1:1:")
}

/// The specs that an IPv6 address without brackets may be part of.
fn v6_shapes(text: &str) -> Vec<String> {
    let mut shapes = Vec::new();
    for (before, ip, after) in bare_v6(text) {
        shapes.push(match (before, after.contains(':')) {
            ("", true) => format!("[{ip}]:{after}"),
            ("", false) => format!("{after}:[{ip}]:{after}"),
            (before, _) => format!("{before}:[{ip}]:{after}"),
        });
    }
    shapes
}

/// An IPv6 address without brackets, what is before it and what is behind it; the likeliest first.
fn bare_v6(text: &str) -> Vec<(&str, &str, &str)> {
    if text.contains('[') || text.matches(':').count() < 3 {
        return Vec::new();
    }
    let colons: Vec<usize> = text.match_indices(':').map(|(at, _)| at).collect();
    let is_ports = |part: &str| part.bytes().all(|c| c.is_ascii_digit() || c == b'-');
    let mut found = Vec::new();
    let befores = std::iter::once(0).chain(colons.first().map(|at| at + 1));
    for from in befores {
        for &to in colons.iter().rev().take(2).filter(|to| **to > from) {
            let (before, ip, after) = (&text[..from.saturating_sub(1)], &text[from..to], &text[to + 1..]);
            let bare = ip.split('%').next().unwrap_or(ip);
            let fits = after.split(':').all(is_ports) && is_ports(before) && !after.is_empty();
            if fits && bare.parse().is_ok_and(is_likely) {
                found.push((before, ip, after));
            }
        }
    }
    found
}

/// Whether such an address is in use: a port in front of one makes another that is not.
fn is_likely(ip: Ipv6Addr) -> bool {
    let first = ip.segments()[0];
    ip.is_loopback() || first & 0xe000 == 0x2000 || first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfe80
}

/// Mends what is within parts: reversed ranges, ranges that do not fit, brackets around IPv4, zones
/// where none belongs.
fn mended(text: &str) -> String {
    let Ok(parts) = part::cut(Part::new(text)) else { return text.to_owned() };
    let mut parts: Vec<String> = parts.iter().map(|part| mended_part(part.text)).collect();
    let spans: Vec<Option<(u16, u16)>> = parts.iter().map(|part| span(part)).collect();
    let (first, last) = (spans.iter().position(Option::is_some), spans.len().checked_sub(1));
    if let (Some(first), Some(last)) = (first, last)
        && let (Some((low, high)), Some((from, to))) = (spans[first], spans[last])
        && first < last
        && from != to
        && high - low != to - from
    {
        // The longer listen range stays; one listen port becomes as many as there are target ports.
        if low == high {
            let count = to - from;
            parts[first] =
                low.checked_add(count).map_or(parts[first].clone(), |high| format!("{low}-{high}"));
        } else if let Some(to) = from.checked_add(high - low) {
            parts[last] = format!("{from}-{to}");
        }
    }
    parts.join(":")
}

fn span(text: &str) -> Option<(u16, u16)> {
    match text.split_once('-') {
        Some((low, high)) => Some((low.parse().ok()?, high.parse().ok()?)),
        None => text.parse().ok().map(|port| (port, port)),
    }
}

fn mended_part(text: &str) -> String {
    if let Some((low, high)) = span(text).filter(|(low, high)| low > high) {
        return format!("{high}-{low}");
    }
    let inner = text.trim_start_matches('[').trim_end_matches(']');
    let (address, zone) =
        inner.split_once('%').map_or((inner, None), |(address, zone)| (address, Some(zone)));
    match (address.parse::<IpAddr>(), zone) {
        (Ok(IpAddr::V4(ip)), _) => ip.to_string(),
        (Ok(IpAddr::V6(ip)), Some(_)) if !ip.is_unicast_link_local() => format!("[{ip}]"),
        _ => text.to_owned(),
    }
}
