//! The TLVs of version 2: a type, a length and a value, one after the other.

/// The name that the client wants.
pub(super) const AUTHORITY: u8 = 0x02;
/// The sum over the header.
pub(super) const CRC32C: u8 = 0x03;
/// Padding.
pub(super) const NOOP: u8 = 0x04;
/// What tells the session from all others.
pub(super) const UNIQUE_ID: u8 = 0x05;

/// The longest value of [`UNIQUE_ID`].
pub(super) const LONGEST_ID: usize = 128;

/// The type and the length before a value.
pub(super) const HEADER: usize = 3;

/// One TLV.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tlv<'a> {
    pub kind: u8,
    pub value: &'a [u8],
    /// All of it.
    pub whole: &'a [u8],
}

/// Takes the first TLV off the start of `rest`, or `None` where that is none.
pub(super) fn take<'a>(rest: &mut &'a [u8]) -> Option<Tlv<'a>> {
    let &[kind, high, low] = rest.first_chunk()?;
    let length = HEADER + usize::from(u16::from_be_bytes([high, low]));
    let (whole, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(Tlv { kind, value: &whole[HEADER..], whole })
}

/// Whether there is a TLV of this type.
pub(super) fn has(mut all: &[u8], kind: u8) -> bool {
    std::iter::from_fn(|| take(&mut all)).any(|tlv| tlv.kind == kind)
}

/// Adds a TLV.
pub(super) fn put(to: &mut Vec<u8>, kind: u8, value: &[u8]) {
    to.push(kind);
    to.extend_from_slice(&(value.len() as u16).to_be_bytes());
    to.extend_from_slice(value);
}
