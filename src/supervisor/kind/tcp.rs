//! A TCP listener of a mapping.

use std::{io, net::TcpListener, os::fd::OwnedFd, sync::Arc};

use tokio::sync::watch;

use super::{Kind, Parts, Work};
use crate::{
    config::Service,
    mapping::ListenAddr,
    policy::Admission,
    relay::{
        AdmissionHandle,
        tcp::{TcpService, TcpSpec},
    },
    sock::bind::{Bound, Listening, Overlap, bind_tcp},
    supervisor::{mapping::MappingRuntime, named::few},
};

/// Binds its socket.
pub(super) fn stage(listen: &ListenAddr, spec: &TcpSpec, overlap: Overlap) -> io::Result<Bound<OwnedFd>> {
    Ok(bind_tcp(listen, spec.options.keepalive, overlap)?.map(OwnedFd::from))
}

/// What a change is sent through.
#[derive(Debug)]
pub(super) struct Tcp {
    spec: watch::Sender<Arc<TcpSpec>>,
    admission: watch::Sender<Arc<Admission>>,
}

impl Tcp {
    /// A listener of `mapping`.
    pub(super) fn new(spec: TcpSpec, mapping: &MappingRuntime) -> Self {
        Self {
            spec: watch::Sender::new(Arc::new(spec)),
            admission: watch::Sender::new(Arc::clone(&mapping.admission)),
        }
    }
}

impl Kind for Tcp {
    fn serve(&self, socket: OwnedFd, parts: Parts<'_>) -> io::Result<(Listening, Work)> {
        let Parts { shared, meter, sessions, closing } = parts;
        let service = TcpService {
            spec: self.spec.subscribe(),
            admission: AdmissionHandle {
                admission: self.admission.subscribe(),
                refused: Arc::clone(&shared.refused),
            },
            dialer: shared.dialer.clone(),
            meter: Arc::clone(meter),
            budget: shared.budgets.sessions.clone(),
            silence: shared.budgets.silence.clone(),
            sessions,
        };
        let listener = Arc::new(TcpListener::from(socket));
        let listening: Listening = Arc::downgrade(&listener) as Listening;
        Ok((listening, Box::pin(service.serve(listener, closing))))
    }

    fn retune(&self, service: &Service) {
        if let Service::Tcp(spec) = service {
            self.spec.send_replace(Arc::new(spec.clone()));
        }
    }

    fn admission(&self) -> Option<&watch::Sender<Arc<Admission>>> {
        Some(&self.admission)
    }

    fn targets(&self) -> Option<String> {
        few(self.spec.borrow().targets.iter())
    }
}
