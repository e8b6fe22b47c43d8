//! A UDP listener of a mapping. Its flows answer through its socket, so they end with it.

use std::{io, net::UdpSocket, os::fd::OwnedFd, sync::Arc};

use tokio::sync::watch;

use super::{Ahead, Feed, Freezing, FrozenListener, HandedListener, Kind, Parts, Work};
use crate::{
    config::Service,
    handover::{SocketId, Unpacker},
    meter::LiveSession,
    policy::Admission,
    relay::udp::{Flows, FrozenUdp, UdpDrops, UdpService, UdpSpec},
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
    /// Where its flows are found, and stop.
    flows: Arc<Flows>,
}

impl Udp {
    /// A listener that has dropped nothing yet.
    pub(super) fn new(feed: Feed<UdpSpec>) -> Self {
        Self { feed, drops: Arc::default(), flows: Arc::default() }
    }

    fn service(&self, parts: &Parts<'_>) -> UdpService {
        let shared = parts.shared;
        UdpService {
            spec: self.feed.spec.subscribe(),
            admission: self.feed.admission_handle(shared),
            dialer: shared.dialer.clone(),
            wakers: shared.wakers.clone(),
            pool: self.feed.pool.clone(),
            meter: Arc::clone(parts.meter),
            budget: shared.budgets.flows.clone(),
            joins: shared.budgets.joins,
            log: Arc::clone(&shared.budgets.log),
            drops: Arc::clone(&self.drops),
            tasks: parts.sessions.clone(),
            flows: Arc::clone(&self.flows),
            probes: Arc::clone(shared.gate.probes()),
        }
    }
}

impl Kind for Udp {
    fn serve(&self, socket: OwnedFd, parts: Parts<'_>) -> io::Result<(Listening, Work)> {
        let (service, closing) = (self.service(&parts), parts.closing);
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

    fn freeze(&self, parts: Parts<'_>) -> Freezing {
        let (flows, meter) = (Arc::clone(&self.flows), Arc::clone(parts.meter));
        Box::pin(async move { FrozenListener::Udp(FrozenUdp::freeze(&flows, &meter).await) })
    }

    fn ahead(&self, _parts: Parts<'_>, live: Vec<Arc<LiveSession>>) -> Ahead {
        let flows = Arc::clone(&self.flows);
        Box::pin(async move { flows.ahead(&live) })
    }

    fn take_over(
        &self,
        handed: &HandedListener,
        unpacker: &mut Unpacker,
        parts: Parts<'_>,
    ) -> (FrozenListener, Vec<SocketId>) {
        let mut frozen = FrozenUdp::held(&self.flows);
        let service = self.service(&parts);
        let record = handed.udp.as_ref();
        let not_taken = record.map(|record| frozen.take_over(record, unpacker, &service));
        (FrozenListener::Udp(frozen), not_taken.unwrap_or_default())
    }
}
