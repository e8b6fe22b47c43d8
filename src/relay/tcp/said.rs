//! What a client says before its session leads anywhere: kept, and given to the target whole.
//!
//! Owns the bytes, [`LIMIT`] at most, and the read that adds to them. A client that says nothing
//! costs no memory here. One that says a byte at a time is woken for as often as its bytes come.
//! Knows no protocol.

use std::io;

use tokio::net::TcpStream;

use super::direction::read_once;
use crate::{preface::LIMIT, sock::errno::is_transient};

/// The first bytes of a client.
#[derive(Debug, Default)]
pub(super) struct Said {
    bytes: Vec<u8>,
    /// The client said that no more will come.
    has_ended: bool,
}

impl Said {
    /// What a client has said to another process.
    pub(super) fn before(bytes: Vec<u8>) -> Self {
        Self { bytes, has_ended: false }
    }

    /// All of them.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether the client ended without a byte.
    pub(super) fn is_nothing(&self) -> bool {
        self.bytes.is_empty() && self.has_ended
    }

    /// Takes off the first bytes, which are not for the target.
    pub(super) fn take_off(&mut self, bytes: usize) {
        self.bytes.drain(..bytes);
    }

    /// Gives them away.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Waits for more. Returns whether more came: not at the end of the client's stream, and not
    /// where there is no room. May be dropped at any time.
    ///
    /// # Errors
    /// What the system says of the connection.
    pub(super) async fn hear(&mut self, client: &TcpStream) -> io::Result<bool> {
        let room = LIMIT.saturating_sub(self.bytes.len());
        if room == 0 || self.has_ended {
            return Ok(false);
        }
        loop {
            client.readable().await?;
            if let Some(came) = self.try_hear(client)? {
                return Ok(came);
            }
        }
    }

    /// The same without waiting. `None` where nothing is there; that costs no system call.
    ///
    /// # Errors
    /// What the system says of the connection.
    pub(super) fn try_hear(&mut self, client: &TcpStream) -> io::Result<Option<bool>> {
        let room = LIMIT.saturating_sub(self.bytes.len());
        let heard = read_once(client, room, |bytes| {
            if bytes.len() > self.bytes.capacity() - self.bytes.len() {
                // As a vector grows by itself, but never beyond the limit.
                self.bytes.reserve_exact(bytes.len().max(self.bytes.len()).min(room));
            }
            self.bytes.extend_from_slice(bytes);
        });
        match heard {
            Ok(bytes) => {
                self.has_ended = bytes == 0;
                Ok(Some(bytes > 0))
            }
            Err(error) if is_transient(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
