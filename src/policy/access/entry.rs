//! An entry of a list as people write it.
//!
//! Owns [`parse_net`]: what is taken, and what is said about everything else. What a text says may
//! come from a file that a stranger wrote, so that it is cut and cleaned before it is repeated.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::{mapping::canonical, text::clean_start};

/// How much of an entry is repeated in what is said about it, in characters.
const SHOWN: usize = 60;
/// A longer text is not a typing error, and nothing is offered for it.
const LONGEST: usize = 200;
/// So many entries are offered for one text.
const MOST: usize = 8;
/// How many bits of an IPv4-mapped IPv6 address (`::ffff:0:0/96`, RFC 4291) come before its IPv4
/// address.
const MAPPED_BITS: u8 = 96;

/// One entry as it is written: a CIDR (host bits are masked off) or a single address. An
/// IPv4-mapped one is IPv4.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub(crate) fn parse_net(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let ip: IpAddr = address.parse().map_err(|_| no_address(text, address))?;
    let prefix = prefix.map_or(Ok(longest_of(ip)), |prefix| prefix_of(text, ip, prefix))?;
    let net = IpNet::new(ip, prefix).map_err(|_| no_prefix(text, ip, ""))?;
    Ok(canonical_net(net))
}

/// What is said about an entry that parses, and has bits set beyond its prefix: it stands for the
/// whole network, and its author may have meant the one address. Nothing for any other text.
pub(crate) fn host_bits(text: &str) -> Option<String> {
    let (address, prefix) = text.trim().split_once('/')?;
    let net = IpNet::new(address.parse().ok()?, prefix.parse().ok()?).ok()?;
    let has_host_bits = net.addr() != net.network();
    has_host_bits.then(|| {
        let whole = canonical_net(net);
        format!(
            "`{}` stands for the whole network {whole}: write {whole}, or {} for the one address",
            clean_start(text, SHOWN),
            canonical(net.addr())
        )
    })
}

/// The one form of a network: without host bits, and IPv4 where it holds only IPv4-mapped
/// addresses, because that is how its clients are known.
pub(in crate::policy) fn canonical_net(net: IpNet) -> IpNet {
    let mapped = match net.trunc() {
        IpNet::V6(v6) => v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(MAPPED_BITS)),
        IpNet::V4(_) => None,
    };
    match mapped.map(|(ip, prefix)| Ipv4Net::new(ip, prefix)) {
        Some(Ok(v4)) => IpNet::V4(v4.trunc()),
        _ => net.trunc(),
    }
}

fn longest_of(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn prefix_of(text: &str, ip: IpAddr, prefix: &str) -> Result<u8, String> {
    let digits = !prefix.is_empty() && prefix.bytes().all(|c| c.is_ascii_digit());
    match prefix.parse().ok().filter(|bits| digits && *bits <= longest_of(ip)) {
        Some(bits) => Ok(bits),
        None => Err(no_prefix(text, ip, prefix)),
    }
}

fn no_prefix(text: &str, ip: IpAddr, prefix: &str) -> String {
    if let Some(message) = offer(text) {
        return message;
    }
    let (most, version) = (longest_of(ip), if ip.is_ipv4() { "IPv4" } else { "IPv6" });
    let (shown, example) =
        (clean_start(text, SHOWN), if ip.is_ipv4() { "10.0.0.0/24" } else { "2001:db8::/48" });
    let what = if prefix.parse::<Ipv4Addr>().is_ok() { "a mask with holes" } else { "no prefix" };
    format!("`{shown}` has {what}; a prefix of {version} is 0 to {most}: write a network such as {example}")
}

/// What is wrong with a text whose `address` is none.
fn no_address(text: &str, address: &str) -> String {
    if text.is_empty() {
        return "the entry is empty: write an address, or a network such as 10.0.0.0/8".to_owned();
    }
    offer(text).unwrap_or_else(|| {
        let (what, instead) = what_else(address);
        format!("`{}` {what}: {instead}", clean_start(text, SHOWN))
    })
}

/// What such a text most likely is, and what is right in general.
fn what_else(address: &str) -> (&'static str, &'static str) {
    let numbers = address.bytes().all(|c| c.is_ascii_digit() || c == b'.');
    if address.starts_with('@') {
        ("is a list, and lists hold no lists", "write its addresses")
    } else if address.contains('*') {
        ("has a wildcard", "write a network, such as 10.0.0.0/24")
    } else if address.split_once('-').is_some_and(|(from, _)| from.trim().parse::<IpAddr>().is_ok()) {
        ("is a range of addresses", "write networks, such as 10.0.0.0/24")
    } else if numbers && address.split('.').count() != 4 {
        ("is not a whole address", "write all four parts, such as 10.0.0.0/8")
    } else if numbers {
        ("is not an address", "each part is 0 to 255, without leading zeros")
    } else {
        ("is not an address", "write one such as 203.0.113.9, 10.0.0.0/8 or 2001:db8::/32")
    }
}

/// What to write in place of a text, where that is certain enough: only entries that [`parse_net`]
/// takes are offered.
fn offer(text: &str) -> Option<String> {
    if text.len() > LONGEST {
        return None;
    }
    let takes = |entry: &String| entry.as_str() != text && parse_net(entry).is_ok();
    let shown = clean_start(text, SHOWN);
    let (what, entries) = meant(text)?;
    if entries.is_empty() || !entries.iter().all(takes) {
        return None;
    }
    Some(match &*entries {
        [entry] => format!("`{shown}` {what}: write {entry}"),
        many => format!("`{shown}` {what}: write each by itself, {}", many.join(" and ")),
    })
}

/// What a text is, and the entries that it was meant to be.
fn meant(text: &str) -> Option<(&'static str, Vec<String>)> {
    let is_quote = |c: char| matches!(c, '"' | '\'' | '`' | '\u{2018}'..='\u{201f}');
    let bare = text.trim_matches(|c: char| c.is_whitespace() || is_quote(c) || matches!(c, ',' | ';'));
    let pieces: Vec<&str> =
        bare.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';')).filter(|p| !p.is_empty()).collect();
    if pieces.len() > 1 && pieces.iter().all(|piece| parse_net(piece).is_ok()) {
        return (pieces.len() <= MOST)
            .then(|| ("is several entries", pieces.into_iter().map(str::to_owned).collect()));
    }
    if let Some((entry, _)) = bare.split_once(['#', ';']) {
        return Some(("has a comment", vec![entry.trim().to_owned()]));
    }
    let bare = bare.split_once("://").map_or(bare, |(_, rest)| rest);
    if let Some(networks) = range(bare) {
        return Some(("is a range of addresses", networks));
    }
    let bare: String = bare.chars().filter(|c| !c.is_whitespace()).collect();
    let bare = bare.trim_end_matches('/').replace('\\', "/");
    let (address, prefix) = bare.split_once('/').map_or((&*bare, None), |(a, prefix)| (a, Some(prefix)));
    let (what, address) = whole_address(address);
    let bits = match prefix.map(|prefix| (prefix, prefix.parse::<Ipv4Addr>())) {
        None => None,
        Some((_, Ok(mask))) => Some(ipnet::ipv4_mask_to_prefix(mask).ok()?.to_string()),
        Some((prefix, Err(_))) => Some(prefix.to_owned()),
    };
    let what =
        if prefix.is_some_and(|prefix| prefix.parse::<Ipv4Addr>().is_ok()) { "has a mask" } else { what };
    if prefix.is_none()
        && let Some(network) = short(&address)
    {
        return Some(("is not a whole address", vec![network]));
    }
    let address = if prefix.is_some() { padded(&address) } else { address };
    Some((what, vec![bits.map_or(address.clone(), |bits| format!("{address}/{bits}"))]))
}

/// An address without brackets, port, zone and leading zeros.
fn whole_address(address: &str) -> (&'static str, String) {
    if let Some((ip, _)) = address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return ("has brackets", ip.to_owned());
    }
    if let Some((ip, _)) = address.split_once('%').filter(|(ip, _)| ip.parse::<IpAddr>().is_ok()) {
        return ("has a zone, which no client is known by", ip.to_owned());
    }
    if let Some((ip, _)) = address.rsplit_once(':').filter(|(ip, _)| ip.parse::<Ipv4Addr>().is_ok()) {
        return ("has a port, and entries are addresses alone", ip.to_owned());
    }
    let is_v4 = address.bytes().all(|c| c.is_ascii_digit() || c == b'.');
    let parts: Option<Vec<u8>> = address.split('.').map(|part| part.parse().ok()).collect();
    match parts.filter(|parts| is_v4 && parts.len() == 4) {
        Some(parts) => ("is not an address", parts.iter().map(u8::to_string).collect::<Vec<_>>().join(".")),
        None => ("is not an address", address.to_owned()),
    }
}

/// The network that `10.0.`, `10.0.0.*` or `10.0.*.*` stands for.
fn short(address: &str) -> Option<String> {
    let parts: Vec<&str> = address.split('.').filter(|part| !part.is_empty() && *part != "*").collect();
    let is_short = (1..4).contains(&parts.len()) && parts.iter().all(|part| part.parse::<u8>().is_ok());
    let rest_is_wild = address.trim_end_matches(['*', '.']) == parts.join(".");
    (is_short && rest_is_wild && address.contains('.'))
        .then(|| format!("{}/{}", padded(&parts.join(".")), 8 * parts.len()))
}

/// An IPv4 address with zeros for the parts that it lacks.
fn padded(address: &str) -> String {
    let parts: Vec<&str> = address.split('.').collect();
    let is_v4 = parts.iter().all(|part| part.parse::<u8>().is_ok());
    let zeros = if is_v4 { 4_usize.saturating_sub(parts.len()) } else { 0 };
    address.to_owned() + &".0".repeat(zeros)
}

/// The networks of `10.0.0.0-10.0.0.255`, if they are few.
fn range(text: &str) -> Option<Vec<String>> {
    let (from, to) = text.split_once('-')?;
    let (from, to): (Ipv4Addr, Ipv4Addr) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
    let networks: Vec<_> =
        ipnet::Ipv4Subnets::new(from, to, 0).take(MOST + 1).map(|net| net.to_string()).collect();
    (from <= to && networks.len() <= MOST).then_some(networks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_network_or_an_address_in_its_one_form() {
        for (text, net) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            (" 10.1.2.3/8 ", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("2001:db8:7::1/48", "2001:db8:7::/48"),
            ("::1", "::1/128"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("::ffff:10.9.8.7/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:0:0/95", "::fffe:0:0/95"),
        ] {
            assert_eq!(parse_net(text).map(|net| net.to_string()), Ok(net.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_entry_is_told_what_would_be_right() {
        for (text, part) in [
            ("", "write an address, or a network"),
            ("10.0.0.0/33", "0 to 32: write a network such as 10.0.0.0/24"),
            ("10.0.0.0/", "write 10.0.0.0"),
            ("10.0.0.0/8/", "write 10.0.0.0/8"),
            ("10.0.0.0/+8", "0 to 32"),
            ("10.0.0.0/8/8", "0 to 32"),
            ("::1/129", "0 to 128: write a network such as 2001:db8::/48"),
            (
                "10.0.0.0/8,192.168.0.0/16",
                "is several entries: write each by itself, 10.0.0.0/8 and 192.168.0.0/16",
            ),
            ("10.0.0.0/8 192.168.0.0/16", "each by itself, 10.0.0.0/8 and 192.168.0.0/16"),
            ("10.0.0.0 / 8", "write 10.0.0.0/8"),
            ("10.0.0.0/8 # lan", "write 10.0.0.0/8"),
            ("\"10.0.0.0/8\"", "write 10.0.0.0/8"),
            ("[2001:db8::]/32", "write 2001:db8::/32"),
            ("10.0.0.0-10.0.0.255", "write 10.0.0.0/24"),
            ("10.0.", "write 10.0.0.0/16"),
            ("10.0", "write 10.0.0.0/16"),
            ("https://192.0.2.7/", "write 192.0.2.7"),
            ("10.0.0.0/255.255.0.0", "write 10.0.0.0/16"),
            ("10.0.0.0/255.0.255.0", "a mask with holes"),
            ("fe80::1%eth0", "write fe80::1"),
            ("fe80::1%eth0/64", "write fe80::1"),
            ("[2001:db8::1]", "write 2001:db8::1"),
            ("[2001:db8::1]:80", "write 2001:db8::1"),
            ("192.0.2.7:80", "write 192.0.2.7"),
            ("@office", "lists hold no lists"),
            ("10.0.0.*", "write 10.0.0.0/24"),
            ("10.*.0.1", "has a wildcard"),
            ("10.0.0.1-10.0.0.9", "is a range"),
            ("10.0.0/24", "write 10.0.0.0/24"),
            ("10.0.0.256", "0 to 255"),
            ("010.0.0.1", "write 10.0.0.1"),
            ("010.0.0.256", "without leading zeros"),
            ("home.example.org", "is not an address: write one such as"),
        ] {
            let message = parse_net(text).expect_err(text);
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn an_entry_with_host_bits_is_told_which_network_it_is() {
        for (text, network, address) in [
            ("192.168.1.5/24", "192.168.1.0/24", "192.168.1.5"),
            (" 10.0.0.1/0 ", "0.0.0.0/0", "10.0.0.1"),
            ("2001:db8:7::1/48", "2001:db8:7::/48", "2001:db8:7::1"),
            ("::ffff:10.9.8.7/104", "10.0.0.0/8", "10.9.8.7"),
        ] {
            let message = host_bits(text).expect(text);
            assert!(
                message.contains(&format!("whole network {network}: write {network}, or {address} for")),
                "{message}"
            );
            for cure in [network, address] {
                assert!(parse_net(cure).is_ok() && host_bits(cure).is_none(), "{cure}");
            }
        }
        for text in ["192.168.1.0/24", "192.168.1.5/32", "192.168.1.5", "::/0", "x/24", "10.0.0.1/33", ""] {
            assert_eq!(host_bits(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_repeated_is_short_and_clean() {
        let message = parse_net(&format!("\x1b[31m{}", "x".repeat(5000))).unwrap_err();
        assert!(message.len() < 300 && !message.contains('\x1b'), "{message}");
    }
}
