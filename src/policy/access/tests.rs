use std::net::Ipv4Addr;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::fixture::mmdb;

fn spec(allow: &str, deny: &str, allow_countries: &str, deny_countries: &str) -> AccessSpec {
    let entries = |text: &str| Entries {
        nets: text
            .split_whitespace()
            .filter(|e| !e.starts_with('@'))
            .map(|e| entry::parse_net(e).unwrap())
            .collect(),
        lists: text
            .split_whitespace()
            .filter_map(|e| e.strip_prefix('@'))
            .map(|e| ListName(e.into()))
            .collect(),
    };
    let countries = |text: &str| text.split_whitespace().filter_map(Country::new).collect::<BTreeSet<_>>();
    AccessSpec {
        allow: (!allow.is_empty()).then(|| entries(allow)),
        deny: entries(deny),
        allow_countries: (!allow_countries.is_empty()).then(|| countries(allow_countries)),
        deny_countries: countries(deny_countries),
    }
}

/// A list of one name, for any user.
fn decide_with(access: &AccessSpec, list: &Arc<List>, client: &str) -> Result<(), Refusal> {
    let bytes = mmdb::database(&[("192.0.2.0/24", "DE"), ("198.51.100.0/24", "FR"), ("2001:db8::/32", "DE")]);
    let countries = Arc::new(Countries::from_bytes(bytes).expect("a database"));
    let client = client.parse().expect("an address");
    Access::new(access, |_| list.clone()).decide(client, || Some(countries))
}

fn decide(access: &AccessSpec, client: &str) -> Result<(), Refusal> {
    decide_with(access, &Arc::default(), client)
}

#[test]
fn the_most_specific_entry_wins_and_a_tie_is_a_refusal() {
    let access = spec("0.0.0.0/0 10.1.0.0/16 10.2.0.0/16", "10.0.0.0/8 10.1.1.0/24 10.2.0.0/16", "", "");
    assert_eq!(decide(&access, "192.0.2.1"), Ok(()));
    assert_eq!(decide(&access, "10.9.0.1"), Err(Refusal::Denied));
    assert_eq!(decide(&access, "10.1.0.1"), Ok(()));
    assert_eq!(decide(&access, "10.1.1.1"), Err(Refusal::Denied));
    assert_eq!(decide(&access, "10.2.0.1"), Err(Refusal::Denied));
    assert_eq!(decide(&access, "2001:db8::1"), Err(Refusal::Denied), "no `allow` entry has IPv6");
}

#[test]
fn an_ipv4_address_inside_an_ipv6_one_is_denied_with_it_but_not_let_in_by_it() {
    let translated = ["64:ff9b::192.0.2.7", "2002:c000:207::1", "2001:0:cb00:7101:8000:63bf:3fff:fdf8"];
    for client in translated {
        assert_eq!(decide(&spec("", "192.0.2.0/24", "", ""), client), Err(Refusal::Denied), "{client}");
        assert_eq!(decide(&spec("", "198.51.100.0/24", "", ""), client), Ok(()), "{client}");
        assert_eq!(decide(&spec("192.0.2.0/24", "", "", ""), client), Err(Refusal::Denied), "{client}");
        assert_eq!(decide(&spec("", "", "", "DE"), client), Err(Refusal::Country), "{client}");
    }
    let part = spec("64:ff9b::192.0.2.0/120", "192.0.0.0/16 192.0.2.9", "", "");
    assert_eq!(decide(&part, "64:ff9b::192.0.2.7"), Ok(()), "the more specific entry wins");
    assert_eq!(decide(&part, "64:ff9b::192.0.2.9"), Err(Refusal::Denied));
}

#[test]
fn without_an_entry_a_client_enters_unless_there_is_an_allow_list() {
    assert_eq!(decide(&spec("", "", "", ""), "192.0.2.1"), Ok(()));
    assert_eq!(decide(&spec("", "10.0.0.0/8", "", ""), "192.0.2.1"), Ok(()));
    assert_eq!(decide(&spec("10.0.0.0/8", "", "", ""), "192.0.2.1"), Err(Refusal::Denied));
    let none = AccessSpec { allow: Some(Entries::default()), ..AccessSpec::default() };
    assert_eq!(decide(&none, "192.0.2.1"), Err(Refusal::Denied));
}

#[test]
fn a_list_decides_like_entries_and_its_new_content_is_seen_at_once() {
    let list = Arc::new(List::from_pointee(IpSet::parse("10.1.0.0/16").unwrap()));
    let access = Access::new(&spec("@office", "10.0.0.0/8", "", ""), |_| list.clone());
    let decide = |client: &str| access.decide(client.parse().unwrap(), || None);
    assert_eq!(decide("10.1.0.1"), Ok(()));
    assert_eq!(decide("10.2.0.1"), Err(Refusal::Denied));
    list.store(Arc::new(IpSet::parse("10.2.0.0/16").unwrap()));
    assert_eq!(decide("10.1.0.1"), Err(Refusal::Denied));
    assert_eq!(decide("10.2.0.1"), Ok(()));
}

#[test]
fn countries_decide_where_no_entry_does() {
    let only = spec("", "", "DE", "");
    assert_eq!(decide(&only, "192.0.2.1"), Ok(()));
    assert_eq!(decide(&only, "2001:db8::1"), Ok(()));
    assert_eq!(decide(&only, "198.51.100.1"), Err(Refusal::Country));
    assert_eq!(decide(&only, "203.0.113.1"), Err(Refusal::Country), "its country is unknown");
    assert_eq!(decide(&only, "192.168.1.1"), Err(Refusal::Country), "a private address is nowhere");
    assert_eq!(decide(&only, "127.0.0.1"), Err(Refusal::Country));

    let all_but = spec("", "", "", "DE");
    assert_eq!(decide(&all_but, "192.0.2.1"), Err(Refusal::Country));
    assert_eq!(decide(&all_but, "198.51.100.1"), Ok(()));
    assert_eq!(decide(&all_but, "203.0.113.1"), Ok(()));

    assert_eq!(decide(&spec("", "", "DE", "DE"), "192.0.2.1"), Err(Refusal::Country));
}

#[test]
fn an_entry_is_more_specific_than_a_country() {
    let both = spec("198.51.100.7 192.168.0.0/16", "192.0.2.66", "DE", "FR");
    assert_eq!(decide(&both, "198.51.100.7"), Ok(()), "allowed, though in a denied country");
    assert_eq!(decide(&both, "198.51.100.8"), Err(Refusal::Country));
    assert_eq!(decide(&both, "192.168.1.1"), Ok(()));
    assert_eq!(decide(&both, "192.0.2.66"), Err(Refusal::Denied), "denied, though in an allowed country");
    assert_eq!(decide(&both, "192.0.2.65"), Ok(()), "either `allow` or `allow_countries` lets in");
    assert_eq!(decide(&both, "203.0.113.1"), Err(Refusal::Country));

    let allow_and_not = spec("198.51.0.0/16", "", "", "DE");
    assert_eq!(decide(&allow_and_not, "203.0.113.1"), Err(Refusal::Denied));
    assert_eq!(decide(&allow_and_not, "192.0.2.1"), Err(Refusal::Denied));
}

#[test]
fn without_a_database_no_country_is_known() {
    let client = "192.0.2.1".parse().unwrap();
    let access = |spec: &AccessSpec| Access::new(spec, |_| Arc::default());
    assert_eq!(access(&spec("", "", "DE", "")).decide(client, || None), Err(Refusal::Country));
    assert_eq!(access(&spec("", "", "", "DE")).decide(client, || None), Ok(()));
}

/// What the rules say, by a walk over all entries.
fn model(allow: Option<&[IpNet]>, deny: &[IpNet], client: IpAddr) -> Result<(), Refusal> {
    let longest =
        |nets: &[IpNet]| nets.iter().filter(|net| net.contains(&client)).map(IpNet::prefix_len).max();
    let (yes, no) = (allow.and_then(longest), longest(deny));
    let may_enter = match (yes, no) {
        (Some(yes), Some(no)) => yes > no,
        (Some(_), None) => true,
        (None, Some(_)) => false,
        (None, None) => allow.is_none(),
    };
    if may_enter { Ok(()) } else { Err(Refusal::Denied) }
}

proptest! {
    #[test]
    fn entries_and_lists_decide_as_a_walk_over_all_of_them_does(
        allow in proptest::option::of(nets()),
        deny in nets(),
        listed in 0_usize..20,
        clients in proptest::collection::vec(client(), 1..30),
    ) {
        // Some of the entries come by a list: that must make no difference.
        let (in_list, inline) = deny.split_at(listed.min(deny.len()));
        let list: Arc<List> = Arc::new(List::from_pointee(in_list.iter().copied().collect()));
        let access = AccessSpec {
            allow: allow.clone().map(|nets| Entries { nets: nets.into(), lists: Arc::default() }),
            deny: Entries { nets: inline.into(), lists: [ListName("list".into())].into() },
            ..AccessSpec::default()
        };
        let access = Access::new(&access, |_| list.clone());
        for client in clients {
            let expected = model(allow.as_deref(), &deny, client);
            prop_assert_eq!(access.decide(client, || None), expected, "{}", client);
        }
    }
}

/// Clients and networks of a small world, so that they meet.
fn client() -> impl Strategy<Value = IpAddr> {
    (0_u8..4, 0_u8..8).prop_map(|(net, host)| Ipv4Addr::new(10, 0, net, host).into())
}

fn nets() -> impl Strategy<Value = Vec<IpNet>> {
    proptest::collection::vec(
        (client(), 0_u8..=32).prop_map(|(ip, bits)| IpNet::new(ip, bits).unwrap().trunc()),
        0..20,
    )
}
