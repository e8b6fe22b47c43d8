use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::{super::shards::SHARDS, *};

fn rate(count: u32, per: Duration, burst: u32) -> Rate {
    Rate { count: NonZeroU32::new(count).unwrap(), per, burst: NonZeroU32::new(burst).unwrap() }
}

fn client(n: u32) -> ClientKey {
    ClientKey::V4(Ipv4Addr::from(n))
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_rate_lets_its_burst_through_and_then_its_count_in_its_time() {
    let limiter = Limiter::new(rate(10, SECOND, 3));
    let taken = || (0..100).filter(|_| limiter.take(Instant::now())).count();
    assert_eq!(taken(), 3);
    tokio::time::advance(Duration::from_millis(99)).await;
    assert_eq!(taken(), 0);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(taken(), 1);
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!(taken(), 3, "a quiet time saves up the burst, and no more");
}

#[tokio::test(start_paused = true)]
async fn each_client_has_a_bucket_of_its_own() {
    let limiter = ClientLimiter::new(rate(2, SECOND, 2), CLIENTS, Crowded::Share);
    let taken = |n| (0..10).filter(|_| limiter.take(client(n), Instant::now())).count();
    assert_eq!((taken(1), taken(2), taken(1)), (2, 2, 0));
    tokio::time::advance(SECOND / 2).await;
    assert_eq!((taken(1), taken(2)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_given_back_was_never_taken() {
    let all = Limiter::new(rate(1, SECOND, 2));
    let each = ClientLimiter::new(rate(1, SECOND, 2), CLIENTS, Crowded::Share);
    for _ in 0..50 {
        assert!(all.take(Instant::now()) && each.take(client(1), Instant::now()));
        all.give_back();
        each.give_back(client(1));
    }
    let now = Instant::now();
    assert_eq!((0..10).filter(|_| all.take(now)).count(), 2);
    assert_eq!((0..10).filter(|_| each.take(client(1), now)).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn of_a_batch_as_many_pass_as_there_is_room_for() {
    for burst in [1, 2, 3, 7, 10, 64] {
        for wanted in [0, 1, 2, 3, 5, 9, 10, 63, 64, 65, 1000, u32::MAX] {
            let limiter = ClientLimiter::new(rate(1, SECOND, burst), CLIENTS, Crowded::Share);
            let now = Instant::now();
            assert_eq!(limiter.take_up_to(client(1), wanted, now), wanted.min(burst), "{wanted} of {burst}");
            let rest = burst - wanted.min(burst);
            assert_eq!(limiter.take_up_to(client(1), 1000, now), rest);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_strangest_rate_neither_panics_nor_stops_everyone() {
    for (count, per) in [
        (1, Duration::MAX),
        (1, Duration::from_secs(u64::from(u32::MAX))),
        (u32::MAX, Duration::from_nanos(1)),
        (u32::MAX, Duration::MAX),
        (1, Duration::ZERO),
    ] {
        for burst in [1, u32::MAX] {
            let (all, each) = (
                Limiter::new(rate(count, per, burst)),
                ClientLimiter::new(rate(count, per, burst), CLIENTS, Crowded::Share),
            );
            for after in [Duration::ZERO, SECOND, Duration::from_secs(1 << 33)] {
                let now = Instant::now() + after;
                let _ = (all.take(now), each.take(client(1), now), each.take_up_to(client(2), u32::MAX, now));
            }
            assert!(each.take(client(3), Instant::now()), "{count} in {per:?}, burst {burst}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_million_forged_clients_cost_bounded_memory_and_lock_no_client_out() {
    let limiter = ClientLimiter::new(rate(1, Duration::from_secs(60), 5), 4096, Crowded::Share);
    let old = client(u32::MAX);
    assert!(limiter.take(old, Instant::now()));
    let passed = (0..1_000_000).filter(|n| limiter.take(client(*n), Instant::now())).count();
    assert!(limiter.clients() <= 4096, "{} clients", limiter.clients());
    // They are of 3,907 networks of 24 bits, and of 16 networks of 16 bits; each has the share of
    // so many clients.
    let shares = 5 * (3_907 * 16 + 16 * 256);
    assert!((4000..=4096 + shares).contains(&passed), "{passed} passed");
    assert!(limiter.buckets.room() <= 4 * 4096);
    assert_eq!(
        (0..10).filter(|_| limiter.take(old, Instant::now())).count(),
        4,
        "a known client keeps its bucket"
    );

    tokio::time::advance(Duration::from_secs(60)).await;
    let newcomers = (2_000_000..2_000_100).filter(|n| limiter.take(client(*n), Instant::now())).count();
    assert_eq!(newcomers, 100, "each of them has it back by now, and makes room");
}

/// The `n`th /64 of a /48, which is the `net`th of the /32 that begins with `first`.
fn network(first: u16, net: u16, n: u16) -> ClientKey {
    let ip = std::net::Ipv6Addr::new(0x2001, first, net, n, 0, 0, 0, 1);
    ClientKey::of(ip.into())
}

#[tokio::test(start_paused = true)]
async fn a_flood_from_one_network_locks_no_newcomer_of_another_out() {
    const BURST: u32 = 10;
    let limiter = ClientLimiter::new(rate(BURST, Duration::from_secs(3600), BURST), CLIENTS, Crowded::Share);
    let now = Instant::now();
    let old = network(0xdb7, 0, 0);
    assert!(limiter.take(old, now));
    let flood = (0..=1).flat_map(|net| (0..=u16::MAX).map(move |n| network(0xdb8, net, n)));
    let passed = flood.filter(|client| limiter.take(*client, now)).count();
    // The share of two networks of 48 bits, and that of the one of 32 bits that they are in.
    let shares = (2 * 16 + 256) * BURST as usize;
    assert!((CLIENTS - 100..=CLIENTS + shares).contains(&passed), "{passed} passed");
    assert!(limiter.clients() <= CLIENTS, "{} clients", limiter.clients());

    let enter = |first, net| (0..BURST as u16).filter(|n| limiter.take(network(first, net, *n), now)).count();
    assert_eq!(enter(0xdb8, 9), BURST as usize, "newcomers of another /48");
    assert_eq!(enter(0xdb9, 0), BURST as usize, "newcomers of another /32");
    let more = (0..2 * BURST).filter(|_| limiter.take(old, now)).count();
    assert_eq!(more, BURST as usize - 1, "a client that was there keeps its bucket");
}

#[tokio::test(start_paused = true)]
async fn what_a_newcomer_of_a_crowd_gives_back_was_never_taken() {
    let limiter = ClientLimiter::new(rate(1, Duration::from_secs(600), 2), SHARDS, Crowded::Share);
    let now = Instant::now();
    for n in 0..1_000 {
        limiter.take(network(0xdb8, 0, n), now);
    }
    let newcomer = network(0xdb9, 0, 0);
    for _ in 0..1_000 {
        assert!(limiter.take(newcomer, now));
        assert!(!limiter.knows(newcomer));
        limiter.give_back(newcomer);
    }
}

#[tokio::test(start_paused = true)]
async fn a_crowd_that_went_quiet_is_forgotten() {
    let limiter = ClientLimiter::new(rate(1, SECOND, 1), CLIENTS, Crowded::Share);
    for n in 0..60_000 {
        limiter.take(client(n), Instant::now());
    }
    assert!(limiter.clients() > 50_000);
    tokio::time::advance(SECOND).await;
    for n in 100_000..120_000 {
        limiter.take(client(n), Instant::now());
        limiter.forget(client(n));
    }
    assert!(limiter.clients() < 1000, "{} are remembered", limiter.clients());
    assert!(limiter.buckets.room() < 16 * 2 * 64, "there is room for {}", limiter.buckets.room());
}

#[tokio::test(start_paused = true)]
async fn where_no_client_may_share_a_bucket_the_fullest_one_makes_room() {
    let limiter = ClientLimiter::new(rate(1, Duration::from_secs(600), 10), SHARDS, Crowded::Replace);
    let now = Instant::now();
    for n in 0..10_000 {
        assert!(limiter.take(client(n), now), "a newcomer has its own, full bucket");
    }
    assert_eq!(limiter.clients(), SHARDS);
}

proptest! {
    /// governor's buckets behind our store and clock, against the textbook.
    #[test]
    fn a_bucket_behaves_as_the_textbook_has_it(
        count in 1_u32..20, burst in 1_u32..20, gaps in proptest::collection::vec(0_u64..400, 1..200),
    ) {
        let limiter = ClientLimiter::new(rate(count, SECOND, burst), CLIENTS, Crowded::Share);
        let each = 1_000_000_000 / u64::from(count);
        let start = limiter.time.start;
        let (mut now, mut full_at) = (0_u64, 0_u64);
        for gap in gaps {
            now += gap * 1_000_000;
            let fits = full_at.saturating_sub(each * u64::from(burst - 1)) <= now;
            if fits {
                full_at = full_at.max(now) + each;
            }
            prop_assert_eq!(limiter.take(client(1), start + Duration::from_nanos(now)), fits);
        }
    }
}

impl ClientLimiter {
    /// How many clients are remembered.
    pub(in super::super) fn clients(&self) -> usize {
        self.buckets.len()
    }
}
