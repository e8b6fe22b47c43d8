//! What old knows, for new: everything that is neither a socket nor a session.
//!
//! It goes in two messages: one ahead of the freeze, which may be large, and one while all stands
//! still, which is small and exact (`supervisor::SupervisorState`). A part that new cannot use is
//! left out. Nothing here costs anything without a hand-over.
//!
//! Here on top of what the mappings know: the level of the log that was asked for, with its time
//! left, the points of graphs, and what is open on the router, for the case that no file remembers
//! it.
//!
//! Not handed over, on purpose: who is logged in to the API and its streams of events (clients come
//! again, and their `Last-Event-ID` holds), the outcome of the last reload, and the time since the
//! start, which is that of the process. A paused mapping is in the managed file, which new reads.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    daemon::windows::Rates,
    events::Events,
    gateway::Remembered,
    handover::lenient,
    log_level::{AskedLevel, LevelControl},
    supervisor::{Handle, Started, SupervisorState},
};

/// What one process knows, or a part of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct StateRecord {
    #[serde(deserialize_with = "lenient::some")]
    mappings: Option<SupervisorState>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "lenient::some")]
    log_level: Option<AskedLevel>,
    /// The points of graphs.
    #[serde(skip_serializing_if = "Option::is_none")]
    rates: Option<Value>,
    /// What is open on routers.
    #[serde(skip_serializing_if = "Option::is_none")]
    openings: Option<Value>,
}

/// Where old finds what it knows. Clones look at the same.
#[derive(Clone, Debug)]
pub(in crate::daemon) struct Known {
    pub(in crate::daemon) handle: Handle,
    pub(in crate::daemon) events: Events,
    pub(in crate::daemon) log_level: LevelControl,
    pub(in crate::daemon) rates: Rates,
    pub(in crate::daemon) openings: Remembered,
}

impl Known {
    /// The part that goes ahead of the freeze. It takes a while where much is known.
    pub(super) fn ahead(&self) -> StateRecord {
        StateRecord {
            mappings: Some(SupervisorState::ahead(&self.handle, &self.events)),
            log_level: self.log_level.snapshot(),
            rates: self.rates.snapshot(),
            openings: self.openings.snapshot(),
        }
    }

    /// The part that goes while all stands still; `ahead` has gone before.
    pub(super) fn at_freeze(&self, ahead: &StateRecord) -> StateRecord {
        let ahead = ahead.mappings.as_ref();
        StateRecord {
            mappings: Some(SupervisorState::at_freeze(&self.handle, &self.events, ahead)),
            ..StateRecord::default()
        }
    }

    /// Both parts in one.
    pub(super) fn whole(&self) -> StateRecord {
        StateRecord {
            mappings: Some(SupervisorState::at_freeze(&self.handle, &self.events, None)),
            ..self.ahead()
        }
    }
}

/// Where new puts what old knew, as it comes.
#[derive(Debug)]
pub(super) struct Learning {
    handle: Handle,
    events: Events,
    log_level: LevelControl,
    started: Vec<Started>,
    later: Learnt,
}

/// What parts need that start later.
#[derive(Clone, Debug, Default)]
pub(in crate::daemon) struct Learnt {
    /// The points of graphs.
    pub(in crate::daemon) rates: Option<Value>,
    /// What is open on routers.
    pub(in crate::daemon) openings: Option<Value>,
    /// The bans have come: those of the file are as old or older.
    pub(in crate::daemon) has_bans: bool,
}

impl Learning {
    pub(super) fn new(handle: &Handle, events: &Events, log_level: &LevelControl) -> Self {
        Self {
            handle: handle.clone(),
            events: events.clone(),
            log_level: log_level.clone(),
            started: Vec::new(),
            later: Learnt::default(),
        }
    }

    /// Takes over a part. It belongs inside the runtime's context.
    pub(super) fn take(&mut self, record: StateRecord) {
        let StateRecord { mappings, log_level, rates, openings } = record;
        if let Some(mappings) = mappings {
            self.later.has_bans |= mappings.has_bans();
            self.started.push(mappings.take_over(&self.handle, &self.events));
        }
        if let Some(level) = log_level {
            self.log_level.take_over(level);
        }
        let Learnt { rates: known_rates, openings: known_openings, .. } = &mut self.later;
        *known_rates = rates.or_else(|| known_rates.take());
        *known_openings = openings.or_else(|| known_openings.take());
    }

    /// Goes on with it: this process serves from now on.
    pub(super) fn begin(self) -> Learnt {
        self.started.into_iter().for_each(|started| started.go_on(&self.handle));
        self.later
    }
}
