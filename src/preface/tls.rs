//! The server name of a TLS ClientHello.
//!
//! Owns where the hello ends: over how many records and segments it may be spread. What it says is
//! rustls's to read, once the hello is whole. So a client that sends byte after byte costs no more
//! than one that sends all at once.
//!
//! A hello that rustls refuses (no signature algorithms, as of old cameras, or a malformed name) is
//! a hello without a name: its target may well take it. With an encrypted hello (ECH) the name is
//! the outer one, which the client shows to all.

use rustls::server::Acceptor;

use super::{
    name,
    verdict::{LIMIT, Verdict},
};

/// The first byte of a TLS client: a record with a handshake message.
pub(super) const FIRST_BYTE: u8 = 22;

/// The major version in each record.
const MAJOR: u8 = 3;

/// The type, the version and the length before the content of a record.
const RECORD_HEADER: usize = 5;

/// The longest content of a record that is not encrypted.
const LONGEST_RECORD: usize = 16 << 10;

/// The type and the length before the content of a handshake message.
const MESSAGE_HEADER: usize = 4;

/// The type of a ClientHello.
const CLIENT_HELLO: u8 = 1;

/// Finds the end of the hello.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Where the next record begins.
    at: usize,
    /// Bytes of the hello in the records before that.
    have: usize,
    /// The first of these.
    header: [u8; MESSAGE_HEADER],
}

impl Reader {
    /// See [`Reader::read`](super::Reader::read).
    pub(super) fn read(&mut self, bytes: &[u8]) -> Verdict {
        if bytes.first().is_some_and(|first| *first != FIRST_BYTE)
            || bytes.get(1).is_some_and(|major| *major != MAJOR)
        {
            return Verdict::Foreign;
        }
        match self.is_whole(bytes) {
            Some(true) => server_name(&bytes[..self.at]).map_or(Verdict::Nameless, Verdict::Name),
            Some(false) if bytes.len() < LIMIT => Verdict::More,
            _ => Verdict::Nameless,
        }
    }

    /// Whether the hello is whole; `None` where it is none.
    fn is_whole(&mut self, bytes: &[u8]) -> Option<bool> {
        while let Some((header, rest)) = bytes.get(self.at..).and_then(|rest| rest.split_first_chunk()) {
            let [kind, major, _, high, low] = *header;
            let _: &[u8; RECORD_HEADER] = header;
            let length = usize::from(u16::from_be_bytes([high, low]));
            if (kind, major) != (FIRST_BYTE, MAJOR) || !(1..=LONGEST_RECORD).contains(&length) {
                return None;
            }
            let Some(content) = rest.get(..length) else { break };
            let missing = &mut self.header[self.have.min(MESSAGE_HEADER)..];
            missing.iter_mut().zip(content).for_each(|(to, from)| *to = *from);
            self.have += length;
            self.at += RECORD_HEADER + length;
            if self.have >= MESSAGE_HEADER {
                let [kind, a, b, c] = self.header;
                let length = u32::from_be_bytes([0, a, b, c]) as usize;
                if kind != CLIENT_HELLO || length > LIMIT {
                    return None;
                }
                if self.have >= MESSAGE_HEADER + length {
                    return Some(true);
                }
            }
        }
        Some(false)
    }
}

/// The server name of a whole hello.
fn server_name(mut bytes: &[u8]) -> Option<Box<str>> {
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        acceptor.read_tls(&mut bytes).ok()?;
        if let Some(accepted) = acceptor.accept().ok()? {
            return name::plain(accepted.client_hello().server_name()?.as_bytes());
        }
    }
    None
}

#[cfg(test)]
pub(super) mod tests;
