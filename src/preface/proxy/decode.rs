//! Reads a header.

use proxy_header::{ParseConfig, ProxyHeader};

use super::{Addresses, Header, checksum::crc32c, tlv};
use crate::{mapping::canonical_socket, preface::verdict::LIMIT};

/// The longest header of version 1, with its line end.
const LONGEST_V1: usize = 107;

/// What each header of version 1 begins with.
const START_V1: &[u8] = b"PROXY ";

/// What each header of version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, the version, the family and the length.
const FIXED: usize = 16;

/// The two addresses of sockets in the file system.
const UNIX: usize = 216;

/// What the bytes so far say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Nothing yet: more bytes are needed.
    More,
    /// A header.
    Header(Header),
    /// They are no header that may be believed.
    Invalid(Invalid),
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    /// Something else.
    #[error("the peer sent no PROXY header")]
    Absent,
    /// Version 1, and broken.
    #[error("the PROXY header of version 1 is malformed")]
    MalformedV1,
    /// Version 2, and broken.
    #[error("the PROXY header of version 2 is malformed")]
    MalformedV2,
    /// Version 2, and longer than is read.
    #[error("the PROXY header is longer than 16 KiB")]
    TooLong,
    /// Version 2, and changed on its way.
    #[error("the sum of the PROXY header is wrong")]
    WrongSum,
}

/// Reads the header at the start of `bytes`: all that came so far.
pub(crate) fn read(bytes: &[u8]) -> Received {
    let is_start_of = |start: &[u8]| start.starts_with(bytes) || bytes.starts_with(start);
    let read = if is_start_of(START_V1) {
        version_1(bytes)
    } else if is_start_of(SIGNATURE) {
        version_2(bytes)
    } else {
        Err(Invalid::Absent)
    };
    match read {
        Ok(Some(header)) => Received::Header(header),
        Ok(None) => Received::More,
        Err(invalid) => Received::Invalid(invalid),
    }
}

/// Reads a line: `PROXY TCP4 203.0.113.9 192.0.2.1 50312 443`.
fn version_1(bytes: &[u8]) -> Result<Option<Header>, Invalid> {
    let start = &bytes[..bytes.len().min(LONGEST_V1)];
    let Some(end) = start.iter().position(|c| *c == b'\n') else {
        return if bytes.len() < LONGEST_V1 { Ok(None) } else { Err(Invalid::MalformedV1) };
    };
    let line = start[..end].strip_suffix(b"\r").filter(|line| !line.contains(&b'\r'));
    let line = line.ok_or(Invalid::MalformedV1)?;
    let length = end + 1;
    let none = Header { addresses: None, length, extras: Box::default(), has_sum: false };
    // What follows this word has no meaning for a proxy.
    if line[START_V1.len()..].split(|c| *c == b' ').next() == Some(b"UNKNOWN") {
        return Ok(Some(none));
    }
    if line.split(|c| *c == b' ').skip(4).any(|port| !is_port(port)) {
        return Err(Invalid::MalformedV1);
    }
    let config = ParseConfig::default();
    let (header, used) = ProxyHeader::parse(&bytes[..length], config).map_err(|_| Invalid::MalformedV1)?;
    if used != length {
        return Err(Invalid::MalformedV1);
    }
    let addresses = Some(addresses(&header).ok_or(Invalid::MalformedV1)?);
    Ok(Some(Header { addresses, ..none }))
}

/// Whether a number is written as a port is: digits, and no zero before others.
fn is_port(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_digit) && (text.len() == 1 || !text.starts_with(b"0"))
}

fn version_2(bytes: &[u8]) -> Result<Option<Header>, Invalid> {
    // Each byte is judged when it comes, so that no peer waits in vain.
    if bytes.get(12).is_some_and(|byte| !matches!(byte, 0x20 | 0x21)) {
        return Err(Invalid::MalformedV2);
    }
    let shortest = match bytes.get(13) {
        None | Some(0) => 0,
        Some(0x11 | 0x12) => 12,
        Some(0x21 | 0x22) => 36,
        Some(0x31 | 0x32) => UNIX,
        Some(_) => return Err(Invalid::MalformedV2),
    };
    let Some(fixed) = bytes.first_chunk::<FIXED>() else { return Ok(None) };
    let length = FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length < FIXED + shortest {
        return Err(Invalid::MalformedV2);
    }
    if length > LIMIT {
        return Err(Invalid::TooLong);
    }
    let Some(whole) = bytes.get(..length) else { return Ok(None) };
    let config = ParseConfig::default();
    let (header, _) = ProxyHeader::parse(whole, config).map_err(|_| Invalid::MalformedV2)?;
    let tlvs = &whole[FIXED + shortest..];
    let (extras, has_sum) = extras(whole, tlvs)?;
    Ok(Some(Header { addresses: addresses(&header), length, extras, has_sum }))
}

/// The TLVs to be passed on, and whether there is a sum; it is compared.
fn extras(whole: &[u8], tlvs: &[u8]) -> Result<(Box<[u8]>, bool), Invalid> {
    let mut extras = Vec::new();
    let (mut rest, mut has_sum) = (tlvs, false);
    while !rest.is_empty() {
        let tlv = tlv::take(&mut rest).ok_or(Invalid::MalformedV2)?;
        match tlv.kind {
            tlv::CRC32C => {
                let sum = tlv.value.try_into().map_err(|_| Invalid::MalformedV2)?;
                let (before, after) = (whole.len() - rest.len() - 4, whole.len() - rest.len());
                // The sum is taken with zeros in its place.
                if has_sum || crc32c(&[&whole[..before], &[0; 4], &whole[after..]]) != u32::from_be_bytes(sum)
                {
                    return Err(Invalid::WrongSum);
                }
                has_sum = true;
            }
            tlv::NOOP => {}
            tlv::UNIQUE_ID if tlv.value.len() > tlv::LONGEST_ID => return Err(Invalid::MalformedV2),
            _ => extras.extend_from_slice(tlv.whole),
        }
    }
    Ok((extras.into(), has_sum))
}

fn addresses(header: &ProxyHeader<'_>) -> Option<Addresses> {
    let proxied = header.proxied_address()?;
    Some(Addresses {
        source: canonical_socket(proxied.source),
        destination: canonical_socket(proxied.destination),
    })
}
