//! `/v1/login` and `/v1/logout`: a browser shows its token once, and then a cookie.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    api::{
        asker,
        auth::LOGIN,
        context::Context,
        cookie,
        entrance::Entrance,
        failure::{Answer, Refused},
        input::Input,
    },
    config::Role,
};

/// What a browser shows once.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    token: String,
}

/// The role of the client that asks.
pub(super) async fn who(
    State(context): State<Arc<Context>>,
    Extension(entrance): Extension<Entrance>,
    headers: HeaderMap,
) -> Answer<Json<Value>> {
    Ok(shown(asker::role(&context.auth, &headers, &entrance).await?))
}

/// Gives a cookie for a token. Where no token is asked for, there is no cookie, either.
pub(super) async fn log_in(
    State(context): State<Arc<Context>>,
    Extension(entrance): Extension<Entrance>,
    Input(login): Input<Login>,
) -> Answer<Response> {
    let Some(ends) = entrance.tcp.filter(|_| context.auth.asks()) else {
        let role = asker::role(&context.auth, &HeaderMap::new(), &entrance).await?;
        return Ok(shown(role).into_response());
    };
    let logged_in = context.auth.log_in(ends.client.ip(), login.token.as_bytes()).await;
    let (role, id) = logged_in.map_err(asker::refused)?;
    let cookie = id.and_then(|id| cookie::set(ends.own.port(), &id, LOGIN.as_secs()));
    let Some(cookie) = cookie else {
        let error = "the system gives no random number for a login; send the token with each request";
        return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, error));
    };
    Ok(([(header::SET_COOKIE, cookie)], shown(role)).into_response())
}

/// Ends the login of the cookie, if there is one.
pub(super) async fn log_out(
    State(context): State<Arc<Context>>,
    Extension(entrance): Extension<Entrance>,
    headers: HeaderMap,
) -> Response {
    let Some(port) = entrance.tcp.map(|ends| ends.own.port()) else {
        return StatusCode::NO_CONTENT.into_response();
    };
    if let Some(id) = cookie::find(&headers, port) {
        context.auth.log_out(id);
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Some(removed) = cookie::set(port, "", 0) {
        response.headers_mut().insert(header::SET_COOKIE, removed);
    }
    response
}

fn shown(role: Role) -> Json<Value> {
    Json(json!({ "role": role }))
}
