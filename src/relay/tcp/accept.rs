//! Accepts the clients of a TCP listener: admits, delays or refuses them.
//!
//! ```text
//! accept ─► admission ─► slot in the session budget ─► session
//!              └ refused: closed, reset or dropped        └ none: wait, a few of each listener
//! accept ─► listed peer, not banned ─► slot ─► `proxied`, which admits the real client
//! ```
//!
//! Owns the order of these steps, and the few clients that wait. The [`Acceptor`] handles errors of
//! the socket, and the admission decides.
//!
//! - The decision comes before any allocation. A refused client costs a system call or two, less
//!   than an admitted one, and no descriptor beyond the moment (but see `silent_drops`).
//! - If the budget is spent, up to [`WAITING_ROOM`] admitted clients of a listener wait their turn,
//!   in order. Others are still refused meanwhile. When all these places are taken, further clients
//!   wait in the kernel's backlog. A client that waited is checked once more.
//!
//! While it is held, further clients wait in the kernel, and those that wait here are kept by
//! `sessions`. It ends when `closing` closes, which drops the socket and leaves the sessions alone,
//! or when the socket is dead.

use std::{
    collections::VecDeque,
    future::{Future as _, poll_fn},
    io,
    net::SocketAddr,
    ops::ControlFlow,
    os::fd::OwnedFd,
    sync::Arc,
    task::{Context, Poll},
};

use ipnet::IpNet;
use tokio::{net::TcpStream, sync::watch, time::Instant};

use super::{
    TcpSpec,
    acceptor::{Acceptor, say_exhausted},
    proxied::{self, Peer},
    pump::ClientSide,
    service::TcpService,
    session::{self, Origin},
    sessions::{Admitted, Right, SessionSlot},
    silent_drops::refuse,
};
use crate::{
    mapping::canonical_socket,
    policy::Refusal,
    relay::{
        DrainWatch,
        seldom::{Seldom, changed},
    },
    sock::set_keepalive,
};

/// The admitted clients of one listener that may wait for room in the session budget; each holds a
/// descriptor.
pub(crate) const WAITING_ROOM: usize = 4;

/// What seldom calls an acceptor.
enum Call {
    /// To close.
    Close,
    /// To stand still.
    Stop,
    /// Another spec; nothing where there will be none.
    Spec(Option<watch::Receiver<Arc<TcpSpec>>>),
}

impl TcpService {
    /// Accepts on `listener` until `closing` closes, which drops the socket and leaves the sessions
    /// alone.
    ///
    /// # Errors
    /// When the socket turned out to be dead.
    pub(crate) async fn serve(
        self,
        listener: Arc<std::net::TcpListener>,
        closing: DrainWatch,
    ) -> io::Result<()> {
        let service = Arc::new(self);
        let mut acceptor = Acceptor::new(listener, Arc::clone(&service.log))?;
        let mut queue = service.sessions.queue();
        let mut waiting = service.sessions.take_waiting();
        let hold = &service.sessions.hold;
        let held = hold.begin();
        let mut spec = service.spec.clone();
        let mut peers = Arc::clone(&spec.borrow_and_update().options.accept_proxy);
        // To poll each of these at each client would cost hundreds of instructions.
        let seldom = Seldom::new();
        let (closing, asked, respecified) = (closing.closing(), hold.asked(), changed(spec));
        tokio::pin!(closing, asked, respecified);
        let mut is_specified = true;
        loop {
            let mut call = |cx: &mut Context<'_>| {
                if closing.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Call::Close);
                }
                if asked.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Call::Stop);
                }
                match is_specified {
                    true => respecified.as_mut().poll(cx).map(Call::Spec),
                    false => Poll::Pending,
                }
            };
            tokio::select! {
                // First, so that a queue that never gets empty cannot keep a close from being
                // heard.
                biased;
                called = poll_fn(|cx| seldom.poll(cx, &mut call)) => match called {
                    Call::Close => return Ok(()),
                    Call::Stop => {
                        service.sessions.keep_waiting(std::mem::take(&mut waiting));
                        tokio::select! {
                            () = &mut closing => return Ok(()),
                            () = held.stand_still() => {}
                        }
                        waiting = service.sessions.take_waiting();
                        asked.set(hold.asked());
                    }
                    Call::Spec(Some(mut receiver)) => {
                        let spec = Arc::clone(&receiver.borrow_and_update());
                        peers = Arc::clone(&spec.options.accept_proxy);
                        set_keepalive(acceptor.socket(), spec.options.keepalive)?;
                        respecified.set(changed(receiver));
                    }
                    Call::Spec(None) => is_specified = false,
                },
                slot = queue.slot(), if !waiting.is_empty() => {
                    if let Some(next) = waiting.pop_front() {
                        service.let_in_late(next, slot);
                    }
                }
                done = acceptor.turn(|socket, addr| service.meet(socket, addr, &peers, &mut waiting)),
                    if waiting.len() < WAITING_ROOM => done?,
            }
        }
    }

    /// Decides on a client. Breaks when no further client can be taken.
    fn meet(
        self: &Arc<Self>,
        socket: OwnedFd,
        addr: SocketAddr,
        peers: &[IpNet],
        waiting: &mut VecDeque<Admitted>,
    ) -> ControlFlow<()> {
        let (client, since) = (canonical_socket(addr), Instant::now());
        let decided = if peers.iter().any(|net| net.contains(&client.ip())) {
            self.admission.current().admit_peer(client.ip(), since).map(|()| Right::Peer)
        } else {
            self.admission.admit(client.ip(), &self.meter).map(Right::Own)
        };
        let admitted = match decided {
            Ok(right) => Admitted { socket, client, right, since },
            Err(refusal) => {
                self.turn_away(socket, client, refusal);
                return ControlFlow::Continue(());
            }
        };
        // A waiting client goes first.
        match waiting.is_empty().then(|| self.sessions.try_take()).flatten() {
            Some(slot) => self.let_in(admitted, slot),
            None => {
                self.say_full(waiting.len() + 1);
                waiting.push_back(admitted);
            }
        }
        if waiting.len() < WAITING_ROOM { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    /// Lets a client in that had to wait, if it may still enter.
    fn let_in_late(self: &Arc<Self>, admitted: Admitted, slot: SessionSlot) {
        let (admission, client, now) = (self.admission.current(), admitted.client.ip(), Instant::now());
        let verdict = match admitted.right {
            Right::Own(_) => admission.recheck(client, now),
            Right::Peer => admission.admit_peer(client, now),
        };
        drop(admission);
        match verdict {
            // The time that it waited is not its own.
            Ok(()) => self.let_in(Admitted { since: now, ..admitted }, slot),
            Err(refusal) => self.turn_away(admitted.socket, admitted.client, refusal),
        }
    }

    fn let_in(self: &Arc<Self>, admitted: Admitted, slot: SessionSlot) {
        let Admitted { socket, client, right, since } = admitted;
        let stream = match TcpStream::from_std(socket.into()) {
            Ok(stream) => stream,
            // The reactor takes no more; the client is closed.
            Err(error) => return say_exhausted(&self.log, &error),
        };
        let service = Arc::clone(self);
        match right {
            Right::Own(permit) => {
                let near = ClientSide { client: stream, meter: self.meter.open(client), slot };
                self.sessions.spawn(session::run(near, permit, Origin::Way(service), None));
            }
            Right::Peer => {
                let peer = Peer { socket: stream, addr: client, slot, since, said: None };
                self.sessions.spawn(proxied::run(peer, service));
            }
        }
    }

    fn turn_away(&self, socket: OwnedFd, client: SocketAddr, refusal: Refusal) {
        let how = self.admission.current().refuse();
        refuse(socket, how, &self.silence);
        self.admission.report(client, refusal, &self.meter);
    }

    fn say_full(&self, waiting: usize) {
        if self.log.full.take(Instant::now()).is_some() {
            tracing::warn!(
                waiting,
                "no room for more sessions; clients wait until some end (raise limits.sessions where it is set, else LimitNOFILE=)"
            );
        }
    }
}
