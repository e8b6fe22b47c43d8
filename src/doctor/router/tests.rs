use super::*;
use crate::{
    doctor::Verdict,
    gateway::{RouterProtocol, Wanted, Way},
    mapping::Protocol,
};

fn subject(state: Option<&str>) -> Subject {
    let mut subject = Subject::example("web", &[(Protocol::Tcp, "[::]:80")], &[]);
    subject.terms.insert("router".to_owned(), true.into());
    subject.openings.extend(state.map(|state| view::Opening {
        protocol: Some(Protocol::Tcp),
        listen: "[::]:80".to_owned(),
        state: state.to_owned(),
        external_port: 80,
        error: Some("718".to_owned()),
        ..view::Opening::default()
    }));
    subject
}

fn survey(seen: Seen) -> Survey {
    let port = 80.try_into().unwrap();
    let gateway = "192.168.1.1".parse().unwrap();
    let found = Found { via: RouterProtocol::Upnp, addr: gateway, model: String::new(), id: String::new() };
    Survey {
        way: Way { gateway, own: "192.168.1.2".parse().unwrap() },
        router: Ok(found),
        external: "11.22.33.1".parse().ok(),
        verdict: Some(External::Public),
        seen: vec![(Wanted { protocol: Protocol::Tcp, port, external_port: port }, seen)],
    }
}

fn holder(addr: &str, text: &str) -> Seen {
    Seen::Taken(Holder { addr: addr.parse().unwrap(), text: text.to_owned() })
}

fn unknown() -> Seen {
    Seen::Unknown("it does not show its openings".to_owned())
}

#[test]
fn each_answer_of_a_router_has_its_verdict_evidence_and_cure() {
    let ours = "portway:web@nas";
    let cases: [(Seen, Option<&str>, Verdict, &str, &str); 10] = [
        (holder("192.168.1.2:80", ours), Some("open"), Verdict::Ok, "leads 80/tcp to 192.168.1.2:80", ""),
        (holder("192.168.1.2:81", "ssh"), Some("conflict"), Verdict::Fail, "another port", "port 80"),
        (
            holder("192.168.1.9:80", ours),
            Some("conflict"),
            Verdict::Fail,
            "an old address",
            "restart the router",
        ),
        (
            holder("192.168.1.9:80", "tv"),
            Some("conflict"),
            Verdict::Fail,
            "192.168.1.9:80 (tv)",
            "external_port",
        ),
        (Seen::Free, Some("denied"), Verdict::Fail, "refuses to open 80/tcp: 718", "by hand"),
        (Seen::Free, Some("failed"), Verdict::Fail, "does not open 80/tcp: 718", "external_port"),
        (Seen::Free, Some("open"), Verdict::Fail, "has lost the opening", "restart portway"),
        (unknown(), Some("open"), Verdict::Ok, "has opened 80/tcp", ""),
        (unknown(), Some("conflict"), Verdict::Fail, "718", "external_port"),
        (unknown(), Some("searching"), Verdict::Unknown, "cannot be seen", ""),
    ];
    for (seen, state, verdict, evidence, cure) in cases {
        let judged = judge(&subject(state), Some(&survey(seen)), true, &Daemon::Runs);
        assert_eq!(judged.verdict, verdict, "{judged:?}");
        let cure = cure.replace("by hand", "own pages");
        assert!(judged.evidence.contains(evidence) && judged.cure.contains(&cure), "{judged:?}");
    }
}

#[test]
fn what_another_hop_explains_is_unknown() {
    let verdict = |survey: Option<&Survey>, listens, daemon: &Daemon| {
        judge(&subject(None), survey, listens, daemon).verdict
    };
    let free = survey(Seen::Free);
    assert_eq!(verdict(None, true, &Daemon::Runs), Verdict::Unknown, "no way to it");
    assert_eq!(verdict(Some(&free), false, &Daemon::Runs), Verdict::Unknown, "no listener");
    assert_eq!(verdict(Some(&free), false, &Daemon::Absent), Verdict::Unknown, "no daemon");
    let private = Survey { verdict: Some(External::CarrierNat), ..free };
    assert_eq!(verdict(Some(&private), true, &Daemon::Runs), Verdict::Unknown, "no public address");
}

#[test]
fn a_router_that_is_missing_fails_only_where_the_mapping_needs_it() {
    let gone = Survey { router: Err("no answer".to_owned()), ..survey(Seen::Free) };
    let said = judge(&subject(None), Some(&gone), true, &Daemon::Runs);
    assert!(said.verdict == Verdict::Fail && said.cure.starts_with("switch on UPnP"), "{said:?}");
    let mut off = subject(None);
    off.terms.clear();
    for survey in [gone, survey(Seen::Free)] {
        let said = judge(&off, Some(&survey), true, &Daemon::Runs);
        assert!(
            said.verdict == Verdict::Unknown && said.cure.contains("tcp port 80 to 192.168.1.2 port 80"),
            "{said:?}"
        );
    }
    let server = Survey {
        way: Way { gateway: "11.22.33.254".parse().unwrap(), own: "11.22.33.4".parse().unwrap() },
        ..survey(Seen::Free)
    };
    assert_eq!(judge(&off, Some(&server), true, &Daemon::Runs).verdict, Verdict::Ok);
}
