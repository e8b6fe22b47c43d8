//! The head of an HTTP/1 request.
//!
//! Finds the end of the head, looking at each byte once, and says after the first bytes that are no
//! request that this is something else. The whole head is then `httparse`'s to read, as it is in
//! most HTTP servers of Rust.

use httparse::{EMPTY_HEADER, Request, Status};

use super::authority::{Malformed, host};
use crate::preface::verdict::Verdict;

/// The longest method; the longest registered one has 17 letters.
const LONGEST_METHOD: usize = 32;

/// The most headers of a request.
const MOST_HEADERS: usize = 128;

/// Looks for the end of the head.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// What the next byte belongs to.
    part: Part,
    /// The bytes that were looked at.
    seen: usize,
    /// Where the current line begins.
    line: usize,
}

#[derive(Debug, Default)]
enum Part {
    /// Empty lines, which some clients send before a request.
    #[default]
    Before,
    Method,
    /// The target and the version.
    FirstLine,
    Headers,
}

impl Head {
    pub(super) fn read(&mut self, bytes: &[u8]) -> Verdict {
        while let Some(&byte) = bytes.get(self.seen) {
            match self.part {
                Part::Before if matches!(byte, b'\r' | b'\n') => self.line = self.seen + 1,
                Part::Before | Part::Method if is_token(byte) && self.seen - self.line < LONGEST_METHOD => {
                    self.part = Part::Method;
                }
                Part::Method if byte == b' ' => self.part = Part::FirstLine,
                Part::Before | Part::Method => return Verdict::Foreign,
                Part::FirstLine if byte == b'\n' => {
                    if !ends_a_request_line(&bytes[self.line..self.seen]) {
                        return Verdict::Foreign;
                    }
                    (self.part, self.line) = (Part::Headers, self.seen + 1);
                }
                Part::Headers if byte == b'\n' => {
                    if matches!(bytes[self.line..self.seen], [] | [b'\r']) {
                        return wanted(&bytes[..=self.seen]).unwrap_or(Verdict::Invalid);
                    }
                    self.line = self.seen + 1;
                }
                Part::FirstLine | Part::Headers => {}
            }
            self.seen += 1;
        }
        Verdict::More
    }
}

/// Whether a byte may be in a method (RFC 9110, section 5.6.2).
fn is_token(c: u8) -> bool {
    c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c)
}

fn ends_a_request_line(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")
}

/// The host that a whole head wants.
fn wanted(head: &[u8]) -> Result<Verdict, Malformed> {
    let mut headers = [EMPTY_HEADER; MOST_HEADERS];
    let mut request = Request::new(&mut headers);
    let Ok(Status::Complete(_)) = request.parse(head) else { return Err(Malformed) };
    let mut hosts = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    let header = hosts.next().map(|header| header.value);
    if hosts.next().is_some() {
        return Err(Malformed);
    }
    // A server ignores the header where the target has an authority (RFC 9112, section 3.2.2).
    let from_header = host(header.unwrap_or_default())?;
    let from_target = match authority_of(request.method, request.path.ok_or(Malformed)?)? {
        Some(authority) => host(authority.as_bytes())?,
        None => from_header,
    };
    Ok(from_target.map_or(Verdict::Nameless, Verdict::Name))
}

/// The authority in the target of a request.
fn authority_of<'a>(method: Option<&str>, target: &'a str) -> Result<Option<&'a str>, Malformed> {
    if target.starts_with('/') || target == "*" {
        return Ok(None);
    }
    if method == Some("CONNECT") {
        return Ok(Some(target));
    }
    let (scheme, rest) = target.split_once("://").ok_or(Malformed)?;
    if !scheme.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'-' | b'.')) {
        return Err(Malformed);
    }
    Ok(Some(rest.split(['/', '?', '#']).next().unwrap_or_default()))
}
