//! `/v1/grants`: the clients that are let in by a knock, and the end of a grant before its time.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    api::{
        context::Context,
        failure::{Answer, Refused},
        input::{Params, wrong_param},
    },
    status::view::Grants,
    text::clean,
};

pub(super) async fn list(State(context): State<Arc<Context>>, params: Params) -> Answer<Json<Grants>> {
    let [] = params.take([])?;
    Ok(Json(Grants { grants: context.board().grants() }))
}

/// Ends a grant.
pub(super) async fn end(State(context): State<Arc<Context>>, params: Params) -> Answer<Json<Value>> {
    let [asked] = params.take(["client"])?;
    const HELP: &str = "as in client=203.0.113.9";
    let asked = asked.ok_or_else(|| wrong_param("client", "no client", HELP))?;
    let client = asked.parse().map_err(|_| wrong_param("client", "not an address", HELP))?;
    if context.means.handle.gate().knocks().end(client, Instant::now()) {
        return Ok(Json(json!({ "removed": 1 })));
    }
    Err(Refused::missing(format!("{} is not let in by a knock", clean(&asked))))
}
