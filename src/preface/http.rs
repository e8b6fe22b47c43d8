//! The host of the first request of an HTTP client, in HTTP/1 or in HTTP/2 by prior knowledge.
//!
//! Only the first request counts: later ones of the same connection go where the first one went.

mod authority;
mod h1;
mod h2;
mod hpack;
mod huffman;

use super::verdict::{LIMIT, Spoken, Verdict};

/// What an HTTP/2 client sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads one request.
#[derive(Debug, Default)]
pub(super) struct Reader(Version);

#[derive(Debug, Default)]
enum Version {
    /// Not yet known.
    #[default]
    Unknown,
    One(h1::Head),
    Two(h2::Frames),
}

impl Reader {
    /// See [`Reader::read`](super::Reader::read).
    pub(super) fn read(&mut self, bytes: &[u8]) -> Verdict {
        if let Version::Unknown = self.0 {
            if bytes.starts_with(PREFACE) {
                self.0 = Version::Two(h2::Frames::after(PREFACE.len()));
            } else if !PREFACE.starts_with(bytes) {
                self.0 = Version::One(h1::Head::default());
            }
        }
        let verdict = match &mut self.0 {
            Version::Unknown => Verdict::More,
            Version::One(head) => head.read(bytes),
            Version::Two(frames) => frames.read(bytes),
        };
        match verdict {
            Verdict::More if bytes.len() >= LIMIT => Verdict::Invalid,
            verdict => verdict,
        }
    }

    /// See [`Reader::finish`](super::Reader::finish).
    pub(super) fn finish(&mut self, bytes: &[u8]) -> Verdict {
        match (self.read(bytes), &self.0) {
            (Verdict::More, Version::Two(frames)) if frames.has_begun() => Verdict::Nameless,
            (verdict, _) => verdict,
        }
    }

    /// The version of the protocol.
    pub(super) fn spoken(&self) -> Spoken {
        match &self.0 {
            Version::Two(frames) => Spoken::Http2 { stream: frames.stream() },
            _ => Spoken::Http1,
        }
    }
}

#[cfg(test)]
mod tests;
