use super::*;
use crate::knock::{
    keys::{ClientKey as Key, server_public},
    seal,
};

const SERVER: [u8; 32] = [9; 32];
const HOUR: Duration = Duration::from_secs(3600);

fn key(n: u8) -> Key {
    Key::new("anna", [n; 32], server_public(&SERVER)).unwrap()
}

fn spec(keys: &[(&str, u8)]) -> KnockSpec {
    let known = |(name, n): &(&str, u8)| KnockKey { name: (*name).into(), public: key(*n).public() };
    KnockSpec {
        secret: Some(ServerSecret(SERVER)),
        listen: Some("62201".into()),
        keys: keys.iter().map(known).collect(),
        sequence: Vec::new(),
        files: Vec::new(),
        open_for: 8 * HOUR,
        state: None,
    }
}

fn knocks(spec: &KnockSpec) -> Knocks {
    let knocks = Knocks::new(SystemTime::now, Events::default());
    knocks.retune(Some(spec));
    knocks
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const ANNA: &str = "203.0.113.9";

/// A knock for the address that it comes from.
fn sealed(n: u8, random: u8) -> [u8; crate::knock::LEN] {
    seal(&key(n), Some(ip(ANNA)), SystemTime::now(), [random; 32])
}

fn count(knocks: &Knocks, why: False) -> u64 {
    knocks.falses().find(|(known, _)| *known == why).unwrap().1
}

#[test]
fn a_true_knock_lets_its_client_in_and_no_other_until_the_time_is_over() {
    let (knocks, now) = (knocks(&spec(&[("anna", 1)])), Instant::now());
    assert!(!knocks.has(ip(ANNA), now));
    assert_eq!(knocks.knock(&sealed(1, 5), ip(ANNA), now), Ok(()));
    assert!(knocks.has(ip(ANNA), now + 7 * HOUR) && !knocks.has(ip("203.0.113.10"), now));
    assert!(!knocks.has(ip(ANNA), now + 8 * HOUR));
    assert_eq!(knocks.expire(now), Some(now + 8 * HOUR));
    assert_eq!(knocks.expire(now + 8 * HOUR), None);
    assert!(!knocks.any());
}

#[test]
fn a_replay_is_false_from_any_address_and_also_after_a_restart() {
    let (knocks, now, spec) = (knocks(&spec(&[("anna", 1)])), Instant::now(), spec(&[("anna", 1)]));
    let datagram = seal(&key(1), None, SystemTime::now(), [5; 32]);
    assert_eq!(knocks.knock(&datagram, ip(ANNA), now), Ok(()));
    assert_eq!(knocks.knock(&datagram, ip("198.51.100.1"), now), Err(False::Replayed));
    let json = serde_json::to_string(&knocks.snapshot(now)).unwrap();
    let next = self::knocks(&spec);
    next.restore(serde_json::from_str(&json).unwrap(), now);
    assert_eq!(next.knock(&datagram, ip("198.51.100.1"), now), Err(False::Replayed));
    assert!(next.has(ip(ANNA), now) && !next.has(ip("198.51.100.1"), now));
    assert_eq!(next.grants(now)[0].key, "anna".into());
}

#[test]
fn a_knock_that_was_caught_on_its_way_opens_only_what_it_asks_for() {
    let (knocks, now) = (knocks(&spec(&[("anna", 1)])), Instant::now());
    let datagram = sealed(1, 5);
    assert_eq!(knocks.knock(&datagram, ip("198.51.100.1"), now), Err(False::OtherAddress));
    assert!(!knocks.any());
    let behind_a_nat = seal(&key(1), None, SystemTime::now(), [6; 32]);
    assert_eq!(knocks.knock(&behind_a_nat, ip("198.51.100.7"), now), Ok(()), "the address of the NAT");
}

#[test]
fn a_wrong_clock_an_unknown_key_and_junk_are_counted_by_their_reasons() {
    let (knocks, now) = (knocks(&spec(&[("anna", 1)])), Instant::now());
    let old = seal(&key(1), None, SystemTime::now() - 2 * HOUR, [5; 32]);
    for (datagram, why) in [
        (&old[..], False::Old),
        (&sealed(2, 5), False::UnknownKey),
        (b"hello", False::Malformed),
        (b"", False::Malformed),
    ] {
        assert_eq!(knocks.knock(datagram, ip(ANNA), now), Err(why));
    }
    assert_eq!(
        (count(&knocks, False::Old), count(&knocks, False::UnknownKey), count(&knocks, False::Malformed)),
        (1, 1, 2)
    );
    assert_eq!((knocks.any(), knocks.accepted()), (false, 0));
}

#[test]
fn a_key_that_is_removed_or_replaced_loses_its_grants_and_the_others_keep_theirs() {
    let now = Instant::now();
    let with = || {
        let knocks = knocks(&spec(&[("anna", 1), ("bob", 2)]));
        knocks.knock(&sealed(1, 5), ip(ANNA), now).unwrap();
        let bobs = seal(&key(2), None, SystemTime::now(), [6; 32]);
        knocks.knock(&bobs, ip("198.51.100.1"), now).unwrap();
        knocks
    };
    let names =
        |knocks: &Knocks| knocks.grants(now).iter().map(|grant| grant.key.to_string()).collect::<Vec<_>>();
    let knocks = with();
    let longer = KnockSpec { open_for: HOUR, ..spec(&[("anna", 1), ("bob", 2)]) };
    knocks.retune(Some(&longer));
    assert_eq!(names(&knocks).len(), 2, "a reload keeps grants");
    knocks.retune(Some(&spec(&[("bob", 2)])));
    assert_eq!(names(&knocks), ["bob"]);
    let knocks = with();
    knocks.retune(Some(&spec(&[("anna", 3), ("bob", 2)])));
    assert_eq!(names(&knocks), ["bob"], "a stolen key is replaced");
    knocks.retune(None);
    assert!(!knocks.any());
}

#[test]
fn a_flood_of_strangers_uses_up_nothing_of_the_budget() {
    let (knocks, now) = (knocks(&spec(&[("anna", 1)])), Instant::now());
    let mut junk = sealed(1, 5);
    for n in 0..20_000_u32 {
        junk[9..13].copy_from_slice(&(n + 1).to_be_bytes());
        let source = std::net::Ipv4Addr::from(n).into();
        assert_eq!(knocks.knock(&junk, source, now), Err(False::Malformed));
    }
    assert_eq!(knocks.knock(&sealed(1, 6), ip(ANNA), now), Ok(()));
}

#[test]
fn one_client_opens_few_datagrams_in_a_second_and_leaves_room_for_others() {
    let (knocks, now) = (knocks(&spec(&[("anna", 1)])), Instant::now());
    let outcomes: Vec<_> = (0..50)
        .map(|n| knocks.knock(&seal(&key(2), None, SystemTime::now(), [n; 32]), ip("198.51.100.1"), now))
        .collect();
    assert_eq!(outcomes.iter().filter(|o| **o == Err(False::UnknownKey)).count(), PER_CLIENT as usize);
    assert!(outcomes[10..].iter().all(|outcome| *outcome == Err(False::TooMany)));
    assert_eq!(knocks.knock(&sealed(1, 99), ip(ANNA), now), Ok(()));
}

#[test]
fn the_sequence_opens_where_there_is_one() {
    use crate::mapping::Protocol::{Tcp, Udp};
    let ports = vec![(Tcp, 7000), (Udp, 8000)];
    let (knocks, now) = (knocks(&KnockSpec { sequence: ports, secret: None, ..spec(&[]) }), Instant::now());
    assert!(!knocks.touch((Udp, 8000), ip(ANNA), now) && !knocks.touch((Tcp, 7000), ip(ANNA), now));
    assert!(knocks.touch((Udp, 8000), ip(ANNA), now) && knocks.has(ip(ANNA), now));
    assert_eq!(knocks.knock(&sealed(1, 5), ip(ANNA), now), Err(False::Malformed));
    knocks.retune(Some(&spec(&[("anna", 1)])));
    assert!(!knocks.any(), "it is gone");
}

#[test]
fn a_spoilt_snapshot_does_not_panic_and_grants_nothing_for_longer_than_the_terms() {
    let (before, now) = (knocks(&spec(&[("anna", 1)])), Instant::now());
    before.knock(&sealed(1, 5), ip(ANNA), now).unwrap();
    crate::fixture::each_spoilt(&before.snapshot(now), |spoilt| {
        let Ok(snapshot) = serde_json::from_value::<KnockSnapshot>(spoilt) else { return };
        let next = knocks(&spec(&[("anna", 1)]));
        next.restore(snapshot, now);
        assert!(next.grants(now).iter().all(|grant| grant.ends <= now + 8 * HOUR));
    });
}
