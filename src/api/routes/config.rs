//! `/v1/config`: the configuration that runs, with every key, and without secrets.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde_json::Value;

use crate::api::{context::Context, failure::Answer, input::Params};

pub(super) async fn config(State(context): State<Arc<Context>>, params: Params) -> Answer<Json<Value>> {
    let [] = params.take([])?;
    Ok(Json(context.board().config()))
}
