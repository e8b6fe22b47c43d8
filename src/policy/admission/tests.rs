use std::{num::NonZeroU32, time::Duration};

use super::*;
use crate::{
    fixture::mmdb,
    policy::{
        AccessSpec, Caps, Countries, Country, Entries, GateInput, GateSpec, GuardSpec, IpSet, Limit,
        ListName, Rates, access::entry::parse_net,
    },
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn nets(text: &str) -> Entries {
    Entries { nets: text.split_whitespace().map(|e| parse_net(e).unwrap()).collect(), lists: Arc::default() }
}

fn listed(name: &str) -> Entries {
    Entries { nets: Arc::default(), lists: [ListName(name.into())].into() }
}

pub(super) fn rate(count: u32, per: Duration) -> Option<Rate> {
    let count = NonZeroU32::new(count).unwrap();
    Some(Rate { count, per, burst: count })
}

pub(super) fn caps(sessions: u32, per_client: u32) -> Caps {
    let limit = |n| NonZeroU32::new(n).map_or(Limit::Unlimited, Limit::AtMost);
    Caps { sessions: limit(sessions), sessions_per_client: limit(per_client) }
}

/// A gate whose guard bans for an hour after more than five refusals an hour.
fn gate() -> Arc<Gate> {
    let gate = Gate::new(std::time::SystemTime::now);
    let exempt = nets("127.0.0.0/8");
    let guard = GuardSpec { refusals: rate(5, HOUR).unwrap(), ban: HOUR, exempt, state: None };
    let spec = GateSpec { guard: Some(guard), ..GateSpec::default() };
    let lists = [("office", "192.0.2.0/24")].map(|(name, text)| (ListName(name.into()), set(text)));
    gate.apply(&GateInput { spec, lists: lists.into(), countries: None });
    gate
}

fn set(text: &str) -> Arc<IpSet> {
    Arc::new(IpSet::parse(text).unwrap())
}

pub(super) fn with(policy: Policy) -> (Arc<Admission>, Arc<Gate>) {
    let gate = gate();
    (Admission::new(&Arc::new(policy), &gate), gate)
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn tcp(admission: &Arc<Admission>, client: &str) -> Result<Permit, Refusal> {
    admission.admit(ip(client), Protocol::Tcp, Instant::now())
}

pub(super) fn udp(admission: &Arc<Admission>, client: &str) -> Result<Permit, Refusal> {
    admission.admit(ip(client), Protocol::Udp, Instant::now())
}

/// Why a client is refused, which has to be the case.
fn refusal(admission: &Arc<Admission>, client: &str) -> Refusal {
    udp(admission, client).expect_err("a refusal")
}

#[tokio::test(start_paused = true)]
async fn the_plain_policy_lets_everyone_in() {
    let (admission, _gate) = with(Policy::default());
    let permits: Vec<_> =
        ["192.0.2.1", "2001:db8::1", "127.0.0.1"].map(|ip| tcp(&admission, ip).unwrap()).into();
    assert_eq!((admission.inside(), admission.refuse()), (3, Refuse::Close));
    assert!(!admission.limits_datagrams());
    assert_eq!(admission.datagrams(ip("192.0.2.1"), 1_000_000, Instant::now()), 1_000_000);
    assert_eq!(admission.summary(Instant::now(), false), None);
    drop(permits);
    assert_eq!(admission.inside(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_is_told_the_first_reason_there_is() {
    let (admission, gate) = with(Policy {
        access: AccessSpec { deny: nets("198.51.100.0/24"), ..AccessSpec::default() },
        rates: Rates {
            new_sessions: rate(3, HOUR),
            new_sessions_per_client: rate(2, HOUR),
            ..Rates::default()
        },
        caps: caps(3, 1),
        refuse: Refuse::Reset,
        ..Policy::default()
    });
    let _first = udp(&admission, "192.0.2.1").unwrap();
    assert_eq!(refusal(&admission, "192.0.2.1"), Refusal::ClientFull);
    let _second = udp(&admission, "192.0.2.2").unwrap();
    let _third = udp(&admission, "192.0.2.3").unwrap();
    assert_eq!(refusal(&admission, "192.0.2.4"), Refusal::Rate);
    assert_eq!(refusal(&admission, "198.51.100.1"), Refusal::Denied);
    gate.guard().ban(ip("198.51.100.1"), None, Instant::now());
    assert_eq!(refusal(&admission, "198.51.100.1"), Refusal::Banned);
    let counted = Refusal::ALL.map(|refusal| admission.refused(refusal));
    assert_eq!(counted, [1, 1, 0, 0, 1, 0, 0, 1, 0]);
    let summary = admission.summary(Instant::now(), false).unwrap();
    assert_eq!(
        (summary.total(), summary.to_string().as_str()),
        (4, "banned 1, denied 1, rate 1, client-full 1")
    );
    assert_eq!(admission.refuse(), Refuse::Reset);
}

#[tokio::test(start_paused = true)]
async fn forged_datagrams_take_nothing_from_the_connections_of_the_one_they_name() {
    let (admission, gate) = with(Policy {
        rates: Rates {
            new_sessions: rate(6, HOUR),
            new_sessions_per_client: rate(4, HOUR),
            ..Rates::default()
        },
        caps: caps(3, 2),
        ..Policy::default()
    });
    let flows = [udp(&admission, "192.0.2.1").unwrap(), udp(&admission, "192.0.2.1").unwrap()];
    for _ in 0..100 {
        assert_eq!(refusal(&admission, "192.0.2.1"), Refusal::ClientFull);
    }
    let other = udp(&admission, "192.0.2.2").unwrap();
    assert_eq!(refusal(&admission, "192.0.2.3"), Refusal::Full);
    let sessions = [tcp(&admission, "192.0.2.1").unwrap(), tcp(&admission, "192.0.2.1").unwrap()];
    assert_eq!((admission.inside(), tcp(&admission, "192.0.2.1").unwrap_err()), (5, Refusal::ClientFull));
    drop((flows, other, sessions));

    // The rates are used up by flows, and there for connections.
    let _ = (udp(&admission, "192.0.2.1").unwrap(), udp(&admission, "192.0.2.1").unwrap());
    assert_eq!(refusal(&admission, "192.0.2.1"), Refusal::ClientRate);
    let _ = udp(&admission, "192.0.2.4").unwrap();
    assert_eq!(refusal(&admission, "192.0.2.5"), Refusal::Rate);
    let _ = (tcp(&admission, "192.0.2.1").unwrap(), tcp(&admission, "192.0.2.1").unwrap());
    assert_eq!((admission.inside(), gate.guard().bans(Instant::now()).len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn one_client_cannot_use_up_what_is_meant_for_all() {
    let (admission, _gate) = with(Policy {
        access: AccessSpec { deny: nets("198.51.100.0/24"), ..AccessSpec::default() },
        rates: Rates {
            new_sessions: rate(10, HOUR),
            new_sessions_per_client: rate(4, HOUR),
            ..Rates::default()
        },
        caps: caps(0, 2),
        ..Policy::default()
    });
    for _ in 0..100 {
        assert_eq!(refusal(&admission, "198.51.100.1"), Refusal::Denied);
    }
    let held = [udp(&admission, "192.0.2.1").unwrap(), udp(&admission, "192.0.2.1").unwrap()];
    for _ in 0..100 {
        assert_eq!(refusal(&admission, "192.0.2.1"), Refusal::ClientFull);
    }
    drop(held);
    let _ = (udp(&admission, "192.0.2.1").unwrap(), udp(&admission, "192.0.2.1").unwrap());
    for _ in 0..100 {
        assert_eq!(refusal(&admission, "192.0.2.1"), Refusal::ClientRate);
    }
    // Four of ten are gone, and no more.
    for n in 0..6 {
        let _ = udp(&admission, &format!("192.0.2.{}", 100 + n)).unwrap();
    }
    assert_eq!(refusal(&admission, "192.0.2.200"), Refusal::Rate);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_finds_the_mapping_busy_keeps_its_own_budget() {
    let (admission, _gate) = with(Policy {
        rates: Rates {
            new_sessions: rate(1, SECOND),
            new_sessions_per_client: rate(2, HOUR),
            ..Rates::default()
        },
        caps: caps(1, 0),
        ..Policy::default()
    });
    let held = udp(&admission, "192.0.2.9").unwrap();
    assert_eq!(refusal(&admission, "192.0.2.1"), Refusal::Rate);
    tokio::time::advance(SECOND).await;
    for _ in 0..100 {
        assert_eq!(refusal(&admission, "192.0.2.1"), Refusal::Full);
    }
    drop(held);
    for _ in 0..2 {
        drop(udp(&admission, "192.0.2.1").unwrap());
        tokio::time::advance(SECOND).await;
    }
    assert_eq!(refusal(&admission, "192.0.2.1"), Refusal::ClientRate);
}

#[tokio::test(start_paused = true)]
async fn refused_tcp_clients_are_banned_in_the_end_and_udp_clients_never() {
    let (admission, gate) = with(Policy {
        access: AccessSpec { allow: Some(nets("10.0.0.0/8")), ..AccessSpec::default() },
        ..Policy::default()
    });
    for _ in 0..100 {
        assert_eq!(udp(&admission, "192.0.2.1").unwrap_err(), Refusal::Denied);
        assert_eq!(tcp(&admission, "127.0.0.1").unwrap_err(), Refusal::Denied, "exempt");
    }
    for _ in 0..6 {
        assert_eq!(tcp(&admission, "192.0.2.1").unwrap_err(), Refusal::Denied);
    }
    let bans = gate.guard().bans(Instant::now());
    for _ in 0..100 {
        assert_eq!(tcp(&admission, "192.0.2.1").unwrap_err(), Refusal::Banned);
        assert_eq!(udp(&admission, "192.0.2.1").unwrap_err(), Refusal::Banned);
        tokio::time::advance(SECOND).await;
    }
    assert_eq!(gate.guard().bans(Instant::now()), bans, "knocking does not prolong a ban");
    tokio::time::advance(HOUR).await;
    assert_eq!(tcp(&admission, "192.0.2.1").unwrap_err(), Refusal::Denied);
}

#[tokio::test(start_paused = true)]
async fn a_busy_mapping_is_not_an_offence() {
    let (admission, gate) = with(Policy {
        rates: Rates { new_sessions: rate(2, HOUR), ..Rates::default() },
        caps: caps(1, 0),
        ..Policy::default()
    });
    let held = tcp(&admission, "192.0.2.1").unwrap();
    for _ in 0..100 {
        assert_eq!(tcp(&admission, "192.0.2.2").unwrap_err(), Refusal::Full);
    }
    drop(held);
    drop(tcp(&admission, "192.0.2.1").unwrap());
    for _ in 0..100 {
        assert_eq!(tcp(&admission, "192.0.2.2").unwrap_err(), Refusal::Rate);
    }
    assert!(gate.guard().bans(Instant::now()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_mapped_client_is_its_ipv4_address_for_every_question() {
    let (admission, _gate) = with(Policy {
        access: AccessSpec { deny: nets("198.51.100.0/24"), ..AccessSpec::default() },
        rates: Rates { datagrams_per_client: rate(2, HOUR), ..Rates::default() },
        caps: caps(0, 1),
        ..Policy::default()
    });
    assert_eq!(refusal(&admission, "::ffff:198.51.100.1"), Refusal::Denied);
    assert_eq!(admission.recheck(ip("::ffff:198.51.100.1"), Instant::now()), Err(Refusal::Denied));
    let _inside = udp(&admission, "::ffff:192.0.2.1").unwrap();
    assert_eq!(refusal(&admission, "192.0.2.1"), Refusal::ClientFull);
    assert_eq!(admission.datagrams(ip("192.0.2.1"), 1, Instant::now()), 1);
    assert_eq!(
        admission.datagrams(ip("::ffff:192.0.2.1"), 5, Instant::now()),
        0,
        "it came with the other one"
    );
}

#[tokio::test(start_paused = true)]
async fn datagrams_pass_up_to_the_clients_rate_and_the_others_are_counted() {
    let (admission, _gate) = with(Policy {
        rates: Rates { datagrams_per_client: rate(10, SECOND), ..Rates::default() },
        ..Policy::default()
    });
    let pass = |client: &str, n| admission.datagrams(ip(client), n, Instant::now());
    assert!(admission.limits_datagrams());
    assert_eq!((pass("192.0.2.1", 7), pass("192.0.2.1", 7), pass("192.0.2.1", 7)), (7, 3, 0));
    assert_eq!(pass("192.0.2.2", 64), 10);
    assert_eq!(admission.refused(Refusal::DatagramRate), 4 + 7 + 54);
    tokio::time::advance(SECOND / 2).await;
    assert_eq!(pass("192.0.2.1", 7), 5);
}

#[tokio::test(start_paused = true)]
async fn a_flow_that_its_datagram_rate_keeps_out_has_used_up_nothing() {
    let (admission, _gate) = with(Policy {
        rates: Rates {
            new_sessions: rate(2, HOUR),
            new_sessions_per_client: rate(1, HOUR),
            datagrams_per_client: rate(1, SECOND),
        },
        caps: caps(1, 0),
        ..Policy::default()
    });
    assert_eq!(admission.datagrams(ip("192.0.2.1"), 1, Instant::now()), 1);
    for _ in 0..100 {
        assert_eq!(refusal(&admission, "192.0.2.1"), Refusal::DatagramRate);
    }
    assert_eq!((admission.inside(), admission.refused(Refusal::DatagramRate)), (0, 100));
    let _ = tcp(&admission, "192.0.2.1").expect("a connection has no datagrams");
    drop(udp(&admission, "192.0.2.2").unwrap());
    tokio::time::advance(SECOND).await;
    drop(udp(&admission, "192.0.2.1").unwrap());
    assert_eq!(refusal(&admission, "192.0.2.1"), Refusal::ClientRate);
}

/// Clients enough that no part of a table has room for another.
fn crowd() -> impl Iterator<Item = IpAddr> {
    (0..2 * CLIENTS as u32).map(|n| IpAddr::from(std::net::Ipv4Addr::from((10 << 24) + n)))
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_for_a_crowd_of_others_commits_no_offence() {
    let (admission, gate) = with(Policy {
        rates: Rates { new_sessions_per_client: rate(3, HOUR), ..Rates::default() },
        caps: caps(0, 0),
        ..Policy::default()
    });
    let _ = tcp(&admission, "192.0.2.1").unwrap();
    for client in crowd() {
        let _ = admission.admit(client, Protocol::Tcp, Instant::now());
    }
    let newcomer = (0..100).map(|_| tcp(&admission, "198.51.100.1"));
    let (entered, refused): (Vec<_>, Vec<_>) = newcomer.partition(Result::is_ok);
    assert!((1..=2 * 3).contains(&entered.len()), "{} entered by the shares of two networks", entered.len());
    assert!(refused.iter().all(|outcome| matches!(outcome, Err(Refusal::Rate))), "{refused:?}");
    assert_eq!(gate.guard().bans(Instant::now()), [], "no client is banned for others");
    let _ = (tcp(&admission, "192.0.2.1").unwrap(), tcp(&admission, "192.0.2.1").unwrap());
    for _ in 0..6 {
        assert_eq!(tcp(&admission, "192.0.2.1").unwrap_err(), Refusal::ClientRate);
    }
    assert_eq!(tcp(&admission, "192.0.2.1").unwrap_err(), Refusal::Banned, "its own doing is an offence");
}

#[tokio::test(start_paused = true)]
async fn a_flow_that_was_quiet_is_heard_in_any_crowd() {
    let (admission, _gate) = with(Policy {
        rates: Rates { datagrams_per_client: rate(4, HOUR), ..Rates::default() },
        caps: caps(0, 0),
        ..Policy::default()
    });
    let _inside = udp(&admission, "192.0.2.1").unwrap();
    tokio::time::advance(HOUR).await;
    for client in crowd() {
        let _ = admission.admit(client, Protocol::Udp, Instant::now());
    }
    assert_eq!(admission.datagrams(ip("192.0.2.1"), 10, Instant::now()), 4);
    assert_eq!(admission.datagrams(ip("192.0.2.1"), 10, Instant::now()), 0);
}

#[tokio::test(start_paused = true)]
async fn changed_terms_keep_those_inside_and_the_rates_that_did_not_change() {
    let policy = |per_client, allow: Option<Entries>| {
        Arc::new(Policy {
            access: AccessSpec { allow, ..AccessSpec::default() },
            rates: Rates {
                new_sessions: rate(5, HOUR),
                new_sessions_per_client: rate(2, HOUR),
                datagrams_per_client: rate(per_client, HOUR),
            },
            caps: caps(0, per_client),
            refuse: Refuse::Drop,
            ..Policy::default()
        })
    };
    let gate = gate();
    let admission = Admission::new(&policy(9, None), &gate);
    let inside = [udp(&admission, "198.51.100.1").unwrap(), udp(&admission, "198.51.100.1").unwrap()];
    assert_eq!(admission.datagrams(ip("198.51.100.1"), 9, Instant::now()), 7, "two came with the flows");
    admission.retune(&policy(1, Some(listed("office"))));
    assert_eq!(admission.inside(), 2);
    assert_eq!(admission.recheck(ip("198.51.100.1"), Instant::now()), Err(Refusal::Denied));
    assert_eq!(admission.recheck(ip("192.0.2.1"), Instant::now()), Ok(()));
    assert_eq!(admission.refused(Refusal::Denied), 0, "a recheck does not count as a refusal");

    admission.retune(&policy(1, None));
    assert_eq!(refusal(&admission, "198.51.100.1"), Refusal::ClientRate, "its two are remembered");
    assert_eq!(
        admission.datagrams(ip("198.51.100.1"), 9, Instant::now()),
        1,
        "a new rate starts from the beginning"
    );
    let _three = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|client| udp(&admission, client).unwrap());
    assert_eq!(refusal(&admission, "192.0.2.4"), Refusal::Rate);
    drop(inside);
    assert_eq!(admission.inside(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_list_a_country_or_a_ban_that_changes_counts_for_those_inside_too() {
    let (admission, gate) = with(Policy {
        access: AccessSpec {
            allow: Some(listed("office")),
            allow_countries: Some([Country::new("DE").unwrap()].into()),
            ..AccessSpec::default()
        },
        ..Policy::default()
    });
    let check = |client: &str| admission.recheck(ip(client), Instant::now());
    assert_eq!((check("192.0.2.1"), check("198.51.100.1")), (Ok(()), Err(Refusal::Country)));
    let countries =
        |code| Arc::new(Countries::from_bytes(mmdb::database(&[("198.51.100.0/24", code)])).unwrap());
    gate.replace_countries(countries("DE"));
    assert_eq!(check("198.51.100.1"), Ok(()));
    gate.replace_countries(countries("FR"));
    gate.replace_list(&ListName("office".into()), set("10.0.0.0/8"));
    assert_eq!((check("192.0.2.1"), check("198.51.100.1")), (Err(Refusal::Country), Err(Refusal::Country)));
    assert_eq!(check("10.0.0.1"), Ok(()));
    gate.guard().ban(ip("10.0.0.1"), Some(HOUR), Instant::now());
    assert_eq!(check("10.0.0.1"), Err(Refusal::Banned));
    tokio::time::advance(HOUR).await;
    assert_eq!(check("10.0.0.1"), Ok(()));
}

#[test]
fn no_place_and_no_token_is_lost_when_everybody_comes_at_once() {
    let (admission, _gate) = with(Policy {
        rates: Rates {
            new_sessions: rate(1_000_000_000, SECOND),
            new_sessions_per_client: rate(1000, HOUR),
            ..Rates::default()
        },
        caps: caps(8, 3),
        ..Policy::default()
    });
    let come_and_go = |client: IpAddr| {
        let now = Instant::now();
        let mut admitted = 0;
        for _ in 0..20_000 {
            if let Ok(permit) = admission.admit(client, Protocol::Udp, now) {
                assert!(admission.inside() <= 8);
                drop(permit);
                admitted += 1;
            }
        }
        admitted
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|n| scope.spawn(move || come_and_go(ip(&format!("192.0.2.{n}"))))).collect();
        for thread in threads {
            // As many as its own rate lets in, to the last one, however often the others were in
            // the way.
            assert_eq!(thread.join().unwrap(), 1000);
        }
    });
    assert_eq!(admission.inside(), 0);
}

impl Admission {
    /// How many sessions and flows are inside.
    pub(crate) fn inside(&self) -> u32 {
        self.quotas.tcp.inside().saturating_add(self.quotas.udp.inside())
    }

    /// How many clients were refused for that reason so far.
    pub(crate) fn refused(&self, refusal: Refusal) -> u64 {
        self.refusals.of(refusal)
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_has_rules_of_its_own_and_a_client_that_it_refuses_has_used_up_no_rate() {
    let rates = Rates { new_sessions_per_client: rate(1, HOUR), ..Rates::default() };
    let (admission, _gate) = with(Policy { rates, ..Policy::default() });
    let deny = Entries { lists: listed("office").lists, ..nets("203.0.113.0/24") };
    let part = PartAccess::from(AccessSpec { deny, ..AccessSpec::default() });
    let enter = |client: &str| admission.admit_to(&part, ip(client), Instant::now());
    for client in ["192.0.2.1", "203.0.113.1"] {
        for _ in 0..3 {
            drop(tcp(&admission, client).unwrap());
            assert_eq!(enter(client), Err(Refusal::Denied));
        }
    }
    drop(tcp(&admission, "198.51.100.1").unwrap());
    assert_eq!(enter("198.51.100.1"), Ok(()));
    assert_eq!(admission.admit_to(&PartAccess::default(), ip("192.0.2.1"), Instant::now()), Ok(()));
    assert_eq!(admission.refusals.of(Refusal::Denied), 6);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_comes_for_others_has_only_not_to_be_banned() {
    let access = AccessSpec { allow: Some(Entries::default()), ..AccessSpec::default() };
    let (admission, gate) = with(Policy { access, ..Policy::default() });
    assert_eq!(refusal(&admission, "192.0.2.1"), Refusal::Denied);
    assert_eq!(admission.admit_peer(ip("192.0.2.1"), Instant::now()), Ok(()));
    gate.guard().ban(ip("192.0.2.1"), None, Instant::now());
    assert_eq!(admission.admit_peer(ip("192.0.2.1"), Instant::now()), Err(Refusal::Banned));
}

#[cfg(feature = "knock")]
#[tokio::test(start_paused = true)]
async fn a_mapping_that_wants_a_knock_is_silent_to_others_and_no_refusal_is_an_offence() {
    let (admission, gate) = with(Policy { knock: true, refuse: Refuse::Reset, ..Policy::default() });
    assert_eq!(admission.refuse(), Refuse::Drop);
    for _ in 0..100 {
        let refused = admission.admit(ip("192.0.2.1"), Protocol::Tcp, Instant::now());
        assert_eq!(refused.unwrap_err(), Refusal::NoKnock);
    }
    assert!(!Refusal::NoKnock.is_offence());
    assert_eq!(gate.guard().bans(Instant::now()), []);
    assert!(admission.recheck(ip("192.0.2.1"), Instant::now()).is_ok(), "a live session goes on");
}
