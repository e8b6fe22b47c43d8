//! Minecraft (Java): the name in the handshake, and answers in place of a server that is not up.
//!
//! Reads clients of every version: the handshake since 1.7, the pings and joins before it. The
//! [`StandIn`] plays the server for a client that cannot get further: it answers a ping, and turns
//! a player away with a text.

mod greeting;
mod legacy;
mod modern;
mod packet;
mod stand_in;

pub(crate) use greeting::Greeting;
#[cfg(any(test, fuzzing))]
pub(crate) use stand_in::Turn;
pub(crate) use stand_in::{Notice, StandIn};

use self::greeting::Read;
use super::verdict::{LIMIT, Verdict};

/// Reads the name of one client.
#[derive(Debug, Default)]
pub(super) struct Reader {
    greeting: Option<Greeting>,
}

impl Reader {
    /// See [`Reader::read`](super::Reader::read). Each part has its length before it, so a call is
    /// cheap for any number of bytes.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Verdict {
        let read = if legacy::may_be(bytes) { legacy::read(bytes) } else { modern::read(bytes) };
        match self.judge(read) {
            Verdict::More if bytes.len() >= LIMIT => Verdict::Foreign,
            verdict => verdict,
        }
    }

    /// See [`Reader::finish`](super::Reader::finish).
    pub(super) fn finish(&mut self, bytes: &[u8]) -> Verdict {
        match self.read(bytes) {
            Verdict::More => self.judge(legacy::finish(bytes)),
            verdict => verdict,
        }
    }

    /// What the client said of itself, if it got so far.
    pub(super) fn greeting(&self) -> Option<&Greeting> {
        self.greeting.as_ref()
    }

    fn judge(&mut self, read: Read) -> Verdict {
        match read {
            Read::More => Verdict::More,
            Read::Foreign => Verdict::Foreign,
            Read::Greeting(greeting, name) => {
                self.greeting = Some(greeting);
                name.map_or(Verdict::Nameless, Verdict::Name)
            }
        }
    }
}

#[cfg(test)]
mod tests;
