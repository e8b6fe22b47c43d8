//! A decoy: a TCP listener that no client has a reason to use. A client that connects is banned and
//! reset.
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

/// What a decoy works with.
#[derive(Debug)]
pub(crate) struct TrapService {
    /// Its guard bans.
    pub gate: Arc<Gate>,
    /// Its name and address. It has no session.
    pub meter: Arc<ListenerMeter>,
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
        let banned = self.gate.guard().trap(client.ip(), Instant::now()).is_some();
        reset_on_close(socket);
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
