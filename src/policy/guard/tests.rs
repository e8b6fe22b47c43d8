use std::sync::Arc;

use super::*;
use crate::{
    fixture::LogCatcher,
    policy::{Entries, access::entry::parse_net},
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn without_terms() -> Guard {
    Guard::new(watch::Sender::new(0), SystemTime::now, Events::default())
}

/// Three refusals a minute are allowed; the first ban is an hour.
pub(super) fn guard(exempt: &str) -> Guard {
    let guard = without_terms();
    retune(&guard, 3, HOUR, exempt);
    guard
}

fn retune(guard: &Guard, refusals: u32, ban: Duration, exempt: &str) {
    let entries = Entries {
        nets: exempt.split_whitespace().map(|e| parse_net(e).unwrap()).collect(),
        lists: Arc::default(),
    };
    let count = refusals.try_into().unwrap();
    let rate = Rate { count, per: MINUTE, burst: 1.try_into().unwrap() };
    let exempt = Side::new(&entries, |_| Arc::default());
    guard.retune(Some(&GuardSpec { refusals: rate, ban, exempt: entries, state: None }), exempt);
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Refuses `client` until it is banned; says how many refusals it took.
fn refuse_until_banned(guard: &Guard, client: &str) -> (usize, Ban) {
    (1..100).find_map(|n| Some((n, guard.offence(ip(client), Instant::now())?))).expect("a ban")
}

fn is_banned(guard: &Guard, client: &str) -> bool {
    let banned = guard.is_banned(ip(client), Instant::now()).is_some();
    assert_eq!(banned, guard.keeps_out(ip(client), Instant::now()));
    banned
}

/// How long a ban is, by its dates.
fn length(ban: &Ban) -> Duration {
    ban.until.unwrap().duration_since(ban.since).unwrap()
}

#[tokio::test(start_paused = true)]
async fn one_refusal_too_many_is_a_ban_for_a_while() {
    let guard = guard("");
    let (refusals, ban) = refuse_until_banned(&guard, "192.0.2.7");
    assert_eq!(refusals, 4);
    assert_eq!(
        (ban.client.to_string().as_str(), ban.reason, ban.repeats),
        ("192.0.2.7", BanReason::Refusals, 0)
    );
    assert_eq!(length(&ban), HOUR);
    assert!(is_banned(&guard, "192.0.2.7") && is_banned(&guard, "::ffff:192.0.2.7"));
    assert!(!is_banned(&guard, "192.0.2.8"));
    tokio::time::advance(HOUR - Duration::from_millis(1)).await;
    assert!(is_banned(&guard, "192.0.2.7"));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!is_banned(&guard, "192.0.2.7"), "without anyone striking it out");
    assert_eq!((guard.expire(Instant::now()), guard.expire(Instant::now())), (1, 0));
    assert_eq!(guard.banned.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn refusals_far_enough_apart_are_borne_for_ever() {
    let guard = guard("");
    for _ in 0..1000 {
        assert_eq!(guard.offence(ip("192.0.2.7"), Instant::now()), None);
        tokio::time::advance(MINUTE / 3).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_ipv6_client_is_banned_with_its_64() {
    let guard = guard("");
    for (n, address) in
        ["2001:db8:1:2::1", "2001:db8:1:2::2", "2001:db8:1:2:3::", "2001:db8:1:2:f::9"].iter().enumerate()
    {
        assert_eq!(guard.offence(ip(address), Instant::now()).is_some(), n == 3);
    }
    assert!(is_banned(&guard, "2001:db8:1:2:abcd::"));
    assert!(!is_banned(&guard, "2001:db8:1:3::1"));
    assert_eq!(guard.bans(Instant::now())[0].client.to_string(), "2001:db8:1:2::/64");
}

#[tokio::test(start_paused = true)]
async fn knocking_while_banned_changes_nothing() {
    let guard = guard("");
    let (_, ban) = refuse_until_banned(&guard, "192.0.2.7");
    for _ in 0..100 {
        assert_eq!(guard.offence(ip("192.0.2.7"), Instant::now()), None);
        assert_eq!(guard.trap(ip("192.0.2.7"), Instant::now()), None);
        tokio::time::advance(MINUTE / 10).await;
    }
    assert_eq!(guard.bans(Instant::now()), [ban]);
    tokio::time::advance(HOUR).await;
    assert_eq!(refuse_until_banned(&guard, "192.0.2.7").0, 4, "a new start");
}

#[tokio::test(start_paused = true)]
async fn each_repeat_is_twice_as_long_up_to_thirty_days() {
    let guard = guard("");
    let mut lengths = Vec::new();
    for repeats in 0..14 {
        let (_, ban) = refuse_until_banned(&guard, "192.0.2.7");
        assert_eq!(ban.repeats, repeats);
        lengths.push(length(&ban));
        tokio::time::advance(length(&ban) + MINUTE).await;
    }
    let expected: Vec<_> = (0..14).map(|n| (HOUR * (1 << n)).min(LONGEST)).collect();
    assert_eq!(lengths, expected);
    assert_eq!(lengthened(HOUR, u32::MAX), LONGEST);
    assert_eq!(lengthened(LONGEST * 2, 5), LONGEST * 2, "a first ban is as long as it is set to be");
    assert_eq!(lengthened(Duration::MAX, 5), Duration::MAX);
}

#[tokio::test(start_paused = true)]
async fn repeats_are_forgotten_after_the_length_of_the_last_ban_and_a_day() {
    let guard = guard("");
    for (quiet, repeats) in [(Duration::ZERO, 0), (HOUR + DAY - MINUTE, 1), (HOUR * 2 + DAY, 0)] {
        tokio::time::advance(quiet).await;
        let (_, ban) = refuse_until_banned(&guard, "192.0.2.7");
        assert_eq!(ban.repeats, repeats);
        tokio::time::advance(length(&ban)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_touches_a_trap_is_banned_at_once() {
    let guard = guard("198.51.100.0/24");
    let ban = guard.trap(ip("192.0.2.7"), Instant::now()).unwrap();
    assert_eq!((ban.reason, length(&ban)), (BanReason::Trap, HOUR));
    assert!(is_banned(&guard, "192.0.2.7"));
    assert_eq!(guard.trap(ip("198.51.100.1"), Instant::now()), None);
    tokio::time::advance(HOUR).await;
    assert_eq!(guard.trap(ip("192.0.2.7"), Instant::now()).unwrap().repeats, 1);
    assert_eq!(guard.trap(ip("192.0.2.7"), Instant::now()), None);
    assert_eq!(guard.trap_touches(), 4, "banned, exempt or not");
}

#[tokio::test(start_paused = true)]
async fn the_exempt_are_banned_by_the_operator_alone() {
    let guard = guard("192.0.2.0/24 2001:db8::7");
    for _ in 0..100 {
        assert_eq!(guard.offence(ip("::ffff:192.0.2.7"), Instant::now()), None);
    }
    assert!(guard.trap(ip("2001:db8::8"), Instant::now()).is_some());
    assert!(is_banned(&guard, "2001:db8::9"));
    assert!(!is_banned(&guard, "2001:db8::7"), "though in the /64 of an offender");
    guard.ban(ip("2001:db8::7"), Some(HOUR), Instant::now());
    assert!(is_banned(&guard, "2001:db8::7"));
    guard.ban(ip("192.0.2.7"), None, Instant::now());
    assert!(is_banned(&guard, "192.0.2.7"));
}

#[tokio::test(start_paused = true)]
async fn the_operator_bans_for_any_time_and_pardons_altogether() {
    let guard = without_terms();
    let ban = guard.ban(ip("192.0.2.7"), None, Instant::now());
    assert_eq!((ban.until, ban.reason), (None, BanReason::Operator));
    tokio::time::advance(LONGEST * 100).await;
    assert!(is_banned(&guard, "192.0.2.7"), "until further notice");
    let ban = guard.ban(ip("192.0.2.7"), Some(HOUR), Instant::now());
    assert_eq!((length(&ban), guard.bans(Instant::now()).len()), (HOUR, 1));
    assert_eq!(guard.ban(ip("192.0.2.8"), Some(Duration::MAX), Instant::now()).until, None);
    assert!(guard.unban(ip("192.0.2.7")) && !guard.unban(ip("192.0.2.7")));
    assert!(!is_banned(&guard, "192.0.2.7"));

    retune(&guard, 3, HOUR, "");
    for _ in 0..3 {
        assert_eq!(refuse_until_banned(&guard, "192.0.2.9").1.repeats, 0);
        assert!(guard.unban(ip("192.0.2.9")));
    }
}

#[tokio::test(start_paused = true)]
async fn bans_outlive_the_terms_and_a_rate_that_stays_goes_on_counting() {
    let guard = guard("");
    let (_, ban) = refuse_until_banned(&guard, "192.0.2.7");
    for _ in 0..3 {
        assert_eq!(guard.offence(ip("192.0.2.8"), Instant::now()), None);
    }
    retune(&guard, 3, DAY, "");
    let next = guard.offence(ip("192.0.2.8"), Instant::now()).expect("the fourth");
    assert_eq!(length(&next), DAY);
    retune(&guard, 5, DAY, "");
    assert_eq!(refuse_until_banned(&guard, "192.0.2.9").0, 6);
    guard.retune(None, Side::default());
    assert_eq!(guard.offence(ip("192.0.2.10"), Instant::now()), None);
    assert_eq!(guard.trap(ip("192.0.2.10"), Instant::now()), None);
    retune(&guard, 3, HOUR, "");
    assert_eq!(guard.bans(Instant::now())[0], ban, "the ban that ends first");
    assert_eq!(guard.bans(Instant::now()).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn without_terms_the_operators_bans_alone_hold() {
    let guard = guard("");
    assert!(guard.trap(ip("192.0.2.7"), Instant::now()).is_some());
    guard.ban(ip("192.0.2.8"), Some(DAY), Instant::now());
    guard.retune(None, Side::default());
    assert!(!is_banned(&guard, "192.0.2.7") && is_banned(&guard, "192.0.2.8"));
    let clients: Vec<_> = guard.bans(Instant::now()).into_iter().map(|ban| ban.client.to_string()).collect();
    assert_eq!(clients, ["192.0.2.8"]);
    retune(&guard, 3, HOUR, "");
    assert!(is_banned(&guard, "192.0.2.7"), "as long as it has not ended");
}

#[tokio::test(start_paused = true)]
async fn a_change_reaches_the_saver_and_a_new_ban_the_recheck() {
    let revision = watch::Sender::new(0);
    let guard = Guard::new(revision.clone(), SystemTime::now, Events::default());
    retune(&guard, 3, HOUR, "");
    let (mut changes, mut revision) = (guard.changes(), revision.subscribe());
    let mut told = || {
        let told = (changes.has_changed().unwrap(), revision.has_changed().unwrap());
        changes.mark_unchanged();
        revision.mark_unchanged();
        told
    };
    guard.offence(ip("192.0.2.7"), Instant::now());
    assert_eq!(told(), (false, false));
    refuse_until_banned(&guard, "192.0.2.7");
    assert_eq!(told(), (true, true));
    guard.offence(ip("192.0.2.7"), Instant::now());
    assert_eq!(told(), (false, false));
    guard.unban(ip("192.0.2.7"));
    assert_eq!(told(), (true, false));
    guard.ban(ip("192.0.2.7"), Some(HOUR), Instant::now());
    assert_eq!(told(), (true, true));
    tokio::time::advance(HOUR).await;
    guard.expire(Instant::now());
    assert_eq!(told(), (true, false));
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_offenders_costs_bounded_memory() {
    let guard = guard("");
    let at = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(n));
    for n in 0..100_000 {
        assert!(guard.trap(at(n), Instant::now()).is_some());
        assert_eq!(guard.offence(at(1_000_000 + n), Instant::now()), None);
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    assert_eq!(guard.bans(Instant::now()).len(), CLIENTS);
    assert!(guard.keeps_out(at(99_999), Instant::now()) && !guard.keeps_out(at(0), Instant::now()));
    assert!(guard.terms.load_full().unwrap().refusals.clients() <= CLIENTS);
}

#[test]
fn one_offender_seen_by_several_is_banned_once() {
    let guard = guard("");
    let now = Instant::now();
    let bans: usize = std::thread::scope(|scope| {
        let see = || (0..1000).filter(|_| guard.offence(ip("192.0.2.7"), now).is_some()).count();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(see)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(bans, 1);
    assert_eq!(guard.bans(now)[0].repeats, 0);
}

#[tokio::test(start_paused = true)]
async fn a_ban_is_one_line_and_a_flood_of_them_a_line_a_second() {
    let log = LogCatcher::start();
    let guard = guard("");
    refuse_until_banned(&guard, "192.0.2.7");
    (0..100).for_each(|_| assert_eq!(guard.offence(ip("192.0.2.7"), Instant::now()), None));
    let told = log.lines();
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("client banned client.addr=192.0.2.7 ban.for=1h ban.until="), "{told:?}");
    assert!(told[0].contains("reason=refusals repeats=0") && !told[0].contains("untold"), "{told:?}");

    for n in 0..1000_u32 {
        guard.trap(IpAddr::from(std::net::Ipv4Addr::from(n)), Instant::now());
    }
    assert_eq!(log.lines().len(), 59);
    tokio::time::advance(Duration::from_secs(1)).await;
    guard.trap(ip("198.51.100.1"), Instant::now());
    let told = log.lines();
    assert!(told.len() == 1 && told[0].contains("reason=trap repeats=0 untold=941"), "{told:?}");
}

impl Guard {
    /// The ban that keeps `client` out.
    pub(crate) fn is_banned(&self, client: IpAddr, now: Instant) -> Option<Ban> {
        if self.banned.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let key = ClientKey::of(client);
        let table = self.read();
        let ban = table.bans.get(&key, now)?;
        self.holds(ban.reason, client).then(|| ban.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn a_network_is_banned_by_an_operator_and_let_in_again() {
    let guard = guard("");
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    let note = Some("a scan\nof all ports");
    let ban = guard.ban_net(net("203.0.113.7/24"), Some(HOUR), note, Instant::now());
    assert_eq!(
        (ban.client.to_string(), ban.note.as_deref()),
        ("203.0.113.0/24".into(), Some("a scan.of all ports"))
    );
    let out = |text: &str| guard.keeps_out(ip(text), Instant::now());
    assert!(out("203.0.113.1") && out("::ffff:203.0.113.255") && !out("203.0.114.1"));
    guard.ban(ip("203.0.113.1"), None, Instant::now());
    assert!(guard.unban(ip("203.0.113.1")) && out("203.0.113.1"), "the network is banned all the same");
    assert!(!guard.unban_net(net("203.0.113.0/25")), "another network");

    let later = Guard::new(watch::Sender::new(0), SystemTime::now, Events::default());
    later.restore(guard.snapshot(Instant::now()), Instant::now());
    assert!(later.keeps_out(ip("203.0.113.9"), Instant::now()), "over a restart");

    assert!(guard.unban_net(net("203.0.113.0/24")) && !out("203.0.113.1"));
    guard.ban_net(net("2001:db8::/32"), Some(HOUR), None, Instant::now());
    assert!(out("2001:db8:9::1"));
    tokio::time::advance(HOUR).await;
    assert!(!out("2001:db8:9::1"));
    assert_eq!(guard.expire(Instant::now()), 1);
    for n in 0..1000_u32 {
        let length = Duration::from_secs(u64::from(n + 1));
        let net = IpNet::new(std::net::Ipv4Addr::from(n << 8).into(), 24).unwrap();
        guard.ban_net(net, Some(length), None, Instant::now());
    }
    assert!(!out("0.0.0.1") && out("0.3.231.1"), "those that end last stay");
}
