//! Plays the server for a client whose server is not up.

use serde_json::json;

use super::{
    greeting::{Greeting, Next},
    packet,
};

/// Ids of packets.
const STATUS: u8 = 0;
const PING: u8 = 1;
const LOGIN_START: u8 = 0;
const DISCONNECT: u8 = 0;

/// The one answer to a client from before 1.7.
const KICK: u8 = 0xff;

/// The longest packet that a client sends to a stand-in: a login with the keys of the player.
const LONGEST: usize = 4 << 10;

/// The longest name of a player.
const LONGEST_PLAYER: usize = 16;

/// The longest text of a kick, in units of UTF-16.
const LONGEST_KICK: usize = 240;

/// The version that an old client gets to see where it says none: that of 1.5.2, the last one that
/// says none.
const UNSAID: u8 = 61;

/// What a client gets to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notice<'a> {
    /// The text in the list of servers.
    pub motd: &'a str,
    /// Players that are on, and the most that may be.
    pub players: (u32, u32),
    /// The message for a player who joins.
    pub farewell: &'a str,
}

/// What the stand-in does.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Bytes for the client.
    pub answer: Vec<u8>,
    /// Whether that was all: after the answer, close.
    pub is_over: bool,
}

/// Talks to one client.
#[derive(Debug)]
pub(crate) struct StandIn {
    greeting: Greeting,
    /// The bytes of the client that were heard.
    heard: usize,
    /// Whether the client has the status.
    has_answered: bool,
    player: Option<Box<str>>,
}

impl StandIn {
    /// Takes over after a greeting.
    pub(crate) fn new(greeting: Greeting) -> Self {
        let (heard, player) = match &greeting {
            Greeting::Handshake { length, .. } => (*length, None),
            Greeting::LegacyPing { .. } => (0, None),
            Greeting::LegacyJoin { player } => (0, Some(player.clone())),
        };
        Self { greeting, heard, has_answered: false, player }
    }

    /// The player that wants to join, once the client said it. It is a stranger's text.
    pub(crate) fn player(&self) -> Option<&str> {
        self.player.as_deref()
    }

    /// What to do after `bytes`: all that the client sent, from the first byte of its greeting on.
    /// If it is not over, call it again with more.
    pub(crate) fn hear(&mut self, bytes: &[u8], notice: &Notice<'_>) -> Turn {
        match self.greeting {
            Greeting::Handshake { next: Next::Status, protocol, .. } => self.status(bytes, protocol, notice),
            Greeting::Handshake { .. } => self.login(bytes, notice),
            Greeting::LegacyPing { protocol, is_versioned } => {
                last(kick(&legacy_status(protocol, is_versioned, notice)))
            }
            Greeting::LegacyJoin { .. } => last(kick(notice.farewell)),
        }
    }

    /// Answers the request for the status, and the ping that measures the time.
    fn status(&mut self, bytes: &[u8], protocol: i32, notice: &Notice<'_>) -> Turn {
        let mut turn = Turn::default();
        loop {
            match self.packet(bytes) {
                // Once: a client that asks again and again would get far more than it sends.
                Ok(Some([STATUS])) if !self.has_answered => {
                    turn.answer.extend(status(protocol, notice));
                    self.has_answered = true;
                }
                Ok(Some([PING, time @ ..])) if time.len() == 8 => {
                    turn.answer.extend(packet::with(PING, &[time]));
                    turn.is_over = true;
                }
                Ok(None) => return turn,
                _ => turn.is_over = true,
            }
            if turn.is_over {
                return turn;
            }
        }
    }

    /// Turns a player away, once the client said its name: bytes that stay unread would make the
    /// system reset the connection, and the client would not see the text.
    fn login(&mut self, bytes: &[u8], notice: &Notice<'_>) -> Turn {
        match self.packet(bytes) {
            Ok(None) => return Turn::default(),
            Ok(Some([LOGIN_START, rest @ ..])) => self.player = player(rest),
            _ => {}
        }
        let text = json!({ "text": notice.farewell }).to_string();
        last(packet::with_text(DISCONNECT, &text))
    }

    fn packet<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, packet::Malformed> {
        let mut rest = bytes.get(self.heard..).unwrap_or_default();
        let length = rest.len();
        let packet = packet::frame(&mut rest, LONGEST)?;
        self.heard += length - rest.len();
        Ok(packet)
    }
}

/// The last turn.
fn last(answer: Vec<u8>) -> Turn {
    Turn { answer, is_over: true }
}

fn player(mut rest: &[u8]) -> Option<Box<str>> {
    let name = packet::text(&mut rest).ok()?;
    str::from_utf8(name).ok().filter(|name| name.chars().count() <= LONGEST_PLAYER).map(Into::into)
}

/// The status, for a client that speaks `protocol`: the server seems to be of the same version.
fn status(protocol: i32, notice: &Notice<'_>) -> Vec<u8> {
    let (online, max) = notice.players;
    let status = json!({
        "version": { "name": "any", "protocol": protocol },
        "players": { "online": online, "max": max },
        "description": { "text": notice.motd },
    });
    packet::with_text(STATUS, &status.to_string())
}

fn legacy_status(protocol: Option<u8>, is_versioned: bool, notice: &Notice<'_>) -> String {
    let ((online, max), protocol) = (notice.players, protocol.unwrap_or(UNSAID));
    if is_versioned {
        let motd = notice.motd.replace('\0', "");
        return format!("§1\0{protocol}\0any\0{motd}\0{online}\0{max}");
    }
    // The sign divides the parts here, so it cannot colour them.
    let motd = notice.motd.replace('§', "");
    format!("{motd}§{online}§{max}")
}

fn kick(text: &str) -> Vec<u8> {
    let mut length: u16 = 0;
    let mut packet = vec![KICK, 0, 0];
    for c in text.chars() {
        if usize::from(length) + c.len_utf16() > LONGEST_KICK {
            break;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            packet.extend_from_slice(&unit.to_be_bytes());
            length += 1;
        }
    }
    packet[1..3].copy_from_slice(&length.to_be_bytes());
    packet
}
