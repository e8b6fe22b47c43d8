//! Addresses that did not work lately: the next session tries them last.
//!
//! Owns one entry for each protocol and address that failed, and how long it is on [`Hold`]. An
//! entry only changes the order of candidates. When all of them are dead, all of them are tried. So
//! a wrong entry costs time, never a session.
//!
//! Addresses come from targets of the configuration and from answers to lookups of their names, so
//! strangers cannot add any. [`MOST`] bounds the number anyway. While nothing is dead, each call
//! here is one atomic load.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::hold::{Hold, HoldRecord};
use crate::{
    handover::{Span, lenient},
    mapping::Protocol,
    sock::errno::is_own_shortage,
};

/// The most addresses that are remembered.
const MOST: usize = 4096;
/// How long the address that won a race is tried first.
const WON: Duration = Duration::from_secs(600);

/// The addresses that failed lately.
#[derive(Debug, Default)]
pub(super) struct DeadAddrs {
    known: Mutex<IndexMap<(Protocol, SocketAddr), Failure>>,
    /// The length of `known`, for a look without the lock.
    count: AtomicUsize,
    /// The addresses that won a race against one that was tried before them, and when.
    winners: Mutex<IndexMap<SocketAddr, Instant>>,
}

/// The failures of an address since it last worked.
#[derive(Clone, Copy, Debug)]
struct Failure {
    at: Instant,
    hold: Hold,
}

impl DeadAddrs {
    /// Puts the addresses that failed lately last, the latest failure at the very end, and says how
    /// many come before them. The order stays as it is otherwise.
    pub(super) fn order(&self, protocol: Protocol, addrs: &mut [SocketAddr]) -> usize {
        if addrs.len() < 2 || self.count.load(Relaxed) == 0 {
            return addrs.len();
        }
        let (known, now) = (self.known(), Instant::now());
        let failed_at =
            |addr: &SocketAddr| known.get(&(protocol, *addr)).filter(|f| f.hold.is_on(now)).map(|f| f.at);
        addrs.sort_by_key(failed_at);
        addrs.iter().take_while(|addr| failed_at(addr).is_none()).count()
    }

    /// Whether `addr` failed lately.
    pub(super) fn is_dead(&self, protocol: Protocol, addr: SocketAddr) -> bool {
        self.count.load(Relaxed) > 0
            && self.known().get(&(protocol, addr)).is_some_and(|failure| failure.hold.is_on(Instant::now()))
    }

    /// Notes that `addr` does not work. An error that is this machine's own says nothing of the
    /// address.
    pub(super) fn failed(&self, protocol: Protocol, addr: SocketAddr, error: &io::Error) {
        if is_own_shortage(error) {
            return;
        }
        let at = Instant::now();
        let mut known = self.known();
        if known.len() >= MOST && !known.contains_key(&(protocol, addr)) {
            known.retain(|_, failure| failure.hold.is_on(at));
            // Any one may go: to forget is harmless.
            known.truncate(MOST - 1);
        }
        let failure = known.entry((protocol, addr)).or_insert(Failure { at, hold: Hold::default() });
        failure.at = at;
        failure.hold.failed(at);
        self.count.store(known.len(), Relaxed);
    }

    /// Notes that `addr` works.
    pub(super) fn worked(&self, protocol: Protocol, addr: SocketAddr) {
        if self.count.load(Relaxed) == 0 {
            return;
        }
        let mut known = self.known();
        known.swap_remove(&(protocol, addr));
        self.count.store(known.len(), Relaxed);
    }

    /// Notes that `addr` answered where an address before it did not. It is tried first for
    /// [`WON`].
    pub(super) fn won(&self, addr: SocketAddr) {
        let (mut winners, now) = (self.winners(), Instant::now());
        if winners.len() >= MOST {
            winners.retain(|_, at| now < *at + WON);
            // Any one may go: to forget is harmless.
            winners.truncate(MOST - 1);
        }
        winners.insert(addr, now);
    }

    /// Puts the address that lately won first.
    pub(super) fn winner_first(&self, addrs: &mut [SocketAddr]) {
        if addrs.len() < 2 {
            return;
        }
        let (winners, now) = (self.winners(), Instant::now());
        let won_at = |addr: &SocketAddr| winners.get(addr).copied().filter(|at| now < *at + WON);
        let last = addrs.iter().enumerate().filter_map(|(at, addr)| Some((won_at(addr)?, at))).max();
        if let Some((_, at)) = last {
            addrs[..=at].rotate_right(1);
        }
    }

    /// What is handed to the next process.
    pub(super) fn snapshot(&self, now: Instant) -> AddrsRecord {
        let failed = |((protocol, addr), failure): (&(Protocol, SocketAddr), &Failure)| {
            let hold = failure.hold.snapshot(now)?;
            Some(FailureRecord {
                protocol: *protocol,
                addr: *addr,
                ago_us: Span::since(failure.at, now),
                hold,
            })
        };
        let failed = self.known().iter().filter_map(failed).collect();
        let won = self.winners().iter().map(|(addr, at)| (*addr, Span::since(*at, now))).collect();
        AddrsRecord { failed, won }
    }

    /// Takes over what an earlier process knew, as far as there is room.
    pub(super) fn take_over(&self, record: &AddrsRecord, now: Instant) {
        let mut known = self.known();
        for FailureRecord { protocol, addr, ago_us, hold } in record.failed.iter().take(MOST) {
            let failure = Failure { at: ago_us.before(now), hold: Hold::taken_over(*hold, now) };
            if known.len() < MOST {
                known.entry((*protocol, *addr)).or_insert(failure);
            }
        }
        self.count.store(known.len(), Relaxed);
        let mut winners = self.winners();
        for (addr, ago) in record.won.iter().take(MOST.saturating_sub(winners.len())) {
            winners.entry(*addr).or_insert(ago.before(now));
        }
    }

    fn winners(&self) -> MutexGuard<'_, IndexMap<SocketAddr, Instant>> {
        self.winners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, IndexMap<(Protocol, SocketAddr), Failure>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Addresses that failed, and that won, as they are handed to the next process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct AddrsRecord {
    #[serde(deserialize_with = "lenient::each")]
    failed: Vec<FailureRecord>,
    #[serde(deserialize_with = "lenient::each")]
    won: Vec<(SocketAddr, Span)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FailureRecord {
    protocol: Protocol,
    addr: SocketAddr,
    ago_us: Span,
    hold: HoldRecord,
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rustix::io::Errno;

    use super::*;
    use crate::targets::hold::FIRST;

    fn addr(n: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, n).into()
    }

    fn ordered(dead: &DeadAddrs, protocol: Protocol) -> Vec<u16> {
        let mut addrs = [addr(1), addr(2), addr(3)];
        dead.order(protocol, &mut addrs);
        addrs.iter().map(SocketAddr::port).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_lately_is_tried_last_and_everything_is_tried() {
        let dead = DeadAddrs::default();
        let silent = io::Error::from(io::ErrorKind::TimedOut);
        dead.failed(Protocol::Tcp, addr(1), &silent);
        assert_eq!(ordered(&dead, Protocol::Tcp), [2, 3, 1]);
        assert_eq!(ordered(&dead, Protocol::Udp), [1, 2, 3], "the protocols do not know each other");
        tokio::time::advance(FIRST / 2).await;
        dead.failed(Protocol::Tcp, addr(3), &silent);
        dead.failed(Protocol::Tcp, addr(2), &silent);
        assert_eq!(ordered(&dead, Protocol::Tcp), [1, 2, 3], "the oldest failure comes first");
        dead.worked(Protocol::Tcp, addr(3));
        assert_eq!(ordered(&dead, Protocol::Tcp), [3, 1, 2]);
        tokio::time::advance(FIRST).await;
        assert_eq!(ordered(&dead, Protocol::Tcp), [1, 2, 3], "the holds are over");
        dead.failed(Protocol::Tcp, addr(1), &silent);
        tokio::time::advance(FIRST).await;
        assert_eq!(ordered(&dead, Protocol::Tcp), [2, 3, 1], "the next one is longer");
    }

    #[tokio::test(start_paused = true)]
    async fn the_winner_of_a_race_is_first_for_ten_minutes() {
        let dead = DeadAddrs::default();
        let order = || {
            let mut addrs = [addr(1), addr(2), addr(3)];
            dead.winner_first(&mut addrs);
            addrs.map(|addr| addr.port())
        };
        assert_eq!(order(), [1, 2, 3]);
        dead.won(addr(3));
        assert_eq!(order(), [3, 1, 2]);
        tokio::time::advance(WON / 2).await;
        dead.won(addr(2));
        assert_eq!(order(), [2, 1, 3], "the last one");
        tokio::time::advance(WON / 2).await;
        assert_eq!(order(), [2, 1, 3]);
        tokio::time::advance(WON / 2).await;
        assert_eq!(order(), [1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lack_on_this_machine_is_no_failure_of_the_address() {
        let dead = DeadAddrs::default();
        for errno in [Errno::MFILE, Errno::NOBUFS] {
            dead.failed(Protocol::Tcp, addr(1), &errno.into());
        }
        assert_eq!(ordered(&dead, Protocol::Tcp), [1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_addresses_than_the_limit_are_remembered() {
        let dead = DeadAddrs::default();
        for n in 0..2 * u16::try_from(MOST).unwrap() {
            dead.failed(Protocol::Tcp, addr(n), &Errno::HOSTUNREACH.into());
            assert!(dead.known().len() <= MOST);
        }
        tokio::time::advance(FIRST).await;
        dead.failed(Protocol::Tcp, addr(u16::MAX), &Errno::HOSTUNREACH.into());
        assert_eq!(dead.known().len(), 1);
    }
}
