//! A decoy: a TCP listener that no client has a reason to use. A client that connects is banned and
//! reset. A TCP port of the sequence that opens ([`Touch::Step`]) looks the same, and bans no one.
//!
//! It forwards nothing, opens no session and reads no byte. The guard knows which clients are
//! exempt and how long a ban lasts. An accepted connection came through a full handshake, so its
//! source is not forged.
//!
//! While it is held, clients wait in the kernel. It ends when `closing` closes, or when the socket
//! is dead.

use std::{io, net::SocketAddr, ops::ControlFlow, os::fd::OwnedFd, sync::Arc};

use tokio::time::Instant;

use super::acceptor::Acceptor;
use crate::{
    mapping::{Protocol, canonical_socket},
    meter::ListenerMeter,
    policy::Gate,
    relay::{DrainWatch, Hold, LogLimits},
    sock::stream::reset_on_close,
};

/// What follows when a client connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touch {
    /// It is banned.
    Ban,
    /// It is a step of the sequence that opens.
    Step,
}

/// What a decoy works with.
#[derive(Debug)]
pub(crate) struct TrapService {
    /// Its guard bans.
    pub gate: Arc<Gate>,
    /// Its name and address. It has no session.
    pub meter: Arc<ListenerMeter>,
    /// What follows when a client connects.
    pub touch: Touch,
    /// How often it may log what outsiders can cause.
    pub log: Arc<LogLimits>,
    /// Stops it, and lets it go on.
    pub hold: Arc<Hold>,
}

impl TrapService {
    /// Accepts on `listener` until `closing` closes, which drops the socket.
    ///
    /// # Errors
    /// When the socket turned out to be dead.
    pub(crate) async fn serve(
        self,
        listener: Arc<std::net::TcpListener>,
        closing: DrainWatch,
    ) -> io::Result<()> {
        let mut acceptor = Acceptor::new(listener, Arc::clone(&self.log))?;
        let held = self.hold.begin();
        let asked = self.hold.asked();
        tokio::pin!(asked);
        let closing = closing.closing();
        tokio::pin!(closing);
        loop {
            tokio::select! {
                // First, so that a queue that never gets empty cannot keep a close from being
                // heard.
                biased;
                () = &mut closing => return Ok(()),
                () = &mut asked => {
                    tokio::select! {
                        () = &mut closing => return Ok(()),
                        () = held.stand_still() => {}
                    }
                    asked.set(self.hold.asked());
                }
                done = acceptor.turn(|socket, client| {
                    self.spring(&socket, client);
                    ControlFlow::Continue(())
                }) => done?,
            }
        }
    }

    fn spring(&self, socket: &OwnedFd, client: SocketAddr) {
        let client = canonical_socket(client);
        reset_on_close(socket);
        if self.touch == Touch::Step {
            let port = (Protocol::Tcp, self.meter.listen().port.get());
            self.gate.knocks().touch(port, client.ip(), Instant::now());
            return;
        }
        let banned = self.gate.guard().trap(client.ip(), Instant::now()).is_some();
        tracing::debug!(
            mapping = %self.meter.mapping(),
            protocol = Protocol::Tcp.as_str(),
            client.addr = %client,
            listen.addr = %self.meter.listen(),
            banned,
            "trap touched"
        );
    }
}
