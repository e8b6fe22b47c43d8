//! What a request says: the parameters after `?`, and a JSON body.
//!
//! Everything is bounded: [`MOST_BYTES`] of a body, and [`BODY_TIME`] until it is here. What is not
//! known is refused with its place, like a key of the configuration: a filter with a slip must not
//! mean "everything".

use std::{borrow::Cow, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::failure::{Answer, Refused};
use crate::{status::view::Problem, text::clean_start};

/// The largest body.
const MOST_BYTES: usize = 64 * 1024;
/// How much of a body that is too large is read. A close before its end would discard the answer.
const MOST_READ: usize = 1 << 20;
/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(10);
/// How much of a stranger's text is repeated.
const SHOWN: usize = 64;

/// The parameters of a request.
#[derive(Debug)]
pub(super) struct Params(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()))
    }
}

impl Params {
    /// Takes the values of these parameters; an empty value is an absent one.
    ///
    /// # Errors
    /// Another parameter, or one that comes twice.
    pub(super) fn take<const N: usize>(self, names: [&str; N]) -> Answer<[Option<String>; N]> {
        let mut values = [const { None }; N];
        for (name, value) in self.0 {
            let Some(index) = names.iter().position(|known| *known == name) else {
                let known = match names.len() {
                    0 => "this route has no parameters".to_owned(),
                    _ => format!("it may be {}", names.join(", ")),
                };
                return Err(wrong_param(&name, "unknown parameter", known));
            };
            if values[index].replace(value).is_some() {
                return Err(wrong_param(&name, "the parameter comes twice", "name it once"));
            }
        }
        Ok(values.map(|value| value.filter(|value| !value.is_empty())))
    }
}

/// A failure because of a parameter.
pub(super) fn wrong_param(
    name: &str,
    message: impl Into<Cow<'static, str>>,
    help: impl Into<String>,
) -> Refused {
    let message = format!("`{}`: {}", clean_start(name, SHOWN), message.into());
    let problem = Problem {
        code: Some("invalid-parameter".to_owned()),
        file: Some("query".to_owned()),
        message: message.clone(),
        help: Some(help.into()),
        ..Problem::default()
    };
    Refused::bad(message).with_problems(vec![problem])
}

/// A failure because of a value in the body.
pub(super) fn wrong_field(name: &str, message: &str) -> Refused {
    let message = format!("`{name}`: {message}");
    let problem = Problem {
        code: Some("invalid-body".to_owned()),
        file: Some("body".to_owned()),
        message: message.clone(),
        ..Problem::default()
    };
    Refused::bad(message).with_problems(vec![problem])
}

/// A JSON body.
#[derive(Debug)]
pub(super) struct Input<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, _: &S) -> Answer<Self> {
        let body = read(request.into_body()).await?;
        serde_json::from_slice(&body).map(Self).map_err(|error| wrong_body(&error))
    }
}

/// Refuses a body that is not JSON by its own word. A form of a browser cannot say that it is, so
/// no page of another site can send one.
pub(super) fn check_kind(headers: &HeaderMap) -> Answer<()> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_json = kind.is_some_and(|kind| {
        let bare = kind.split(';').next().unwrap_or_default().trim();
        bare.eq_ignore_ascii_case("application/json")
    });
    if is_json {
        return Ok(());
    }
    let error = "the body has another type; send it with `Content-Type: application/json`";
    Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error))
}

/// Reads a body to its end, or refuses it.
async fn read(mut body: Body) -> Answer<Vec<u8>> {
    let whole = async {
        let (mut bytes, mut count) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Refused::bad("the body ended early"))?;
            let Ok(data) = frame.into_data() else { continue };
            count += data.len();
            if count > MOST_READ {
                break;
            }
            if count <= MOST_BYTES {
                bytes.extend_from_slice(&data);
            }
        }
        if count > MOST_BYTES {
            let error = format!("the body is larger than {} KiB", MOST_BYTES / 1024);
            return Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, error));
        }
        Ok(bytes)
    };
    let late = || {
        let error = format!("the body did not come within {} s", BODY_TIME.as_secs());
        Refused::new(StatusCode::REQUEST_TIMEOUT, error)
    };
    timeout(BODY_TIME, whole).await.unwrap_or_else(|_| Err(late()))
}

fn wrong_body(error: &serde_json::Error) -> Refused {
    // The message ends in the place, which has its own fields.
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(&*message, |(message, _)| message);
    let message = clean_start(message, 4 * SHOWN);
    let problem = Problem {
        code: Some("invalid-body".to_owned()),
        file: Some("body".to_owned()),
        line: Some(error.line()),
        column: Some(error.column()),
        message: message.clone(),
        help: None,
    };
    Refused::bad(format!("the body is wrong: {message}")).with_problems(vec![problem])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Params {
        Params(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    #[test]
    fn a_parameter_is_known_and_comes_once() {
        let [mapping, limit] = params("limit=5&mapping=8080%2Ftcp").take(["mapping", "limit"]).unwrap();
        assert_eq!((mapping.as_deref(), limit.as_deref()), (Some("8080/tcp"), Some("5")));
        assert_eq!(params("mapping=").take(["mapping"]).unwrap(), [None]);
        for query in ["clinet=1", "mapping=a&mapping=b", "mapping=a&x"] {
            assert!(params(query).take(["mapping"]).is_err(), "{query}");
        }
    }
}
