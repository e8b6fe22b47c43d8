//! The client that sends a request: what it shows, and what it may do.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{
    auth::{Auth, Denied, Shown},
    cookie,
    entrance::Entrance,
    failure::{Answer, Refused},
};
use crate::config::Role;

/// What the client may do.
pub(super) async fn role(auth: &Auth, headers: &HeaderMap, entrance: &Entrance) -> Answer<Role> {
    // The mode of the socket file has said who may.
    let Some(ends) = entrance.tcp else { return Ok(Role::Admin) };
    let shown = shown(headers, ends.own.port());
    auth.role(ends.client.ip(), shown).await.map_err(refused)
}

/// What the client shows: a token counts more than a cookie.
fn shown(headers: &HeaderMap, port: u16) -> Shown<'_> {
    const SCHEME: &[u8] = b"Bearer ";
    let token = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.as_bytes().split_at_checked(SCHEME.len())?;
        scheme.eq_ignore_ascii_case(SCHEME).then_some(token.trim_ascii())
    });
    match (token, cookie::find(headers, port)) {
        (Some(token), _) => Shown::Token(token),
        (None, Some(id)) => Shown::Cookie(id),
        (None, None) => Shown::Nothing,
    }
}

/// The answer to a client that may not.
pub(super) fn refused(denied: Denied) -> Refused {
    match denied {
        Denied::NothingShown => Refused::unauthorized(
            "this needs a token: send `Authorization: Bearer <token>`, or log in with POST /v1/login",
        ),
        Denied::WrongToken => Refused::unauthorized("the token is wrong"),
        Denied::NoTokens => Refused::unauthorized(
            "clients of other machines need a token, and none is configured; set `[api] tokens`",
        ),
        Denied::OfProbe => Refused::unauthorized("the token is for POST /v1/probe alone"),
        Denied::TooMany => Refused::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too many wrong tokens came from this address; try again in a minute",
        )
        .with_header(header::RETRY_AFTER, HeaderValue::from_static("60")),
    }
}
