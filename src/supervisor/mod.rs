//! Keeps what runs equal to the plan.
//!
//! One task owns every listener. The rest of the daemon holds a [`Handle`] and sends requests. A
//! new plan is applied in three steps, and the first two can be taken back:
//!
//! 1. *diff*: find the listeners that open, close, change in place, or replace others whose address
//!    they overlap.
//! 2. *stage*: bind every socket that opens. A listener that replaces others is bound over their
//!    sockets, which go on to serve (`0.0.0.0:80` over `127.0.0.1:80`). If a bind fails, drop what
//!    was staged: nothing has changed.
//! 3. *commit*: removed listeners retire, changed ones take their new plan, staged ones serve. No
//!    part of this can fail.
//!
//! A listener whose address does not exist yet waits, and is tried again every second. At the start
//! this also holds for a port in use, as long as some listener opens. A reload refuses such a plan.
//!
//! Sessions of a listener that closes can end by themselves during the grace. Then they are cut. A
//! client that is accepted while its listener closes ends with that listener. TCP sessions of a
//! replaced listener stay as long as their mapping does. A stop ends earlier if only silent flows
//! are left (`quiet_stop`).
//!
//! A configuration is read on a thread of its own: a stop, a sweep and a retry do not wait for it.
//! What the loop does wait for has a limit, and [`Pulse`] tells others that the loop still turns. A
//! panic here or in a listener raises the [`Alarm`].
//!
//! Access can change with a plan and without one (a ban, a list whose file was replaced). Then the
//! live sessions are swept: those of clients without access are cut, until the last one has ended.

mod bind;
mod budgets;
mod hand;
mod handle;
mod holder;
mod kind;
mod knocks;
mod listeners;
mod mapping;
mod named;
mod outages;
mod outcome;
mod pulse;
mod quiet_stop;
mod reloads;
mod roster;
mod running;
mod shared;
mod state;
mod summaries;
mod sweep;
mod task;

use std::{sync::Arc, time::Duration};

pub(crate) use bind::BindError;
pub use bind::Tolerance;
pub use budgets::Budgets;
pub(crate) use hand::{Frozen, HandOver, Inheritance, Part, Snapshot, TakenOver};
pub use handle::Handle;
#[cfg(feature = "api")]
pub(crate) use holder::holders;
pub(crate) use mapping::{Admissions, AllPools, AllTotals};
pub(crate) use outcome::{Applied, LastReload, Preview, ReloadError};
pub(crate) use pulse::Pulse;
pub(crate) use reloads::{PlanSource, Turns};
pub(crate) use roster::{Changes, ListenerRecord, Roster, Serving, SessionFilter};
pub(crate) use state::{Started, SupervisorState};

use crate::{alarm::Alarm, events::Events, mapping::Timeout, policy::Gate, sock::inherited::Inherited};

/// How long sessions that were cut may take to settle.
const SETTLE: Duration = Duration::from_secs(2);

/// What the supervisor works with.
#[derive(Debug)]
pub struct Means {
    /// What of the machine the data plane may use.
    pub budgets: Budgets,
    /// The bans in it hold from the first connection on.
    pub gate: Arc<Gate>,
    /// Raised where the supervisor or a listener ends without plan.
    pub alarm: Alarm,
    /// Where what happens is told.
    pub events: Events,
    /// Sockets that were passed to this process: a listener looks there before it binds.
    pub inherited: Inherited,
}

/// Waits for the limit. Without one it does not return.
async fn wait(limit: Timeout) {
    match limit.duration() {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
