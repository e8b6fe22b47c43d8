use super::*;

fn subject(spec: &str) -> Subject {
    let (protocol, listen) = spec.split_once(' ').unwrap();
    let protocol = if protocol == "tcp" { Protocol::Tcp } else { Protocol::Udp };
    Subject::example("web", &[(protocol, listen)], &["10.0.0.5:443"])
}

fn seen(did: Did) -> Seen {
    Seen { target: "10.0.0.5:443".to_owned(), protocol: Protocol::Tcp, lookup: None, did }
}

#[test]
fn each_thing_that_a_target_does_has_its_verdict_evidence_and_cure() {
    let web = subject("tcp [::]:9080");
    let here: SocketAddr = "127.0.0.1:443".parse().unwrap();
    let loops = |of: &str| Did::Loops(here, of.to_owned());
    for (did, verdict, evidence, cure) in [
        (Did::NoAddress("no answer".into()), Verdict::Fail, "the name 10.0.0.5 has no address", "/etc/hosts"),
        (loops("web"), Verdict::Fail, "a listener of this mapping", "name the machine"),
        (loops("mail"), Verdict::Fail, "a listener of mail", "name the machine"),
        (Did::ComesBack(here), Verdict::Fail, "leads back to this mapping", "by its address inside"),
        (Did::Refused { other_works: true }, Verdict::Fail, "refuses TCP and takes UDP", "/udp"),
        (Did::Refused { other_works: false }, Verdict::Fail, "no program listens", "start the service"),
        (Did::Silent, Verdict::Fail, "does not answer at all", "let 443/tcp in at the firewall of 10.0.0.5"),
        (Did::Unreachable("no route".into()), Verdict::Fail, "no route", "switch on 10.0.0.5"),
        (Did::Connected { speaks: None }, Verdict::Ok, "takes connections", ""),
        (Did::Open, Verdict::Ok, "does not refuse UDP", ""),
        (Did::Untold, Verdict::Unknown, "says nothing", ""),
        (Did::Untried, Verdict::Unknown, "cannot be tried", ""),
    ] {
        let judged = judge(&web, &[seen(did.clone())], false);
        assert_eq!(judged.verdict, verdict, "{did:?}");
        assert!(judged.evidence.contains(evidence) && judged.cure.contains(cure), "{judged:?}");
        assert_eq!(judged.cure.is_empty(), verdict != Verdict::Fail, "{judged:?}");
    }
}

#[test]
fn a_target_that_speaks_tls_is_wrong_only_where_clients_speak_http() {
    let tls = || [seen(Did::Connected { speaks: Some(Speaks::Tls) })];
    let http = || [seen(Did::Connected { speaks: Some(Speaks::Http) })];
    let verdict = |listen: &str, seen: [Seen; 1]| judge(&subject(listen), &seen, false).verdict;
    assert_eq!(verdict("tcp [::]:80", tls()), Verdict::Fail);
    assert_eq!(verdict("tcp [::]:443", http()), Verdict::Fail);
    assert_eq!(verdict("tcp [::]:443", tls()), Verdict::Ok);
    assert_eq!(verdict("tcp [::]:80", http()), Verdict::Ok);
    assert_eq!(verdict("tcp [::]:9080", tls()), Verdict::Ok);
    let mut named = subject("tcp [::]:9080");
    named.terms.insert("match".to_owned(), "http-host".into());
    assert_eq!(judge(&named, &tls(), false).verdict, Verdict::Fail);
}

#[test]
fn one_target_that_works_is_enough_unless_names_lead_to_them() {
    let mut web = subject("tcp [::]:9080");
    let both = [seen(Did::Connected { speaks: None }), seen(Did::Silent)];
    let judged = judge(&web, &both, false);
    assert_eq!(judged.verdict, Verdict::Ok);
    assert!(judged.evidence.starts_with("1 of 2 targets answer; 10.0.0.5:443 does not"), "{judged:?}");
    web.terms.insert("hosts".to_owned(), serde_json::json!({ "a.example": "10.0.0.5:443" }));
    assert_eq!(judge(&web, &both, false).verdict, Verdict::Fail);
    assert_eq!(
        judge(&subject("tcp [::]:9080"), &[seen(Did::Silent), seen(Did::Silent)], false).verdict,
        Verdict::Fail
    );
}

#[test]
fn a_target_that_a_client_starts_may_be_asleep_and_a_slow_name_is_told() {
    let mut web = subject("tcp [::]:9080");
    web.terms.insert("wake".to_owned(), serde_json::json!({ "unit": "a.service" }));
    assert_eq!(judge(&web, &[seen(Did::Refused { other_works: false })], false).verdict, Verdict::Unknown);
    let slow = Seen { lookup: Some(Duration::from_millis(2100)), ..seen(Did::Connected { speaks: None }) };
    let judged = judge(&subject("tcp [::]:9080"), &[slow], false);
    assert_eq!(judged.verdict, Verdict::Ok);
    assert!(judged.evidence.contains("took 2.1 s") && !judged.cure.is_empty(), "{judged:?}");
}

#[test]
fn a_broken_network_explains_a_target_that_does_not_answer() {
    for did in [Did::NoAddress(String::new()), Did::Silent, Did::Unreachable(String::new())] {
        let web = subject("tcp [::]:9080");
        assert_eq!(judge(&web, &[seen(did)], true).verdict, Verdict::Unknown);
    }
    let web = subject("tcp [::]:9080");
    assert_eq!(judge(&web, &[seen(Did::Refused { other_works: false })], true).verdict, Verdict::Fail);
}
