//! Small things that several tools write alike: words of a shell, addresses, ports, times.
//!
//! Pure. Nothing here fails: what cannot be read is `None`, and the caller says what is lost.

use std::net::{IpAddr, Ipv6Addr};

use crate::mapping::publish::Protocols;

/// The protocols that the two flags ask for; TCP where neither does.
pub(super) fn protocols_of(tcp: bool, udp: bool) -> Protocols {
    match (tcp, udp) {
        (true, true) => Protocols::Both,
        (false, true) => Protocols::Udp,
        _ => Protocols::Tcp,
    }
}

/// The protocol of a word such as `tcp6`.
pub(super) fn protocols_named(word: &str) -> Option<Protocols> {
    match word.to_ascii_lowercase().as_str() {
        "tcp" | "tcp4" | "tcp6" => Some(Protocols::Tcp),
        "udp" | "udp4" | "udp6" => Some(Protocols::Udp),
        _ => None,
    }
}

/// Why a text is not used: it has a variable, or what the caller says.
pub(super) fn why(text: &str, usual: &'static str) -> &'static str {
    if text.contains(['$', '`']) { "it has a variable, whose value is not in this file" } else { usual }
}

/// The words of a line as a shell has them: quotes, backslashes, and a comment behind a `#`.
pub(super) fn words(line: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut chars = line.chars();
    let mut quote = None;
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('"') | None, '\\') => {
                if let Some(next) = chars.next() {
                    word.get_or_insert_default().push(next);
                }
            }
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Host and ports of `host:port`, `[v6]:port`, `:port` or, with `alone`, `port`.
pub(super) fn host_and_port(text: &str) -> Option<(&str, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once("]:")?;
        return Some((host, port));
    }
    let (host, port) = text.rsplit_once(':')?;
    // Where a port is required, an address of IPv6 without brackets has it behind the last colon.
    (!host.contains(':') || host.parse::<Ipv6Addr>().is_ok()).then_some((host, port))
}

/// A host as it stands before a port: IPv6 in brackets.
pub(super) fn bracketed(host: &str) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// A target; `None` where the host or the port is not valid.
pub(super) fn target(host: &str, ports: &str) -> Option<String> {
    let is_name =
        |host: &str| !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    let is_host = ip(host).is_some() || is_name(host);
    (is_host && is_ports(ports)).then(|| format!("{}:{ports}", bracketed(host)))
}

/// A listener; every address where the host stands for all of them.
pub(super) fn listener(host: &str, ports: &str) -> Option<String> {
    if !is_ports(ports) {
        return None;
    }
    match host.trim_start_matches('[').trim_end_matches(']') {
        "" | "*" | "::" => Some(ports.to_owned()),
        "localhost" => Some(format!("127.0.0.1:{ports}")),
        host => match ip(host)? {
            IpAddr::V6(ip) if ip.is_unspecified() => Some(ports.to_owned()),
            _ => Some(format!("{}:{ports}", bracketed(host))),
        },
    }
}

/// An address, in brackets or not, with the zone of a link-local one or not.
pub(super) fn ip(host: &str) -> Option<IpAddr> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.split('%').next()?.parse().ok()
}

/// Whether a text is a port or a range of ports.
pub(super) fn is_ports(text: &str) -> bool {
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0) && !port.starts_with('+');
    match text.split_once('-') {
        Some((first, last)) => is_port(first) && is_port(last),
        None => is_port(text),
    }
}

/// A network or an address, as `allow` and `deny` take it.
pub(super) fn network(text: &str) -> Option<String> {
    let (ip, prefix) = match text.split_once('/') {
        Some((ip, prefix)) => (ip, Some(prefix)),
        None => (text, None),
    };
    let ip: IpAddr = ip.parse().ok()?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    match prefix.map(|prefix| prefix.parse::<u8>().ok().or_else(|| mask(prefix))) {
        None => Some(ip.to_string()),
        Some(Some(prefix)) if prefix <= most => {
            let net = ipnet::IpNet::new(ip, prefix).ok()?;
            Some(if prefix == most { ip.to_string() } else { net.trunc().to_string() })
        }
        Some(_) => None,
    }
}

/// The length of the prefix that a mask such as `255.255.255.0` has.
fn mask(text: &str) -> Option<u8> {
    let mask: std::net::Ipv4Addr = text.parse().ok()?;
    ipnet::ipv4_mask_to_prefix(mask).ok()
}

/// A duration, given as numbers with units; `bare` is the unit of a number alone, in milliseconds.
/// Zero is none.
pub(super) fn duration(text: &str, bare: u64) -> Option<String> {
    let mut total: u64 = 0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| at + digits);
        let unit = match rest[digits..unit_end].trim() {
            "" => bare,
            "us" => return Some("1ms".to_owned()).filter(|_| number > 0),
            "ms" => 1,
            "s" | "sec" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            "M" => 30 * 86_400_000,
            "y" => 365 * 86_400_000,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = rest[unit_end..].trim_start();
    }
    written(total)
}

/// Milliseconds as a duration of portway; none for zero and for a time beyond sense.
pub(super) fn written(millis: u64) -> Option<String> {
    const MOST: u64 = 10 * 365 * 86_400_000;
    match millis {
        0 => None,
        MOST.. => None,
        ms if !ms.is_multiple_of(1000) => Some(format!("{ms}ms")),
        ms if !ms.is_multiple_of(60_000) => Some(format!("{}s", ms / 1000)),
        ms if !ms.is_multiple_of(3_600_000) => Some(format!("{}m", ms / 60_000)),
        ms => Some(format!("{}h", ms / 3_600_000)),
    }
}

/// Milliseconds that a duration of portway has, as [`written`] makes it.
pub(super) fn millis(duration: &str) -> u64 {
    humantime::parse_duration(duration).map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
