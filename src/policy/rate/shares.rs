//! The share of a network: buckets for the clients of a crowd that is too large to know each of
//! them.
//!
//! Owns [`Shares`], two fixed tables of buckets. In the first a /48 of IPv6 (a /24 of IPv4) has
//! [`NEAR`] buckets, in the second a /32 (a /16) has [`FAR`]. A client falls into one of those of
//! its network, and is admitted while that one has room in the first table or in the second. So
//! nothing is remembered of it, and only a network that floods uses up its share: a neighbour in
//! another /48 has that one's share, and one in the same /48 still has that of the /32.
//!
//! Networks can meet in a bucket, as the tables are small. A secret chooses the places, so an
//! attacker cannot aim at a network. The tables are made when the first crowd comes, and stay.

use std::{
    hash::BuildHasher as _,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use governor::nanos::Nanos;

use super::super::shards::Secret;
use crate::mapping::ClientKey;

/// How many clients' worth of buckets a /48 has.
const NEAR: u64 = 16;
/// The same of a /32.
const FAR: u64 = 256;
/// The buckets of a table, of 8 bytes each.
const PLACES: usize = 65_536;

/// Buckets of networks.
#[derive(Debug, Default)]
pub(super) struct Shares {
    tables: OnceLock<[Box<[AtomicU64]>; 2]>,
    secret: Secret,
}

impl Shares {
    /// Decides on a client by the share of its networks, in the way of governor's stores.
    pub(super) fn measure_and_replace<T, F, E>(&self, client: &ClientKey, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let [near, far] = self.buckets(client);
        measure(near, &decide).or_else(|_| measure(far, &decide))
    }

    /// Lets a share be full earlier by `nanos`. Which of the two was used is not known any more: it
    /// is taken for the nearer one, unless that is whole.
    pub(super) fn give_back(&self, client: &ClientKey, nanos: u64, now: u64) {
        let [near, far] = self.buckets(client);
        let bucket = if near.load(Ordering::Relaxed) > now { near } else { far };
        give_back(bucket, nanos);
    }

    fn buckets(&self, client: &ClientKey) -> [&AtomicU64; 2] {
        let [near, far] = client.networks();
        let own = self.secret.hash_one(client);
        let tables = self.tables.get_or_init(|| [table(), table()]);
        let place = |network, buckets: u64| {
            // Fits: it is below the size of the table.
            (self.secret.hash_one((network, own % buckets)) % PLACES as u64) as usize
        };
        [&tables[0][place(near, NEAR)], &tables[1][place(far, FAR)]]
    }
}

fn table() -> Box<[AtomicU64]> {
    (0..PLACES).map(|_| AtomicU64::new(0)).collect()
}

/// Decides by one bucket; its state is when it is full again, 0 for one that was never used.
pub(super) fn measure<T, F, E>(bucket: &AtomicU64, decide: F) -> Result<T, E>
where
    F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
{
    let mut before = bucket.load(Ordering::Relaxed);
    loop {
        let (outcome, full_at) = decide((before > 0).then(|| before.into()))?;
        match bucket.compare_exchange_weak(before, full_at.into(), Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Ok(outcome),
            Err(now) => before = now,
        }
    }
}

/// Lets a bucket be full earlier by `nanos`.
pub(super) fn give_back(bucket: &AtomicU64, nanos: u64) {
    let earlier = |full_at: u64| Some(full_at.saturating_sub(nanos));
    // The closure never declines.
    let _ = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earlier);
}
