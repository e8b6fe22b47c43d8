//! What `check` says of several targets, names on one port, and what starts a target.

use crate::harness::check;

/// A mapping on a port of this machine alone, of which nothing else is said.
fn mapping(more: &str) -> String {
    format!("[[mapping]]\nlisten = \"127.0.0.1:8443\"\n{more}\n")
}

#[test]
fn keys_that_cannot_work_together_are_refused_with_what_would_be_right() {
    const TARGETS: &str = "targets = [\"10.0.0.1:80\"]\n";
    const HOSTS: &str = "hosts = { \"a.example.org\" = \"10.0.0.1:443\" }\n";
    for (more, code, cure) in [
        (HOSTS.to_owned(), "missing-key", "match = \"tls-sni\""),
        (format!("match = \"tls-sni\"\nprotocol = \"udp\"\n{HOSTS}"), "conflicting-keys", "protocol = \"tcp\""),
        (format!("match = \"tls-sni\"\nprotocol = \"tcp+udp\"\n{HOSTS}"), "missing-key", "add `targets`"),
        (format!("{TARGETS}transparent = true\nsend_proxy = \"v1\"\n"), "conflicting-keys", "leave one of them out"),
        (format!("{TARGETS}transparent = true\nsource = \"127.0.0.1\"\n"), "conflicting-keys", "leave one of them out"),
        (format!("{TARGETS}protocol = \"udp\"\nhealth = {{}}\n"), "missing-key", "say what it sends"),
        (format!("{TARGETS}protocol = \"udp\"\nsend_proxy = \"v1\"\n"), "conflicting-keys", "send_proxy = \"v2\""),
        (format!("{TARGETS}health = {{ interval = \"1s\", timeout = \"2s\" }}\n"), "conflicting-keys", "shorter"),
        (format!("{TARGETS}on_connect_failure = {{}}\n"), "missing-key", "match = \"minecraft\""),
        (format!("{TARGETS}accept_proxy = \"@proxies\"\n"), "unsupported", "addresses of the proxies"),
        (format!("{TARGETS}wake = {{ docker = \"a\", mac = \"a8:a1:59:00:00:01\" }}\n"), "conflicting-keys", "leave the other"),
        (
            "match = \"tls-sni\"\nhosts = { \"*.A.org\" = \"10.0.0.1:443\", \"*.a.org.\" = \"10.0.0.2:443\" }\n".to_owned(),
            "duplicate-entry", "leave one out",
        ),
        (
            "match = \"tls-sni\"\nhosts = { \"https://a.org/\" = \"10.0.0.1:443\" }\n".to_owned(),
            "invalid-name", "write \\\"a.org\\\"",
        ),
        (
            "match = \"tls-sni\"\nhosts = { \"bücher.example\" = \"10.0.0.1:443\" }\n".to_owned(),
            "invalid-name", "xn--bcher-kva.example",
        ),
    ] {
        let ran = check(&mapping(&more), &["--json"]).exits(78);
        let report: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
        let problems = report["problems"].as_array().expect("a list");
        assert_eq!(problems.len(), 1, "{more}: {report}");
        assert_eq!(problems[0]["code"], code, "{more}: {report}");
        assert!(problems[0]["line"].as_u64() > Some(2), "{more}: {report}");
        let help = problems[0]["help"].as_str().unwrap_or_default();
        assert!(help.contains(&cure.replace('\\', "")), "{more}: {help}");
    }
}

#[test]
fn what_has_no_effect_is_a_warning_and_strict_refuses_it() {
    for more in [
        "targets = [{ address = \"10.0.0.1:80\", backup = true }]\n",
        "targets = [\"10.0.0.2:80\", { address = \"10.0.0.1:80\", weight = 2 }]\nbalance = \"first\"\n",
        "targets = [\"10.0.0.1:80\"]\nslow_start = \"30s\"\n",
        "targets = [\"10.0.0.1:80\"]\nsend_proxy = \"v2-each\"\n",
        "targets = [\"10.0.0.1:80\"]\nmatch = \"tls-sni\"\n",
        "targets = [\"10.0.0.1:80\"]\naccept_proxy = [\"0.0.0.0/0\"]\n",
    ] {
        check(&mapping(more), &[]).exits(0).says("warning: ");
        check(&mapping(more), &["--strict"]).exits(78);
    }
    let good = "targets = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\nslow_start = \"30s\"\non_down = \"close\"\nhealth = {}\n\
                send_proxy = \"v2\"\naccept_proxy = [\"10.0.0.9\"]\nmatch = \"auto\"\nhosts = { \"*.a.org\" = \"10.0.0.3:80\" }\n";
    check(&mapping(good), &["--strict"]).exits(0).never_says("warning");
}
