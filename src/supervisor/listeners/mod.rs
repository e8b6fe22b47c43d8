//! The listeners that run: what they are, what others see of them, and how they end.
//!
//! A new plan is applied in `apply`. Listeners without a socket are bound again in `waiting`. A
//! hand-over takes them, and brings them, in `handed`.

mod apply;
mod handed;
mod waiting;

use std::{collections::BTreeMap, sync::Arc};

pub(super) use apply::Globals;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    budgets::{Budgets, Needs},
    hand::Frozen,
    mapping::{Admissions, AllPools, AllTotals, Mappings, SessionLogs},
    outages::Outages,
    quiet_stop::Remaining,
    roster::{Changes, Roster},
    running::Running,
    shared::{Failed, Shared},
};
use crate::{
    alarm::Alarm,
    config::{self, LimitSettings, Plan, PlanDiff, Problem},
    events::Events,
    mapping::{ListenerKey, LiveListener, LiveSet, Timeout},
    meter::{Ended, Ledger},
    policy::Gate,
    relay::Drain,
    sock::inherited::Inherited,
    targets::{Dialer, Probes},
    wake::Wakers,
};

/// Every listener, and the plan that is applied.
#[derive(Debug)]
pub(super) struct Listeners {
    plan: Arc<Plan>,
    /// Counts up when a [`Roster`] would be another one.
    revision: u64,
    /// Some client is let in by a knock.
    has_knocked: bool,
    /// The log says that this machine has no IPv6.
    said_ipv4_only: bool,
    /// Whether a lack of routing for `transparent` was looked for.
    said_routing: bool,
    /// What the budgets were last set for.
    shares: Option<(LimitSettings, Needs)>,
    mappings: Mappings,
    running: BTreeMap<ListenerKey, Running>,
    /// Closed listeners with sessions. A task for each waits for its end.
    retiring: Vec<Retiring>,
    retirement: Drain,
    shared: Arc<Shared>,
    events: Events,
    failed: mpsc::UnboundedReceiver<Failed>,
    outages: Outages,
    /// What another process has handed over and does not move yet.
    arrived: Frozen,
}

/// A listener that closed and still has sessions.
#[derive(Debug)]
struct Retiring {
    running: Arc<Running>,
    /// Another listener has its place.
    is_replaced: bool,
    /// How long its sessions may go on. `None` while another listener continues their mapping.
    grace: watch::Sender<Option<Timeout>>,
}

impl Listeners {
    pub(super) fn new(
        budgets: Budgets,
        gate: Arc<Gate>,
        refused: Arc<Notify>,
        alarm: Alarm,
        events: Events,
        inherited: Inherited,
    ) -> Self {
        let (sender, failed) = mpsc::unbounded_channel();
        let dialer = Dialer::new(events.clone());
        Self {
            plan: Arc::default(),
            revision: 0,
            has_knocked: false,
            said_ipv4_only: false,
            said_routing: false,
            shares: None,
            mappings: Mappings::new(Arc::clone(&gate), Arc::clone(&refused)),
            running: BTreeMap::new(),
            retiring: Vec::new(),
            retirement: Drain::new(),
            shared: Arc::new(Shared {
                dialer: dialer.clone(),
                wakers: Wakers::new(events.clone()),
                budgets,
                ledger: Ledger::new(events.clone()),
                gate,
                refused,
                alarm,
                failed: sender,
                next: Arc::default(),
                inherited,
                serves: CancellationToken::new(),
            }),
            events,
            failed,
            outages: Outages::new(&dialer),
            arrived: Frozen::default(),
        }
    }

    /// Tells the dialer what listens: the listeners that serve, and `more`, which are about to.
    fn note_listening<'a>(&'a self, more: impl Iterator<Item = &'a ListenerKey>) {
        let serving = self.running.iter().filter(|(_, running)| !running.is_waiting()).map(|(key, _)| key);
        self.shared.dialer.listens_on(serving.chain(more).map(|key| (key.protocol, &key.addr)));
    }

    /// The totals of the plan's mappings.
    pub(super) fn totals(&self) -> AllTotals {
        self.mappings.totals()
    }

    /// The admissions of the plan.
    pub(super) fn admissions(&self) -> Admissions {
        self.mappings.admissions()
    }

    /// The budgets of session lines, also of mappings that were removed and still have sessions.
    pub(super) fn session_logs(&self) -> SessionLogs {
        self.mappings.session_logs()
    }

    /// Cuts the sessions and flows of clients without access, also those of closed listeners.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        self.all().for_each(|running| running.sweep(now));
    }

    /// Does what follows when targets went down or came back.
    pub(super) fn heed_targets(&mut self) {
        let retiring = self.retiring.iter().map(|retiring| &*retiring.running);
        self.outages.end_sessions(&self.plan, self.running.values().chain(retiring));
        self.revision += u64::from(self.outages.withdraw(&self.plan));
    }

    /// Notes whether any client is let in by a knock: what it opens on the router follows.
    pub(super) fn heed_knocks(&mut self, any: bool) {
        self.revision += u64::from(std::mem::replace(&mut self.has_knocked, any) != any);
    }

    /// What is to be probed.
    pub(super) fn probes(&self) -> watch::Receiver<Probes> {
        self.outages.probes()
    }

    /// The pools of the plan, also of mappings that are closed.
    pub(super) fn pools(&self) -> AllPools {
        self.mappings.pools()
    }

    /// What listens, less what is withdrawn from the router.
    pub(super) fn live(&self) -> LiveSet {
        let is_open =
            |key: &ListenerKey, running: &Running| !running.is_waiting() && !self.outages.is_withdrawn(key);
        let listening = self.running.iter().filter(|(key, running)| is_open(key, running));
        let live = listening.filter_map(|(key, _)| {
            let plan = self.plan.listeners.get(key)?;
            let waits = || {
                !self.has_knocked && self.plan.mapping_of(plan).is_some_and(|mapping| mapping.policy.knock)
            };
            let exposure = plan.exposure.filter(|_| !waits());
            Some((key.clone(), LiveListener { mapping: plan.name.clone(), exposure }))
        });
        live.collect()
    }

    /// Cancelled when the listeners may take clients.
    pub(super) fn serves(&self) -> &CancellationToken {
        &self.shared.serves
    }

    /// What reaches the targets.
    pub(super) fn dialer(&self) -> &Dialer {
        &self.shared.dialer
    }

    /// What numbers the sessions.
    pub(super) fn ledger(&self) -> &Ledger {
        &self.shared.ledger
    }

    /// What starts targets.
    pub(super) fn wakers(&self) -> &Wakers {
        &self.shared.wakers
    }

    /// A number that changes with [`Listeners::roster`].
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// What others see of the plan and its listeners.
    pub(super) fn roster(&self, warnings: &Arc<[Problem]>, is_stopping: bool) -> Roster {
        let planned = self.running.values().map(|running| running.record(is_stopping));
        let retiring = self.retiring.iter().map(|retiring| retiring.running.record(true));
        Roster {
            plan: Arc::clone(&self.plan),
            listeners: planned.chain(retiring).collect(),
            warnings: Arc::clone(warnings),
            is_stopping,
        }
    }

    /// What `plan` would change.
    pub(super) fn preview(&self, plan: &Plan) -> Changes {
        self.changes(&config::diff(&self.plan, plan), plan)
    }

    fn changes(&self, diff: &PlanDiff, plan: &Plan) -> Changes {
        Changes::of(diff, &self.plan, plan, |key| self.running.get(key).map(Running::meter))
    }

    /// Closes every listener.
    pub(super) fn close_all(&self) {
        self.running.values().for_each(Running::close);
        self.retirement.close();
    }

    /// Cuts every session, also those of closed listeners.
    pub(super) fn cut_all(&self, reason: Ended) {
        self.all().for_each(|running| running.cut(reason));
    }

    /// Cuts the sessions that live now.
    pub(super) fn cut_live(&self, reason: Ended) {
        for live in self.all().flat_map(|running| running.meter().live()) {
            live.cut(reason);
        }
    }

    /// Every listener, also the closed ones with sessions.
    fn all(&self) -> impl Iterator<Item = &Running> {
        self.running.values().chain(self.retiring.iter().map(|retiring| &*retiring.running))
    }

    /// The sessions and flows that are left, also those of closed listeners.
    pub(super) fn left(&self) -> Remaining {
        let mut left = Remaining::default();
        self.all().for_each(|running| running.count_into(&mut left));
        left.flows.sort_unstable();
        left
    }

    /// Waits, after [`Listeners::close_all`], for the last session.
    pub(super) async fn finished(&self) {
        for running in self.running.values() {
            running.finished().await;
        }
        self.retirement.finished().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Source, System},
        supervisor::Tolerance,
    };

    #[tokio::test]
    async fn the_word_that_a_socket_died_means_no_other_one_in_its_place() {
        // An address that no other process has.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let publish = vec![format!("127.90.{high}.{}:8080:127.0.0.1:9", low.max(1))];
        let loaded = config::load(&Source { publish, ..Source::default() }, &System).unwrap();
        let (plan, globals) = (loaded.plan, Globals::of(loaded.gate, &loaded.settings));
        let budgets = Budgets::new(64, true);
        let mut listeners = Listeners::new(
            budgets,
            Gate::new(std::time::SystemTime::now),
            Arc::default(),
            Alarm::default(),
            Events::default(),
            Inherited::default(),
        );
        for plan in [plan.clone(), Plan::default(), plan.clone()] {
            listeners.apply(plan, &globals, Tolerance::Absent).await.unwrap();
        }
        let key = plan.listeners.keys().next().unwrap();
        let died = |number| Failed { key: key.clone(), number, error: String::new() };
        listeners.suspend(&died(0));
        assert!(!listeners.any_waiting(), "that was the socket before the last two reloads");
        listeners.suspend(&died(1));
        assert!(listeners.any_waiting());
    }
}
