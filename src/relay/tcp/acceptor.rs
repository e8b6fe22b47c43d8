//! Takes connections off a listening socket, as raw sockets. Before the decision on a client,
//! nothing is allocated for it, and the reactor does not know its socket.
//!
//! Owns the listening socket and the history of its errors. Must not know what becomes of a
//! connection.
//!
//! Neither an error of one connection nor a lack of descriptors ends it:
//! - An error of one connection (it was reset before it was accepted, a firewall refused it …):
//!   take the next one at once.
//! - Any other error: pause, from 10 ms up to 1 s, and try again. While descriptors or memory are
//!   short, this goes on, and one line a minute says so for all listeners together.
//! - Only other errors, one after the other for [`GIVE_UP`]: the socket is dead. [`Acceptor::turn`]
//!   fails, and its owner binds again.
//!
//! A connection that waited before the socket had its options did not inherit them: a service
//! manager made the socket, and the connection started this process. Such ones get them here.
//!
//! A turn takes at most [`TURN`] connections and then lets other tasks run, so that a flood at one
//! listener delays neither the others nor a close. It ends when it is dropped, which closes the
//! socket.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    ops::ControlFlow,
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    task::yield_now,
    time::{Instant, sleep_until},
};

use crate::{
    relay::LogLimits,
    sock::{
        Backoff,
        errno::{is_exhaustion, is_of_one_connection},
        queued,
        stream::{accept, make_up_for_listener},
    },
};

/// Connections that are taken before others have their turn.
const TURN: usize = 32;
/// Failures without a single success for this long mean a dead socket.
const GIVE_UP: Duration = Duration::from_secs(5);
/// A failure after more than this has nothing to do with the one before: a dead socket fails after
/// each pause, which is a second at most.
const UNRELATED: Duration = Duration::from_secs(2);

/// A listening socket that hands its connections on.
#[derive(Debug)]
pub(super) struct Acceptor {
    socket: AsyncFd<Arc<TcpListener>>,
    /// The next connections that may lack the options of the socket.
    early: u32,
    trouble: Trouble,
    log: Arc<LogLimits>,
}

impl Acceptor {
    /// Takes over a listening, non-blocking socket. Nothing else may keep it open: it closes when
    /// this is dropped.
    #[expect(
        deprecated,
        reason = "the constructor in its place is unsafe, for types that do not own what they name; an Arc of a TcpListener does"
    )]
    pub(super) fn new(listener: impl Into<Arc<TcpListener>>, log: Arc<LogLimits>) -> io::Result<Self> {
        let socket = AsyncFd::with_interest(listener.into(), Interest::READABLE)?;
        let early = queued(socket.get_ref());
        Ok(Self { socket, early, trouble: Trouble::default(), log })
    }

    /// The listening socket, for its options.
    pub(super) fn socket(&self) -> &TcpListener {
        self.socket.get_ref()
    }

    /// Waits for connections and hands those that are there to `each`, until it breaks off or the
    /// turn is over. May be dropped at any time: no connection is lost by that.
    ///
    /// # Errors
    /// When the socket turned out to be dead.
    pub(super) async fn turn(
        &mut self,
        mut each: impl FnMut(OwnedFd, SocketAddr) -> ControlFlow<()>,
    ) -> io::Result<()> {
        if let Some(resume) = self.trouble.resume {
            sleep_until(resume).await;
        }
        let mut ready = self.socket.readable().await?;
        for _ in 0..TURN {
            match ready.try_io(|socket| accept(socket.get_ref())) {
                Ok(Ok((socket, addr))) => {
                    self.trouble = Trouble::default();
                    if self.early > 0 {
                        self.early -= 1;
                        // One that is dead by now is found out later.
                        let _ = make_up_for_listener(&socket, ready.get_inner());
                    }
                    if each(socket, addr).is_break() {
                        return Ok(());
                    }
                }
                Ok(Err(error)) if is_of_one_connection(&error) => {
                    tracing::debug!(error = %error, "connection lost before it was accepted");
                }
                Ok(Err(error)) => return self.trouble.add(error, &self.log),
                Err(_would_block) => return Ok(()),
            }
        }
        yield_now().await;
        Ok(())
    }
}

/// Says, at most once a minute, that something ran out while connections were accepted.
pub(super) fn say_exhausted(log: &LogLimits, error: &io::Error) {
    if let Some(left_out) = log.accept.take(Instant::now()) {
        tracing::warn!(error = %error, failures = left_out + 1, "cannot accept connections; trying again");
    }
}

/// A run of failures to accept.
#[derive(Debug, Default)]
struct Trouble {
    /// The first error that may mean a dead socket.
    since: Option<Instant>,
    last: Option<Instant>,
    backoff: Backoff,
    /// When to try again.
    resume: Option<Instant>,
}

impl Trouble {
    /// Notes one more failure: how long to pause, or that the socket is dead.
    fn add(&mut self, error: io::Error, log: &LogLimits) -> io::Result<()> {
        let now = Instant::now();
        if self.last.is_some_and(|last| now.duration_since(last) > UNRELATED) {
            *self = Self::default();
        }
        self.last = Some(now);
        if is_exhaustion(&error) {
            // The socket was sound enough to come to that.
            self.since = None;
            say_exhausted(log, &error);
        } else if now.duration_since(*self.since.get_or_insert(now)) >= GIVE_UP {
            return Err(error);
        }
        self.resume = Some(now + self.backoff.next());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use rustix::io::Errno;
    use tokio::time::timeout;

    use super::*;
    use crate::{
        fixture::keepalive_of,
        mapping::{ListenAddr, Timeout},
        sock::inherited::{Inherited, Stays},
    };

    const FIRST: Duration = Duration::from_millis(10);

    #[tokio::test(start_paused = true)]
    async fn a_full_descriptor_table_is_waited_out() {
        let (mut trouble, log) = (Trouble::default(), LogLimits::default());
        let mut waited = Duration::ZERO;
        while waited < GIVE_UP * 10 {
            trouble.add(Errno::MFILE.into(), &log).unwrap();
            let pause = trouble.resume.unwrap() - Instant::now();
            assert!((FIRST..=Duration::from_secs(1)).contains(&pause));
            tokio::time::advance(pause).await;
            waited += pause;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_socket_is_given_up_after_seconds_of_nothing_else() {
        let (mut trouble, log) = (Trouble::default(), LogLimits::default());
        let start = Instant::now();
        while trouble.add(Errno::INVAL.into(), &log).is_ok() {
            sleep_until(trouble.resume.unwrap()).await;
        }
        assert!(start.elapsed() >= GIVE_UP && start.elapsed() < GIVE_UP * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn two_failures_hours_apart_do_not_mean_a_dead_socket() {
        let (mut trouble, log) = (Trouble::default(), LogLimits::default());
        for _ in 0..10 {
            trouble.add(Errno::INVAL.into(), &log).unwrap();
            assert_eq!(trouble.resume.unwrap() - Instant::now(), FIRST);
            tokio::time::advance(Duration::from_secs(3600)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_after_a_long_lack_of_descriptors_is_the_first_one() {
        let (mut trouble, log) = (Trouble::default(), LogLimits::default());
        let lack = Instant::now();
        while lack.elapsed() < GIVE_UP * 2 {
            trouble.add(Errno::MFILE.into(), &log).unwrap();
            sleep_until(trouble.resume.unwrap()).await;
        }
        let start = Instant::now();
        while trouble.add(Errno::INVAL.into(), &log).is_ok() {
            sleep_until(trouble.resume.unwrap()).await;
        }
        assert!(start.elapsed() >= GIVE_UP && start.elapsed() < GIVE_UP * 2);
    }

    #[tokio::test]
    async fn a_turn_takes_no_more_than_its_share_and_loses_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..TURN + 5).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let mut acceptor = Acceptor::new(listener, Arc::default()).unwrap();
        let mut taken = Vec::new();
        for share in [TURN, 5] {
            let before = taken.len();
            acceptor
                .turn(|_, client| {
                    taken.push(client);
                    ControlFlow::Continue(())
                })
                .await
                .unwrap();
            assert_eq!(taken.len() - before, share);
        }
        let expected: Vec<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
        assert_eq!(taken, expected);
        let idle = acceptor.turn(|_, _| ControlFlow::Continue(()));
        assert!(timeout(Duration::from_millis(20), idle).await.is_err(), "an empty queue is waited on");
    }

    #[tokio::test]
    async fn connections_that_came_before_the_options_get_them() {
        // As a service manager makes it.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let _early = [TcpStream::connect(addr).unwrap(), TcpStream::connect(addr).unwrap()];
        let bag = Inherited::default();
        bag.add(listener.into(), Stays::UntilUsed).unwrap();
        let listen = ListenAddr { ip: addr.ip(), zone: None, port: addr.port().try_into().unwrap() };
        let idle = Duration::from_secs(30);
        let socket = bag.tcp(&listen, Timeout::After(idle)).unwrap().unwrap().socket;
        let mut acceptor = Acceptor::new(TcpListener::from(socket), Arc::default()).unwrap();
        let _late = TcpStream::connect(addr).unwrap();
        let mut taken = 0;
        while taken < 3 {
            let each = |socket: OwnedFd, _| {
                let socket = TcpStream::from(socket);
                assert!(socket.nodelay().unwrap(), "connection {taken}");
                assert_eq!(keepalive_of(&socket).unwrap().0, idle, "connection {taken}");
                taken += 1;
                ControlFlow::Continue(())
            };
            acceptor.turn(each).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_turn_that_is_broken_off_leaves_the_others_in_the_queue() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let _clients: Vec<_> = (0..3).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let mut acceptor = Acceptor::new(listener, Arc::default()).unwrap();
        for _ in 0..3 {
            let mut taken = 0;
            let turn = acceptor.turn(|_, _| {
                taken += 1;
                ControlFlow::Break(())
            });
            turn.await.unwrap();
            assert_eq!(taken, 1);
        }
    }
}
