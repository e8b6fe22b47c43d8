//! The parts of packets since 1.7: numbers, texts, and the frame around them.

/// A part that no client of Minecraft sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Takes a number of up to so many bytes off the start of `rest`; `None` where its end is missing.
pub(super) fn take_number(rest: &mut &[u8], longest: usize) -> Result<Option<i32>, Malformed> {
    let mut value = 0;
    for (at, &byte) in rest.iter().take(longest).enumerate() {
        value |= u32::from(byte & 0x7f).checked_shl(7 * at as u32).unwrap_or(0);
        if byte & 0x80 == 0 {
            *rest = &rest[at + 1..];
            return Ok(Some(value.cast_signed()));
        }
    }
    if rest.len() < longest { Ok(None) } else { Err(Malformed) }
}

/// Takes a whole number of a packet that is whole.
pub(super) fn number(rest: &mut &[u8]) -> Result<i32, Malformed> {
    take_number(rest, 5)?.ok_or(Malformed)
}

/// Takes so many bytes.
pub(super) fn bytes<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], Malformed> {
    let (taken, left) = rest.split_at_checked(count).ok_or(Malformed)?;
    *rest = left;
    Ok(taken)
}

/// Takes a text, which has its length before it.
pub(super) fn text<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = usize::try_from(number(rest)?).map_err(|_| Malformed)?;
    bytes(rest, length)
}

/// Takes the frame off the start of `rest`, and gives what is in it; `None` where its end is
/// missing. A frame of more than `most` bytes is malformed as soon as it says so.
pub(super) fn frame<'a>(rest: &mut &'a [u8], most: usize) -> Result<Option<&'a [u8]>, Malformed> {
    let mut after = *rest;
    let Some(length) = take_number(&mut after, 3)? else { return Ok(None) };
    let length =
        usize::try_from(length).ok().filter(|length| (1..=most).contains(length)).ok_or(Malformed)?;
    let Some((content, left)) = after.split_at_checked(length) else { return Ok(None) };
    *rest = left;
    Ok(Some(content))
}

/// A packet with a number and a text in it.
pub(super) fn with_text(id: u8, text: &str) -> Vec<u8> {
    let mut length = Vec::new();
    put_number(&mut length, text.len());
    with(id, &[&length, text.as_bytes()])
}

/// A packet with these parts.
pub(super) fn with(id: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = 1 + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut packet = Vec::with_capacity(length + 5);
    put_number(&mut packet, length);
    packet.push(id);
    parts.iter().for_each(|part| packet.extend_from_slice(part));
    packet
}

fn put_number(to: &mut Vec<u8>, mut value: usize) {
    while value > 0x7f {
        to.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}
