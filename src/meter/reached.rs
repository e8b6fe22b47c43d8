//! Where a session leads, and how its addresses are shown.

use std::net::SocketAddr;

use crate::{mapping::TargetAddr, targets::Place};

/// Where a session leads, once that is known.
#[derive(Debug)]
pub(super) enum Reached {
    /// The address it was connected to, and its place at the target that has this address.
    Address(SocketAddr, Place),
    /// What it was meant for, when no address was ever reached.
    Named(TargetAddr),
}

/// A target that may not be known yet, as the session line shows it.
pub(super) struct Shown<'a>(pub(super) Option<&'a Reached>);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(Reached::Address(addr, _)) => Whole(*addr).fmt(f),
            Some(Reached::Named(target)) => target.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// An address as it always is shown, but handed to the formatter whole: the standard library hands
/// over each number and each dot, which is half the cost of a session line.
pub(super) struct Whole(pub(super) SocketAddr);

impl std::fmt::Display for Whole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let SocketAddr::V4(addr) = self.0 else { return self.0.fmt(f) };
        // From the right, so that no number has to be measured first.
        let mut text = *b"255.255.255.255:65535";
        let mut start = text.len();
        let mut put = |mut number: u16, before: Option<u8>| {
            loop {
                start -= 1;
                text[start] = b'0' + (number % 10) as u8;
                number /= 10;
                if number == 0 {
                    break;
                }
            }
            if let Some(before) = before {
                start -= 1;
                text[start] = before;
            }
        };
        let [a, b, c, d] = addr.ip().octets().map(u16::from);
        put(addr.port(), Some(b':'));
        put(d, Some(b'.'));
        put(c, Some(b'.'));
        put(b, Some(b'.'));
        put(a, None);
        f.write_str(str::from_utf8(&text[start..]).map_err(|_| std::fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_as_ever() {
        for addr in ["0.0.0.0:0", "1.20.255.100:9", "255.255.255.255:65535", "[::]:80", "[fe80::1%3]:10000"] {
            let addr: SocketAddr = addr.parse().unwrap();
            assert_eq!(Whole(addr).to_string(), addr.to_string());
        }
    }
}
