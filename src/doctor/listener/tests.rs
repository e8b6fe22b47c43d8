use super::*;
use crate::{doctor::Verdict, mapping::Protocol};

fn subject(listen: &str, state: Option<ListenerState>) -> Subject {
    let mut subject = Subject::example("web", &[(Protocol::Tcp, listen)], &[]);
    subject.listeners[0].state = state;
    subject
}

/// A state, a holder and a daemon; and what they give.
type Case<'a> = (Option<ListenerState>, Option<&'a str>, &'a Daemon, Verdict, &'a str, &'a str);

fn seen(holder: Option<&str>) -> [Seen; 1] {
    [Seen { holder: holder.map(str::to_owned), is_here: true, own: vec!["10.0.0.2".to_owned()] }]
}

#[test]
fn each_state_of_a_listener_has_its_verdict_evidence_and_cure() {
    use ListenerState::{Failed, Listening, Waiting};
    let hidden = Daemon::Hidden("permission denied".to_owned());
    let cases: [Case<'_>; 9] = [
        (Some(Listening), None, &Daemon::Runs, Verdict::Ok, "is open", ""),
        (
            Some(Waiting),
            Some("nginx (pid 7)"),
            &Daemon::Runs,
            Verdict::Fail,
            "nginx (pid 7) has the port",
            "kill 7",
        ),
        (Some(Failed), None, &Daemon::Runs, Verdict::Fail, "does not listen", "portway status"),
        (None, None, &Daemon::Absent, Verdict::Fail, "portway does not run", "systemctl start portway"),
        (None, Some("nginx (pid 7)"), &Daemon::Absent, Verdict::Fail, "nginx (pid 7) has the port", "kill 7"),
        (None, Some("portway (pid 8)"), &Daemon::Absent, Verdict::Ok, "is open", ""),
        (None, Some("a program of user 3"), &hidden, Verdict::Unknown, "permission denied", "as root"),
        (None, None, &hidden, Verdict::Fail, "nothing listens", "portway status"),
        (None, None, &Daemon::Runs, Verdict::Fail, "another configuration", "portway reload"),
    ];
    for (state, holder, daemon, verdict, evidence, cure) in cases {
        let judged = judge(&subject("[::]:80", state), daemon, &seen(holder));
        assert_eq!(judged.verdict, verdict, "{judged:?}");
        assert!(judged.evidence.contains(evidence) && judged.cure.contains(cure), "{judged:?}");
    }
}

#[test]
fn an_address_that_others_cannot_reach_or_that_is_not_here_fails() {
    let listening = Some(ListenerState::Listening);
    for local in ["127.0.0.1:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
        let judged = judge(&subject(local, listening), &Daemon::Runs, &seen(None));
        assert!(
            judged.verdict == Verdict::Fail && judged.evidence.contains("this machine alone"),
            "{judged:?}"
        );
    }
    let away = [Seen { is_here: false, ..seen(None)[0].clone() }];
    let judged = judge(&subject("10.0.0.9:80", Some(ListenerState::Waiting)), &Daemon::Runs, &away);
    assert!(judged.verdict == Verdict::Fail && judged.evidence.ends_with("it has 10.0.0.2"), "{judged:?}");
}

#[test]
fn a_closed_mapping_says_how_it_opens() {
    let mut web = subject("[::]:80", Some(ListenerState::Closed));
    web.paused = true;
    assert_eq!(judge(&web, &Daemon::Runs, &seen(None)).cure, "portway resume web");
    web.enabled = false;
    assert!(judge(&web, &Daemon::Runs, &seen(None)).cure.contains("enabled = false"));
}
