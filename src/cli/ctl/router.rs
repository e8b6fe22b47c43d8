//! `portway router`: the home router, and what is open on it.

use std::fmt::Write as _;

use clap::Args;

use super::{Daemon, Failed, Outcome, human::span};
use crate::{
    api::client::Ask,
    cli::table::{Cell, Colour, Column, Table, Terminal},
    status::view::{self, Opening},
    text::{Escaped, escaped},
};

/// It has no arguments of its own.
#[derive(Debug, Args)]
pub(in crate::cli) struct Router {}

/// Shows the router.
pub(super) async fn router(_: Router, daemon: &Daemon) -> Result<Outcome, Failed> {
    daemon.show(&Ask::get("/v1/router"), |router| text(router, daemon.terminal)).await
}

fn text(router: &view::Router, terminal: Terminal) -> String {
    let mut text = match &*router.state {
        "off" => "router: not asked; no mapping that is open has `router = true`\n".to_owned(),
        state => format!("router: {}", escaped(state)),
    };
    if router.state != "off" {
        if let Some(gateway) = &router.gateway {
            let _ = write!(text, ", {}", Escaped(gateway));
        }
        if let Some(protocol) = &router.protocol {
            let _ = write!(text, " by {}", Escaped(protocol));
        }
        if let Some(model) = &router.model {
            let _ = write!(text, " ({})", Escaped(model));
        }
        text.push('\n');
    }
    let lines = [("external address", &router.external), ("note", &router.verdict), ("error", &router.error)];
    for (name, value) in lines {
        if let Some(value) = value {
            let _ = writeln!(text, "{name}: {}", Escaped(value));
        }
    }
    if !router.leases.is_empty() {
        text.push('\n');
        text.push_str(&openings(&router.leases, terminal));
    }
    text
}

const COLUMNS: [Column; 7] = [
    Column::words("MAPPING"),
    Column::words("PROTOCOL"),
    Column::words("STATE"),
    Column::words("EXTERNAL"),
    Column::words("LISTEN"),
    Column::value("LEASE"),
    Column::words("ERROR"),
];

/// A table of what is open, or should be.
pub(super) fn openings(openings: &[Opening], terminal: Terminal) -> String {
    let mut table = Table::new(&COLUMNS);
    for opening in openings {
        let external = match (&opening.external, opening.external_port) {
            (Some(external), _) => external.clone(),
            (None, 0) => String::new(),
            (None, port) => format!("port {port}"),
        };
        let state =
            if opening.unverified { format!("{}, unverified", opening.state) } else { opening.state.clone() };
        let error = match (&opening.error, opening.retry_ms) {
            (Some(error), Some(ms)) => format!("{error}; tried again in {}", span(ms)),
            (Some(error), None) => error.clone(),
            (None, _) => String::new(),
        };
        table.row([
            Cell::of(&opening.mapping),
            Cell::some(opening.protocol),
            Cell::of(state).coloured(colour(&opening.state)),
            Cell::of(external),
            Cell::of(&opening.listen),
            Cell::some(opening.lease_ms.map(span)),
            Cell::words(error),
        ]);
    }
    table.text(terminal)
}

/// The colour of the state of an opening.
pub(in crate::cli) fn colour(state: &str) -> Colour {
    match state {
        "open" => Colour::Good,
        "searching" => Colour::Pale,
        _ => Colour::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::Protocol;

    #[test]
    fn a_router_is_shown_with_what_it_said() {
        let opening = Opening {
            mapping: "mc".into(),
            protocol: Some(Protocol::Tcp),
            listen: "[::]:25565".into(),
            state: "conflict".into(),
            external_port: 25_565,
            retry_ms: Some(61_000),
            error: Some("held by 192.168.1.9".into()),
            ..Opening::default()
        };
        let router = view::Router {
            state: "ready".into(),
            gateway: Some("192.168.1.1".into()),
            protocol: Some("upnp".into()),
            model: Some("Fritz\u{1b}Box".into()),
            external: Some("203.0.113.7".into()),
            leases: vec![opening],
            ..view::Router::default()
        };
        assert_eq!(
            text(&router, Terminal::default()),
            "router: ready, 192.168.1.1 by upnp (Fritz\\u{1b}Box)\nexternal address: 203.0.113.7\n\n\
             MAPPING  PROTOCOL  STATE     EXTERNAL    LISTEN      LEASE  ERROR\n\
             mc       tcp       conflict  port 25565  [::]:25565  -      held by 192.168.1.9; tried again in 1m 1s\n"
        );
        let off = view::Router { state: "off".into(), ..view::Router::default() };
        assert!(text(&off, Terminal::default()).starts_with("router: not asked"));
    }
}
