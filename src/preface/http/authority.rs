//! The host in an authority: `example.org:8080`, `[2001:db8::1]`.

use std::net::Ipv6Addr;

use crate::preface::name;

/// A text that is no authority, or one that two readers could understand in two ways.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The host of `text` in its one spelling; `None` where it has none, or one that is no name.
pub(super) fn host(text: &[u8]) -> Result<Option<Box<str>>, Malformed> {
    let (host, port) = match text.strip_prefix(b"[") {
        Some(rest) => {
            let end = rest.iter().position(|c| *c == b']').ok_or(Malformed)?;
            (&text[..end + 2], &rest[end + 1..])
        }
        None => text.split_at(text.iter().position(|c| *c == b':').unwrap_or(text.len())),
    };
    let is_port = |port: &[u8]| port.iter().all(u8::is_ascii_digit);
    if !port.is_empty() && !port.strip_prefix(b":").is_some_and(is_port) {
        return Err(Malformed);
    }
    if let Some(literal) = host.strip_prefix(b"[") {
        let literal = literal.strip_suffix(b"]").ok_or(Malformed)?;
        let ip = str::from_utf8(literal).ok().and_then(|text| text.parse::<Ipv6Addr>().ok());
        return ip.map(|ip| Some(ip.to_string().into())).ok_or(Malformed);
    }
    match name::plain(host) {
        None if !host.iter().all(|c| may_be_in_a_name(*c)) => Err(Malformed),
        plain => Ok(plain),
    }
}

/// Whether a byte may be in a registered name (RFC 3986, section 3.2.2). Bytes of UTF-8 are taken,
/// for clients that encode no names; a comma is not, which some readers take for the end.
fn may_be_in_a_name(c: u8) -> bool {
    c.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(&c) || !c.is_ascii()
}
