//! What the routes work with.
//!
//! Owns nothing that runs: read ends, the supervisor's handle, and who may ask. Clones of the parts
//! lead to the same daemon.

use arc_swap::ArcSwap;
use tokio_util::task::TaskTracker;

use super::{auth::Auth, prober::Prober};
use crate::{
    config::ApiSettings, events::Events, handover::Upgrades, log_level::LevelControl,
    sources::managed::Managed, status::Board, supervisor::Handle,
};

/// What the composition root gives to the API.
#[derive(Clone, Debug)]
pub(crate) struct Means {
    /// What is shown.
    pub(crate) board: Board,
    /// What is asked to change something.
    pub(crate) handle: Handle,
    /// What changes the mappings that were made at run time.
    pub(crate) managed: Managed,
    /// What happens.
    pub(crate) events: Events,
    /// What is asked for another level of the log.
    pub(crate) log_level: LevelControl,
    /// What is asked for a hand-over.
    pub(crate) upgrades: Upgrades,
}

/// What the routes work with.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) means: Means,
    pub(super) auth: Auth,
    /// What tries the ports of other nodes.
    pub(super) prober: Prober,
    /// Changes that are finished although their client leaves.
    pub(super) tasks: TaskTracker,
    /// Further names for the `Host` header.
    pub(super) hosts: ArcSwap<Vec<String>>,
}

impl Context {
    pub(super) fn new(means: Means, settings: &ApiSettings, tasks: TaskTracker) -> Self {
        Self {
            means,
            auth: Auth::new(&settings.tokens),
            prober: Prober::new(settings.probe.as_ref()),
            tasks,
            hosts: ArcSwap::from_pointee(settings.hosts.clone()),
        }
    }

    /// Takes what another configuration says.
    pub(super) fn retune(&self, settings: &ApiSettings) {
        self.auth.retune(&settings.tokens);
        self.prober.retune(settings.probe.as_ref());
        self.hosts.store(settings.hosts.clone().into());
    }

    /// Turns on or off what costs something while nothing looks at it: events and rates.
    pub(super) fn switch(&self, on: bool) {
        self.means.events.switch(on);
        self.means.board.switch_history(on);
    }

    pub(super) fn board(&self) -> &Board {
        &self.means.board
    }
}
