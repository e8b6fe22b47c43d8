//! An entry of a list as people write it.
//!
//! Owns [`parse_net`]: what is taken, and what is said about everything else. What a text says may come from a file that
//! a stranger wrote, so that it is cut and cleaned before it is repeated.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::text::clean_start;

/// How much of an entry is repeated in what is said about it, in characters.
const SHOWN: usize = 60;
/// How many bits of an IPv4-mapped IPv6 address (`::ffff:0:0/96`, RFC 4291) come before its IPv4 address.
const MAPPED_BITS: u8 = 96;

/// One entry as it is written: a CIDR (host bits are masked off) or a single address. An IPv4-mapped one is IPv4.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn parse_net(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let ip: IpAddr = address.parse().map_err(|_| no_address(text, address))?;
    let prefix = prefix.map_or(Ok(longest_of(ip)), |prefix| prefix_of(text, ip, prefix))?;
    let net = IpNet::new(ip, prefix).map_err(|_| no_prefix(text, ip))?;
    Ok(canonical_net(net))
}

/// The one form of a network: without host bits, and IPv4 where it holds only IPv4-mapped addresses, because that is how
/// its clients are known.
pub(super) fn canonical_net(net: IpNet) -> IpNet {
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
    if let (IpAddr::V4(_), Ok(mask)) = (ip, prefix.parse::<Ipv4Addr>()) {
        return Err(match ipnet::ipv4_mask_to_prefix(mask) {
            Ok(bits) => format!("`{}` has a mask: write {ip}/{bits}", clean_start(text, SHOWN)),
            Err(_) => format!(
                "`{}` has a mask with holes: write a prefix such as {ip}/24",
                clean_start(text, SHOWN)
            ),
        });
    }
    let digits = !prefix.is_empty() && prefix.bytes().all(|c| c.is_ascii_digit());
    prefix.parse().ok().filter(|bits| digits && *bits <= longest_of(ip)).ok_or_else(|| no_prefix(text, ip))
}

fn no_prefix(text: &str, ip: IpAddr) -> String {
    let (most, version) = (longest_of(ip), if ip.is_ipv4() { "IPv4" } else { "IPv6" });
    format!(
        "`{}` has no prefix of {version}, which is 0 to {most}: write {ip} for the one address",
        clean_start(text, SHOWN)
    )
}

/// What is wrong with a text whose `address` is none.
fn no_address(text: &str, address: &str) -> String {
    if text.is_empty() {
        return "the entry is empty: write an address, or a network such as 10.0.0.0/8".to_owned();
    }
    let (what, instead) = what_else(address);
    format!("`{}` {what}: {instead}", clean_start(text, SHOWN))
}

/// What such a text most likely is, and what to write instead.
fn what_else(address: &str) -> (&'static str, String) {
    let network = || "write a network, such as 10.0.0.0/24".to_owned();
    let without_zone = address.split_once('%').filter(|(ip, _)| ip.parse::<IpAddr>().is_ok());
    let without_brackets = address.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let without_port = address.rsplit_once(':').filter(|(ip, _)| ip.parse::<Ipv4Addr>().is_ok());
    if let Some((ip, _)) = without_zone {
        return ("has a zone, which no client is known by", format!("write {ip}"));
    }
    if let Some((ip, _)) = without_brackets.filter(|(ip, _)| ip.parse::<IpAddr>().is_ok()) {
        return ("has brackets", format!("write {ip}"));
    }
    if let Some((ip, _)) = without_port {
        return ("has a port, and entries are addresses alone", format!("write {ip}"));
    }
    if address.starts_with('@') {
        return ("is a list, and lists hold no lists", "write its addresses".to_owned());
    }
    if address.contains('*') {
        return ("has a wildcard", network());
    }
    if address.split_once('-').is_some_and(|(from, _)| from.trim().parse::<IpAddr>().is_ok()) {
        return ("is a range of addresses", network());
    }
    let numbers = address.bytes().all(|c| c.is_ascii_digit() || c == b'.');
    if numbers && address.split('.').count() != 4 {
        return ("is no whole address", "write all four parts, such as 10.0.0.0/8".to_owned());
    }
    if numbers {
        return ("is no address", "each part is 0 to 255, without leading zeros".to_owned());
    }
    ("is no address", "write one such as 203.0.113.9, 10.0.0.0/8 or 2001:db8::/32".to_owned())
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
            ("10.0.0.0/33", "0 to 32: write 10.0.0.0 for the one address"),
            ("10.0.0.0/", "0 to 32"),
            ("10.0.0.0/+8", "0 to 32"),
            ("10.0.0.0/8/8", "0 to 32"),
            ("::1/129", "0 to 128: write ::1 for"),
            ("10.0.0.0/255.255.0.0", "write 10.0.0.0/16"),
            ("10.0.0.0/255.0.255.0", "a mask with holes"),
            ("fe80::1%eth0", "write fe80::1"),
            ("fe80::1%eth0/64", "write fe80::1"),
            ("[2001:db8::1]", "write 2001:db8::1"),
            ("[2001:db8::1]:80", "write 2001:db8::1"),
            ("192.0.2.7:80", "write 192.0.2.7"),
            ("@office", "lists hold no lists"),
            ("10.0.0.*", "has a wildcard"),
            ("10.0.0.1-10.0.0.9", "is a range"),
            ("10.0.0/24", "all four parts"),
            ("10.0.0.256", "0 to 255"),
            ("010.0.0.1", "without leading zeros"),
            ("home.example.org", "is no address: write one such as"),
        ] {
            let message = parse_net(text).expect_err(text);
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn what_is_repeated_is_short_and_clean() {
        let message = parse_net(&format!("\x1b[31m{}", "x".repeat(5000))).unwrap_err();
        assert!(message.len() < 300 && !message.contains('\x1b'), "{message}");
    }
}
