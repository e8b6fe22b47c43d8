//! `/healthz` and `/readyz`: for containers and load balancers, and without a token.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde_json::json;

use crate::api::context::Context;

/// The process answers.
pub(super) async fn alive() -> Json<serde_json::Value> {
    Json(json!({ "status": "ok" }))
}

/// Every enabled listener listens; 503 with those that do not.
pub(super) async fn ready(State(context): State<Arc<Context>>) -> Response {
    let not_ready = context.board().not_ready();
    if not_ready.is_empty() {
        return Json(json!({ "status": "ready" })).into_response();
    }
    let error = format!("the daemon is not ready: {}", not_ready.join("; "));
    let body = json!({ "status": "not ready", "error": error, "not_ready": not_ready });
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}
