//! The router as a value of the interface.

use std::net::{IpAddr, SocketAddr};

use tokio::time::Instant;

use super::view;
use crate::gateway::{OpeningState, OpeningStatus, RouterState, RouterStatus, Verdict};

/// The router, and what is open on it, at `now`.
pub(super) fn router(status: &RouterStatus, now: Instant) -> view::Router {
    let mut router = view::Router {
        external: status.external.map(|ip| ip.to_string()),
        verdict: status.verdict.map(verdict),
        leases: status.openings.iter().map(|opening| self::opening(opening, now)).collect(),
        ..view::Router::default()
    };
    router.state = match &status.router {
        RouterState::Off => "off",
        RouterState::Searching => "searching",
        RouterState::Ready(found) => {
            router.gateway = Some(found.addr.to_string());
            router.protocol = Some(found.via.as_str().to_owned());
            router.model = Some(found.model.clone()).filter(|model| !model.is_empty());
            "ready"
        }
        RouterState::Missing(reason) => {
            router.error = Some(reason.clone());
            "missing"
        }
    }
    .to_owned();
    router
}

/// One opening at `now`.
pub(super) fn opening(opening: &OpeningStatus, now: Instant) -> view::Opening {
    let key = &opening.key.listener;
    let mut view = view::Opening {
        mapping: opening.mapping.to_string(),
        protocol: Some(key.protocol),
        listen: key.addr.to_string(),
        external: opening.external.map(|ip| reached(ip, opening.external_port)),
        external_port: opening.external_port,
        lease_ms: opening.lease.map(super::millis),
        retry_ms: opening.retry_at.map(|at| super::millis(at.saturating_duration_since(now))),
        ..view::Opening::default()
    };
    view.state = match &opening.state {
        OpeningState::Searching => "searching",
        OpeningState::Open { via, unverified } => {
            view.protocol_used = Some(via.as_str().to_owned());
            view.unverified = *unverified;
            "open"
        }
        OpeningState::Conflict(holder) => {
            let holder = holder.as_ref().map_or_else(|| "another machine".to_owned(), ToString::to_string);
            view.error = Some(format!("{holder} has the port"));
            "conflict"
        }
        OpeningState::Denied(error) => {
            view.error = Some(error.clone());
            "denied"
        }
        OpeningState::Failed(error) => {
            view.error = Some(error.clone());
            "failed"
        }
    }
    .to_owned();
    view
}

fn reached(ip: IpAddr, port: u16) -> String {
    SocketAddr::new(ip, port).to_string()
}

/// The verdict in a word, and what the person at home can do about it.
fn verdict(verdict: Verdict) -> String {
    let word = match verdict {
        Verdict::Public => "public",
        Verdict::SecondNat => "second-nat",
        Verdict::CarrierNat => "carrier-nat",
        Verdict::NoAddress => "no-address",
    };
    match verdict.advice() {
        "" => word.to_owned(),
        advice => format!("{word}: {advice}"),
    }
}
