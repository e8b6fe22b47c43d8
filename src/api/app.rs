//! From a request to an answer: the checks that hold for every route, and then its route.
//!
//! Owns the order of the checks: the host, the site of the page, the role, the type of the body.
//! What is not listed as public needs a role, so a new route is closed until it is opened. Each
//! answer has the headers that keep a browser from doing more with it than to show it.

use std::sync::Arc;

use axum::{
    Router,
    body::HttpBody as _,
    extract::Request,
    http::{HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;

use super::{
    asker,
    context::Context,
    dashboard,
    entrance::{Door, Entrance},
    failure::{Answer, Refused},
    input, routes, site,
};
use crate::config::Role;

/// For every answer.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, dashboard::POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// What would change something hears this while the state is on its way to another process.
const STANDS_STILL: &str = "another process is about to take over; try again in a moment";

/// Answers requests.
#[derive(Debug)]
pub(super) struct App {
    context: Arc<Context>,
    /// All routes.
    all: TowerToHyperService<Router>,
    /// Those of `[metrics] listen`.
    metrics: TowerToHyperService<Router>,
}

impl App {
    pub(super) fn new(context: Arc<Context>) -> Self {
        let all = TowerToHyperService::new(routes::all(Arc::clone(&context)));
        let metrics = TowerToHyperService::new(routes::metrics(Arc::clone(&context)));
        Self { context, all, metrics }
    }

    pub(super) async fn answer(&self, request: Request, entrance: Entrance) -> Response {
        let (mut parts, body) = request.into_parts();
        let mut response = match self.check(&parts, !body.is_end_stream(), &entrance).await {
            Ok(()) => {
                let routes = if entrance.door == Door::Metrics { &self.metrics } else { &self.all };
                parts.extensions.insert(entrance);
                match routes.call(Request::from_parts(parts, body)).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
            Err(refused) => refused.into_response(),
        };
        let headers = response.headers_mut();
        for (name, value) in HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        response
    }

    async fn check(&self, parts: &Parts, has_body: bool, entrance: &Entrance) -> Answer<()> {
        site::check_site(parts)?;
        if entrance.door == Door::Metrics {
            return Ok(());
        }
        if entrance.tcp.is_some() {
            site::check_host(parts, &self.context.hosts.load())?;
        }
        if !routes::is_public(&parts.method, parts.uri.path()) {
            let role = asker::role(&self.context.auth, &parts.headers, entrance).await?;
            if role < needed(&parts.method, parts.uri.path()) {
                let error = match role {
                    Role::Probe => "the token is for POST /v1/probe alone",
                    _ => "the token allows to read only; this request needs one with the role `admin`",
                };
                return Err(Refused::new(StatusCode::FORBIDDEN, error));
            }
        }
        let upgrades = &self.context.means.upgrades;
        if upgrades.stands_still() && !site::is_safe(&parts.method) && parts.uri.path() != routes::UPGRADE {
            return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, STANDS_STILL)
                .with_header(header::RETRY_AFTER, HeaderValue::from_static("1")));
        }
        if has_body { input::check_kind(&parts.headers) } else { Ok(()) }
    }
}

/// The role that a request needs.
fn needed(method: &Method, path: &str) -> Role {
    match method {
        method if site::is_safe(method) => Role::Read,
        _ if path == routes::PROBE => Role::Probe,
        _ => Role::Admin,
    }
}
