//! A TCP listener of a mapping.

use std::{
    io,
    net::TcpListener,
    os::fd::OwnedFd,
    sync::{Arc, OnceLock},
};

use tokio::sync::watch;

use super::{Ahead, Feed, Freezing, FrozenListener, HandedListener, Kind, Parts, Work};
use crate::{
    config::Service,
    handover::{SocketId, Unpacker},
    meter::LiveSession,
    policy::Admission,
    relay::tcp::{FrozenTcp, Route, Sessions, TcpService, TcpSpec, ahead},
    sock::bind::Listening,
    supervisor::named::few,
    targets::PoolHandle,
};

/// A TCP listener of a mapping, with its sessions, which outlive a socket.
#[derive(Debug)]
pub(super) struct Tcp {
    feed: Feed<TcpSpec>,
    sessions: OnceLock<Arc<Sessions>>,
}

impl Tcp {
    /// A listener without sessions.
    pub(super) fn new(feed: Feed<TcpSpec>) -> Self {
        Self { feed, sessions: OnceLock::new() }
    }

    fn sessions(&self, parts: &Parts<'_>) -> Arc<Sessions> {
        let new = || Sessions::new(parts.shared.budgets.sessions.clone(), parts.sessions.clone());
        Arc::clone(self.sessions.get_or_init(new))
    }

    fn service(&self, parts: &Parts<'_>) -> TcpService {
        let shared = parts.shared;
        TcpService {
            spec: self.feed.spec.subscribe(),
            admission: self.feed.admission_handle(shared),
            dialer: shared.dialer.clone(),
            wakers: shared.wakers.clone(),
            pool: self.feed.pool.clone(),
            meter: Arc::clone(parts.meter),
            silence: shared.budgets.silence.clone(),
            log: Arc::clone(&shared.budgets.log),
            sessions: self.sessions(parts),
        }
    }
}

impl Kind for Tcp {
    fn serve(&self, socket: OwnedFd, parts: Parts<'_>) -> io::Result<(Listening, Work)> {
        let (service, closing) = (self.service(&parts), parts.closing);
        let listener = Arc::new(TcpListener::from(socket));
        let listening = Arc::downgrade(&listener) as Listening;
        Ok((listening, Box::pin(service.serve(listener, closing))))
    }

    fn retune(&self, service: &Service) {
        if let Service::Tcp(spec) = service {
            self.feed.spec.send_replace(Arc::new(spec.clone()));
        }
    }

    fn admission(&self) -> Option<&watch::Sender<Arc<Admission>>> {
        Some(&self.feed.admission)
    }

    fn may_stay(&self, admission: &Admission, live: &LiveSession) -> bool {
        let Some(name) = live.name() else { return true };
        let spec = Arc::clone(&self.feed.spec.borrow());
        let Route::Names(names) = &spec.route else { return true };
        // A name that is gone leaves its sessions alone, as a target does.
        let host = names.hosts.get(name);
        host.is_none_or(|host| admission.recheck_in(&host.access, live.client.ip()).is_ok())
    }

    fn pool(&self) -> Option<&PoolHandle> {
        Some(&self.feed.pool)
    }

    fn targets(&self) -> Option<String> {
        few(self.feed.spec.borrow().route.all())
    }

    fn freeze(&self, parts: Parts<'_>) -> Freezing {
        let (sessions, meter) = (self.sessions(&parts), Arc::clone(parts.meter));
        Box::pin(async move { FrozenListener::Tcp(FrozenTcp::freeze(&sessions, &meter).await) })
    }

    fn ahead(&self, parts: Parts<'_>, live: Vec<Arc<LiveSession>>) -> Ahead {
        let sessions = self.sessions(&parts);
        Box::pin(async move { ahead(&sessions, &live).await.into_iter().flatten().collect() })
    }

    fn take_over(
        &self,
        handed: &HandedListener,
        unpacker: &mut Unpacker,
        parts: Parts<'_>,
    ) -> (FrozenListener, Vec<SocketId>) {
        let service = Arc::new(self.service(&parts));
        let mut frozen = FrozenTcp::held(&service.sessions);
        let not_taken = frozen.take_over(&handed.tcp, unpacker, &service);
        (FrozenListener::Tcp(frozen), not_taken)
    }
}
