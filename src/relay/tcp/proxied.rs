//! Connections of listed peers, which say by a PROXY header who their client is.
//!
//! ```text
//! listed peer ─► PROXY header ─► admission of the real client ─► session
//!                   └ none in time: the line of a session with the reason `preface`
//! ```
//!
//! The client of the header is the client of the session from then on, for the admission, the meter
//! and the log. A peer that has not said who its client is holds a place in the budget of sessions
//! and none in the mapping. It is closed when its listener closes.

use std::{net::SocketAddr, os::fd::OwnedFd, sync::Arc};

use tokio::{net::TcpStream, time::Instant};

use super::{
    preface::{self, Lead},
    pump::ClientSide,
    said::Said,
    service::TcpService,
    session::{self, Origin},
    sessions::{SessionSlot, Standing},
    silent_drops::refuse,
};
use crate::{meter::Ended, policy::Permit};

/// A listed peer that has to say who its client is.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) socket: TcpStream,
    pub(super) addr: SocketAddr,
    pub(super) slot: SessionSlot,
    /// When it came.
    pub(super) since: Instant,
    /// What it has said by now, where it stood still meanwhile.
    pub(super) said: Option<Box<Said>>,
}

/// A peer that stands still.
#[derive(Debug)]
pub(super) struct StoppedPeer {
    pub(super) peer: Peer,
    pub(super) service: Arc<TcpService>,
}

impl Standing for StoppedPeer {
    fn resume(self: Box<Self>) {
        let Self { peer, service } = *self;
        let sessions = Arc::clone(&service.sessions);
        sessions.spawn(run(peer, service));
    }
}

/// Hears a listed peer out, admits the client that it speaks for, and carries the session.
#[expect(clippy::manual_async_fn, reason = "its arguments would be kept twice")]
pub(super) fn run(peer: Peer, service: Arc<TcpService>) -> impl Future<Output = ()> + Send {
    async move {
        let entered = Box::pin(enter(peer, &service)).await;
        if let Some((near, permit, lead)) = entered {
            session::run(near, permit, Origin::Way(service), Some(lead)).await;
        }
    }
}

/// The client of a peer, once it is admitted.
async fn enter(mut peer: Peer, service: &Arc<TcpService>) -> Option<(ClientSide, Permit, Box<Lead>)> {
    let mut said = peer.said.take().map_or_else(Said::default, |said| *said);
    let deadline = peer.since + service.spec.borrow().options.match_timeout;
    let heard = tokio::select! {
        biased;
        () = service.sessions.closing() => return None,
        () = service.sessions.hold.asked() => {
            peer.said = Some(Box::new(said));
            service.sessions.hand_in(Box::new(StoppedPeer { peer, service: Arc::clone(service) }));
            return None;
        }
        heard = preface::header(&peer.socket, deadline, &mut said) => heard,
    };
    let Peer { socket, addr, slot, since, said: _ } = peer;
    let header = match heard {
        Ok(header) => header,
        Err(misled) => {
            drop((socket, slot));
            service.meter.open_since(addr, since).end_with(Ended::Preface, &misled);
            return None;
        }
    };
    let client = header.addresses.map_or(addr, |addresses| addresses.source);
    match service.admission.admit(client.ip(), &service.meter) {
        Ok(permit) => {
            let near = ClientSide { client: socket, meter: service.meter.open_since(client, since), slot };
            Some((near, permit, Box::new(Lead { header: Some(header), said, ..Lead::default() })))
        }
        Err(refusal) => {
            drop(slot);
            if let Ok(socket) = socket.into_std() {
                refuse(OwnedFd::from(socket), service.admission.current().refuse(), &service.silence);
            }
            service.admission.report(client, refusal, &service.meter);
            None
        }
    }
}
