//! Why a request failed, as an answer: the status, and [`Failure`] as JSON.

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{
    status::view::{Failure, Problem},
    text::clean,
};

/// A request that failed.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    failure: Failure,
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

/// What a handler gives.
pub(super) type Answer<T> = Result<T, Refused>;

impl Refused {
    /// A failure with this status.
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, failure: Failure { error: error.into(), problems: Vec::new() }, header: None }
    }

    /// The request itself is wrong.
    pub(super) fn bad(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    /// What was asked for does not exist.
    pub(super) fn missing(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error)
    }

    /// There is no mapping of this name.
    pub(super) fn no_mapping(name: &str) -> Self {
        Self::missing(format!("there is no mapping `{}`", clean(name)))
    }

    /// The request is right, and what runs does not allow it.
    pub(super) fn conflict(error: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, error)
    }

    /// With the places of what is wrong.
    pub(super) fn with_problems(mut self, problems: Vec<Problem>) -> Self {
        self.failure.problems = problems;
        self
    }

    /// With a header that the status asks for.
    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }

    /// No token, or a wrong one.
    pub(super) fn unauthorized(error: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, error)
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.failure)).into_response();
        if let Some((name, value)) = self.header.map(|header| *header) {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
