//! The keys of a mapping that limit its clients.

use super::*;
use crate::policy::{Limit, ListName, Policy, Rate, Refuse};

fn policy_of(text: &str) -> Arc<Policy> {
    Arc::clone(&loaded(text).plan.mappings.values().next().unwrap().policy)
}

/// A mapping with these lines, and the tables they need.
fn with(keys: &str) -> String {
    format!("[[mapping]]\npublish = \"80:9\"\n{keys}\n[lists]\noffice = \"203.0.113.0/24\"\nblocked = []\n")
}

/// The terms, as text, of one key.
fn policy_with(keys: &str) -> Arc<Policy> {
    policy_of(&with(keys))
}

/// What is wrong with these lines, from line 3 on.
fn refused(keys: &str) -> Vec<String> {
    problems(&with(keys))
}

fn rate(count: u32, seconds: u64, burst: u32) -> Option<Rate> {
    let [count, burst] = [count, burst].map(|n| NonZeroU32::new(n).unwrap());
    Some(Rate { count, per: Duration::from_secs(seconds), burst })
}

fn at_most(n: u32) -> Limit {
    Limit::AtMost(NonZeroU32::new(n).unwrap())
}

#[test]
fn without_a_key_the_terms_are_the_built_in_ones() {
    let loaded = loaded("publish = [\"1:9\"]\n[[mapping]]\npublish = \"2:9/tcp+udp\"\n");
    assert!(loaded.plan.mappings.values().all(|mapping| *mapping.policy == Policy::default()));
    assert_eq!((Policy::default().caps.sessions, Policy::default().refuse), (at_most(10_000), Refuse::Close));
}

#[test]
fn every_key_makes_its_term() {
    let policy = policy_with(
        "max_sessions = 1_000\nmax_sessions_per_client = \"unlimited\"\nallow = [\"10.0.0.0/8\", \"@office\"]\n\
         deny = \"@blocked\"\nnew_sessions = \"20/s\"\nnew_sessions_per_client = \"10/min\"\nburst = 40\nrefuse = \"drop\"\n",
    );
    assert_eq!((policy.caps.sessions, policy.caps.sessions_per_client), (at_most(1000), Limit::Unlimited));
    let allow = policy.access.allow.as_ref().unwrap();
    assert_eq!(
        (&*allow.nets, &*allow.lists),
        (&["10.0.0.0/8".parse().unwrap()][..], &[ListName("office".into())][..],)
    );
    assert_eq!(policy.access.deny.lists, [ListName("blocked".into())].into());
    assert_eq!(policy.rates.new_sessions, rate(20, 1, 40));
    assert_eq!(policy.rates.new_sessions_per_client, rate(10, 60, 10));
    assert_eq!(policy.rates.datagrams_per_client, None);
    assert_eq!(policy.refuse, Refuse::Drop);
}

#[test]
fn a_key_of_a_mapping_takes_the_place_of_the_default_as_a_whole() {
    let loaded = loaded(
        "publish = [\"1:9\"]\n[defaults]\nallow = [\"10.0.0.0/8\", \"@office\"]\ndeny = \"10.1.0.0/16\"\nnew_sessions = \"5/s\"\n\
         burst = 9\nmax_sessions = 7\nbandwidth_per_session = \"64KiB\"\n\
         [[mapping]]\npublish = \"2:9\"\nallow = \"192.0.2.1\"\ndeny = []\nnew_sessions = \"8/s\"\nmax_sessions = \"unlimited\"\n\
         bandwidth_per_session = \"unlimited\"\n\
         [[mapping]]\npublish = \"3:9\"\nnew_sessions = \"unlimited\"\n[lists]\noffice = []\n",
    );
    let [inherited, own, free] = &*loaded.plan.mappings.values().collect::<Vec<_>>() else { panic!() };
    assert_eq!(inherited.policy.access.allow.as_ref().unwrap().nets.len(), 1);
    assert_eq!(inherited.policy.rates.new_sessions, rate(5, 1, 9));
    assert_eq!(inherited.policy.caps.sessions, at_most(7));
    let allow = own.policy.access.allow.as_ref().unwrap();
    assert_eq!((&*allow.nets, allow.lists.len()), (&["192.0.2.1/32".parse().unwrap()][..], 0));
    assert_eq!(own.policy.access.deny.nets.len(), 0);
    assert_eq!(own.policy.rates.new_sessions, rate(8, 1, 9), "a burst is a key like any other");
    assert_eq!(own.policy.caps.sessions, Limit::Unlimited);
    assert_eq!(free.policy.rates.new_sessions, None);
    let bandwidth = |listener: &ListenerPlan| match &listener.service {
        Service::Tcp(spec) => spec.options.bandwidth.map(NonZeroU64::get),
        _ => None,
    };
    let bandwidths: Vec<_> = loaded.plan.listeners.values().map(bandwidth).collect();
    assert_eq!(bandwidths, [Some(65_536), None, Some(65_536)]);
}

#[test]
fn the_listeners_of_a_mapping_share_their_terms_and_mappings_do_not() {
    let loaded = loaded(
        "publish = [\"1:9\", \"2:9\"]\n[[mapping]]\nlisten = [\"127.0.0.1:3\", \"4-5\"]\ntargets = \"9\"\nprotocol = \"tcp+udp\"\n",
    );
    let of = |port| {
        let listeners = loaded.plan.listeners.iter();
        listeners.filter(move |(k, _)| (3..=5).contains(&k.addr.port.get()) == port)
    };
    let shared: Vec<_> = of(true).map(|(_, l)| l.mapping.clone()).collect();
    assert_eq!(shared.len(), 6);
    assert!(shared.windows(2).all(|two| two[0] == two[1]));
    let alone: Vec<_> = of(false).map(|(_, l)| l.mapping.clone()).collect();
    assert!(alone[0] != alone[1] && !shared.contains(&alone[0]));
    assert_eq!(loaded.plan.mappings.len(), 3);
}

#[test]
fn a_mapping_is_identified_by_its_name_or_by_the_default_name_of_its_first_listener() {
    let loaded = loaded(
        "publish = [\"127.0.0.2:80:9\", \"127.0.0.1:80:9\"]\n\
         [[mapping]]\npublish = [\"82:9\", \"81:9/udp\"]\n[[mapping]]\nname = \"web\"\npublish = \"83:9\"\n",
    );
    let shown = |(key, listener): (&ListenerKey, &ListenerPlan)| {
        let id = listener.mapping.as_ref().unwrap();
        format!("{key} {} {}.{}", listener.name, id.name, id.nth)
    };
    let shown: Vec<_> = loaded.plan.listeners.iter().map(shown).collect();
    let expected = [
        "127.0.0.1:80/tcp 80/tcp 80/tcp.0",
        "127.0.0.2:80/tcp 80/tcp 80/tcp.1",
        "[::]:82/tcp 82/tcp 82/tcp.0",
        "[::]:83/tcp web web.0",
        "[::]:81/udp 81/udp 82/tcp.0",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn a_burst_for_a_client_is_that_of_new_sessions_and_of_datagrams_only_where_they_stand_alone() {
    let udp = |keys: &str| policy_of(&format!("[[mapping]]\npublish = \"53:9/udp\"\n{keys}"));
    let both =
        udp("new_sessions_per_client = \"2/s\"\ndatagrams_per_client = \"1000/s\"\nburst_per_client = 5\n");
    assert_eq!(both.rates.new_sessions_per_client, rate(2, 1, 5));
    assert_eq!(both.rates.datagrams_per_client, rate(1000, 1, 1000));
    let alone = udp("datagrams_per_client = \"1000/s\"\nburst_per_client = 5\n");
    assert_eq!(alone.rates.datagrams_per_client, rate(1000, 1, 5));
}

#[test]
fn counts_are_positive_numbers_or_a_word() {
    assert_eq!(
        refused("max_sessions = 0\nmax_sessions_per_client = \"unlimted\""),
        ["3:16 invalid-value", "4:28 invalid-value"]
    );
    assert_eq!(
        refused("max_sessions = -3\nmax_sessions_per_client = \"100\"\nnew_sessions = \"1/s\"\nburst = 0"),
        ["3:16 invalid-value", "4:28 invalid-value", "6:9 invalid-value"]
    );
    assert_eq!(
        refused(
            "max_sessions = 4294967296\nmax_sessions_per_client = 1.5\nnew_sessions = \"1/s\"\nburst = 1000001"
        ),
        ["3:16 invalid-value", "4:27 wrong-type", "6:9 invalid-value"]
    );
    assert_eq!(policy_with("max_sessions = 0x10").caps.sessions, at_most(16));
    assert_eq!(refused("max_sessions = 999999999999999999999999999999999999999999\nburst = \"9\"").len(), 2);
}

#[test]
fn amounts_of_another_form_are_refused_at_their_place() {
    assert_eq!(
        refused(
            "new_sessions = \"20\"\nnew_sessions_per_client = 20\nbandwidth_per_session = \"10Mbit/s\"\nrefuse = \"rst\"\nburst = 3"
        ),
        ["3:17 invalid-value", "4:27 wrong-type", "5:26 invalid-value", "6:11 invalid-value"],
        "the burst has a rate, if one that cannot be read"
    );
}

#[test]
fn entries_are_refused_one_by_one() {
    assert_eq!(
        refused("allow = [\"10.0.0.0/8\", \"home\", \"@ofice\", \"@\", 7]\ndeny = true\n"),
        ["3:25 invalid-entry", "3:33 unknown-list", "3:43 unknown-list", "3:47 wrong-type", "4:8 wrong-type"]
    );
    assert_eq!(
        problems(
            "[defaults]\ndeny = \"@x\"\n[[mapping]]\npublish = \"1:9\"\n[[mapping]]\npublish = \"2:9\"\n"
        ),
        ["2:9 unknown-list"],
        "what the defaults say is said once"
    );
}

#[test]
fn a_policy_that_admits_no_client_is_refused() {
    assert_eq!(refused("allow = []\nallow_countries = []"), ["3:9 empty", "4:1 missing-key", "4:19 empty"]);
    assert_eq!(policy_with("deny = []").access.deny.nets.len(), 0);
}

#[test]
fn many_entries_belong_in_a_list() {
    let many = |n: usize| format!("deny = [{}]", "\"192.0.2.1\",".repeat(n));
    assert_eq!(policy_with(&many(1000)).access.deny.nets.len(), 1000);
    assert_eq!(refused(&many(1001)), ["3:1 too-many"]);
}

#[test]
fn a_burst_needs_its_rate() {
    assert_eq!(
        refused("burst = 5\nburst_per_client = 5\nnew_sessions_per_client = \"unlimited\""),
        ["3:9 missing-key", "4:20 missing-key"]
    );
    let inherited =
        policy_of("[defaults]\nnew_sessions = \"5/s\"\n[[mapping]]\npublish = \"1:9\"\nburst = 7\n");
    assert_eq!(inherited.rates.new_sessions, rate(5, 1, 7));
}

#[test]
fn a_burst_of_the_defaults_waits_for_a_mapping_with_its_rate() {
    let defaults = "[defaults]\nburst = 5\nburst_per_client = 3\n";
    let policy = policy_of(&format!(
        "{defaults}[[mapping]]\npublish = \"1:9\"\nnew_sessions = \"10/s\"\nnew_sessions_per_client = \"2/s\"\n\
         [[mapping]]\npublish = \"2:9\"\n"
    ));
    assert_eq!(policy.rates.new_sessions, rate(10, 1, 5));
    assert_eq!(policy.rates.new_sessions_per_client, rate(2, 1, 3));
    let rates = "new_sessions = \"10/s\"\ndatagrams_per_client = \"90/s\"\nenabled = false\n";
    let sleeping =
        format!("{defaults}[[mapping]]\npublish = \"1:9/udp\"\n{rates}[[mapping]]\npublish = \"2:9\"\n");
    assert_eq!(warnings(&sleeping), [""; 0]);
    assert_eq!(
        warnings(&format!(
            "{defaults}[[mapping]]\npublish = \"1:9\"\nnew_sessions = \"unlimited\"\nnew_sessions_per_client = \"1/s\"\n"
        )),
        ["2:9 no-effect"]
    );
    assert_eq!(warnings(&format!("publish = \"1:9\"\n{defaults}")), ["3:9 no-effect", "4:20 no-effect"]);
}

#[test]
fn countries_are_two_letters_in_one_list_and_need_a_database() {
    assert_eq!(
        refused("allow_countries = [\"de\", \"Germany\", 49]\ndeny_countries = [\"FR\", \"DE\"]"),
        [
            "3:1 missing-key",
            "3:27 invalid-entry",
            "3:37 wrong-type",
            "4:1 missing-key",
            "4:26 conflicting-keys"
        ]
    );
    let found = problems(
        "[defaults]\nallow_countries = \"DE\"\n[geoip]\ndatabase = \"gone.mmdb\"\n[[mapping]]\npublish = \"1:9\"\ndeny_countries = \"DE\"\n",
    );
    assert_eq!(found, ["4:13 unreadable-file", "7:19 conflicting-keys"]);
}

#[test]
fn a_key_of_the_other_protocol_is_a_warning_at_its_place() {
    let warned = warnings(
        "[defaults]\nrefuse = \"drop\"\ndatagrams_per_client = \"9/s\"\n[[mapping]]\npublish = \"1:9\"\ndatagrams_per_client = \"5/s\"\n\
         [[mapping]]\npublish = \"2:9/udp\"\nrefuse = \"reset\"\n[[mapping]]\npublish = \"3:9/tcp+udp\"\nrefuse = \"reset\"\ndatagrams_per_client = \"5/s\"\n",
    );
    assert_eq!(warned, ["6:25 no-effect", "9:11 no-effect"]);
}

#[test]
fn a_service_for_few_is_no_worry_where_few_may_enter() {
    let rdp = |keys: &str| warnings(&format!("[[mapping]]\npublish = \"3389:10.0.0.7:3389\"\n{keys}"));
    let worry = ["2:12 exposed-service"];
    assert_eq!(rdp(""), worry);
    assert_eq!(rdp("deny = \"192.0.2.0/24\"\nnew_sessions_per_client = \"3/min\"\n"), worry);
    assert_eq!(rdp("allow = [\"0.0.0.0/0\"]\n"), worry);
    assert_eq!(rdp("allow = [\"192.0.2.0/24\"]\n"), [""; 0]);
    assert_eq!(rdp("allow = \"@home\"\n[lists]\nhome = \"192.168.0.0/16\"\n"), [""; 0]);
    let knocked = rdp("knock = true\n[knock]\nsequence = [\"7100\", \"6200/udp\", \"8300\"]\n");
    assert!(!knocked.iter().any(|warning| warning.ends_with("exposed-service")), "{knocked:?}");
}
