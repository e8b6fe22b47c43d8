//! `portway events`: what happened, and what happens.
//!
//! Prints each event as it comes. It ends with a signal, with a reader of its output that goes
//! away, and with the daemon, which is a failure.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use super::{Daemon, Failed, Outcome, human::clock};
use crate::{
    api::client::{Ask, Received},
    cli::table::{Colour, Terminal},
    status::view::{Event, Recorded, Recorder},
    text::{Escaped, escaped_json},
};

/// How often it looks whether anything still reads its output.
const LOOK: Duration = Duration::from_secs(1);
/// The longest kind of an event, and the longest of what the flight recorder has besides.
const KIND: usize = 16;
const RECORDED: usize = "session-connected".len();

/// Which events.
#[derive(Debug, Args)]
pub(in crate::cli) struct Events {
    /// Go on with what happens from now on
    #[arg(short, long)]
    follow: bool,
    /// Only what is about this mapping
    #[arg(long, value_name = "NAME")]
    mapping: Option<String>,
    /// With --mapping: its last 256 events from the flight recorder. With -f: begin with what the
    /// daemon remembers; without -f it is always shown
    #[arg(long)]
    recent: bool,
}

/// Prints events until the last one.
pub(super) async fn events(args: Events, daemon: &Daemon) -> Result<Outcome, Failed> {
    if args.recent && !args.follow && args.mapping.is_some() {
        return recorded(args.mapping.as_deref(), daemon).await;
    }
    let after = (args.recent || !args.follow).then_some(0);
    let ask = Ask::get("/v1/events")
        .with("mapping", args.mapping.as_deref())
        .with("follow", (!args.follow).then_some("false"));
    let mut stream = daemon.client.follow(ask, after).await?;
    let failed = |error: io::Error| Failed::Other(format!("start: {error}"), None);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let received = tokio::select! {
            received = stream.next() => received?,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = look.tick() => {
                if has_no_reader() {
                    break;
                }
                continue;
            }
        };
        let line = match received {
            Some(Received::Event { event, json }) => {
                if daemon.json {
                    one_line(&json)
                } else {
                    line(&event, KIND, daemon.terminal)
                }
            }
            Some(Received::Lost(count)) if daemon.json => json!({ "lost": count }).to_string(),
            Some(Received::Lost(count)) => format!("… {count} more events were not kept or came too fast"),
            None if args.follow => {
                return Err(Failed::Other("the portway daemon ended".to_owned(), None));
            }
            None => break,
        };
        let mut out = io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Failed::Output)?;
    }
    Ok(Outcome::done(String::new()))
}

/// Shows what the flight recorder holds of a mapping.
async fn recorded(mapping: Option<&str>, daemon: &Daemon) -> Result<Outcome, Failed> {
    let answer = daemon.client.ask(&Ask::get("/v1/recorder").with("mapping", mapping)).await?;
    let recorder: Recorder = answer.read()?;
    let lines = recorder.events.into_iter().map(|event| {
        if daemon.json {
            return one_line(&serde_json::to_string(&event).unwrap_or_default());
        }
        let Recorded { at, kind, mapping, message, .. } = event;
        line(&Event { at, kind, mapping, message, ..Event::default() }, RECORDED, daemon.terminal)
    });
    Ok(Outcome::done(lines.map(|line| line + "\n").collect()))
}

/// Whether standard output is a pipe, or the like, whose other end is closed.
fn has_no_reader() -> bool {
    let out = io::stdout();
    let mut polled = [PollFd::new(&out, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok_and(|count| count > 0)
        && polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

/// JSON of the daemon on one line: line breaks in it stand between its parts.
fn one_line(json: &str) -> String {
    escaped_json(&json.replace(['\n', '\r'], " "))
}

/// An event for a person, with so much room for its kind.
fn line(event: &Event, room: usize, terminal: Terminal) -> String {
    let kind = colour(&event.kind).map_or_else(
        || Escaped(&event.kind).to_string(),
        |colour| colour.mark(&Escaped(&event.kind).to_string()),
    );
    let gap = " ".repeat(room.saturating_sub(event.kind.chars().count()));
    let mapping = event.mapping.as_deref().map(|name| format!("{}: ", Escaped(name))).unwrap_or_default();
    let line = format!("{}  {kind}{gap}  {mapping}{}", clock(&event.at), Escaped(&event.message));
    Colour::paint(&line, terminal.colour)
}

/// The colour of a kind of event.
pub(in crate::cli) fn colour(kind: &str) -> Option<Colour> {
    Some(match kind {
        "target-down" | "listener-failed" | "listener-waiting" | "reload-refused" | "stopping"
        | "hand-over-failed" => Colour::Bad,
        "target-up" | "listening" | "reload-applied" | "knock-accepted" => Colour::Good,
        "banned" | "unbanned" | "session-refused" | "mapping-paused" | "listener-closed" => Colour::Pale,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event = Event {
            id: 7,
            at: "2026-11-29T14:11:20.5Z".into(),
            kind: "target-down".into(),
            mapping: Some("web".into()),
            message: "target a\nb/tcp is down".into(),
            ..Event::default()
        };
        assert_eq!(
            line(&event, KIND, Terminal::default()),
            "2026-11-29 14:11:20  target-down       web: target a\\nb/tcp is down"
        );
        let coloured = line(&event, KIND, Terminal { colour: true, width: None });
        assert!(coloured.contains("\u{1b}[31mtarget-down\u{1b}[0m "), "{coloured}");
        let bare = Event { kind: "stopping".into(), message: "the daemon stops".into(), ..Event::default() };
        assert_eq!(line(&bare, KIND, Terminal::default()), "  stopping          the daemon stops");
        assert_eq!(one_line("{\"a\":\n\"\u{202e}\"}"), "{\"a\": \"\\u202e\"}");
    }
}
