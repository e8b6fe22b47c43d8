//! Live sessions, one view after the other.
//!
//! A [`SessionList`] knows which sessions are meant, and makes each view when it is asked for. So a
//! long list takes little memory and can be made in parts. A session that ends meanwhile stays in
//! the list.

use std::{sync::Arc, time::SystemTime, vec};

use tokio::time::Instant;

use super::{Board, millis, rfc3339, view};
use crate::{
    meter::LiveSession,
    supervisor::{ListenerRecord, Roster, SessionFilter},
};

/// Sessions that were live at one moment, by number.
#[derive(Debug)]
pub(crate) struct SessionList {
    board: Board,
    roster: Arc<Roster>,
    /// Each with the index of its listener.
    sessions: vec::IntoIter<(Arc<LiveSession>, usize)>,
    /// The last number, if the limit left some out.
    cut_after: Option<u64>,
    clock: (Instant, SystemTime),
    /// Whether idle times are measured.
    is_measured: bool,
}

impl Board {
    /// The live sessions that `filter` means: those with a number above `after`, at most `limit`.
    pub(crate) fn sessions(&self, filter: &SessionFilter, after: u64, limit: usize) -> SessionList {
        let roster = self.roster();
        let mut found: Vec<(Arc<LiveSession>, usize)> = Vec::new();
        for (index, record) in roster.listeners.iter().enumerate() {
            if filter.takes_listener(record) {
                let live = record.meter.live().into_iter();
                let taken = live.filter(|session| session.id > after && filter.takes(session));
                found.extend(taken.map(|session| (session, index)));
            }
        }
        found.sort_unstable_by_key(|(session, _)| session.id);
        let is_cut = found.len() > limit;
        found.truncate(limit);
        let cut_after = found.last().filter(|_| is_cut).map(|(session, _)| session.id);
        let clock = (Instant::now(), SystemTime::now());
        let is_measured = self.history.is_on();
        SessionList {
            board: self.clone(),
            roster,
            sessions: found.into_iter(),
            cut_after,
            clock,
            is_measured,
        }
    }
}

impl SessionList {
    /// The `after` of the next part, if the limit left some out.
    pub(crate) fn next_part(&self) -> Option<String> {
        self.cut_after.map(|id| id.to_string())
    }

    fn view(&self, session: &LiveSession, listener: &ListenerRecord) -> view::Session {
        let (now, date) = self.clock;
        let age = now.saturating_duration_since(session.started);
        view::Session {
            id: session.id,
            mapping: listener.meter.mapping().to_string(),
            protocol: Some(listener.key.protocol),
            client: session.client.to_string(),
            listen: listener.key.addr.to_string(),
            target: session.target_text(),
            country: self.board.country(session.client.ip()),
            started: rfc3339(date.checked_sub(age).unwrap_or(date)),
            age_ms: millis(age),
            idle_ms: self.is_measured.then(|| millis(session.quiet(now))),
            bytes_in: session.bytes_in(),
            bytes_out: session.bytes_out(),
        }
    }
}

impl Iterator for SessionList {
    type Item = view::Session;

    fn next(&mut self) -> Option<view::Session> {
        let (session, index) = self.sessions.next()?;
        Some(self.view(&session, &self.roster.listeners[index]))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.sessions.size_hint()
    }
}

impl ExactSizeIterator for SessionList {}
