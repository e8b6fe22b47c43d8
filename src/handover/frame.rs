//! A frame: the unit in which a hand-over travels.
//!
//! ```text
//! "PwHO" │ format u16 │ descriptors u16 │ length of the record u32 │ length of the bytes u32 │
//! record │ bytes ```
//!
//! Numbers are little-endian. The record is JSON. The bytes are what the record refers to by
//! [`Held`](super::Held). Descriptors go beside a frame: a socket carries them
//! ([`Wire`](super::Wire)), and a file has none.
//!
//! What a reader takes is bounded before it is read. More than the limits is a [`WireError`], and
//! memory is taken as bytes arrive, not as a head promises them.

use std::{
    fs::File,
    io::{self, Read, Seek as _, Write},
};

/// The format that this program writes. It reads those that differ by one.
pub(crate) const FORMAT: u16 = 1;
/// Descriptors that the kernel takes in one message (`SCM_MAX_FD`).
pub(crate) const MOST_DESCRIPTORS: usize = 253;
/// The largest record: some 200,000 sessions.
pub(crate) const LARGEST_RECORD: usize = 128 << 20;
/// The most bytes beside a record.
pub(crate) const MOST_BYTES: usize = 1 << 30;
/// The length of a head.
pub(super) const HEAD: usize = 16;

const MAGIC: [u8; 4] = *b"PwHO";
/// How much memory is taken at once while a frame arrives.
const STEP: usize = 1 << 20;

/// Why a frame could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The other side has closed its end.
    #[error("the other process has ended, or closed the connection")]
    Closed,
    /// The other side did not answer.
    #[error("no answer in time")]
    TimedOut,
    /// What arrives is not a whole frame.
    #[error("the message is broken: {0}")]
    Broken(&'static str),
    /// Another version of the program wrote it.
    #[error("the message has the format {0}, and this portway reads {FORMAT} and its neighbours")]
    Format(u16),
    /// It is larger than allowed.
    #[error("the message has {value} {what}, and at most {limit} are allowed")]
    TooLarge {
        /// Of what it has too much.
        what: &'static str,
        /// How much it has.
        value: usize,
        /// The limit.
        limit: usize,
    },
    /// The system has no room for the descriptors.
    #[error("the descriptors do not fit; raise LimitNOFILE= in the unit, or `ulimit -n`")]
    Descriptors,
    /// A record cannot be written or read.
    #[error("the record is not readable: {0}")]
    Record(#[from] serde_json::Error),
    /// What the system says.
    #[error("{0}")]
    System(#[from] io::Error),
}

impl From<rustix::io::Errno> for WireError {
    fn from(error: rustix::io::Errno) -> Self {
        match error {
            rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET => Self::Closed,
            other => Self::System(other.into()),
        }
    }
}

/// Whether this program reads a format.
pub(crate) fn is_readable(format: u16) -> bool {
    format.abs_diff(FORMAT) <= 1 && format > 0
}

/// What stands before a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) format: u16,
    pub(super) descriptors: usize,
    pub(super) record: usize,
    pub(super) bytes: usize,
}

impl Head {
    /// The head of a frame with so much.
    ///
    /// # Errors
    /// It is more than allowed.
    pub(super) fn new(descriptors: usize, record: usize, bytes: usize) -> Result<Self, WireError> {
        Self { format: FORMAT, descriptors, record, bytes }.checked()
    }

    fn checked(self) -> Result<Self, WireError> {
        let limits = [
            ("descriptors", self.descriptors, MOST_DESCRIPTORS),
            ("bytes of records", self.record, LARGEST_RECORD),
            ("bytes of sessions", self.bytes, MOST_BYTES),
        ];
        for (what, value, limit) in limits {
            if value > limit {
                return Err(WireError::TooLarge { what, value, limit });
            }
        }
        Ok(self)
    }

    #[expect(clippy::cast_possible_truncation, reason = "the limits are below")]
    pub(super) fn to_bytes(self) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&MAGIC);
        head[4..6].copy_from_slice(&self.format.to_le_bytes());
        head[6..8].copy_from_slice(&(self.descriptors as u16).to_le_bytes());
        head[8..12].copy_from_slice(&(self.record as u32).to_le_bytes());
        head[12..].copy_from_slice(&(self.bytes as u32).to_le_bytes());
        head
    }

    /// Reads a head.
    ///
    /// # Errors
    /// It is none, is of another version, or promises more than allowed.
    pub(super) fn parse(head: [u8; HEAD]) -> Result<Self, WireError> {
        if head[..4] != MAGIC {
            return Err(WireError::Broken("it does not begin as one"));
        }
        let short = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let long =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
        let format = short(4);
        if !is_readable(format) {
            return Err(WireError::Format(format));
        }
        Self { format, descriptors: short(6).into(), record: long(8), bytes: long(12) }.checked()
    }
}

/// What a frame says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    /// JSON.
    pub(crate) record: Vec<u8>,
    /// What it refers to.
    pub(crate) bytes: Vec<u8>,
}

impl Frame {
    /// Writes it, without descriptors.
    ///
    /// # Errors
    /// It is too large, or what the system says.
    pub(crate) fn write_to(&self, mut to: impl Write) -> Result<(), WireError> {
        let head = Head::new(0, self.record.len(), self.bytes.len())?;
        to.write_all(&head.to_bytes())?;
        to.write_all(&self.record)?;
        to.write_all(&self.bytes)?;
        Ok(())
    }

    /// Reads one that has no descriptors.
    ///
    /// # Errors
    /// [`WireError`].
    pub(crate) fn read_from(mut from: impl Read) -> Result<Self, WireError> {
        let mut head = [0; HEAD];
        from.read_exact(&mut head).map_err(cut_off)?;
        let head = Head::parse(head)?;
        if head.descriptors > 0 {
            return Err(WireError::Broken("a file has no descriptors"));
        }
        let mut part = |length: usize| -> Result<Vec<u8>, WireError> {
            let mut part = Vec::with_capacity(length.min(STEP));
            (&mut from).take(length as u64).read_to_end(&mut part)?;
            if part.len() == length { Ok(part) } else { Err(WireError::Closed) }
        };
        Ok(Self { record: part(head.record)?, bytes: part(head.bytes)? })
    }

    /// Puts it into a file that has no name, at its beginning.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn into_memory(self) -> Result<File, WireError> {
        let file = rustix::fs::memfd_create("portway-handover", rustix::fs::MemfdFlags::CLOEXEC)?;
        let mut file = File::from(file);
        self.write_to(&mut file)?;
        file.rewind()?;
        Ok(file)
    }
}

fn cut_off(error: io::Error) -> WireError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => WireError::Closed,
        _ => WireError::System(error),
    }
}

/// Makes room in `buffer` for what comes next of `length` bytes. Returns from where it is free.
pub(super) fn room(buffer: &mut Vec<u8>, length: usize) -> usize {
    let at = buffer.len();
    buffer.resize(length.min(at + STEP), 0);
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Frame {
        /// The head alone.
        fn head(&self) -> [u8; HEAD] {
            Head::new(0, self.record.len(), self.bytes.len()).unwrap().to_bytes()
        }
    }

    fn frame() -> Frame {
        Frame { record: b"{\"a\":1}".to_vec(), bytes: b"held".to_vec() }
    }

    #[test]
    fn a_frame_comes_back_from_memory() {
        let mut file = frame().into_memory().unwrap();
        assert_eq!(Frame::read_from(&mut file).unwrap(), frame());
        assert!(matches!(Frame::read_from(&mut file), Err(WireError::Closed)), "there is one");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_of_another_process_are_a_frame_or_an_error(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
            head in proptest::prelude::any::<bool>(),
        ) {
            let start = if head { &frame().head()[..] } else { &[] };
            super::super::claims::frame(&[start, &bytes].concat());
        }
    }

    #[test]
    fn a_frame_that_is_cut_off_anywhere_is_an_error() {
        let mut whole = Vec::new();
        frame().write_to(&mut whole).unwrap();
        for length in 0..whole.len() {
            assert!(matches!(Frame::read_from(&whole[..length]), Err(WireError::Closed)), "{length}");
        }
    }

    #[test]
    fn what_a_head_promises_is_checked_and_takes_no_memory() {
        let head = Head { format: FORMAT, descriptors: 0, record: LARGEST_RECORD, bytes: MOST_BYTES };
        assert!(matches!(Frame::read_from(&head.to_bytes()[..]), Err(WireError::Closed)));
        for (head, what) in [
            (Head { record: LARGEST_RECORD + 1, ..head }, "bytes of records"),
            (Head { bytes: MOST_BYTES + 1, ..head }, "bytes of sessions"),
            (Head { descriptors: MOST_DESCRIPTORS + 1, ..head }, "descriptors"),
        ] {
            let error = Head::parse(head.to_bytes()).unwrap_err();
            assert!(matches!(error, WireError::TooLarge { what: of, .. } if of == what), "{error}");
        }
    }

    #[test]
    fn a_format_may_differ_by_one_and_another_is_named() {
        let head = Head { format: FORMAT, descriptors: 0, record: 0, bytes: 0 };
        for format in [FORMAT, FORMAT + 1] {
            assert!(Head::parse(Head { format, ..head }.to_bytes()).is_ok(), "{format}");
        }
        for format in [0, FORMAT + 2, u16::MAX] {
            let error = Head::parse(Head { format, ..head }.to_bytes()).unwrap_err();
            assert!(matches!(error, WireError::Format(other) if other == format), "{error}");
        }
        let error = Head::parse(*b"GET / HTTP/1.1\r\n").unwrap_err();
        assert!(matches!(error, WireError::Broken(_)));
    }
}
