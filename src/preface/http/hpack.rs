//! The host in the first header block of an HTTP/2 connection (HPACK, RFC 7541).
//!
//! Before the first block the table of the decoder is empty. So only the fields of the block itself
//! matter, and of the dynamic table no more than which of its entries are hosts.

use super::{
    authority::{Malformed, host},
    huffman,
};

/// The entries of the static table.
const STATIC: usize = 61;

/// `:authority` there.
const AUTHORITY: usize = 1;

/// `host` there.
const HOST: usize = 38;

/// The largest dynamic table that a client may use before it has our settings.
const LARGEST_TABLE: usize = 4096;

/// The longest value that is decoded.
const LONGEST_VALUE: usize = 512;

/// The names that matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Authority,
    Host,
    Other,
}

/// The host that a block wants.
pub(super) fn wanted(block: &[u8]) -> Result<Option<Box<str>>, Malformed> {
    let mut fields = Fields { rest: block, ..Fields::default() };
    while !fields.rest.is_empty() {
        fields.take_field()?;
    }
    match (fields.authority, fields.host) {
        // RFC 9113, section 8.3.1: a request with two hosts is malformed.
        (Some(authority), Some(host)) if authority != host => Err(Malformed),
        (authority, host) => Ok(authority.or(host).flatten()),
    }
}

/// The fields of a block.
#[derive(Default)]
struct Fields<'a> {
    rest: &'a [u8],
    /// The entries of the dynamic table, the oldest first.
    dynamic: Vec<Kind>,
    /// The host in `:authority`, once that came.
    authority: Option<Option<Box<str>>>,
    /// The host in `host`, once that came.
    host: Option<Option<Box<str>>>,
}

impl<'a> Fields<'a> {
    fn take_field(&mut self) -> Result<(), Malformed> {
        let first = *self.rest.first().ok_or(Malformed)?;
        match first.leading_zeros() {
            // The field is an entry of a table.
            0 => {
                let index = self.take_integer(7)?;
                // The entries of the static table have no value for a host.
                let kind = self.kind(index)?;
                self.note(kind, b"")
            }
            1 => {
                let kind = self.take_literal(6)?;
                self.dynamic.push(kind);
                Ok(())
            }
            2 => (self.take_integer(5)? <= LARGEST_TABLE).then_some(()).ok_or(Malformed),
            _ => self.take_literal(4).map(|_| ()),
        }
    }

    /// Takes a field with a value of its own; the index of its name has so many bits.
    fn take_literal(&mut self, bits: u32) -> Result<Kind, Malformed> {
        let kind = match self.take_integer(bits)? {
            0 => {
                let mut buffer = [0; ":authority".len()];
                match self.take_string()?.decode(&mut buffer) {
                    Ok(b":authority") => Kind::Authority,
                    Ok(b"host") => Kind::Host,
                    _ => Kind::Other,
                }
            }
            index => self.kind(index)?,
        };
        let value = self.take_string()?;
        if kind != Kind::Other {
            let mut buffer = [0; LONGEST_VALUE];
            self.note(kind, value.decode(&mut buffer)?)?;
        }
        Ok(kind)
    }

    /// What the name of an entry means.
    fn kind(&self, index: usize) -> Result<Kind, Malformed> {
        match index {
            0 => Err(Malformed),
            AUTHORITY => Ok(Kind::Authority),
            HOST => Ok(Kind::Host),
            _ if index <= STATIC => Ok(Kind::Other),
            // The newest entry is the first.
            _ => self.dynamic.iter().rev().nth(index - STATIC - 1).copied().ok_or(Malformed),
        }
    }

    /// Takes note of a field; a second host is one too many.
    fn note(&mut self, kind: Kind, value: &[u8]) -> Result<(), Malformed> {
        let place = match kind {
            Kind::Authority => &mut self.authority,
            Kind::Host => &mut self.host,
            Kind::Other => return Ok(()),
        };
        if place.replace(host(value)?).is_some() { Err(Malformed) } else { Ok(()) }
    }

    /// Takes an integer that begins with the last bits of the next byte.
    fn take_integer(&mut self, bits: u32) -> Result<usize, Malformed> {
        let most = (1 << bits) - 1;
        let mut value = usize::from(self.take_byte()?) & most;
        if value == most {
            for shift in [0, 7, 14] {
                let byte = self.take_byte()?;
                value += usize::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    return Ok(value);
                }
            }
            // No index and no length here is so large.
            return Err(Malformed);
        }
        Ok(value)
    }

    fn take_string(&mut self) -> Result<Text<'a>, Malformed> {
        let is_huffman = *self.rest.first().ok_or(Malformed)? & 0x80 != 0;
        let length = self.take_integer(7)?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(Text { bytes, is_huffman })
    }

    fn take_byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.rest.split_first().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*first)
    }
}

/// A string of a field.
struct Text<'a> {
    bytes: &'a [u8],
    is_huffman: bool,
}

impl<'a> Text<'a> {
    /// The string as it is meant, if it fits.
    fn decode<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], Malformed>
    where
        'a: 'b,
    {
        if !self.is_huffman {
            return Ok(self.bytes);
        }
        let length = huffman::decode(self.bytes, buffer).ok_or(Malformed)?;
        Ok(&buffer[..length])
    }
}
