//! `/metrics`: for Prometheus.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};

use crate::api::{
    context::Context,
    failure::{Answer, Refused},
    metrics::{Form, text},
};

/// The metrics of this moment.
pub(super) async fn metrics(State(context): State<Arc<Context>>, headers: HeaderMap) -> Answer<Response> {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let form = Form::for_reader(accept);
    let text = text(context.board(), form)
        .map_err(|_| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written"))?;
    Ok(([(header::CONTENT_TYPE, form.content_type())], text).into_response())
}
