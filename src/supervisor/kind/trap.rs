//! A decoy: it bans its clients and belongs to no mapping.

use std::{io, net::TcpListener, os::fd::OwnedFd, sync::Arc};

use super::{Freezing, FrozenListener, HandedListener, Kind, Parts, Work, frozen::HeldTrap};
use crate::{
    config::Service,
    handover::{SocketId, Unpacker},
    relay::{Hold, tcp::TrapService},
    sock::bind::Listening,
};

/// A decoy has nothing that could change.
#[derive(Debug, Default)]
pub(super) struct Trap {
    hold: Arc<Hold>,
}

impl Kind for Trap {
    fn serve(&self, socket: OwnedFd, parts: Parts<'_>) -> io::Result<(Listening, Work)> {
        let service = TrapService {
            gate: Arc::clone(&parts.shared.gate),
            meter: Arc::clone(parts.meter),
            log: Arc::clone(&parts.shared.budgets.log),
            hold: Arc::clone(&self.hold),
        };
        let listener = Arc::new(TcpListener::from(socket));
        let listening: Listening = Arc::downgrade(&listener) as Listening;
        Ok((listening, Box::pin(service.serve(listener, parts.closing))))
    }

    fn retune(&self, _: &Service) {}

    fn freeze(&self, _: Parts<'_>) -> Freezing {
        let (held, hold) = (HeldTrap::new(&self.hold), Arc::clone(&self.hold));
        Box::pin(async move {
            hold.stopped().await;
            FrozenListener::Trap(held)
        })
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
