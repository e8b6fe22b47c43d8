//! The order in which targets are tried.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    num::{NonZeroU16, NonZeroU32},
    time::Duration,
};

use super::*;
use crate::{
    mapping::Host,
    targets::{Balance, Health, Sign, Target, hold},
};

const TCP: Protocol = Protocol::Tcp;

fn addr(port: u16) -> TargetAddr {
    TargetAddr { host: Host::LOOPBACK, port: NonZeroU16::new(port).unwrap() }
}

/// A list with a target on each of these ports, with its weight.
fn list(targets: &[(u16, u16)]) -> Targets {
    let target = |(port, weight): &(u16, u16)| Target {
        addr: addr(*port),
        weight: NonZeroU16::new(*weight).unwrap(),
        backup: false,
    };
    Targets::new(targets.iter().map(target)).unwrap()
}

fn pool(balance: Balance) -> Pool {
    Pool::new(&Selection { balance, ..Selection::default() })
}

fn client(n: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + n).into()
}

/// The ports in the order in which they are tried.
fn order(pool: &Pool, targets: &Targets, client: IpAddr) -> Vec<u16> {
    pool.order(TCP, targets, client).map(|(target, _)| target.port.get()).collect()
}

/// Where a session goes, and its place there.
fn take(pool: &Pool, targets: &Targets, client: IpAddr) -> (u16, Place) {
    let (target, place) = pool.order(TCP, targets, client).next().unwrap();
    (target.port.get(), place)
}

fn first(pool: &Pool, targets: &Targets, client: IpAddr) -> u16 {
    take(pool, targets, client).0
}

/// What happens to a target.
fn fails(pool: &Pool, port: u16) {
    pool.member(TCP, &addr(port)).unwrap().failed(Sign::Clear);
}

#[test]
fn one_target_without_a_key_for_it_leaves_nothing_in_the_pool() {
    let (pool, one) = (pool(Balance::RoundRobin), list(&[(1, 1)]));
    let (_, place) = pool.order(TCP, &one, client(1)).next().unwrap();
    assert!(place.member().is_none());
    assert!(pool.state().members[0].is_empty() && pool.state().groups[0].is_empty());
}

#[test]
fn turns_are_as_the_weights_say_within_a_percent_from_two_threads() {
    const SESSIONS: u32 = 100_000;
    let (pool, targets) = (pool(Balance::RoundRobin), list(&[(1, 4), (2, 2), (3, 1), (4, 1)]));
    let counts = std::thread::scope(|scope| {
        let count = || {
            let mut counts: HashMap<u16, u32> = HashMap::new();
            for n in 0..SESSIONS / 2 {
                *counts.entry(first(&pool, &targets, client(n))).or_default() += 1;
            }
            counts
        };
        let threads = [scope.spawn(count), scope.spawn(count)];
        let mut sum: HashMap<u16, u32> = HashMap::new();
        for counts in threads.map(|thread| thread.join().unwrap()) {
            counts.into_iter().for_each(|(port, count)| *sum.entry(port).or_default() += count);
        }
        sum
    });
    for (port, share) in [(1, 4), (2, 2), (3, 1), (4, 1)] {
        let expected = SESSIONS / 8 * share;
        assert!(counts[&port].abs_diff(expected) <= expected / 100, "{counts:?}");
    }
}

#[test]
fn the_turns_of_a_heavy_target_are_spread() {
    let (pool, targets) = (pool(Balance::RoundRobin), list(&[(1, 5), (2, 1), (3, 1)]));
    let turns: Vec<_> = (0..7).map(|n| first(&pool, &targets, client(n))).collect();
    assert_eq!(turns, [1, 1, 2, 1, 3, 1, 1], "as nginx has them");
}

#[test]
fn two_lists_of_a_mapping_take_turns_of_their_own_and_share_the_sessions_of_a_target() {
    let pool = pool(Balance::RoundRobin);
    let (one, other) = (list(&[(1, 1), (2, 1)]), list(&[(1, 1), (3, 1)]));
    let places: Vec<_> = (0..4).flat_map(|n| [&one, &other].map(|l| take(&pool, l, client(n)))).collect();
    assert_eq!(places.iter().filter(|(port, _)| *port == 1).count(), 4);
    assert_eq!(pool.member(TCP, &addr(1)).unwrap().sessions(), 4);
    drop(places);
    assert_eq!(pool.member(TCP, &addr(1)).unwrap().sessions(), 0);
}

#[test]
fn the_target_with_the_fewest_sessions_for_its_weight_is_next() {
    let (pool, targets) = (pool(Balance::LeastSessions), list(&[(1, 2), (2, 1)]));
    let mut places: Vec<_> = (0..6).map(|n| take(&pool, &targets, client(n))).collect();
    let count = |port| places.iter().filter(|(p, _)| *p == port).count();
    assert_eq!((count(1), count(2)), (4, 2));
    // Two sessions of the light one end: the next ones go there.
    places.retain(|(port, _)| *port == 1);
    assert_eq!(
        [take(&pool, &targets, client(7)), take(&pool, &targets, client(8))].map(|(port, _)| port),
        [2; 2]
    );
}

#[test]
fn equal_loads_take_turns() {
    let (pool, targets) = (pool(Balance::LeastSessions), list(&[(1, 1), (2, 1), (3, 1)]));
    let turns: Vec<_> = (0..6).map(|n| first(&pool, &targets, client(n))).collect();
    assert_eq!(turns, [1, 2, 3, 1, 2, 3]);
}

#[test]
fn a_client_keeps_its_target_and_the_weights_hold() {
    let (pool, targets) = (pool(Balance::ClientHash), list(&[(1, 4), (2, 2), (3, 1), (4, 1)]));
    let mut counts: HashMap<u16, u32> = HashMap::new();
    for n in 0..20_000 {
        let port = first(&pool, &targets, client(n));
        assert_eq!(port, first(&pool, &targets, client(n)));
        *counts.entry(port).or_default() += 1;
    }
    for (port, share) in [(1, 4), (2, 2), (3, 1), (4, 1)] {
        let expected = 20_000 / 8 * share;
        assert!(counts[&port].abs_diff(expected) <= expected / 10, "{counts:?}");
    }
    let v6 = |text: &str| first(&pool, &targets, text.parse().unwrap());
    assert_eq!(v6("2001:db8:1:2::1"), v6("2001:db8:1:2:ffff::9"), "a /64 is one client");
    assert_eq!(v6("::ffff:10.0.0.9"), v6("10.0.0.9"));
}

#[test]
fn a_target_that_goes_moves_only_its_own_clients() {
    let pool = pool(Balance::ClientHash);
    let (all, less) = (list(&[(1, 3), (2, 1), (3, 1), (4, 1)]), list(&[(1, 3), (3, 1), (4, 1)]));
    let mut moved = 0;
    for n in 0..5000 {
        let (before, after) = (first(&pool, &all, client(n)), first(&pool, &less, client(n)));
        assert!(before == 2 || before == after, "client {n} moved from {before} to {after}");
        moved += u32::from(before == 2);
    }
    assert!((600..1100).contains(&moved), "{moved} of 5000 had the target that went");
    // One on hold moves its clients alike, and gets them back.
    let before: Vec<_> = (0..1000).map(|n| first(&pool, &all, client(n))).collect();
    fails(&pool, 2);
    for (n, before) in (0..).zip(&before) {
        let now = first(&pool, &all, client(n));
        assert!(now != 2 && (*before == 2 || now == *before));
    }
    pool.member(TCP, &addr(2)).unwrap().worked();
    assert_eq!((0..1000).map(|n| first(&pool, &all, client(n))).collect::<Vec<_>>(), before);
}

#[tokio::test(start_paused = true)]
async fn a_target_on_hold_is_tried_last_until_the_hold_is_over() {
    let (pool, targets) = (pool(Balance::First), list(&[(1, 1), (2, 1), (3, 1)]));
    let order = || order(&pool, &targets, client(1));
    assert_eq!(order(), [1, 2, 3]);
    fails(&pool, 1);
    assert_eq!(order(), [2, 3, 1]);
    tokio::time::advance(hold::FIRST).await;
    assert_eq!(order(), [1, 2, 3], "one session tries it");
    assert_eq!(order(), [2, 3, 1], "the next ones wait for what comes of that");
    fails(&pool, 1);
    tokio::time::advance(2 * hold::FIRST - Duration::from_millis(1)).await;
    assert_eq!(order(), [2, 3, 1]);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(order(), [1, 2, 3]);
    pool.member(TCP, &addr(1)).unwrap().worked();
    assert_eq!(order(), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn where_all_are_on_hold_all_are_tried() {
    for balance in [Balance::RoundRobin, Balance::LeastSessions, Balance::ClientHash, Balance::First] {
        let (pool, targets) = (pool(balance), list(&[(1, 1), (2, 1)]));
        assert_eq!(order(&pool, &targets, client(1)).len(), 2);
        fails(&pool, 1);
        fails(&pool, 2);
        let mut tried = order(&pool, &targets, client(1));
        tried.sort_unstable();
        assert_eq!(tried, [1, 2], "{balance:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backup_serves_while_no_other_target_is_usable() {
    let backup = Target { backup: true, ..addr(9).into() };
    let targets = Targets::new([backup, addr(1).into(), addr(2).into()]).unwrap();
    let pool = pool(Balance::RoundRobin);
    for n in 0..10 {
        assert_ne!(first(&pool, &targets, client(n)), 9);
    }
    fails(&pool, 1);
    assert_eq!(order(&pool, &targets, client(1)), [2, 9, 1]);
    fails(&pool, 2);
    assert_eq!(first(&pool, &targets, client(1)), 9);
    fails(&pool, 9);
    assert_ne!(first(&pool, &targets, client(1)), 9, "where nothing works, it is the last as well");
    pool.member(TCP, &addr(1)).unwrap().worked();
    assert_eq!(first(&pool, &targets, client(1)), 1);
}

#[tokio::test(start_paused = true)]
async fn the_share_of_a_target_that_came_back_grows() {
    let selection = Selection { slow_start: Some(Duration::from_secs(10)), ..Selection::default() };
    let (pool, targets) = (Pool::new(&selection), list(&[(1, 1), (2, 1)]));
    let share = || (0..300).filter(|n| first(&pool, &targets, client(*n)) == 2).count();
    assert_eq!(share(), 150, "a start is no return");
    fails(&pool, 2);
    assert_eq!(share(), 0);
    pool.member(TCP, &addr(2)).unwrap().worked();
    assert!(share() <= 1);
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!((95..=105).contains(&share()), "half its weight, a third of the sessions");
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!((149..=151).contains(&share()));
}

#[tokio::test(start_paused = true)]
async fn a_retune_keeps_what_is_known_of_the_targets_that_stay() {
    let pool = pool(Balance::First);
    let (before, after) = (list(&[(1, 1), (2, 1), (3, 1)]), list(&[(1, 1), (3, 1), (4, 1)]));
    let (_, place) = take(&pool, &before, client(1));
    fails(&pool, 3);
    pool.retune(&Selection { balance: Balance::First, ..Selection::default() }, &[(TCP, &after)], false);
    assert_eq!(order(&pool, &after, client(1)), [1, 4, 3]);
    assert_eq!(pool.member(TCP, &addr(1)).unwrap().sessions(), 1);
    assert!(pool.member(TCP, &addr(2)).is_none(), "it went");
    assert_eq!(pool.state().groups[0].len(), 1);
    drop(place);
    assert_eq!(pool.member(TCP, &addr(1)).unwrap().sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_paused_target_is_never_tried() {
    let (pool, targets, one) = (pool(Balance::First), list(&[(1, 1), (2, 1)]), list(&[(7, 1)]));
    pool.pause(&addr(1), true);
    assert_eq!(order(&pool, &targets, client(1)), [2]);
    fails(&pool, 2);
    assert_eq!(order(&pool, &targets, client(1)), [2], "not even where nothing else works");
    pool.retune(
        &Selection { balance: Balance::First, ..Selection::default() },
        &[(TCP, &targets), (TCP, &one)],
        false,
    );
    assert_eq!(order(&pool, &targets, client(1)), [2], "a reload does not resume it");
    pool.pause(&addr(7), true);
    assert!(order(&pool, &one, client(1)).is_empty(), "the only target, too");
    pool.pause(&addr(1), false);
    pool.pause(&addr(7), false);
    assert_eq!(order(&pool, &targets, client(1)), [1, 2]);
    assert_eq!(order(&pool, &one, client(1)), [7]);
}

#[tokio::test(start_paused = true)]
async fn so_many_probes_mean_down_and_so_many_mean_up() {
    let number = |n| NonZeroU32::new(n).unwrap();
    let second = Duration::from_secs(1);
    let health = Health {
        interval: second,
        timeout: second,
        rise: number(2),
        fall: number(3),
        send: None,
        expect: None,
    };
    let pool = Pool::new(&Selection {
        health: Some(health.clone()),
        balance: Balance::First,
        ..Selection::default()
    });
    let targets = list(&[(1, 1), (2, 1)]);
    let member = pool.member_of(TCP, &addr(1));
    let order = || order(&pool, &targets, client(1));
    assert_eq!(order(), [1, 2], "targets begin as up");
    let probes =
        [(false, false), (false, false), (true, false), (false, false), (false, false), (false, true)];
    for (nth, (passed, changes)) in probes.into_iter().enumerate() {
        assert_eq!(member.probed(passed, &health).is_some(), changes, "probe {nth}");
    }
    assert_eq!(order(), [2, 1]);
    member.worked();
    assert_eq!(order(), [2, 1], "a session that got through does not outvote the probes");
    for (nth, (passed, changes)) in
        [(true, false), (false, false), (true, false), (true, true)].into_iter().enumerate()
    {
        assert_eq!(member.probed(passed, &health).is_some(), changes, "probe {nth}");
    }
    assert_eq!(order(), [1, 2]);
}
