//! A UDP listener of a mapping. Its flows answer through its socket, so they end with it.

use std::{io, net::UdpSocket, os::fd::OwnedFd, sync::Arc};

use tokio::sync::watch;

use super::{Feed, Kind, Parts, Work};
use crate::{
    config::Service,
    policy::Admission,
    relay::udp::{UdpDrops, UdpService, UdpSpec},
    sock::bind::Listening,
    supervisor::named::few,
    targets::PoolHandle,
};

/// A UDP listener of a mapping, with the counts that outlive a socket.
#[derive(Debug)]
pub(super) struct Udp {
    feed: Feed<UdpSpec>,
    /// Datagrams that were not forwarded.
    drops: Arc<UdpDrops>,
}

impl Udp {
    /// A listener that has dropped nothing yet.
    pub(super) fn new(feed: Feed<UdpSpec>) -> Self {
        Self { feed, drops: Arc::default() }
    }
}

impl Kind for Udp {
    fn serve(&self, socket: OwnedFd, parts: Parts<'_>) -> io::Result<(Listening, Work)> {
        let Parts { shared, meter, sessions, closing } = parts;
        let service = UdpService {
            spec: self.feed.spec.subscribe(),
            admission: self.feed.admission_handle(shared),
            dialer: shared.dialer.clone(),
            wakers: shared.wakers.clone(),
            pool: self.feed.pool.clone(),
            meter: Arc::clone(meter),
            budget: shared.budgets.flows.clone(),
            joins: shared.budgets.joins,
            log: Arc::clone(&shared.budgets.log),
            drops: Arc::clone(&self.drops),
            flows: sessions,
        };
        let listener = service.register(UdpSocket::from(socket))?;
        let listening = listener.socket();
        let work = async move {
            listener.run(closing).await;
            Ok(())
        };
        Ok((listening, Box::pin(work)))
    }

    fn retune(&self, service: &Service) {
        if let Service::Udp(spec) = service {
            self.feed.spec.send_replace(Arc::new(spec.clone()));
        }
    }

    fn admission(&self) -> Option<&watch::Sender<Arc<Admission>>> {
        Some(&self.feed.admission)
    }

    fn pool(&self) -> Option<&PoolHandle> {
        Some(&self.feed.pool)
    }

    fn targets(&self) -> Option<String> {
        few(self.feed.spec.borrow().targets.iter())
    }

    fn drops(&self) -> Option<&Arc<UdpDrops>> {
        Some(&self.drops)
    }

    fn shares_its_socket(&self) -> bool {
        true
    }
}
