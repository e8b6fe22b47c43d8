//! An answer over HTTP while it comes in: what was read of it, and whether more is to be waited
//! for.
//!
//! Owns where an answer ends. Pure: time and the connection belong to [`http`](super::http). A
//! connection carries one answer, so every byte after the head belongs to it. What the head says of
//! its length is believed only as far as the document bears it out, because routers count wrong and
//! leave it out: an answer is over when its length has come and its root element is closed. Where
//! one of the two is missing, silence decides ([`Wait::Briefly`]).
//!
//! Invariants: no more than [`LONGEST_HEAD`] and [`LARGEST`] bytes are kept; each byte is looked at
//! a bounded number of times, however small the pieces are in which it comes; no answer can panic.

use super::head::Head;

/// The longest head that is read.
const LONGEST_HEAD: usize = 16 * 1024;

/// The longest body that is read. Descriptions have some 20 KiB.
const LARGEST: usize = 128 * 1024;

/// The root element begins within so many bytes, and its end tag is at most so long.
const NEAR: usize = 1024;

/// The longest line that begins a chunk.
const LONGEST_SIZE: usize = 256;

/// How long to wait for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Not at all: it is whole.
    Over,
    /// A moment: it may be whole.
    Briefly,
    /// As long as an answer may take.
    On,
}

/// More came than an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// How the head says where the body ends.
#[derive(Debug)]
enum End {
    /// After so many bytes.
    After(usize),
    /// After the last chunk.
    LastChunk(Chunk),
    /// With the connection.
    Close,
    /// It does not say.
    Unsaid,
}

/// What comes next in a body of chunks (RFC 9112, section 7.1).
#[derive(Debug)]
enum Chunk {
    /// The line with its size; this much of it came.
    Size(Vec<u8>),
    /// So many bytes of it.
    Data(usize),
    /// Nothing that matters: the last one came.
    Last,
}

/// An answer.
#[derive(Debug, Default)]
pub(super) struct Reply {
    /// What came before the end of the head.
    raw: Vec<u8>,
    head: Option<(u16, End)>,
    body: Vec<u8>,
    /// The name of the root element, once it has come.
    root: Option<Vec<u8>>,
}

impl Reply {
    /// Takes what came next.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.head.is_some() {
            self.take_body(bytes);
        } else {
            self.take_head(bytes)?;
        }
        if self.body.len() > LARGEST { Err(TooLong) } else { Ok(()) }
    }

    fn take_head(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        let mut seen = self.raw.len().saturating_sub(3);
        self.raw.extend_from_slice(bytes);
        while let Some(end) = end_of_head(&self.raw, seen) {
            let rest = self.raw.split_off(end);
            let head = std::mem::replace(&mut self.raw, rest);
            seen = 0;
            match Head::parse(&String::from_utf8_lossy(&head)) {
                // "Continue": the answer is yet to come.
                Some(head) if head.status < 200 => {}
                head => {
                    let (status, end) = head.map_or((0, End::Unsaid), |head| (head.status, End::of(&head)));
                    self.head = Some((status, end));
                    let rest = std::mem::take(&mut self.raw);
                    self.take_body(&rest);
                    return Ok(());
                }
            }
        }
        if self.raw.len() > LONGEST_HEAD { Err(TooLong) } else { Ok(()) }
    }

    fn take_body(&mut self, mut bytes: &[u8]) {
        while let Some((_, End::LastChunk(chunk))) = &mut self.head {
            if bytes.is_empty() {
                break;
            }
            match chunk.take(bytes, &mut self.body) {
                Ok(rest) => bytes = rest,
                Err(rest) => {
                    // It says that there are chunks, and there are none.
                    let Chunk::Size(line) = std::mem::replace(chunk, Chunk::Last) else { return };
                    self.body.extend_from_slice(&line);
                    bytes = rest;
                    if let Some((_, end)) = &mut self.head {
                        *end = End::Unsaid;
                    }
                }
            }
        }
        if !matches!(self.head, Some((_, End::LastChunk(_)))) {
            self.body.extend_from_slice(bytes);
        }
        self.root = self.root.take().or_else(|| root(&self.body[..self.body.len().min(NEAR)]));
    }

    /// How long to wait for more.
    pub(super) fn wait(&self) -> Wait {
        let Some((status, end)) = &self.head else { return Wait::On };
        let has_come = match end {
            _ if *status == 0 => return Wait::Over,
            End::After(length) => Some(self.body.len() >= *length),
            End::LastChunk(chunk) => Some(matches!(chunk, Chunk::Last)),
            End::Close => Some(false),
            End::Unsaid => None,
        };
        let is_empty = self.body.is_empty();
        match (has_come, self.is_closed()) {
            (Some(true) | None, true) => Wait::Over,
            (Some(true), false) if is_empty => Wait::Over,
            (Some(true), false) | (Some(false), true) => Wait::Briefly,
            (None, false) if is_empty => Wait::Briefly,
            (Some(false) | None, false) => Wait::On,
        }
    }

    /// Whether the last thing that came is the end tag of the root element.
    fn is_closed(&self) -> bool {
        let Some(root) = &self.root else { return false };
        let tail = self.body.trim_ascii_end();
        let tail = &tail[tail.len().saturating_sub(NEAR)..];
        let tag = tail.strip_suffix(b">").map(<[u8]>::trim_ascii_end);
        let tag = tag.and_then(|tag| tag.strip_suffix(&root[..]));
        tag.is_some_and(|before| before.ends_with(b"</"))
    }

    /// The status and the body, as much of it as came; `None` where there was no answer.
    pub(super) fn finish(mut self) -> Option<(u16, String)> {
        if self.head.is_none() {
            // The connection ended with the head.
            let head = Head::parse(&String::from_utf8_lossy(&std::mem::take(&mut self.raw)))?;
            self.head = Some((head.status, End::Unsaid));
        }
        let (status, _) = self.head.filter(|(status, _)| *status >= 200)?;
        // A text in another encoding does not justify losing the numbers beside it.
        Some((status, String::from_utf8_lossy(&self.body).into_owned()))
    }
}

impl End {
    fn of(head: &Head) -> Self {
        let says =
            |name, word: &str| head.values(name).any(|value| value.to_ascii_lowercase().contains(word));
        if says("Transfer-Encoding", "chunked") {
            return Self::LastChunk(Chunk::Size(Vec::new()));
        }
        match head.values("Content-Length").find_map(|length| length.parse().ok()) {
            Some(length) => Self::After(length),
            None if says("Connection", "close") => Self::Close,
            None if head.is_old && !says("Connection", "keep-alive") => Self::Close,
            None => Self::Unsaid,
        }
    }
}

impl Chunk {
    /// Moves what is data to `body`, and gives what is left; an error where this is not a chunk,
    /// with what is left after the line that should have begun one.
    fn take<'a>(&mut self, bytes: &'a [u8], body: &mut Vec<u8>) -> Result<&'a [u8], &'a [u8]> {
        match self {
            Self::Last => Ok(&[]),
            Self::Data(left) => {
                let (data, rest) = bytes.split_at(bytes.len().min(*left));
                body.extend_from_slice(data);
                *left -= data.len();
                if *left == 0 {
                    *self = Self::Size(Vec::new());
                }
                Ok(rest)
            }
            Self::Size(line) => {
                let end = bytes.iter().position(|byte| *byte == b'\n');
                let (more, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
                line.extend_from_slice(more);
                if end.is_none() {
                    return if line.len() <= LONGEST_SIZE { Ok(rest) } else { Err(rest) };
                }
                if line.trim_ascii().is_empty() {
                    // The end of the chunk before.
                    line.clear();
                    return Ok(rest);
                }
                match size(line) {
                    Some(0) => *self = Self::Last,
                    Some(size) => *self = Self::Data(size),
                    None => return Err(rest),
                }
                Ok(rest)
            }
        }
    }
}

/// The size in the line that begins a chunk, before its extensions.
fn size(line: &[u8]) -> Option<usize> {
    let line = std::str::from_utf8(line).ok()?;
    usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()
}

/// Where the body begins: after the first empty line that ends at or after `from`.
fn end_of_head(raw: &[u8], from: usize) -> Option<usize> {
    let begin = raw.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?.max(from);
    (begin..raw.len()).filter(|at| raw[*at] == b'\n').find_map(|at| match &raw[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

/// The name of the first element.
fn root(document: &[u8]) -> Option<Vec<u8>> {
    let starts = |at: &usize| {
        document[*at] == b'<'
            && document.get(at + 1).is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_')
    };
    let name = &document[(0..document.len()).find(starts)? + 1..];
    let end = name.iter().position(|byte| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>'))?;
    Some(name[..end].to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DOCUMENT: &str = "<?xml version=\"1.0\"?>\n<s:Envelope x=\"1\"><s:Body>1</s:Body></s:Envelope>\r\n";

    /// What is made of an answer that comes in pieces of so many bytes, and how long to wait after
    /// it.
    fn read(answer: &str, piece: usize) -> (Wait, Option<(u16, String)>) {
        let mut reply = Reply::default();
        for piece in answer.as_bytes().chunks(piece) {
            reply.take(piece).unwrap();
        }
        (reply.wait(), reply.finish())
    }

    #[test]
    fn an_answer_ends_where_its_length_and_its_document_do() {
        let (short, long) = (DOCUMENT.len() - 40, DOCUMENT.len() + 40);
        let chunks = format!("{:x}; x=y\r\n{DOCUMENT}\r\n0\r\n\r\n", DOCUMENT.len());
        for (head, body, wait) in [
            (format!("Content-Length: {}\r\n", DOCUMENT.len()), DOCUMENT, Wait::Over),
            (format!("Content-Length : {short}\r\n"), DOCUMENT, Wait::Over),
            (format!("Content-Length:\r\n {long}\r\n"), DOCUMENT, Wait::Briefly),
            ("Content-Length: many\r\n".to_owned(), DOCUMENT, Wait::Over),
            ("Connection: close\r\n".to_owned(), DOCUMENT, Wait::Briefly),
            (String::new(), DOCUMENT, Wait::Over),
            ("Transfer-Encoding: Chunked\r\n".to_owned(), &chunks, Wait::Over),
            ("Transfer-Encoding: chunked\r\n".to_owned(), DOCUMENT, Wait::Over),
        ] {
            for piece in [1, 2, 7, 10_000] {
                let answer = format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 X\r\n{head}\r\n{body}");
                let read = read(&answer, piece);
                assert_eq!(read, (wait, Some((500, DOCUMENT.to_owned()))), "{head:?} by {piece}");
            }
        }
    }

    #[test]
    fn an_answer_without_a_body_is_not_waited_for_long() {
        for (answer, wait) in [
            ("HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", Wait::Over),
            ("HTTP/1.1 500 X\r\n\r\n", Wait::Briefly),
            ("HTTP/1.1 500 X\r\nConnection: close\r\n\r\n", Wait::On),
            ("HTTP/1.0 500 X\n\n", Wait::On),
            ("HTTP/1.1 500 X\r\nContent-Length: 9\r\n\r\n", Wait::On),
            ("HTTP/1.1 500 X\r\n", Wait::On),
        ] {
            assert_eq!(read(answer, 1), (wait, Some((500, String::new()))), "{answer:?}");
        }
        for nothing in ["", "\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n", "junk\r\n\r\nmore"] {
            assert_eq!(read(nothing, 1).1, None, "{nothing:?}");
        }
    }

    #[test]
    fn an_answer_without_end_is_cut() {
        for begin in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n",
        ] {
            let mut reply = Reply::default();
            reply.take(begin.as_bytes()).unwrap();
            let taken = (0..100).take_while(|_| reply.take(&[b'<'; 4096]).is_ok()).count();
            assert!((3..=LARGEST / 4096).contains(&taken), "{begin:?}: {taken}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_is_too_odd(
            answer in "(HTTP/1.1 200 OK\r\n|(Content-Length|Transfer-Encoding|Connection)(:| :|:\r\n ) ?(5|chunked|close)\r\n|\r\n|\n|[0-9a-f]{1,9};?\r\n|</?a>|\\PC){0,12}",
            piece in 1..9_usize,
        ) {
            read(&answer, piece);
        }
    }
}
