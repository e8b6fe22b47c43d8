//! `/v1/sessions`: what is live, and the end of it.
//!
//! A list is made in chunks while the client reads it. So a long one takes neither much memory nor
//! the thread for long. It shows the sessions that were live when it was asked for.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use serde_json::{Value, json};

use crate::{
    api::{
        context::Context,
        failure::{Answer, Refused},
        input::{Params, wrong_param},
    },
    mapping::MappingName,
    policy::parse_net,
    status::SessionList,
    supervisor::SessionFilter,
    text::clean,
};

/// Sessions in one chunk.
const CHUNK: usize = 200;

pub(super) async fn list(State(context): State<Arc<Context>>, params: Params) -> Answer<Response> {
    let [mapping, client, limit, after] = params.take(["mapping", "client", "limit", "after"])?;
    let filter = filter(mapping.as_deref(), client.as_deref())?;
    let limit = limit.map_or(Ok(usize::MAX), |text| match text.parse() {
        Ok(0) | Err(_) => Err(wrong_param("limit", "not a number from 1", "as in limit=100")),
        Ok(limit) => Ok(limit),
    })?;
    let number = |text: String| {
        text.parse()
            .map_err(|_| wrong_param("after", "not the number of a session", "use the `next` of a list"))
    };
    let after = after.map_or(Ok(0), number)?;
    let sessions = context.board().sessions(&filter, after, limit);
    Ok(streamed(sessions))
}

/// A list as JSON, in chunks.
fn streamed(sessions: SessionList) -> Response {
    let state = Some((sessions, "{\"sessions\":["));
    let chunks = stream::unfold(state, |state| async move {
        let (mut sessions, mut before) = state?;
        let mut chunk = String::new();
        for session in sessions.by_ref().take(CHUNK) {
            chunk.push_str(before);
            before = ",";
            // A session is plain values: this cannot fail.
            chunk.push_str(&serde_json::to_string(&session).unwrap_or_default());
        }
        if sessions.len() > 0 {
            return Some((chunk, Some((sessions, before))));
        }
        if before != "," {
            chunk.push_str(before);
        }
        chunk.push(']');
        if let Some(next) = sessions.next_part() {
            chunk.push_str(&format!(",\"next\":\"{next}\""));
        }
        chunk.push('}');
        Some((chunk, None))
    });
    let chunks = futures_util::StreamExt::map(chunks, |chunk| Ok::<_, Infallible>(Bytes::from(chunk)));
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], Body::from_stream(chunks)).into_response()
}

/// Ends one session.
pub(super) async fn close(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
    params: Params,
) -> Answer<Json<Value>> {
    let [] = params.take([])?;
    let unknown = || Refused::missing(format!("there is no live session {}", clean(&id)));
    let number = id.parse().map_err(|_| unknown())?;
    let filter = SessionFilter { ids: vec![number], ..SessionFilter::default() };
    match context.means.handle.close_sessions(&filter) {
        0 => Err(unknown()),
        closed => Ok(Json(json!({ "closed": closed }))),
    }
}

/// Ends the sessions that a filter means.
pub(super) async fn close_all(State(context): State<Arc<Context>>, params: Params) -> Answer<Json<Value>> {
    let [mapping, client] = params.take(["mapping", "client"])?;
    let filter = filter(mapping.as_deref(), client.as_deref())?;
    if filter.is_empty() {
        let help = "add mapping=NAME or client=ADDRESS";
        return Err(wrong_param("client", "no filter: this would end every session", help));
    }
    Ok(Json(json!({ "closed": context.means.handle.close_sessions(&filter) })))
}

/// Which sessions are meant. A mapping that does not exist has none.
fn filter(mapping: Option<&str>, client: Option<&str>) -> Answer<SessionFilter> {
    let mapping = mapping.map(|name| {
        MappingName::new(name)
            .map_err(|error| wrong_param("mapping", error.to_string(), "use a mapping's name"))
    });
    let client = client.map(|text| {
        parse_net(text).map_err(|error| wrong_param("client", error, "as in 203.0.113.9 or 203.0.113.0/24"))
    });
    Ok(SessionFilter { ids: Vec::new(), mapping: mapping.transpose()?, client: client.transpose()? })
}
