//! `portway ban`, `unban` and `bans`: clients that are kept out.

use clap::Args;
use serde_json::{Value, json};

use super::{
    Daemon, Failed, Outcome,
    human::{clock, until},
};
use crate::{
    api::client::Ask,
    cli::table::{Cell, Column, Table, Terminal},
    status::view,
    text::escaped,
};

/// The client to keep out.
#[derive(Debug, Args)]
pub(in crate::cli) struct Ban {
    /// An address or a network, as 203.0.113.9 or 2001:db8:7::/64
    client: String,
    /// How long, as 1h or 7d; without it until `portway unban`
    #[arg(long = "for", value_name = "DURATION")]
    length: Option<String>,
    /// Why, for the list of bans
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// The client to let in again.
#[derive(Debug, Args)]
pub(in crate::cli) struct Unban {
    /// An address or a network, as `portway bans` shows it
    client: String,
}

/// It has no arguments of its own.
#[derive(Debug, Args)]
pub(in crate::cli) struct Bans {}

/// Bans a client.
pub(super) async fn ban(args: Ban, daemon: &Daemon) -> Result<Outcome, Failed> {
    let mut body = json!({ "client": args.client });
    for (name, value) in [("for", args.length), ("reason", args.reason)] {
        if let Some(value) = value {
            body[name] = json!(value);
        }
    }
    let ask = Ask::post("/v1/bans").body(body);
    daemon
        .show(&ask, |ban: &view::Ban| {
            let client = escaped(if ban.client.is_empty() { &args.client } else { &ban.client });
            match &ban.until {
                Some(until) => format!("banned {client} until {} (UTC)", clock(until)),
                None => format!("banned {client} until `portway unban`"),
            }
        })
        .await
}

/// Ends a ban.
pub(super) async fn unban(args: Unban, daemon: &Daemon) -> Result<Outcome, Failed> {
    let ask = Ask::delete("/v1/bans").with("client", Some(&args.client));
    daemon.show(&ask, |_: &Value| format!("unbanned {}", escaped(&args.client))).await
}

/// Lists the bans.
pub(super) async fn bans(_: Bans, daemon: &Daemon) -> Result<Outcome, Failed> {
    daemon.show(&Ask::get("/v1/bans"), |bans| text(bans, daemon.terminal)).await
}

const COLUMNS: [Column; 5] = [
    Column::words("CLIENT"),
    Column::value("ENDS IN"),
    Column::value("BY"),
    Column::number("TIMES"),
    Column::words("REASON"),
];

fn text(bans: &view::Bans, terminal: Terminal) -> String {
    if bans.bans.is_empty() {
        return "no client is banned".to_owned();
    }
    let mut table = Table::new(&COLUMNS);
    for ban in &bans.bans {
        let left = ban.until.as_deref().map_or(Some("never".to_owned()), until);
        table.row([
            Cell::of(&ban.client),
            Cell::some(left.or_else(|| ban.until.clone())),
            Cell::of(if ban.manual { "operator" } else { "guard" }),
            Cell::of(ban.count),
            Cell::words(&ban.reason),
        ]);
    }
    table.text(terminal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_shows_its_end_and_its_origin() {
        let ban = |client: &str, until: Option<&str>, manual| view::Ban {
            client: client.into(),
            until: until.map(str::to_owned),
            reason: "denied\n".into(),
            count: 2,
            manual,
            ..view::Ban::default()
        };
        let bans =
            vec![ban("203.0.113.9", Some("2000-01-01T00:00:00Z"), false), ban("2001:db8::/64", None, true)];
        assert_eq!(
            text(&view::Bans { bans }, Terminal::default()),
            "CLIENT         ENDS IN  BY        TIMES  REASON\n\
             203.0.113.9    0s       guard         2  denied\\n\n\
             2001:db8::/64  never    operator      2  denied\\n\n"
        );
        assert_eq!(text(&view::Bans::default(), Terminal::default()), "no client is banned");
    }
}
