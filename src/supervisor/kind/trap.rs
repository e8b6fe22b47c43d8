//! A decoy, which bans its clients, and a TCP port of the sequence that opens. They belong to no
//! mapping.

use std::{io, net::TcpListener, os::fd::OwnedFd, sync::Arc};

use super::{Freezing, FrozenListener, HandedListener, Kind, Parts, Work, frozen::HeldTrap};
use crate::{
    config::Service,
    handover::{SocketId, Unpacker},
    relay::{
        Hold,
        tcp::{Touch, TrapService},
    },
    sock::bind::Listening,
};

/// A decoy has nothing that could change.
#[derive(Debug)]
pub(super) struct Trap {
    touch: Touch,
    hold: Arc<Hold>,
}

impl Trap {
    /// A decoy, or a port of the sequence that opens.
    pub(super) fn new(touch: Touch) -> Self {
        Self { touch, hold: Arc::default() }
    }
}

impl Kind for Trap {
    fn serve(&self, socket: OwnedFd, parts: Parts<'_>) -> io::Result<(Listening, Work)> {
        let service = TrapService {
            gate: Arc::clone(&parts.shared.gate),
            meter: Arc::clone(parts.meter),
            touch: self.touch,
            log: Arc::clone(&parts.shared.budgets.log),
            hold: Arc::clone(&self.hold),
        };
        let listener = Arc::new(TcpListener::from(socket));
        let listening: Listening = Arc::downgrade(&listener) as Listening;
        Ok((listening, Box::pin(service.serve(listener, parts.closing))))
    }

    fn retune(&self, _: &Service) {}

    fn is_trap(&self) -> bool {
        self.touch == Touch::Ban
    }

    fn freeze(&self, _: Parts<'_>) -> Freezing {
        HeldTrap::freeze(&self.hold)
    }

    fn take_over(
        &self,
        _: &HandedListener,
        _: &mut Unpacker,
        _: Parts<'_>,
    ) -> (FrozenListener, Vec<SocketId>) {
        (FrozenListener::Trap(HeldTrap::new(&self.hold)), Vec::new())
    }
}
