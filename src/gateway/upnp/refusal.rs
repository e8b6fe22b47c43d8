//! What a router's error means.
//!
//! Owns the meaning of the error codes (UPnP Device Architecture, WANIPConnection:2 section 2.5,
//! WANIPv6FirewallControl:1 section 2.4) and the cleaning of the texts beside them. Pure.

use std::io;

use igd_next::RequestError;

use crate::gateway::router::RouterError;
use crate::text::clean;

/// What an error code means; `text` is the router's own.
fn by_code(code: u16, text: &str) -> RouterError {
    let what = match code {
        401 | 602 => "it does not know the request",
        402 => "it refuses an argument",
        501 => "it cannot: check whether it has an address on the internet",
        605 => "the text is too long for it",
        606 => "not authorized: many routers open no port below 1024",
        701 => "its table of pinholes is full",
        702 => "its IPv6 firewall is off: every port is open",
        703 => "its IPv6 firewall allows no pinholes",
        704 => "it has no such pinhole",
        718 => return RouterError::Conflict,
        724 => return RouterError::SamePort,
        725 => return RouterError::OnlyPermanent,
        728 => "its table of openings is full",
        729 => "the port is one of its own",
        732 => "it wants a single internal port",
        _ => "",
    };
    // Most routers only repeat the name of the error.
    let text = clean(text);
    let said = match (what, text.as_str()) {
        ("", "") => format!("error {code}"),
        ("", text) => format!("error {code}, {text}"),
        (what, _) => format!("error {code}, {what}"),
    };
    match code {
        606 | 702 | 703 | 729 | 732 => RouterError::Denied(said),
        _ => RouterError::Failed(said),
    }
}

/// What the end of a request means.
pub(super) fn refused(error: RequestError) -> RouterError {
    match error {
        RequestError::ErrorCode(code, text) => by_code(code, &text),
        RequestError::UnsupportedAction(action) => {
            RouterError::Failed(format!("it has no action {}", clean(&action)))
        }
        RequestError::InvalidResponse(text) => {
            RouterError::Lost(format!("its answer is not UPnP: {}", clean(&text)))
        }
        RequestError::IoError(error) => unheard(&error),
        other => RouterError::Lost(clean(&other.to_string())),
    }
}

/// Nothing was heard at all.
pub(super) fn unheard(error: &io::Error) -> RouterError {
    RouterError::Lost(clean(&error.to_string()))
}
