//! What the two processes say to each other.
//!
//! Each message is one frame. Fields that may come later have a default, and unknown fields are
//! left alone. A message that this version does not know is an error of the hand-over. The tests
//! have a recording of each message, which has to stay readable.

use std::os::fd::BorrowedFd;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::time::Instant;

use super::state::StateRecord;
use crate::{
    handover::{Fault, Frame, MOST_DESCRIPTORS, Received, SocketId, Span, Wire, WireError},
    supervisor::Snapshot,
};

/// What old says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FromOld {
    /// The descriptors beside it are sockets.
    Sockets {},
    /// All listening sockets were sent.
    Listen(Listen),
    /// What old knows, or a part of it.
    State(Box<StateRecord>),
    /// Some of the sessions; their sockets were sent. Only for a program that knows parts.
    Part(Box<Snapshot>),
    /// The sessions, or the rest of them; their sockets were sent.
    Snapshot(Box<Snapshot>),
    /// The descriptor beside it is a file with the next message.
    Memory {},
    /// New serves from now on.
    Go {
        /// The configuration was to be read again meanwhile.
        #[serde(default)]
        reload: bool,
    },
    /// Old uses its files no more.
    Released {
        /// How long all stood still.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pause_us: Option<Span>,
    },
}

/// What new needs to know of the listening sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Listen {
    /// The sockets of the listeners.
    pub(super) listeners: Vec<SocketId>,
    /// The listeners that have no socket in old either, as text.
    pub(super) waiting: Vec<String>,
    /// The sockets of the API.
    pub(super) doors: Vec<DoorRecord>,
    /// Those of the first list that a service manager passed: they stay open in any case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) staying: Vec<SocketId>,
}

/// A socket of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DoorRecord {
    /// The key of the configuration and the place, as text.
    pub(super) place: String,
    /// The socket.
    pub(super) socket: SocketId,
}

/// What new says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FromNew {
    /// It runs.
    Hello(Hello),
    /// It will not take over, and ends.
    Refused {
        /// Whose fault it is.
        #[serde(default)]
        fault: Fault,
        /// The cause.
        #[serde(default)]
        error: String,
        /// The problems of the configuration.
        #[serde(default)]
        problems: Vec<Value>,
    },
    /// The configuration is good.
    Ready {},
    /// Every listener has its socket.
    Staged {},
    /// The sessions are there, and stand still.
    Receipt(Receipt),
    /// It serves.
    Serving {},
    /// Every session moves again.
    Moved {
        /// How long that took, from `Serving` on.
        #[serde(default)]
        us: u64,
    },
}

/// Which program new is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Hello {
    pub(super) format: u16,
    pub(super) version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) commit: Option<String>,
    pub(super) pid: u32,
    /// It takes sessions in several parts.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) parts: bool,
}

/// What new has taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Receipt {
    pub(super) sessions: usize,
    pub(super) flows: usize,
    /// The sessions and flows that it could not take, by a socket of each.
    pub(super) not_taken: Vec<SocketId>,
}

/// Sends a message.
pub(super) fn send<T: Serialize>(wire: &mut Wire, message: &T, until: Instant) -> Result<(), WireError> {
    send_with(wire, message, Vec::new(), &[], until)
}

/// Sends a message with the bytes that it refers to, and with descriptors.
pub(super) fn send_with<T: Serialize>(
    wire: &mut Wire,
    message: &T,
    bytes: Vec<u8>,
    descriptors: &[BorrowedFd<'_>],
    until: Instant,
) -> Result<(), WireError> {
    let frame = Frame { record: serde_json::to_vec(message)?, bytes };
    wire.send(&frame, descriptors, until)
}

/// Sends sockets.
pub(super) fn send_sockets<'a>(
    wire: &mut Wire,
    sockets: impl IntoIterator<Item = BorrowedFd<'a>>,
    until: Instant,
) -> Result<(), WireError> {
    let sockets: Vec<_> = sockets.into_iter().collect();
    for part in sockets.chunks(MOST_DESCRIPTORS) {
        send_with(wire, &FromOld::Sockets {}, Vec::new(), part, until)?;
    }
    Ok(())
}

/// Receives a message.
pub(super) fn receive<T: DeserializeOwned>(
    wire: &mut Wire,
    until: Instant,
) -> Result<(T, Received), WireError> {
    let received = wire.receive(until)?;
    Ok((serde_json::from_slice(&received.frame.record)?, received))
}

#[cfg(test)]
mod tests;
