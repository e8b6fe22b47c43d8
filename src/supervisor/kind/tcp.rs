//! A TCP listener of a mapping.

use std::{io, net::TcpListener, os::fd::OwnedFd, sync::Arc};

use tokio::sync::watch;

use super::{Feed, Kind, Parts, Work};
use crate::{
    config::Service,
    mapping::ListenAddr,
    policy::Admission,
    relay::tcp::{TcpService, TcpSpec},
    sock::bind::{Bound, Listening, Overlap, bind_tcp},
    supervisor::named::few,
};

/// Binds its socket.
pub(super) fn stage(listen: &ListenAddr, spec: &TcpSpec, overlap: Overlap) -> io::Result<Bound<OwnedFd>> {
    Ok(bind_tcp(listen, spec.options.keepalive, overlap)?.map(OwnedFd::from))
}

/// A TCP listener of a mapping.
#[derive(Debug)]
pub(super) struct Tcp(pub(super) Feed<TcpSpec>);

impl Kind for Tcp {
    fn serve(&self, socket: OwnedFd, parts: Parts<'_>) -> io::Result<(Listening, Work)> {
        let Parts { shared, meter, sessions, closing } = parts;
        let service = TcpService {
            spec: self.0.spec.subscribe(),
            admission: self.0.admission_handle(shared),
            dialer: shared.dialer.clone(),
            meter: Arc::clone(meter),
            budget: shared.budgets.sessions.clone(),
            silence: shared.budgets.silence.clone(),
            log: Arc::clone(&shared.budgets.log),
            sessions,
        };
        let listener = Arc::new(TcpListener::from(socket));
        let listening: Listening = Arc::downgrade(&listener) as Listening;
        Ok((listening, Box::pin(service.serve(listener, closing))))
    }

    fn retune(&self, service: &Service) {
        if let Service::Tcp(spec) = service {
            self.0.spec.send_replace(Arc::new(spec.clone()));
        }
    }

    fn admission(&self) -> Option<&watch::Sender<Arc<Admission>>> {
        Some(&self.0.admission)
    }

    fn targets(&self) -> Option<String> {
        few(self.0.spec.borrow().targets.iter())
    }
}
