//! The frames of an HTTP/2 client up to its first request (RFC 9113).
//!
//! A client that waits for the server's settings before its first request (gRPC's does) says no
//! name in time: it gets the targets for such clients, if the mapping has some.

use super::hpack;
use crate::preface::verdict::Verdict;

/// The length, the type, the flags and the stream before the content of a frame.
const HEADER: usize = 9;

/// The longest content that a client may send before it has our settings.
const LONGEST: usize = 16 << 10;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;

const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Looks for the first header block.
#[derive(Debug)]
pub(super) struct Frames {
    /// Where the next frame begins.
    at: usize,
    /// Whether the settings came, which must be first.
    has_settings: bool,
    /// The stream of the request, once its first frame came.
    stream: Option<u32>,
    /// What came of the header block.
    block: Vec<u8>,
}

impl Frames {
    /// Begins at the first frame.
    pub(super) fn after(preface: usize) -> Self {
        Self { at: preface, has_settings: false, stream: None, block: Vec::new() }
    }

    /// Whether the client keeps to the protocol so far.
    pub(super) fn has_begun(&self) -> bool {
        self.has_settings
    }

    /// The stream of the request, if it came.
    pub(super) fn stream(&self) -> Option<u32> {
        self.stream
    }

    pub(super) fn read(&mut self, bytes: &[u8]) -> Verdict {
        while let Some((header, rest)) = bytes.get(self.at..).and_then(|rest| rest.split_first_chunk()) {
            let frame = Frame::of(header);
            if frame.length > LONGEST || !self.may_follow(&frame) {
                return Verdict::Invalid;
            }
            let Some(content) = rest.get(..frame.length) else { break };
            self.at += HEADER + frame.length;
            self.has_settings = true;
            match frame.kind {
                HEADERS | CONTINUATION => {
                    let Some(part) = frame.block(content) else { return Verdict::Invalid };
                    self.stream = Some(frame.stream);
                    self.block.extend_from_slice(part);
                }
                _ => continue,
            }
            if frame.flags & END_HEADERS != 0 {
                return match hpack::wanted(&self.block) {
                    Ok(Some(name)) => Verdict::Name(name),
                    Ok(None) => Verdict::Nameless,
                    Err(_) => Verdict::Invalid,
                };
            }
        }
        Verdict::More
    }

    /// Whether a frame may come now.
    fn may_follow(&self, frame: &Frame) -> bool {
        match (self.has_settings, self.stream) {
            (false, _) => (frame.kind, frame.stream, frame.flags & 1) == (SETTINGS, 0, 0),
            (_, Some(stream)) => (frame.kind, frame.stream) == (CONTINUATION, stream),
            // A client numbers its streams with odd numbers.
            _ if frame.kind == HEADERS => frame.stream % 2 == 1,
            _ => !matches!(frame.kind, DATA | PUSH_PROMISE | CONTINUATION),
        }
    }
}

/// The header of a frame.
struct Frame {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Frame {
    fn of(&[a, b, c, kind, flags, s, t, u, v]: &[u8; HEADER]) -> Self {
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        Self { length, kind, flags, stream: u32::from_be_bytes([s & 0x7f, t, u, v]) }
    }

    /// The part of a header block in the content of a frame.
    fn block<'a>(&self, mut content: &'a [u8]) -> Option<&'a [u8]> {
        if self.kind == CONTINUATION {
            return Some(content);
        }
        if self.flags & PADDED != 0 {
            let (padding, rest) = content.split_first()?;
            content = rest.get(..rest.len().checked_sub(usize::from(*padding))?)?;
        }
        if self.flags & PRIORITY != 0 {
            // The stream that it depends on, and its weight.
            content = content.get(5..)?;
        }
        Some(content)
    }
}
