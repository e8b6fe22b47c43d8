//! Clients from before 1.7: their pings and joins.
//!
//! Texts are in UTF-16, with their length in units before them. A ping may be one byte, or two, or
//! have more after them, and only silence tells a short one from the start of a longer one.

use super::greeting::{Greeting, Read, name_in};

/// The first byte of a ping.
const PING: u8 = 0xfe;

/// The second one, since 1.4.
const SINCE_1_4: u8 = 1;

/// The third one, in 1.6: a message for a plugin.
const MESSAGE: u8 = 0xfa;

/// The name of that message, as a text.
const CHANNEL: &[u8] = b"\0\x0b\0M\0C\0|\0P\0i\0n\0g\0H\0o\0s\0t";

/// The first byte of a join.
const JOIN: u8 = 2;

/// The longest name of a player, and the longest name with an address, in units of UTF-16.
const LONGEST_PLAYER: usize = 16;
const LONGEST_ADDRESS: usize = 255;

/// Whether the client is one from before 1.7, as far as the bytes say.
///
/// To a later client, `fe 01` is the length of a packet of 254 bytes, which goes on with a zero. A
/// later packet is never so short as a join says.
pub(super) fn may_be(bytes: &[u8]) -> bool {
    matches!(bytes, [JOIN, ..] | [PING] | [PING, SINCE_1_4] | [PING, SINCE_1_4, MESSAGE, ..])
}

/// Reads a ping or a join that [may be](may_be) one.
pub(super) fn read(bytes: &[u8]) -> Read {
    let read = match bytes {
        [JOIN, 0, ..] => join_before_1_3(&bytes[1..]),
        [JOIN, _, rest @ ..] => join(rest),
        [PING, SINCE_1_4, MESSAGE, rest @ ..] => ping_of_1_6(rest),
        _ => Err(Stop::More),
    };
    match read {
        Ok((greeting, name)) => Read::Greeting(greeting, name),
        Err(Stop::More) => Read::More,
        Err(Stop::Foreign) => Read::Foreign,
    }
}

/// Reads a ping after which nothing comes. Some programs send no more than the start of a longer
/// one.
pub(super) fn finish(bytes: &[u8]) -> Read {
    let is_versioned = match bytes {
        [PING] => false,
        [PING, SINCE_1_4] | [PING, SINCE_1_4, MESSAGE, ..] => true,
        _ => return Read::More,
    };
    Read::Greeting(Greeting::LegacyPing { protocol: None, is_versioned }, None)
}

/// Why nothing is read.
enum Stop {
    More,
    Foreign,
}

type Greeted = Result<(Greeting, Option<Box<str>>), Stop>;

fn ping_of_1_6(mut rest: &[u8]) -> Greeted {
    let Some(after) = rest.strip_prefix(CHANNEL) else {
        return Err(if CHANNEL.starts_with(rest) { Stop::More } else { Stop::Foreign });
    };
    rest = after;
    let [_, _, protocol] = *take(&mut rest)?;
    let address = text(&mut rest, LONGEST_ADDRESS)?;
    let _port: &[u8; 4] = take(&mut rest)?;
    let greeting = Greeting::LegacyPing { protocol: Some(protocol), is_versioned: true };
    Ok((greeting, name_in(address.as_bytes())))
}

fn join(mut rest: &[u8]) -> Greeted {
    let player = text(&mut rest, LONGEST_PLAYER)?;
    let address = text(&mut rest, LONGEST_ADDRESS)?;
    let _port: &[u8; 4] = take(&mut rest)?;
    Ok((Greeting::LegacyJoin { player: player.into() }, name_in(address.as_bytes())))
}

/// The join of 1.2 and before: one text, `player;host:port`, or the player alone.
fn join_before_1_3(mut rest: &[u8]) -> Greeted {
    let text = text(&mut rest, LONGEST_ADDRESS)?;
    let (player, address) = text.split_once(';').unwrap_or((&text, ""));
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    Ok((Greeting::LegacyJoin { player: player.into() }, name_in(host.as_bytes())))
}

/// Takes so many bytes.
fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], Stop> {
    let (taken, left) = rest.split_first_chunk().ok_or(Stop::More)?;
    *rest = left;
    Ok(taken)
}

/// Takes a text of up to so many units.
fn text(rest: &mut &[u8], most: usize) -> Result<String, Stop> {
    let length = usize::from(u16::from_be_bytes(*take(rest)?));
    if length > most {
        return Err(Stop::Foreign);
    }
    let (units, left) = rest.split_at_checked(2 * length).ok_or(Stop::More)?;
    *rest = left;
    let (units, _) = units.as_chunks();
    let units = units.iter().map(|unit| u16::from_be_bytes(*unit));
    Ok(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect())
}
