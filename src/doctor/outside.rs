//! The try from outside: another portway tries the ports of a mapping.
//!
//! Owns which ports are tried, one of each protocol, and what the daemon of this machine saw
//! meanwhile. It changes nothing but that the daemon answers a number for some seconds.

use std::{net::IpAddr, time::Duration};

use serde::Deserialize;

use super::subject::{Listener, Subject};
use crate::{
    api::client::{Ask, Client},
    mapping::Protocol,
    probe::{Node, Outcome, Question, Told, Way, arrived, told},
    status::view::Recorder,
};

/// How often the daemon is asked whether a client has come, and how long is between. A connection
/// is made by the kernel; a busy daemon takes it later.
const LOOKS: usize = 20;
const PAUSE: Duration = Duration::from_millis(150);

/// Another portway, and the daemon of this machine if one runs.
#[derive(Clone, Debug)]
pub(crate) struct Outside {
    /// What tries.
    pub(crate) node: Node,
    /// What is tried.
    pub(crate) client: Option<Client>,
}

/// What came of a try.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// In words.
    pub(super) told: Told,
    /// The address that the other node sees.
    pub(super) address: Option<IpAddr>,
}

/// Has the ports of a mapping tried. `external` is the address of this network, as far as it is
/// known.
pub(super) async fn look(subject: &Subject, outside: &Outside, external: Option<IpAddr>) -> Vec<Seen> {
    let mut seen = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let is_open = |listener: &&Listener| listener.protocol == protocol && !listener.is_local();
        let Some(listener) = subject.listeners.iter().find(is_open) else { continue };
        let address = external.filter(|_| outside.node.is_local());
        let question = Question { protocol, port: subject.external_port(listener), address, nonce: None };
        seen.push(match protocol {
            Protocol::Tcp => tcp(subject, outside, &question).await,
            Protocol::Udp => udp(subject, listener, outside, question).await,
        });
    }
    seen
}

async fn tcp(subject: &Subject, outside: &Outside, question: &Question) -> Seen {
    let before = recorder(subject, outside).await;
    let answer = outside.node.ask(question).await;
    let mut has_come = None;
    if answer.as_ref().is_ok_and(|tried| tried.outcome == Outcome::Connected) {
        for _ in 0..LOOKS {
            let after = recorder(subject, outside).await;
            let (Some(before), Some(after)) = (&before, &after) else { break };
            has_come = Some(arrived(&before.events, &after.events));
            if has_come == Some(true) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    let address = answer.as_ref().ok().and_then(|tried| tried.address.parse().ok());
    Seen { told: told(question, &answer, has_come), address }
}

async fn udp(subject: &Subject, listener: &Listener, outside: &Outside, question: Question) -> Seen {
    let nonce = match nonce(subject, listener, outside).await {
        Ok(nonce) => nonce,
        Err((evidence, cure)) => {
            let told = Told { way: Way::Unknown, evidence, cure: cure.to_owned() };
            return Seen { told, address: None };
        }
    };
    let question = Question { nonce: Some(nonce), ..question };
    let answer = outside.node.ask(&question).await;
    let address = answer.as_ref().ok().and_then(|tried| tried.address.parse().ok());
    Seen { told: told(&question, &answer, None), address }
}

/// What the daemon has recorded of a mapping.
async fn recorder(subject: &Subject, outside: &Outside) -> Option<Recorder> {
    let ask = Ask::get("/v1/recorder").with("mapping", Some(&subject.name));
    outside.client.as_ref()?.ask(&ask).await.ok()?.read().ok()
}

/// A number that the listener answers from now on, or why there is none and what helps.
async fn nonce(
    subject: &Subject,
    listener: &Listener,
    outside: &Outside,
) -> Result<String, (String, &'static str)> {
    #[derive(Deserialize)]
    struct Given {
        nonce: String,
    }
    let Some(client) = &outside.client else {
        return Err(("UDP is tried with a daemon that runs and answers".to_owned(), "start portway"));
    };
    let body = serde_json::json!({ "mapping": subject.name, "listen": listener.text });
    let answer = client.ask(&Ask::post("/v1/probe/expect").body(body)).await;
    let given = answer.and_then(|answer| answer.read::<Given>());
    given.map(|given| given.nonce).map_err(|error| {
        let evidence = format!("UDP was not tried, as this portway does not take part: {error}");
        (evidence, "look at `portway status`; restart portway if it was updated")
    })
}
