//! The files of the dashboard, and the answer to a path that is nothing at all.

use axum::{
    http::{HeaderValue, Method, Uri, header},
    response::{IntoResponse as _, Response},
};

use crate::api::{dashboard, failure::Answer, site::is_safe};

pub(super) async fn page(method: Method, uri: Uri) -> Answer<Response> {
    let Some((kind, bytes)) = dashboard::file(uri.path()) else { return Err(super::unknown(uri).await) };
    if !is_safe(&method) {
        let refused = super::wrong_method(method, uri).await;
        return Err(refused.with_header(header::ALLOW, HeaderValue::from_static("GET,HEAD")));
    }
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], bytes).into_response())
}
