//! Who was let in by a knock, and until when.
//!
//! Pure: times are arguments, and nothing here knows what a knock looks like. A grant is of a
//! client ([`ClientKey`]: of IPv6 usually a /64) and holds for every mapping with `knock = true`.
//! There are [`MOST`] at most; the one that ends first makes room. A session that began under a
//! grant goes on when that ends.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::mapping::ClientKey;

/// The most grants at a time.
const MOST: usize = 4096;

/// What one client was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The address that knocked last.
    pub client: IpAddr,
    /// The name of the key, or what stands for it.
    pub key: Arc<str>,
    /// When it ends.
    pub ends: Instant,
    /// The same, by the wall clock.
    pub until: SystemTime,
    /// How often the client has knocked.
    pub knocks: u64,
}

/// The grants of the daemon.
#[derive(Debug, Default)]
pub(super) struct Grants(HashMap<ClientKey, Grant>);

impl Grants {
    /// Lets a client in from now on, or for longer. Returns whether it was out before.
    pub(super) fn open(
        &mut self,
        client: IpAddr,
        key: &Arc<str>,
        length: Duration,
        (now, date): (Instant, SystemTime),
    ) -> bool {
        let (ends, until) = (now + length, date + length);
        let known = ClientKey::of(client);
        if let Some(grant) = self.0.get_mut(&known).filter(|grant| grant.ends > now) {
            grant.knocks += 1;
            if grant.ends <= ends {
                (grant.client, grant.key, grant.ends, grant.until) = (client, Arc::clone(key), ends, until);
            }
            return false;
        }
        if self.0.len() >= MOST {
            self.expire(now);
        }
        if self.0.len() >= MOST
            && let Some(first) = self.0.iter().min_by_key(|(_, grant)| grant.ends).map(|(known, _)| *known)
        {
            self.0.remove(&first);
        }
        self.0.insert(known, Grant { client, key: Arc::clone(key), ends, until, knocks: 1 });
        true
    }

    /// Puts a grant back that was saved.
    pub(super) fn restore(&mut self, grant: Grant) {
        if self.0.len() < MOST {
            self.0.entry(ClientKey::of(grant.client)).or_insert(grant);
        }
    }

    /// Ends the grant of a client. Returns whether it had one.
    pub(super) fn end(&mut self, client: IpAddr, now: Instant) -> bool {
        self.0.remove(&ClientKey::of(client)).is_some_and(|grant| grant.ends > now)
    }

    /// Whether a client may enter.
    pub(super) fn has(&self, client: IpAddr, now: Instant) -> bool {
        self.0.get(&ClientKey::of(client)).is_some_and(|grant| grant.ends > now)
    }

    /// Removes what has ended. Returns whether there was any.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        self.retain(|grant| grant.ends > now)
    }

    /// Removes what these do not mean. Returns whether there was any.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(&Grant) -> bool) -> bool {
        let before = self.0.len();
        self.0.retain(|_, grant| stays(grant));
        self.0.len() < before
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// When the first of them ends.
    pub(super) fn first_end(&self) -> Option<Instant> {
        self.0.values().map(|grant| grant.ends).min()
    }

    /// All of them; the one that ends first comes first.
    pub(super) fn all(&self) -> Vec<Grant> {
        let mut all: Vec<_> = self.0.values().cloned().collect();
        all.sort_by_key(|grant| (grant.ends, grant.client));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_grant_is_of_one_client_and_ends_and_another_knock_makes_it_longer() {
        let (mut grants, now, date) = (Grants::default(), Instant::now(), SystemTime::now());
        let anna: Arc<str> = "anna".into();
        assert!(grants.open(ip("203.0.113.9"), &anna, HOUR, (now, date)));
        assert!(grants.has(ip("::ffff:203.0.113.9"), now + HOUR / 2) && !grants.has(ip("203.0.113.8"), now));
        assert!(!grants.open(ip("203.0.113.9"), &anna, HOUR, (now + HOUR / 2, date)));
        assert!(grants.has(ip("203.0.113.9"), now + HOUR));
        assert_eq!((grants.len(), grants.all()[0].knocks), (1, 2));
        assert!(!grants.has(ip("203.0.113.9"), now + HOUR * 2));
        assert!(grants.expire(now + HOUR * 2) && grants.len() == 0);
        grants.open(ip("2001:db8:1:2::1"), &anna, HOUR, (now, date));
        assert!(grants.has(ip("2001:db8:1:2::ffff"), now) && !grants.has(ip("2001:db8:1:3::1"), now));
        assert!(!grants.end(ip("2001:db8:1:3::1"), now) && grants.end(ip("2001:db8:1:2::7"), now));
        assert!(!grants.has(ip("2001:db8:1:2::1"), now) && !grants.end(ip("2001:db8:1:2::1"), now));
    }

    #[test]
    fn grants_are_bounded_and_the_first_to_end_makes_room() {
        let (mut grants, now, date) = (Grants::default(), Instant::now(), SystemTime::now());
        let anna: Arc<str> = "anna".into();
        let client = |n: usize| IpAddr::from(std::net::Ipv4Addr::from(u32::try_from(n).unwrap()));
        for n in 0..=MOST {
            grants.open(client(n), &anna, HOUR + Duration::from_secs(n as u64), (now, date));
        }
        assert_eq!(grants.len(), MOST);
        assert!(!grants.has(client(0), now) && grants.has(client(MOST), now));
    }
}
