//! What a listener has, standing still, of whichever kind: for the process that takes over, or to
//! go on here.
//!
//! The steps, in the old process (o) and in the new one (n):
//!
//! 1. o: [`Kind::ahead`](super::Kind::ahead), as often as there are batches: sockets that go
//!    before.
//! 2. o: [`Kind::freeze`](super::Kind::freeze) of every listener at once.
//! 3. o: [`FrozenListener::pack`] of each, while all stand still.
//! 4. n: [`Kind::take_over`](super::Kind::take_over) of each. It may serve on the socket before or
//!    after: the listener is held.
//! 5. n: [`FrozenListener::resume`], once it is the one that serves. o: [`FrozenListener::let_go`].
//!    Where n failed before that, o resumes.

use std::{collections::HashSet, io, ops::Range, sync::Arc};

use serde::{Deserialize, Serialize};

use super::Freezing;
use crate::{
    handover::{Packer, SocketId},
    relay::{
        Hold,
        tcp::{FrozenTcp, SessionRecord},
        udp::{FrozenUdp, UdpRecord},
    },
};

/// What a listener has, standing still. It goes on when this is dropped.
#[derive(Debug)]
#[must_use = "it goes on when this is dropped"]
pub(crate) enum FrozenListener {
    /// A kind that does not freeze.
    Nothing,
    /// The sessions of a TCP listener.
    Tcp(FrozenTcp),
    /// The flows of a UDP listener.
    Udp(FrozenUdp),
    /// A decoy or a port of knocks has nothing but its socket.
    Trap(HeldTrap),
}

/// What a listener hands over, beside its socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct HandedListener {
    /// The clients of a TCP listener.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tcp: Vec<SessionRecord>,
    /// The flows and the counters of a UDP listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<UdpRecord>,
}

impl HandedListener {
    /// All its clients, by their sockets.
    pub(crate) fn clients(&self) -> impl Iterator<Item = SocketId> {
        let flows = self.udp.iter().flat_map(UdpRecord::sockets);
        self.tcp.iter().filter_map(SessionRecord::client).chain(flows)
    }
}

impl FrozenListener {
    /// What another process needs of these of all [`FrozenListener::count`]. It stays as it is.
    ///
    /// # Errors
    /// What the system says of a socket.
    pub(crate) fn pack<'a>(
        &'a self,
        clients: Range<usize>,
        packer: &mut Packer<'a>,
    ) -> io::Result<HandedListener> {
        Ok(match self {
            Self::Nothing | Self::Trap(_) => HandedListener::default(),
            Self::Tcp(tcp) => HandedListener { tcp: tcp.pack(clients, packer)?, ..HandedListener::default() },
            Self::Udp(udp) => HandedListener { udp: Some(udp.pack(packer)?), ..HandedListener::default() },
        })
    }

    /// Whether its clients may be packed and taken over in several parts. Flows are not: the first
    /// part would let datagrams of the others make new flows.
    pub(crate) fn has_parts(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    /// How many sessions, flows and other clients stand still.
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::Nothing | Self::Trap(_) => 0,
            Self::Tcp(tcp) => tcp.count(),
            Self::Udp(udp) => udp.count(),
        }
    }

    /// How many did not stop: they stay in this process, and end here.
    pub(crate) fn left(&self) -> usize {
        match self {
            Self::Nothing | Self::Trap(_) => 0,
            Self::Tcp(tcp) => tcp.left(),
            Self::Udp(udp) => udp.left(),
        }
    }

    /// Goes on where it stopped.
    pub(crate) fn resume(self) {
        drop(self);
    }

    /// Lets all go that another process serves from now on. The clients that it did not take go on
    /// here until they end. The listener accepts no more.
    pub(crate) fn let_go(self, not_taken: &HashSet<SocketId>) {
        match self {
            Self::Nothing => {}
            Self::Tcp(tcp) => tcp.let_go(not_taken),
            Self::Udp(udp) => udp.let_go(not_taken),
            Self::Trap(trap) => trap.let_go(),
        }
    }
}

/// A listener without sessions, a decoy or a port of knocks, that takes in nothing.
#[derive(Debug)]
pub(crate) struct HeldTrap(Option<Arc<Hold>>);

impl HeldTrap {
    /// Stops the listener, and waits until it stands still.
    pub(super) fn freeze(hold: &Arc<Hold>) -> Freezing {
        let (held, hold) = (Self::new(hold), Arc::clone(hold));
        Box::pin(async move {
            hold.stopped().await;
            FrozenListener::Trap(held)
        })
    }

    /// Stops the listener.
    pub(super) fn new(hold: &Arc<Hold>) -> Self {
        hold.hold();
        Self(Some(Arc::clone(hold)))
    }

    fn let_go(mut self) {
        self.0 = None;
    }
}

impl Drop for HeldTrap {
    fn drop(&mut self) {
        if let Some(hold) = &self.0 {
            hold.release();
        }
    }
}
