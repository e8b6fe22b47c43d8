use std::net::IpAddr;

use super::*;
use crate::{gateway::Way, mapping::Protocol, status::view};

fn survey(external: Option<&str>) -> Survey {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let external = external.map(ip);
    Survey {
        way: Way { gateway: ip("192.168.1.1"), own: ip("192.168.1.2") },
        router: Err(String::new()),
        external,
        verdict: Some(External::of(external)),
        seen: vec![],
    }
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
        let judged = judge(&subject(), Some(&survey(external)), Beyond::Unknown, Verdict::Ok);
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
        let judged = judge(&subject(), Some(&survey(None)), beyond, Verdict::Unknown);
        assert_eq!(judged.verdict, Verdict::Fail, "{judged:?}");
        assert!(judged.evidence.contains(evidence) && judged.cure.contains(cure), "{judged:?}");
    }
}

#[test]
fn a_public_address_is_no_proof() {
    for survey in [Some(survey(Some("11.22.33.1"))), None] {
        assert_eq!(
            judge(&subject(), survey.as_ref(), Beyond::Unknown, Verdict::Ok).verdict,
            Verdict::Unknown
        );
    }
    let judged = judge(&subject(), Some(&survey(Some("11.22.33.1"))), Beyond::Unknown, Verdict::Ok);
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
    let judged = judge(&web, Some(&at), Beyond::Unknown, Verdict::Ok);
    assert!(judged.verdict == Verdict::Fail && judged.evidence.contains("IPv6 client in: 606"), "{judged:?}");
    assert_eq!(
        judge(&web, Some(&at), Beyond::Unknown, Verdict::Fail).verdict,
        Verdict::Unknown,
        "the router's fault"
    );
    web.openings[1] = opening("open", Some("[2001:db8::2]:80"));
    assert_eq!(judge(&web, Some(&at), Beyond::Unknown, Verdict::Ok).verdict, Verdict::Unknown);
}
