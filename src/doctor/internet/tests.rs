use std::net::IpAddr;

use super::*;
use crate::{gateway, mapping::Protocol, probe::Told, status::view};

fn survey(external: Option<&str>) -> Survey {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let external = external.map(ip);
    Survey {
        way: gateway::Way { gateway: ip("192.168.1.1"), own: ip("192.168.1.2") },
        router: Err(String::new()),
        external,
        verdict: Some(External::of(external)),
        seen: vec![],
    }
}

/// As it is without a try from outside.
fn inside(subject: &Subject, survey: Option<&Survey>, router: Verdict) -> Judged {
    judge(subject, survey, Before { beyond: Beyond::Unknown, router, failing: None }, &[])
}

fn seen(way: Way, address: &str) -> Seen {
    let told = Told { way, evidence: "it was tried".into(), cure: "mend it".into() };
    Seen { told, address: address.parse().ok() }
}

fn subject() -> Subject {
    Subject::example("web", &[(Protocol::Tcp, "[::]:80")], &[])
}

#[test]
fn an_address_that_the_internet_does_not_reach_fails_with_advice() {
    for (external, evidence) in [
        (Some("192.168.178.20"), "a second NAT"),
        (Some("100.64.3.4"), "CGNAT"),
        (Some("0.0.0.0"), "is not an address of the internet"),
        (None, "it has none"),
    ] {
        let judged = inside(&subject(), Some(&survey(external)), Verdict::Ok);
        assert_eq!(judged.verdict, Verdict::Fail, "{judged:?}");
        assert!(judged.evidence.contains(evidence) && !judged.cure.is_empty(), "{judged:?}");
    }
}

#[test]
fn what_is_behind_a_router_without_an_address_names_the_reason() {
    for (beyond, evidence, cure) in [
        (Beyond::Router(Ipv4Addr::new(10, 0, 0, 1)), "10.0.0.1, a second NAT", "bridge mode"),
        (
            Beyond::Router(Ipv4Addr::new(100, 64, 3, 1)),
            "100.64.3.1, in the provider's NAT (CGNAT)",
            "provider",
        ),
        (Beyond::Router(Ipv4Addr::new(11, 22, 33, 9)), "it has none", "look whether the router is online"),
        (Beyond::Nothing, "no way to the internet", "its login"),
        (Beyond::Unknown, "it has none", "look whether the router is online"),
    ] {
        let judged = judge(
            &subject(),
            Some(&survey(None)),
            Before { beyond, router: Verdict::Unknown, failing: None },
            &[],
        );
        assert_eq!(judged.verdict, Verdict::Fail, "{judged:?}");
        assert!(judged.evidence.contains(evidence) && judged.cure.contains(cure), "{judged:?}");
    }
}

#[test]
fn a_public_address_is_no_proof() {
    for survey in [Some(survey(Some("11.22.33.1"))), None] {
        assert_eq!(inside(&subject(), survey.as_ref(), Verdict::Ok).verdict, Verdict::Unknown);
    }
    let judged = inside(&subject(), Some(&survey(Some("11.22.33.1"))), Verdict::Ok);
    assert!(judged.cure.contains("not from your own Wi-Fi"), "{judged:?}");
}

#[test]
fn a_pinhole_that_the_router_refuses_fails_where_the_rest_is_open() {
    let mut web = subject();
    web.terms.insert("router".to_owned(), serde_json::json!({ "ipv6": true }));
    let opening = |state: &str, external: Option<&str>| view::Opening {
        state: state.to_owned(),
        external: external.map(str::to_owned),
        error: Some("606".to_owned()),
        ..view::Opening::default()
    };
    web.openings = vec![opening("open", Some("11.22.33.1:80")), opening("denied", None)];
    let at = survey(Some("11.22.33.1"));
    let judged = inside(&web, Some(&at), Verdict::Ok);
    assert!(judged.verdict == Verdict::Fail && judged.evidence.contains("IPv6 client in: 606"), "{judged:?}");
    assert_eq!(inside(&web, Some(&at), Verdict::Fail).verdict, Verdict::Unknown, "the router's fault");
    web.openings[1] = opening("open", Some("[2001:db8::2]:80"));
    assert_eq!(inside(&web, Some(&at), Verdict::Ok).verdict, Verdict::Unknown);
}

#[test]
fn a_try_that_came_through_is_the_proof() {
    let at = survey(Some("11.22.33.1"));
    let before = Before { beyond: Beyond::Unknown, router: Verdict::Unknown, failing: Some(Hop::Firewall) };
    let judged = judge(&subject(), Some(&at), before, &[seen(Way::Open, "11.22.33.1")]);
    assert_eq!((judged.verdict, &*judged.evidence, &*judged.cure), (Verdict::Ok, "it was tried", ""));
    let both = [seen(Way::Open, "11.22.33.1"), seen(Way::Unknown, "")];
    assert_eq!(judge(&subject(), Some(&at), before, &both).verdict, Verdict::Unknown, "one of two");
}

#[test]
fn a_try_that_failed_is_explained_by_an_earlier_hop_or_by_the_address() {
    let closed = [seen(Way::Closed, "11.22.33.1")];
    let of = |external: &str, failing, tries: &[Seen]| {
        let before = Before { beyond: Beyond::Unknown, router: Verdict::Ok, failing };
        judge(&subject(), Some(&survey(Some(external))), before, tries)
    };
    let alone = of("11.22.33.1", None, &closed);
    assert_eq!((alone.verdict, &*alone.cure), (Verdict::Fail, "mend it"));
    let behind = of("11.22.33.1", Some(Hop::Firewall), &closed);
    assert_eq!((behind.verdict, &*behind.evidence), (Verdict::Unknown, "it was tried: see firewall"));
    let shared = of("100.64.1.1", None, &closed);
    assert!(shared.verdict == Verdict::Fail && shared.evidence.contains("CGNAT"), "{shared:?}");
    let other = of("11.22.33.2", None, &closed);
    assert!(other.verdict == Verdict::Fail && other.evidence.contains("is 11.22.33.2"), "{other:?}");
    assert!(other.cure.contains("VPN"), "{other:?}");
    assert_eq!(of("11.22.33.1", None, &[seen(Way::Unknown, "")]).verdict, Verdict::Unknown);
    let mut knocked = subject();
    knocked.terms.insert("knock".to_owned(), true.into());
    let before = Before { beyond: Beyond::Unknown, router: Verdict::Ok, failing: None };
    let judged = judge(&knocked, Some(&survey(Some("11.22.33.1"))), before, &closed);
    assert!(judged.verdict == Verdict::Unknown && judged.evidence.contains("knocked"), "{judged:?}");
}
