//! The port of knocks, and a UDP port of the sequence. It belongs to no mapping.

use std::{io, os::fd::OwnedFd, sync::Arc};

use tokio::net::UdpSocket;

use super::{Freezing, FrozenListener, HandedListener, Kind, Parts, Work, frozen::HeldTrap};
use crate::{
    config::Service,
    handover::{SocketId, Unpacker},
    relay::{Hold, udp::KnockService},
    sock::bind::Listening,
};

/// What it knows.
#[derive(Debug)]
pub(super) struct Knock {
    is_step: bool,
    hold: Arc<Hold>,
}

impl Knock {
    /// The port of knocks, or a port of the sequence.
    pub(super) fn new(is_step: bool) -> Self {
        Self { is_step, hold: Arc::default() }
    }
}

impl Kind for Knock {
    fn serve(&self, socket: OwnedFd, parts: Parts<'_>) -> io::Result<(Listening, Work)> {
        let service = KnockService {
            gate: Arc::clone(&parts.shared.gate),
            meter: Arc::clone(parts.meter),
            is_step: self.is_step,
            hold: Arc::clone(&self.hold),
        };
        let socket = std::net::UdpSocket::from(socket);
        socket.set_nonblocking(true)?;
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        let listening: Listening = Arc::downgrade(&socket) as Listening;
        Ok((listening, Box::pin(service.serve(socket, parts.closing))))
    }

    fn retune(&self, _: &Service) {}

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
