//! How it is with the daemon, in one line: what runs, and what is wrong.
//!
//! It is made from read ends alone, and holds nothing that an outsider could make long.

use std::{fmt::Write as _, sync::Arc};

use tokio::sync::watch;

use crate::{
    mapping::Protocol,
    sock::inherited::Inherited,
    supervisor::{Handle, LastReload, Roster, Serving},
    text::clean_start,
};

/// How many characters of a cause are shown.
const LONGEST: usize = 160;

/// What the line is made from.
#[derive(Debug)]
pub(super) struct Facts {
    roster: watch::Receiver<Arc<Roster>>,
    last_reload: watch::Receiver<Option<Arc<LastReload>>>,
    inherited: Inherited,
}

impl Facts {
    pub(super) fn of(handle: &Handle, inherited: &Inherited) -> Self {
        Self { roster: handle.roster(), last_reload: handle.last_reload(), inherited: inherited.clone() }
    }

    /// The line of this moment.
    pub(super) fn line(&self, is_stopping: bool) -> String {
        let roster = Arc::clone(&self.roster.borrow());
        let live = |protocol| {
            let of = roster.listeners.iter().filter(|listener| listener.key.protocol == protocol);
            of.map(|listener| listener.meter.live_count()).sum()
        };
        let (sessions, flows) = (live(Protocol::Tcp), live(Protocol::Udp));
        if is_stopping || roster.is_stopping {
            return stopping(sessions, flows);
        }
        let left: Vec<String> = self.inherited.left().iter().map(ToString::to_string).collect();
        let refused = self.last_reload.borrow().as_deref().and_then(why_refused);
        line(roster.plan.about.len(), sessions, flows, &Wrong { closed: closed(&roster), left, refused })
    }
}

/// What is wrong.
#[derive(Debug, Default)]
struct Wrong {
    /// Listeners without a socket, each with the cause.
    closed: Vec<String>,
    /// Sockets that were passed and match nothing.
    left: Vec<String>,
    /// Why the last reload was refused.
    refused: Option<String>,
}

fn line(mappings: usize, sessions: usize, flows: usize, wrong: &Wrong) -> String {
    let mut line =
        format!("{}, {}, {}", many(mappings, "mapping"), many(sessions, "session"), many(flows, "flow"));
    if let [first, ..] = &wrong.closed[..] {
        let verb = if wrong.closed.len() == 1 { "waits" } else { "wait" };
        // Writing to a string does not fail.
        let _ = write!(line, "; {} {verb}: {}", many(wrong.closed.len(), "listener"), clipped(first));
    }
    if let [first, ..] = &wrong.left[..] {
        let verb = if wrong.left.len() == 1 { "matches" } else { "match" };
        let _ = write!(line, "; {} {verb} no listener: {first}", many(wrong.left.len(), "passed socket"));
    }
    if let Some(why) = &wrong.refused {
        let _ = write!(line, "; the last reload was refused: {}", clipped(why));
    }
    line
}

fn stopping(sessions: usize, flows: usize) -> String {
    format!("stopping: {} and {} left", many(sessions, "session"), many(flows, "flow"))
}

/// The listeners that have no socket, each with the cause and without the cure.
fn closed(roster: &Roster) -> Vec<String> {
    let waiting = roster.listeners.iter().filter_map(|listener| match &listener.state {
        Serving::Waiting(trouble) | Serving::Failed(trouble) => Some(match &trouble.holder {
            Some(holder) => format!("{} is in use by {holder}", listener.key),
            None => format!("{}: {}", listener.key, cause(&trouble.error)),
        }),
        Serving::Listening | Serving::Closing => None,
    });
    waiting.collect()
}

/// A message without its cure.
fn cause(message: &str) -> &str {
    message.split(';').next().unwrap_or_default()
}

fn why_refused(last: &LastReload) -> Option<String> {
    if last.is_applied() {
        return None;
    }
    let problem = last.problems.first().map(crate::config::Problem::summary);
    problem.or_else(|| last.refused.first().cloned())
}

fn clipped(text: &str) -> String {
    clean_start(text, LONGEST)
}

/// A number with its noun.
fn many(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_comes_first_and_what_is_wrong_after_it() {
        assert_eq!(line(3, 12, 1, &Wrong::default()), "3 mappings, 12 sessions, 1 flow");
        let wrong = Wrong {
            closed: vec!["0.0.0.0:80/tcp is in use by nginx (pid 7)".into()],
            left: vec!["127.0.0.1:81/udp".into(), "127.0.0.1:82/udp".into()],
            refused: Some("a.toml:1:1: wrong".into()),
        };
        assert_eq!(
            line(1, 0, 0, &wrong),
            "1 mapping, 0 sessions, 0 flows; 1 listener waits: 0.0.0.0:80/tcp is in use by nginx (pid 7); 2 passed \
             sockets match no listener: 127.0.0.1:81/udp; the last reload was refused: a.toml:1:1: wrong"
        );
    }

    #[test]
    fn a_cause_of_others_is_short_and_of_one_line() {
        let wrong = Wrong { refused: Some(format!("one\n{}", "x".repeat(9_000))), ..Wrong::default() };
        let line = line(1, 1, 1, &wrong);
        assert!(line.len() < 300 && !line.contains('\n'), "{line}");
    }
}
