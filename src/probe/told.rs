//! What the answer of another node means, in words for people.
//!
//! Pure.

use super::{Outcome, Question, Tried, node::AskError};
use crate::status::view::Recorded;

/// What a try proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Way {
    /// Clients of the internet come in.
    #[serde(rename = "ok")]
    Open,
    /// They do not.
    #[serde(rename = "fail")]
    Closed,
    /// The other node could not tell.
    Unknown,
}

/// A try in words.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Told {
    /// What it proves.
    #[serde(rename = "verdict")]
    pub(crate) way: Way,
    /// What shows that.
    pub(crate) evidence: String,
    /// What helps; empty where nothing has to be done.
    pub(crate) cure: String,
}

/// Says what an answer means. `arrived` says whether a client of this mapping was seen meanwhile,
/// where that is known.
pub(crate) fn told(question: &Question, answer: &Result<Tried, AskError>, arrived: Option<bool>) -> Told {
    let tried = match answer {
        Ok(tried) => tried,
        Err(error) => {
            return Told { way: Way::Unknown, evidence: error.to_string(), cure: error.help().to_owned() };
        }
    };
    let host =
        if tried.address.contains(':') { format!("[{}]", tried.address) } else { tried.address.clone() };
    let what = format!("{host}:{}/{}", question.port, question.protocol);
    let closed = |evidence: String, cure: &str| Told { way: Way::Closed, evidence, cure: cure.to_owned() };
    let took = tried.took_ms;
    match tried.outcome {
        Outcome::Connected if arrived == Some(false) => closed(
            format!("{what} takes connections from outside, and none of them came in here"),
            "another device has that port: correct the forward on the router's own pages, or take another \
             port there (router = { external_port = 30000 })",
        ),
        Outcome::Connected => {
            let then = match (tried.then.as_deref(), tried.bytes, tried.kind.as_deref()) {
                (Some("bytes"), Some(bytes), Some(kind)) => format!(" and sent {bytes} bytes ({kind})"),
                (Some("closed" | "reset"), ..) => " and was closed at once".to_owned(),
                _ => String::new(),
            };
            open(format!("{what} connected from outside in {took} ms{then}"))
        }
        Outcome::Answered => open(format!("{what} answered from outside in {took} ms")),
        Outcome::Refused => closed(
            format!("{what} is refused from outside: the way ends at a device that has no such port open"),
            "let the router lead that port to this machine: `router = true`, or a forward on its own pages",
        ),
        Outcome::Timeout => closed(
            format!("{what} does not answer from outside"),
            "something on the way drops it: look at the router's own pages for its firewall and the forward, \
             and ask the provider whether it blocks the port",
        ),
        Outcome::Unreachable => {
            let why = tried.error.as_deref().unwrap_or("it does not say why");
            Told {
                way: Way::Unknown,
                evidence: format!("the other node has no way to {what}: {why}"),
                cure: "look at the network of the other node, or ask another one".to_owned(),
            }
        }
    }
}

fn open(evidence: String) -> Told {
    Told { way: Way::Open, evidence, cure: String::new() }
}

/// Whether a client has come to a mapping between two looks at its recorder.
pub(crate) fn arrived(before: &[Recorded], after: &[Recorded]) -> bool {
    after.iter().any(|event| event.kind.starts_with("session-") && !before.contains(event))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::Protocol;

    fn question(protocol: Protocol) -> Question {
        Question { protocol, port: 9080.try_into().unwrap(), address: None, nonce: None }
    }

    fn tried(outcome: Outcome) -> Tried {
        Tried { address: "11.22.33.1".into(), outcome, took_ms: 12, ..Tried::default() }
    }

    fn said(tried: Tried, arrived: Option<bool>) -> Told {
        told(&question(Protocol::Tcp), &Ok(tried), arrived)
    }

    #[test]
    fn what_came_through_is_a_proof() {
        let ssh = Tried {
            then: Some("bytes".into()),
            bytes: Some(21),
            kind: Some("ssh".into()),
            ..tried(Outcome::Connected)
        };
        let told = said(ssh, Some(true));
        assert_eq!(told.way, Way::Open);
        assert_eq!(
            told.evidence,
            "11.22.33.1:9080/tcp connected from outside in 12 ms and sent 21 bytes (ssh)"
        );
        let silent = Tried { then: Some("silent".into()), ..tried(Outcome::Connected) };
        assert_eq!(said(silent, None).evidence, "11.22.33.1:9080/tcp connected from outside in 12 ms");
        let ipv6 = Tried { address: "2606:4700::1".into(), ..tried(Outcome::Answered) };
        let told = super::told(&question(Protocol::Udp), &Ok(ipv6), None);
        assert_eq!(
            (told.way, &*told.evidence),
            (Way::Open, "[2606:4700::1]:9080/udp answered from outside in 12 ms")
        );
    }

    #[test]
    fn a_connection_that_did_not_come_in_here_is_one_of_another_device() {
        let told = said(tried(Outcome::Connected), Some(false));
        assert!(told.way == Way::Closed && told.cure.contains("another device"), "{told:?}");
    }

    #[test]
    fn what_is_closed_has_a_cure() {
        for outcome in [Outcome::Refused, Outcome::Timeout] {
            let told = said(tried(outcome), None);
            assert!(told.way == Way::Closed && !told.cure.is_empty(), "{told:?}");
        }
        assert_eq!(said(tried(Outcome::Unreachable), None).way, Way::Unknown);
        let refused = AskError::Refused { url: "http://x".into(), status: 429, why: "too often".into() };
        let told = told(&question(Protocol::Tcp), &Err(refused), None);
        assert_eq!((told.way, &*told.evidence), (Way::Unknown, "http://x refuses: too often"));
        assert!(told.cure.contains("in a minute"), "{told:?}");
    }

    #[test]
    fn a_client_is_one_that_was_not_there_before() {
        let event = |kind: &str, count| Recorded { kind: kind.into(), count, ..Recorded::default() };
        let before = [event("session-refused", Some(1)), event("router", None)];
        assert!(!arrived(&before, &before) && !arrived(&[], &before[1..]));
        assert!(arrived(&before, &[event("session-refused", Some(2))]));
        assert!(arrived(&before, &[event("session-started", None)]));
    }
}
