//! Where a request came in, and how many clients may be inside.
//!
//! Owns the kinds of doors, what is known of a client before its first byte, and the number of
//! clients. Knows nothing of HTTP.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// One of so many places is kept for the unix socket, beyond the number that all doors have. So
/// strangers that fill the TCP doors do not keep the operator out. As many clients hear why they
/// are turned away. More are closed at once.
const SHARE: usize = 8;

/// A kind of door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Door {
    /// The unix socket. The file's mode says who may enter, as administrator.
    Socket,
    /// `[api] listen`.
    Api,
    /// `[metrics] listen`: metrics and the two questions about health.
    Metrics,
}

/// How a client came in.
#[derive(Clone, Debug)]
pub(super) struct Entrance {
    pub(super) door: Door,
    /// The client and our address, of a TCP client.
    pub(super) tcp: Option<Ends>,
    /// Cancelled when the door closes: then streams end.
    pub(super) closing: CancellationToken,
}

/// Both ends of a TCP connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) client: SocketAddr,
    pub(super) own: SocketAddr,
}

/// The clients that are inside.
#[derive(Debug)]
pub(super) struct Clients {
    most: usize,
    inside: Mutex<Inside>,
}

/// How many came by each kind of socket, and how many hear that there is no room.
#[derive(Debug, Default)]
struct Inside {
    unix: usize,
    tcp: usize,
    turned_away: usize,
}

/// What a place is for.
#[derive(Clone, Copy, Debug)]
enum Use {
    Unix,
    Tcp,
    TurnedAway,
}

/// A place inside. Dropped, it is free again.
#[derive(Debug)]
pub(super) struct Place {
    clients: Arc<Clients>,
    used: Use,
}

impl Clients {
    /// Room for so many at once, over all doors.
    pub(super) fn new(most: usize) -> Self {
        Self { most, inside: Mutex::default() }
    }

    /// The places beyond the number, of either kind.
    fn share(&self) -> usize {
        self.most.div_ceil(SHARE)
    }

    /// Takes a place for a client of this door, if there is one.
    pub(super) fn enter(self: &Arc<Self>, door: Door) -> Option<Place> {
        let mut inside = self.lock();
        let has_room = inside.unix + inside.tcp < self.most;
        let used = if door == Door::Socket { Use::Unix } else { Use::Tcp };
        let may = has_room || (door == Door::Socket && inside.unix < self.share());
        may.then(|| self.take(&mut inside, used))
    }

    /// Takes a place for a client that hears that there is no room.
    pub(super) fn turn_away(self: &Arc<Self>) -> Option<Place> {
        let mut inside = self.lock();
        (inside.turned_away < self.share()).then(|| self.take(&mut inside, Use::TurnedAway))
    }

    fn take(self: &Arc<Self>, inside: &mut Inside, used: Use) -> Place {
        *inside.count(used) += 1;
        Place { clients: Arc::clone(self), used }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    fn count(&mut self, used: Use) -> &mut usize {
        match used {
            Use::Unix => &mut self.unix,
            Use::Tcp => &mut self.tcp,
            Use::TurnedAway => &mut self.turned_away,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.clients.lock().count(self.used) -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_and_the_socket_has_some_of_its_own() {
        const MOST: usize = 64;
        const RESERVED: usize = MOST / SHARE;
        let clients = Arc::new(Clients::new(MOST));
        let mut strangers: Vec<_> = (0..MOST).map(|_| clients.enter(Door::Api).unwrap()).collect();
        assert!(clients.enter(Door::Api).is_none() && clients.enter(Door::Metrics).is_none());
        let operators: Vec<_> = (0..RESERVED).map(|_| clients.enter(Door::Socket).unwrap()).collect();
        assert!(clients.enter(Door::Socket).is_none());
        strangers.clear();
        assert_eq!(clients.lock().tcp, 0);
        let more: Vec<_> = std::iter::from_fn(|| clients.enter(Door::Socket)).collect();
        assert_eq!(more.len() + operators.len(), MOST, "alone, it has the same limit");
        assert_eq!(std::iter::from_fn(|| clients.turn_away()).take(100).count(), 100, "each is free again");
    }
}
