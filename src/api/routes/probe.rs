//! Proof from outside. `/v1/probe` tries a port of the client that asks. The others are for this
//! node's own ports: what its listeners answer, and a try by the node of `[probe] from`.
//!
//! The daemon asks the configured node alone: a request cannot make it ask another address.

use std::{num::NonZeroU16, sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    api::{
        context::Context,
        entrance::Entrance,
        failure::{Answer, Refused},
        input::{Input, wrong_field},
    },
    mapping::{MappingName, Protocol},
    policy::Nonce,
    probe::{self, Node, Outcome, Question, Tried, arrived, told},
    status::{
        recorded,
        view::{self, ListenerState},
    },
};

/// The listeners of a mapping that are tried: one of each protocol, as those of a range are alike.
const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// How often is looked whether a client has come, and how long is between.
const LOOKS: usize = 20;
const PAUSE: Duration = Duration::from_millis(150);

/// Tries a port of the client.
pub(super) async fn probe(
    State(context): State<Arc<Context>>,
    Extension(entrance): Extension<Entrance>,
    headers: HeaderMap,
    Input(question): Input<Question>,
) -> Answer<Json<Tried>> {
    let nonce = match (question.protocol, question.nonce.as_deref()) {
        (Protocol::Tcp, _) => Nonce::default(),
        (Protocol::Udp, Some(text)) => {
            probe::nonce_of(text).ok_or_else(|| wrong_field("nonce", "not 32 hexadecimal digits"))?
        }
        (Protocol::Udp, None) => {
            return Err(wrong_field("nonce", "missing: your listener answers it, and no target sees it"));
        }
    };
    let (address, _place) = context.prober.admit(&entrance, &headers, &question)?;
    let to = (address, question.port.get()).into();
    tracing::debug!(client.addr = %address, port = question.port, protocol = %question.protocol, "port tried for another node");
    Ok(Json(probe::attempt(to, question.protocol, nonce).await))
}

/// A listener that is to answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expected {
    mapping: String,
    listen: String,
}

/// Lets a UDP listener answer one number for a while, and gives that.
pub(super) async fn expect(
    State(context): State<Arc<Context>>,
    Input(Expected { mapping, listen }): Input<Expected>,
) -> Answer<Json<Value>> {
    let name = MappingName::new(&mapping).map_err(|error| wrong_field("mapping", &error.to_string()))?;
    let view = context.board().mapping(&name);
    let view = view.ok_or_else(|| Refused::no_mapping(name.as_str()))?;
    let listens = |listener: &view::Listener| {
        listener.listen == listen
            && listener.protocol == Some(Protocol::Udp)
            && listener.state == ListenerState::Listening
    };
    if !view.listeners.iter().any(listens) {
        return Err(Refused::conflict(format!("{name} does not listen there over UDP")));
    }
    Ok(Json(json!({ "nonce": expected(&context, &listen)? })))
}

/// A number that a listener answers from now on.
fn expected(context: &Context, listen: &str) -> Answer<String> {
    let mut nonce = Nonce::default();
    let filled = rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty());
    if filled != Ok(nonce.len()) {
        return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "the system gives no random number"));
    }
    if !context.means.handle.gate().probes().expect(nonce, listen, Instant::now()) {
        let error = "too many tries are under way; try again in a moment";
        return Err(Refused::new(StatusCode::TOO_MANY_REQUESTS, error));
    }
    Ok(probe::text_of(nonce))
}

/// Has the node of `[probe] from` try the ports of a mapping.
pub(super) async fn of_mapping(context: &Context, name: &MappingName) -> Answer<Json<Value>> {
    let view = context.board().mapping(name);
    let view = view.ok_or_else(|| Refused::no_mapping(name.as_str()))?;
    let terms = context.prober.terms();
    let Some((url, token)) = terms.and_then(|terms| Some((terms.from.clone()?, terms.token.clone()))) else {
        return Err(Refused::conflict(
            "no other portway is known that could try it: name one as `from` in [probe], with the token of \
             its [probe] token_file",
        ));
    };
    let node = Node::new(url, Some(token));
    let address = context.board().router().external.and_then(|external| external.parse().ok());
    let mut proofs = Vec::new();
    for protocol in PROTOCOLS {
        let Some((listener, port)) = port_of(&view, protocol) else { continue };
        let nonce = if protocol == Protocol::Udp { Some(expected(context, &listener.listen)?) } else { None };
        let address = if node.is_local() { address } else { None };
        let question = Question { protocol, port, address, nonce };
        let before = recorded(&context.means.events, Some(name));
        let answer = node.ask(&question).await;
        let is_connected = answer.as_ref().is_ok_and(|tried| tried.outcome == Outcome::Connected);
        let has_come = if is_connected { Some(has_come(context, name, &before).await) } else { None };
        let told = told(&question, &answer, has_come);
        let listen = &listener.listen;
        proofs.push(json!({ "protocol": protocol, "listen": listen, "port": port, "proof": told }));
    }
    if proofs.is_empty() {
        return Err(Refused::conflict(format!("{name} listens nowhere at the moment")));
    }
    Ok(Json(json!({ "from": node.name(), "proofs": proofs })))
}

/// Whether a client has come to the mapping since `before`. The kernel connects it, and a busy
/// listener takes it later.
async fn has_come(context: &Context, name: &MappingName, before: &[view::Recorded]) -> bool {
    for _ in 0..LOOKS {
        if arrived(before, &recorded(&context.means.events, Some(name))) {
            return true;
        }
        tokio::time::sleep(PAUSE).await;
    }
    false
}

/// The first listener of a protocol that listens, and its port on the router, or its own.
fn port_of(view: &view::Mapping, protocol: Protocol) -> Option<(&view::Listener, NonZeroU16)> {
    let listens = |listener: &&view::Listener| {
        listener.protocol == Some(protocol) && listener.state == ListenerState::Listening
    };
    let listener = view.listeners.iter().find(listens)?;
    let openings = view.router.as_deref().unwrap_or_default();
    let opening = openings.iter().find(|o| o.protocol == Some(protocol) && o.listen == listener.listen);
    let own = || listener.listen.rsplit_once(':')?.1.parse().ok();
    let port = opening.map(|opening| opening.external_port).filter(|port| *port != 0).or_else(own)?;
    Some((listener, port.try_into().ok()?))
}
