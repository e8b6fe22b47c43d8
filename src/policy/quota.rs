//! How many sessions at once.
//!
//! Owns the count of the sessions of one protocol of a mapping, in all and by client, and
//! [`Permit`], the place of one session. It counts without a cap, too, so that a cap that is set
//! later knows the live sessions. Invariants: the count is the number of permits. Neither count
//! passes the cap that was in force when its last permit was given, but by sessions that another
//! process admitted. A client without a permit has no entry.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{
    Caps, Limit, Refusal,
    shards::{Secret, Shards},
};
use crate::mapping::ClientKey;

/// A map that had many entries keeps this room, in entries.
const ROOM: usize = 32;

/// The sessions of one protocol inside a mapping.
#[derive(Debug)]
pub(super) struct Quota {
    inside: AtomicU32,
    most: AtomicU32,
    most_per_client: AtomicU32,
    clients: Shards<HashMap<ClientKey, u32, Secret>>,
}

impl Quota {
    pub(super) fn new(caps: &Caps) -> Arc<Self> {
        let quota = Self {
            inside: AtomicU32::new(0),
            most: AtomicU32::new(0),
            most_per_client: AtomicU32::new(0),
            clients: Shards::default(),
        };
        quota.retune(caps);
        Arc::new(quota)
    }

    /// Takes other caps. No session ends. Above a lowered cap, clients are refused until enough
    /// sessions have ended.
    pub(super) fn retune(&self, caps: &Caps) {
        self.most.store(number(caps.sessions), Ordering::Relaxed);
        self.most_per_client.store(number(caps.sessions_per_client), Ordering::Relaxed);
    }

    /// A place for a session of `client`. Its own cap comes first: a client at its cap commits an
    /// offence, however full the mapping is.
    pub(super) fn enter(self: &Arc<Self>, client: ClientKey) -> Result<Permit, Refusal> {
        let mut clients = self.clients.of(&client);
        let entry = clients.get_mut(&client);
        let own = entry.as_deref().copied().unwrap_or(0);
        if own >= self.most_per_client.load(Ordering::Relaxed) {
            return Err(Refusal::ClientFull);
        }
        let most = self.most.load(Ordering::Relaxed);
        let one_more = |inside: u32| (inside < most).then(|| inside + 1);
        if self.inside.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            return Err(Refusal::Full);
        }
        match entry {
            Some(own) => *own += 1,
            None => {
                clients.insert(client, 1);
            }
        }
        drop(clients);
        Ok(Permit { quota: self.clone(), client })
    }

    /// A place for a session that was admitted before, by another process. No cap keeps it out.
    pub(super) fn take_over(self: &Arc<Self>, client: ClientKey) -> Permit {
        *self.clients.of(&client).entry(client).or_insert(0) += 1;
        self.inside.fetch_add(1, Ordering::Relaxed);
        Permit { quota: self.clone(), client }
    }

    fn leave(&self, client: ClientKey) {
        let mut clients = self.clients.of(&client);
        if let Some(own) = clients.get_mut(&client) {
            *own -= 1;
            if *own == 0 {
                clients.remove(&client);
                give_back_room(&mut clients);
            }
        }
        self.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right of one session to be. It gives its place back when it is dropped, once.
#[derive(Debug)]
#[must_use = "a permit that is dropped is given back"]
pub struct Permit {
    quota: Arc<Quota>,
    client: ClientKey,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.quota.leave(self.client);
    }
}

/// A cap that no count reaches where there is none.
fn number(limit: Limit) -> u32 {
    match limit {
        Limit::Unlimited => u32::MAX,
        Limit::AtMost(most) => most.get(),
    }
}

/// A crowd that has left leaves its memory, too. Seldom enough (an eighth full, then a quarter)
/// that it costs nothing.
fn give_back_room(clients: &mut HashMap<ClientKey, u32, Secret>) {
    if clients.capacity() > ROOM && clients.len() < clients.capacity() / 8 {
        let room = (clients.len() * 2).max(ROOM / 2);
        clients.shrink_to(room);
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, num::NonZeroU32, thread};

    use super::*;
    use crate::fixture::Random;

    impl Quota {
        /// How many sessions there are.
        pub(in crate::policy) fn inside(&self) -> u32 {
            self.inside.load(Ordering::Relaxed)
        }
    }

    fn caps(sessions: u32, per_client: u32) -> Caps {
        let limit = |n| NonZeroU32::new(n).map_or(Limit::Unlimited, Limit::AtMost);
        Caps { sessions: limit(sessions), sessions_per_client: limit(per_client) }
    }

    fn client(n: u32) -> ClientKey {
        ClientKey::V4(Ipv4Addr::from(n))
    }

    fn entries(quota: &Quota) -> usize {
        quota.clients.each().map(|part| part.len()).sum()
    }

    #[test]
    fn a_permit_is_small() {
        assert!(size_of::<Permit>() <= 24, "{} bytes", size_of::<Permit>());
    }

    #[test]
    fn a_place_is_given_back_when_its_permit_drops() {
        let quota = Quota::new(&caps(3, 2));
        let first = quota.enter(client(1)).unwrap();
        let second = quota.enter(client(1)).unwrap();
        assert_eq!(quota.enter(client(1)).unwrap_err(), Refusal::ClientFull);
        let other = quota.enter(client(2)).unwrap();
        assert_eq!(quota.enter(client(2)).unwrap_err(), Refusal::Full);
        assert_eq!(quota.enter(client(1)).unwrap_err(), Refusal::ClientFull, "its own doing comes first");
        assert_eq!(quota.enter(client(3)).unwrap_err(), Refusal::Full);
        assert_eq!((quota.inside(), entries(&quota)), (3, 2));
        drop(first);
        let again = quota.enter(client(3)).unwrap();
        drop((second, other, again));
        assert_eq!((quota.inside(), entries(&quota)), (0, 0));
    }

    #[test]
    fn a_session_that_was_admitted_before_is_counted_above_the_caps_and_leaves() {
        let quota = Quota::new(&caps(2, 1));
        let taken: Vec<_> = [1, 1, 2].map(|n| quota.take_over(client(n))).into();
        assert_eq!((quota.inside(), entries(&quota)), (3, 2));
        assert_eq!(quota.enter(client(1)).unwrap_err(), Refusal::ClientFull);
        assert_eq!(quota.enter(client(3)).unwrap_err(), Refusal::Full);
        drop(taken);
        assert_eq!((quota.inside(), entries(&quota)), (0, 0));
    }

    #[test]
    fn those_inside_stay_counted_when_the_caps_change() {
        let quota = Quota::new(&caps(0, 0));
        let inside: Vec<_> = (0..5).map(|_| quota.enter(client(1)).unwrap()).collect();
        quota.retune(&caps(0, 3));
        assert_eq!(quota.enter(client(1)).unwrap_err(), Refusal::ClientFull);
        quota.retune(&caps(5, 0));
        assert_eq!(quota.enter(client(1)).unwrap_err(), Refusal::Full);
        quota.retune(&caps(6, 6));
        let sixth = quota.enter(client(1)).unwrap();
        assert_eq!(quota.enter(client(1)).unwrap_err(), Refusal::ClientFull);
        drop((inside, sixth));
        assert_eq!((quota.inside(), entries(&quota)), (0, 0));
    }

    #[test]
    fn a_million_sessions_come_and_go_and_no_place_is_lost_or_given_twice() {
        const THREADS: u32 = 4;
        const CAP: u32 = 500;
        let quota = Quota::new(&caps(CAP, 9));
        let run = |seed: u32| {
            let mut random = Random::of(u64::from(seed));
            let mut held = Vec::new();
            let mut admitted = 0_u32;
            for _ in 0..1_000_000 / THREADS {
                let number = (random.next() >> 32) as u32;
                if number % 5 < 3 {
                    if let Ok(permit) = quota.enter(client(number >> 8 & 0xFF)) {
                        held.push(permit);
                        admitted += 1;
                    }
                } else if !held.is_empty() {
                    let which = number as usize % held.len();
                    drop(held.swap_remove(which));
                }
                assert!(quota.inside() <= CAP);
                if held.len() > 200 {
                    held.clear();
                }
            }
            admitted
        };
        let admitted: u32 = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|seed| scope.spawn(move || run(seed))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!(admitted > 10_000, "{admitted} were admitted");
        assert_eq!((quota.inside(), entries(&quota)), (0, 0));
    }

    #[test]
    fn a_crowd_that_left_leaves_no_memory() {
        let quota = Quota::new(&caps(0, 0));
        let crowd: Vec<_> = (0..100_000).map(|n| quota.enter(client(n)).unwrap()).collect();
        drop(crowd);
        let room: usize = quota.clients.each().map(|part| part.capacity()).sum();
        assert!(room <= 16 * 2 * ROOM, "room for {room} clients is kept");
    }
}
