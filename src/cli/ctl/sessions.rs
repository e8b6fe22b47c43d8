//! `portway sessions` and `close`: what is live, and the end of it.

use std::cmp::Reverse;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{
    Daemon, Failed, Outcome,
    human::{bytes, count, span},
    pretty,
};
use crate::{
    api::client::{Ask, ClientError},
    cli::table::{Cell, Column, Table, Terminal},
    status::view::{self, Session},
};

/// The status of HTTP for what does not exist.
const NOT_FOUND: u16 = 404;

/// Which sessions, and in what order.
#[derive(Debug, Args)]
pub(in crate::cli) struct Sessions {
    /// Only those of this mapping
    #[arg(long, value_name = "NAME")]
    mapping: Option<String>,
    /// Only those of this client, an address or a network
    #[arg(long, value_name = "CLIENT")]
    client: Option<String>,
    /// By which column; the largest, oldest and longest come first
    #[arg(long, value_name = "KEY", value_enum)]
    sort: Option<Sort>,
    /// How many at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

/// A column by which sessions are sorted.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Sort {
    Id,
    Mapping,
    Client,
    Target,
    Age,
    Idle,
    In,
    Out,
    /// Bytes in both directions.
    Bytes,
}

/// Which sessions end.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("filter").required(true).multiple(true))]
pub(in crate::cli) struct Close {
    /// The numbers of sessions, as `portway sessions` shows them
    #[arg(value_name = "ID", group = "filter", conflicts_with_all = ["client", "mapping"])]
    ids: Vec<u64>,
    /// Every session of this client, an address or a network
    #[arg(long, value_name = "CLIENT", group = "filter")]
    client: Option<String>,
    /// Every session of this mapping
    #[arg(long, value_name = "NAME", group = "filter")]
    mapping: Option<String>,
}

/// Lists sessions.
pub(super) async fn sessions(args: Sessions, daemon: &Daemon) -> Result<Outcome, Failed> {
    // The daemon limits by number: a list in another order has to be whole first.
    let limit = args.limit.filter(|_| args.sort.is_none()).map(|limit| limit.to_string());
    let ask = Ask::get("/v1/sessions")
        .with("mapping", args.mapping.as_deref())
        .with("client", args.client.as_deref())
        .with("limit", limit.as_deref());
    let answer = daemon.client.ask(&ask).await?;
    let mut list: view::Sessions = answer.read()?;
    let Some(sort) = args.sort else {
        return daemon
            .shown(&answer, |_: &view::Sessions| text(&list.sessions, list.next.is_some(), daemon.terminal));
    };
    sort.sort(&mut list.sessions);
    let most = args.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let is_cut = list.sessions.len() > most;
    list.sessions.truncate(most);
    list.next = None;
    Ok(Outcome::done(match daemon.json {
        true => pretty(&json!(list)),
        false => text(&list.sessions, is_cut, daemon.terminal),
    }))
}

impl Sort {
    fn sort(self, sessions: &mut [Session]) {
        match self {
            Self::Id => sessions.sort_by_key(|session| session.id),
            Self::Mapping => sessions.sort_by(|a, b| a.mapping.cmp(&b.mapping)),
            Self::Client => sessions.sort_by(|a, b| address(&a.client).cmp(&address(&b.client))),
            Self::Target => sessions.sort_by(|a, b| a.target.cmp(&b.target)),
            Self::Age => sessions.sort_by_key(|session| Reverse(session.age_ms)),
            Self::Idle => sessions.sort_by_key(|session| Reverse(session.idle_ms)),
            Self::In => sessions.sort_by_key(|session| Reverse(session.bytes_in)),
            Self::Out => sessions.sort_by_key(|session| Reverse(session.bytes_out)),
            Self::Bytes => sessions
                .sort_by_key(|session| Reverse(u128::from(session.bytes_in) + u128::from(session.bytes_out))),
        }
    }
}

/// A client in the order of addresses, and by its text where it is not one.
fn address(client: &str) -> (Option<std::net::SocketAddr>, &str) {
    (client.parse().ok(), client)
}

const COLUMNS: [Column; 9] = [
    Column::words("ID"),
    Column::words("MAPPING"),
    Column::words("CLIENT"),
    Column::words("TARGET"),
    Column::value("PROTOCOL"),
    Column::number("AGE"),
    Column::number("IDLE"),
    Column::number("IN"),
    Column::number("OUT"),
];

fn text(sessions: &[Session], is_cut: bool, terminal: Terminal) -> String {
    if sessions.is_empty() {
        return "no live sessions".to_owned();
    }
    let mut table = Table::new(&COLUMNS);
    for session in sessions {
        let client = match &session.country {
            Some(country) => format!("{} ({country})", session.client),
            None => session.client.clone(),
        };
        table.row([
            Cell::of(session.id),
            Cell::of(&session.mapping),
            Cell::of(client),
            Cell::some(session.target.as_ref()),
            Cell::some(session.protocol),
            Cell::of(span(session.age_ms)),
            Cell::some(session.idle_ms.map(span)),
            Cell::of(bytes(session.bytes_in)),
            Cell::of(bytes(session.bytes_out)),
        ]);
    }
    let more = if is_cut { "\nThere are more: raise --limit.\n" } else { "" };
    table.text(terminal) + more
}

/// Ends sessions.
pub(super) async fn close(args: Close, daemon: &Daemon) -> Result<Outcome, Failed> {
    if args.ids.is_empty() {
        let ask = Ask::delete("/v1/sessions")
            .with("client", args.client.as_deref())
            .with("mapping", args.mapping.as_deref());
        return daemon.show(&ask, |answer: &Value| closed(answer["closed"].as_u64().unwrap_or(0))).await;
    }
    let (mut ended, mut missing) = (0, Vec::new());
    for id in &args.ids {
        match daemon.client.ask(&Ask::delete("/v1/sessions").step(&id.to_string())).await {
            Ok(answer) => ended += answer.json["closed"].as_u64().unwrap_or(1),
            Err(ClientError::Refused { status: NOT_FOUND, .. }) => missing.push(id.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    if !missing.is_empty() {
        let noun = if missing.len() == 1 { "session" } else { "sessions" };
        let ended = if ended > 0 { format!("; {}", closed(ended)) } else { String::new() };
        let message = format!("there is no live {noun} {}{ended}", missing.join(", "));
        return Err(Failed::Other(message, Some("`portway sessions` lists them".to_owned())));
    }
    let text = if daemon.json { pretty(&json!({ "closed": ended })) } else { closed(ended) };
    Ok(Outcome::done(text))
}

fn closed(ended: u64) -> String {
    if ended == 0 {
        "no live session matches".to_owned()
    } else {
        format!("closed {}", count(ended, "session"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::Protocol;

    fn session(id: u64, client: &str, bytes_in: u64) -> Session {
        Session {
            id,
            mapping: "web".into(),
            protocol: Some(Protocol::Tcp),
            client: client.into(),
            target: (id != 2).then(|| "10.0.0.5:80".into()),
            age_ms: 192_000,
            idle_ms: (id == 1).then_some(3000),
            bytes_in,
            bytes_out: 1,
            ..Session::default()
        }
    }

    #[test]
    fn sessions_are_a_table_that_fits_a_narrow_terminal() {
        let sessions = [session(1, "192.0.2.7:5000", 1_258_292), session(2, "[2001:db8::7]:5000", 12)];
        assert_eq!(
            text(&sessions, false, Terminal::default()),
            "ID  MAPPING  CLIENT              TARGET       PROTOCOL     AGE  IDLE       IN  OUT\n\
             1   web      192.0.2.7:5000      10.0.0.5:80  tcp       3m 12s    3s  1.2 MiB  1 B\n\
             2   web      [2001:db8::7]:5000  -            tcp       3m 12s     -     12 B  1 B\n"
        );
        let narrow = Terminal { width: Some(60), colour: false };
        assert_eq!(
            text(&sessions, true, narrow),
            "ID  MAPPING  CLIENT              TARGET       PROTOCOL\n\
             1   web      192.0.2.7:5000      10.0.0.5:80  tcp\n    \
                 age 3m 12s, idle 3s, in 1.2 MiB, out 1 B\n\
             2   web      [2001:db8::7]:5000  -            tcp\n    \
                 age 3m 12s, in 12 B, out 1 B\n\nThere are more: raise --limit.\n"
        );
        assert_eq!(text(&[], false, narrow), "no live sessions");
    }

    #[test]
    fn the_largest_come_first_and_clients_in_the_order_of_their_addresses() {
        let sorted = |sort: Sort| {
            let mut sessions =
                [session(1, "192.0.2.10:1", 5), session(2, "192.0.2.9:1", 9), session(3, "[::1]:1", 7)];
            sort.sort(&mut sessions);
            sessions.map(|session| session.id)
        };
        assert_eq!(sorted(Sort::In), [2, 3, 1]);
        assert_eq!(sorted(Sort::Bytes), [2, 3, 1]);
        assert_eq!(sorted(Sort::Client), [2, 1, 3]);
        assert_eq!(sorted(Sort::Idle), [1, 2, 3]);
        assert_eq!(sorted(Sort::Id), [1, 2, 3]);
    }
}
