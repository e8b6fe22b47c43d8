//! A decoy: it bans its clients and belongs to no mapping.

use std::{io, net::TcpListener, os::fd::OwnedFd, sync::Arc};

use super::{Kind, Parts, Work};
use crate::{config::Service, relay::tcp::TrapService, sock::bind::Listening};

/// A decoy has nothing that could change.
#[derive(Debug)]
pub(super) struct Trap;

impl Kind for Trap {
    fn serve(&self, socket: OwnedFd, parts: Parts<'_>) -> io::Result<(Listening, Work)> {
        let service = TrapService {
            gate: Arc::clone(&parts.shared.gate),
            meter: Arc::clone(parts.meter),
            log: Arc::clone(&parts.shared.budgets.log),
        };
        let listener = Arc::new(TcpListener::from(socket));
        let listening: Listening = Arc::downgrade(&listener) as Listening;
        Ok((listening, Box::pin(service.serve(listener, parts.closing))))
    }

    fn retune(&self, _: &Service) {}
}
