//! The accept loop of a TCP listener.
//!
//! No error of one connection ends it, and no lack of descriptors does:
//! - An error of one connection (it was reset before we took it, a firewall refused it …): the next one at once.
//! - Anything else: pause, from 10 ms up to 1 s, and try again. While descriptors or memory are short this goes on for
//!   as long as it takes; one line a second says so, for all listeners together.
//! - No descriptors left for the session's other half, as far as we count them: the accepted client waits its turn, and
//!   those behind it wait in the kernel's queue. This is what a full daemon comes to; it costs nothing while it lasts.
//! - Nothing but other failures for [`GIVE_UP`]: the socket is dead. The loop ends and says so, and its owner binds anew.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustix::io::Errno;
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep},
};

use super::{TcpSpec, session};
use crate::{
    mapping::canonical,
    meter::ListenerMeter,
    relay::{DrainWatch, quiet::Quiet, socket::set_keepalive},
    target::Resolver,
};

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Failures without a single success for this long mean a dead socket.
const GIVE_UP: Duration = Duration::from_secs(5);

/// How many TCP sessions the daemon may have at once, over all listeners: what the descriptor limit allows. Clones share
/// one count.
#[derive(Clone, Debug)]
pub struct SessionBudget(Arc<Semaphore>);

impl SessionBudget {
    /// Room for `sessions`.
    pub fn new(sessions: usize) -> Self {
        Self(Arc::new(Semaphore::new(sessions.min(Semaphore::MAX_PERMITS))))
    }

    /// Room for one more session; waits for a session to end when there is none.
    async fn take(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(room) = Arc::clone(&self.0).try_acquire_owned() {
            return Some(room);
        }
        if let Some(left_out) = EXHAUSTED.may_speak() {
            let waiting = left_out + 1;
            tracing::warn!(
                waiting,
                "no descriptors left; clients wait until sessions end (raise LimitNOFILE=)"
            );
        }
        Arc::clone(&self.0).acquire_owned().await.ok()
    }
}

static EXHAUSTED: Quiet = Quiet::new(Duration::from_secs(1));

/// What a TCP listener works with.
#[derive(Debug)]
pub struct TcpService {
    /// What it does with a connection; a change takes hold with the next one.
    pub spec: watch::Receiver<Arc<TcpSpec>>,
    /// For targets given by name.
    pub resolver: Resolver,
    /// Its account.
    pub meter: Arc<ListenerMeter>,
    /// The sessions that the daemon may have.
    pub budget: SessionBudget,
    /// Where its sessions run.
    pub sessions: DrainWatch,
}

impl TcpService {
    /// Accepts on `listener` until `closing` closes, which drops the socket and leaves the sessions alone.
    ///
    /// # Errors
    /// When the socket turned out to be dead.
    pub async fn serve(mut self, listener: std::net::TcpListener, closing: DrainWatch) -> io::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        let closing = closing.closing();
        tokio::pin!(closing);
        let mut trouble = Trouble::default();
        loop {
            tokio::select! {
                () = &mut closing => return Ok(()),
                Ok(()) = self.spec.changed() => {
                    let keepalive = self.spec.borrow_and_update().options.keepalive;
                    set_keepalive(&SockRef::from(&listener), keepalive)?;
                }
                accepted = listener.accept() => match accepted {
                    Ok((client, addr)) => {
                        trouble = Trouble::default();
                        tokio::select! {
                            () = &mut closing => return Ok(()),
                            room = self.budget.take() => self.admit(client, addr, room),
                        }
                    }
                    Err(error) if is_of_one_connection(&error) => {
                        tracing::debug!(error = %error, "connection lost before it was accepted");
                    }
                    Err(error) => {
                        let pause = trouble.pause(error)?;
                        tokio::select! {
                            () = &mut closing => return Ok(()),
                            () = sleep(pause) => {}
                        }
                    }
                },
            }
        }
    }

    fn admit(&self, client: TcpStream, addr: SocketAddr, room: Option<OwnedSemaphorePermit>) {
        let spec = Arc::clone(&self.spec.borrow());
        let meter = self.meter.open(SocketAddr::new(canonical(addr.ip()), addr.port()));
        self.sessions.spawn(session::run(client, spec, self.resolver.clone(), meter, room));
    }
}

/// A run of failures to accept.
#[derive(Default)]
struct Trouble {
    since: Option<Instant>,
    pause: Option<Duration>,
}

impl Trouble {
    /// How long to wait before the next try.
    fn pause(&mut self, error: io::Error) -> io::Result<Duration> {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        if is_exhaustion(&error) {
            if let Some(left_out) = EXHAUSTED.may_speak() {
                tracing::warn!(error = %error, failures = left_out + 1, "cannot accept connections; trying again");
            }
        } else if now.duration_since(since) >= GIVE_UP {
            return Err(error);
        }
        let pause = self.pause.map_or(FIRST_PAUSE, |last| (last * 2).min(LONGEST_PAUSE));
        self.pause = Some(pause);
        Ok(pause)
    }
}

/// Errors that accept(2) hands on from the connection that it would have returned.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::INTR
                | Errno::PERM
                | Errno::PROTO
                | Errno::NETDOWN
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::NONET
                | Errno::HOSTUNREACH
                | Errno::NETUNREACH
                | Errno::TIMEDOUT
        )
    )
}

/// Errors that say that the process or the machine has run out of something; the socket is sound.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_full_descriptor_table_is_waited_out() {
        let mut trouble = Trouble::default();
        let mut waited = Duration::ZERO;
        while waited < GIVE_UP * 10 {
            let pause = trouble.pause(Errno::MFILE.into()).unwrap();
            assert!((FIRST_PAUSE..=LONGEST_PAUSE).contains(&pause));
            tokio::time::advance(pause).await;
            waited += pause;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_socket_is_given_up_after_seconds_of_nothing_else() {
        let mut trouble = Trouble::default();
        let start = Instant::now();
        while let Ok(pause) = trouble.pause(Errno::INVAL.into()) {
            tokio::time::advance(pause).await;
        }
        assert!(start.elapsed() >= GIVE_UP && start.elapsed() < GIVE_UP * 2);
    }
}
