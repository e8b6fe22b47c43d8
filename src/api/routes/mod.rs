//! The routes, a file a subject. A handler reads the [`Board`](crate::status::Board), or asks the
//! supervisor's handle. It knows neither who asks nor over which socket: that was checked before.

mod bans;
mod config;
mod events;
mod grants;
mod health;
mod history;
mod log_level;
mod login;
mod mappings;
mod metrics;
mod page;
mod probe;
mod recorder;
mod reload;
mod router;
mod sessions;
mod status;
mod upgrade;

use std::sync::Arc;

use axum::{
    Router,
    http::{Method, StatusCode, Uri},
    routing::{delete, get, post},
};

use super::{context::Context, dashboard, failure::Refused};
use crate::text::clean;

/// The hand-over to a new program.
pub(super) const UPGRADE: &str = "/v1/upgrade";

/// The try of a client's own port.
pub(super) const PROBE: &str = "/v1/probe";

/// All routes.
pub(super) fn all(context: Arc<Context>) -> Router {
    let router = Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/login", get(login::who).post(login::log_in))
        .route("/v1/logout", post(login::log_out))
        .route("/v1/status", get(status::status))
        .route("/v1/config", get(config::config))
        .route("/v1/mappings", get(mappings::list).post(mappings::add))
        .route(
            "/v1/mappings/{*name}",
            get(mappings::one).put(mappings::put).delete(mappings::remove).post(mappings::act),
        )
        .route("/v1/sessions", get(sessions::list).delete(sessions::close_all))
        .route("/v1/sessions/{id}", delete(sessions::close))
        .route("/v1/reload", post(reload::reload))
        .route(UPGRADE, get(upgrade::last).post(upgrade::upgrade))
        .route("/v1/bans", get(bans::list).post(bans::ban).delete(bans::unban))
        .route("/v1/grants", get(grants::list).delete(grants::end))
        .route(PROBE, post(probe::probe))
        .route("/v1/probe/expect", post(probe::expect))
        .route("/v1/router", get(router::router))
        .route("/v1/history", get(history::history))
        .route("/v1/events", get(events::events))
        .route("/v1/recorder", get(recorder::recorder))
        .route("/v1/dump", get(recorder::dump))
        .route("/v1/log-level", get(log_level::show).post(log_level::set));
    finished(router.fallback(page::page), context)
}

/// The routes of `[metrics] listen`.
pub(super) fn metrics(context: Arc<Context>) -> Router {
    let router = Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::metrics));
    finished(router.fallback(unknown), context)
}

/// Whether a request needs no role.
pub(super) fn is_public(method: &Method, path: &str) -> bool {
    match path {
        "/healthz" | "/readyz" => true,
        "/v1/login" | "/v1/logout" => *method == Method::POST,
        _ => dashboard::file(path).is_some(),
    }
}

fn finished(router: Router<Arc<Context>>, context: Arc<Context>) -> Router {
    router.method_not_allowed_fallback(wrong_method).with_state(context)
}

async fn unknown(uri: Uri) -> Refused {
    Refused::missing(format!("there is no route {}", clean(uri.path())))
}

async fn wrong_method(method: Method, uri: Uri) -> Refused {
    let error = format!("the route {} does not take {}", clean(uri.path()), clean(method.as_str()));
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, error)
}
