//! The handshake since 1.7: the first packet of a client.

use super::{
    greeting::{Greeting, Next, Read, name_in},
    packet::{self, Malformed},
};
use crate::preface::verdict::LIMIT;

/// The id of the packet.
const HANDSHAKE: u8 = 0;

/// The longest one: with its length before it, it fits in what is read.
const LONGEST: usize = LIMIT - 3;

/// Reads a handshake.
pub(super) fn read(bytes: &[u8]) -> Read {
    match try_read(bytes) {
        Ok(Some((greeting, address))) => Read::Greeting(greeting, name_in(address)),
        Ok(None) => Read::More,
        Err(Malformed) => Read::Foreign,
    }
}

fn try_read(bytes: &[u8]) -> Result<Option<(Greeting, &[u8])>, Malformed> {
    let mut rest = bytes;
    let Some(mut content) = packet::frame(&mut rest, LONGEST)? else {
        // The id tells most other protocols apart, before they wait for an answer in vain.
        let mut begun = bytes;
        let has_length = packet::take_number(&mut begun, 3)?.is_some();
        let is_other = has_length && begun.first().is_some_and(|id| *id != HANDSHAKE);
        return if is_other { Err(Malformed) } else { Ok(None) };
    };
    if packet::bytes(&mut content, 1)? != [HANDSHAKE] {
        return Err(Malformed);
    }
    let protocol = packet::number(&mut content)?;
    let address = packet::text(&mut content)?;
    // The port that the client connects to.
    packet::bytes(&mut content, 2)?;
    let next = match packet::number(&mut content)? {
        1 => Next::Status,
        2 => Next::Login,
        3 => Next::Transfer,
        _ => return Err(Malformed),
    };
    if !content.is_empty() {
        return Err(Malformed);
    }
    Ok(Some((Greeting::Handshake { protocol, next, length: bytes.len() - rest.len() }, address)))
}
