//! Accepts the clients of a TCP listener: admits, delays or refuses them.
//!
//! ```text
//! accept ─► admission ─► slot in the session budget ─► session
//!              └ refused: closed, reset or dropped        └ none: wait, a few of each listener
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
//! It ends when `closing` closes, which drops the socket and leaves the sessions alone, or when the
//! socket is dead.

use std::{collections::VecDeque, io, net::SocketAddr, ops::ControlFlow, os::fd::OwnedFd, sync::Arc};

use tokio::{net::TcpStream, sync::watch, time::Instant};

use super::{
    TcpSpec,
    acceptor::{Acceptor, say_exhausted},
    budget::{SessionBudget, SessionSlot},
    pump::ClientSide,
    session,
    silent_drops::{SilentDrops, refuse},
};
use crate::{
    mapping::canonical_socket,
    meter::ListenerMeter,
    policy::{Permit, Refusal},
    relay::{AdmissionHandle, DrainWatch, LogLimits},
    sock::set_keepalive,
    targets::Dialer,
    wake::Wakers,
};

/// The admitted clients of one listener that may wait for room in the session budget; each holds a
/// descriptor.
pub(crate) const WAITING_ROOM: usize = 4;

/// What a TCP listener works with.
#[derive(Debug)]
pub(crate) struct TcpService {
    /// What it does with a connection; a change takes hold with the next one.
    pub spec: watch::Receiver<Arc<TcpSpec>>,
    /// Decides on clients.
    pub admission: AdmissionHandle,
    /// How its targets are reached.
    pub dialer: Dialer,
    /// What starts its targets.
    pub wakers: Wakers,
    /// Its account.
    pub meter: Arc<ListenerMeter>,
    /// The sessions that the daemon may have.
    pub budget: SessionBudget,
    /// Where dropped clients are kept.
    pub silence: SilentDrops,
    /// How often it may log what outsiders can cause.
    pub log: Arc<LogLimits>,
    /// Where its sessions run.
    pub sessions: DrainWatch,
}

/// An admitted client without a session yet.
#[derive(Debug)]
struct Admitted {
    socket: OwnedFd,
    client: SocketAddr,
    permit: Permit,
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
        let mut acceptor = Acceptor::new(listener, Arc::clone(&self.log))?;
        let mut queue = self.budget.queue();
        let mut waiting = VecDeque::new();
        let mut spec = self.spec.clone();
        let closing = closing.closing();
        tokio::pin!(closing);
        loop {
            tokio::select! {
                // First, so that a queue that never gets empty cannot keep a close from being
                // heard.
                biased;
                () = &mut closing => return Ok(()),
                Ok(()) = spec.changed() => {
                    let keepalive = spec.borrow_and_update().options.keepalive;
                    set_keepalive(acceptor.socket(), keepalive)?;
                }
                slot = queue.slot(), if !waiting.is_empty() => {
                    if let Some(next) = waiting.pop_front() {
                        self.let_in_late(next, slot);
                    }
                }
                done = acceptor.turn(|socket, addr| self.meet(socket, addr, &mut waiting)),
                    if waiting.len() < WAITING_ROOM => done?,
            }
        }
    }

    /// Decides on a client. Breaks when no further client can be taken.
    fn meet(&self, socket: OwnedFd, addr: SocketAddr, waiting: &mut VecDeque<Admitted>) -> ControlFlow<()> {
        let client = canonical_socket(addr);
        let admitted = match self.admission.admit(client.ip(), &self.meter) {
            Ok(permit) => Admitted { socket, client, permit },
            Err(refusal) => {
                self.turn_away(socket, client, refusal);
                return ControlFlow::Continue(());
            }
        };
        // A waiting client goes first.
        match waiting.is_empty().then(|| self.budget.try_take()).flatten() {
            Some(slot) => self.let_in(admitted, slot),
            None => {
                self.say_full(waiting.len() + 1);
                waiting.push_back(admitted);
            }
        }
        if waiting.len() < WAITING_ROOM { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    /// Lets a client in that had to wait, if it may still enter.
    fn let_in_late(&self, admitted: Admitted, slot: SessionSlot) {
        let verdict = self.admission.current().recheck(admitted.client.ip(), Instant::now());
        match verdict {
            Ok(()) => self.let_in(admitted, slot),
            Err(refusal) => self.turn_away(admitted.socket, admitted.client, refusal),
        }
    }

    fn let_in(&self, Admitted { socket, client, permit }: Admitted, slot: SessionSlot) {
        let stream = match TcpStream::from_std(socket.into()) {
            Ok(stream) => stream,
            // The reactor takes no more; the client is closed.
            Err(error) => return say_exhausted(&self.log, &error),
        };
        let spec = Arc::clone(&self.spec.borrow());
        let near = ClientSide { client: stream, meter: self.meter.open(client), slot };
        self.sessions.spawn(session::run(near, permit, spec, self.dialer.clone()));
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
