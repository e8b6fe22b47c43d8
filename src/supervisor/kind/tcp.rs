//! A TCP listener of a mapping.

use std::{io, net::TcpListener, os::fd::OwnedFd, sync::Arc};

use tokio::sync::watch;

use super::{Feed, Kind, Parts, Work};
use crate::{
    config::Service,
    meter::LiveSession,
    policy::Admission,
    relay::tcp::{Route, TcpService, TcpSpec},
    sock::bind::Listening,
    supervisor::named::few,
    targets::PoolHandle,
};

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
            wakers: shared.wakers.clone(),
            pool: self.0.pool.clone(),
            meter: Arc::clone(meter),
            budget: shared.budgets.sessions.clone(),
            silence: shared.budgets.silence.clone(),
            log: Arc::clone(&shared.budgets.log),
            sessions,
        };
        let listener = Arc::new(TcpListener::from(socket));
        let listening = Arc::downgrade(&listener) as Listening;
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

    fn may_stay(&self, admission: &Admission, live: &LiveSession) -> bool {
        let Some(name) = live.name() else { return true };
        let spec = Arc::clone(&self.0.spec.borrow());
        let Route::Names(names) = &spec.route else { return true };
        // A name that is gone leaves its sessions alone, as a target does.
        let host = names.hosts.get(name);
        host.is_none_or(|host| admission.recheck_in(&host.access, live.client.ip()).is_ok())
    }

    fn pool(&self) -> Option<&PoolHandle> {
        Some(&self.0.pool)
    }

    fn targets(&self) -> Option<String> {
        few(self.0.spec.borrow().route.all())
    }
}
