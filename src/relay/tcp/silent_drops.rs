//! How a refused client is answered.
//!
//! - *close*: a FIN. Its reads come to their end.
//! - *reset*: a RST.
//! - *drop*: nothing. The kernel has answered its SYN before the decision, so the client believes
//!   that it is connected. From then on it gets neither FIN nor RST nor data, whatever it sends.
//!
//! For this, the socket of a dropped client must stay open, unread, and costs a descriptor.
//! [`SilentDrops`] keeps a bounded number of them for the whole daemon, each for [`SILENT_FOR`],
//! with a receive buffer as small as the kernel allows. When it is full, the oldest socket is
//! closed early.
//!
//! A close is silent, too. In repair mode (TCP_REPAIR, which needs CAP_NET_ADMIN) it sends nothing.
//! Without that right it sends a reset with an IP TTL of 1, which the first router discards, as
//! HAProxy's silent-drop does. Only a client of the same network gets it, and
//! [`SilentDrops::say_how_quiet`] logs that once. A client that sends after the close gets the
//! kernel's own reset, as for any unknown connection.
//!
//! Knows nothing of policy but the three words. It ends with [`SilentDrops::clear`], which closes
//! every socket silently.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, Once, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{policy::Refuse, sock::stream};

/// How long the socket of a dropped client is kept.
const SILENT_FOR: Duration = Duration::from_secs(30);
/// What the kernel may hold for a dropped client, in bytes; it has a minimum of its own.
const SILENT_BUFFER: usize = 1024;

/// Answers a refused client, and closes or keeps its socket.
pub(super) fn refuse(socket: OwnedFd, how: Refuse, silence: &SilentDrops) {
    match how {
        // Without this, what the client has sent already would turn the close into a reset.
        Refuse::Close => drop(stream::end(&socket)),
        Refuse::Reset => stream::reset_on_close(&socket),
        Refuse::Drop => silence.keep(socket),
    }
}

/// The sockets of dropped clients. Clones share one pool.
#[derive(Clone, Debug)]
pub(crate) struct SilentDrops(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    most: usize,
    kept: Mutex<VecDeque<SilentSocket>>,
    /// The first one came into an empty pool.
    first: Notify,
    /// How quiet it will be was looked into.
    probed: Once,
}

#[derive(Debug)]
struct SilentSocket {
    socket: OwnedFd,
    until: Instant,
}

impl SilentDrops {
    /// SessionSlot for `most` sockets, one at least.
    pub(crate) fn new(most: usize) -> Self {
        let (kept, first, probed) = (Mutex::default(), Notify::new(), Once::new());
        Self(Arc::new(Pool { most: most.max(1), kept, first, probed }))
    }

    /// Logs once that a close is not silent in the same network, if that is so. For a plan that
    /// drops clients.
    pub(crate) fn say_how_quiet(&self) {
        self.0.probed.call_once(|| {
            if stream::may_close_without_a_word() == Some(false) {
                tracing::info!(
                    missing = "CAP_NET_ADMIN",
                    "dropped clients of the same network hear a reset when they are let go"
                );
            }
        });
    }

    /// Closes sockets when their time is over. It does not return. May be dropped at any time and
    /// called again. Without it, sockets stay until others replace them.
    pub(crate) async fn tend(&self) {
        loop {
            let next = self.kept().front().map(|kept| kept.until);
            match next {
                Some(until) => sleep_until(until).await,
                None => self.0.first.notified().await,
            }
            self.release(Instant::now());
        }
    }

    /// Closes all of them silently, at the end of the daemon. The kernel would send a reset for
    /// each.
    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *self.kept());
        drop(all);
    }

    fn keep(&self, socket: OwnedFd) {
        // What the client goes on to send is not needed.
        stream::limit_receive_buffer(&socket, SILENT_BUFFER);
        let mut kept = self.kept();
        let oldest = if kept.len() >= self.0.most { kept.pop_front() } else { None };
        kept.push_back(SilentSocket { socket, until: Instant::now() + SILENT_FOR });
        if kept.len() == 1 {
            self.0.first.notify_one();
        }
        drop(kept);
        drop(oldest);
    }

    fn release(&self, now: Instant) {
        let mut kept = self.kept();
        let over = kept.iter().take_while(|kept| kept.until <= now).count();
        let over: Vec<SilentSocket> = kept.drain(..over).collect();
        drop(kept);
        drop(over);
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<SilentSocket>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SilentSocket {
    /// Closes silently.
    fn drop(&mut self) {
        if !stream::close_without_a_word(&self.socket) {
            stream::keep_in_own_network(&self.socket);
            stream::reset_on_close(&self.socket);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Read, Write},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    impl SilentDrops {
        /// How many sockets there are.
        pub(crate) fn count(&self) -> usize {
            self.kept().len()
        }
    }

    /// A client, and the socket that was accepted for it.
    fn pair() -> (TcpStream, OwnedFd) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        (client, listener.accept().unwrap().0.into())
    }

    #[test]
    fn a_closed_client_reads_its_end_even_when_it_has_sent_something() {
        let (mut client, socket) = pair();
        client.write_all(b"hello").unwrap();
        refuse(socket, Refuse::Close, &SilentDrops::new(1));
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn a_reset_client_is_reset() {
        let (mut client, socket) = pair();
        refuse(socket, Refuse::Reset, &SilentDrops::new(1));
        assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_client_hears_nothing_whatever_it_sends_until_its_time_is_over() {
        let silence = SilentDrops::new(2);
        let (mut client, socket) = pair();
        refuse(socket, Refuse::Drop, &silence);
        client.set_nonblocking(true).unwrap();
        let _ = client.write(&[7; 100_000]);
        tokio::select! {
            () = silence.tend() => unreachable!("it never ends"),
            () = sleep_until(Instant::now() + SILENT_FOR - Duration::from_millis(5)) => {}
        }
        assert_eq!(silence.count(), 1);
        assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
        tokio::select! {
            () = silence.tend() => unreachable!("it never ends"),
            () = sleep_until(Instant::now() + Duration::from_millis(10)) => {}
        }
        assert_eq!(silence.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_pool_lets_the_oldest_go_and_keeps_its_bound() {
        let silence = SilentDrops::new(2);
        let mut clients: Vec<_> = (0..3).map(|_| pair()).collect();
        let mut heard = Vec::new();
        for (client, socket) in clients.drain(..) {
            refuse(socket, Refuse::Drop, &silence);
            client.set_nonblocking(true).unwrap();
            assert!(silence.count() <= 2);
            heard.push(client);
        }
        for client in &mut heard[1..] {
            assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
        }
        let oldest = heard[0].read(&mut [0; 1]).unwrap_err().kind();
        // Without the right to leave in silence it is a reset, which reaches a client on the same
        // machine.
        assert!(matches!(oldest, ErrorKind::WouldBlock | ErrorKind::ConnectionReset), "{oldest:?}");
    }
}
