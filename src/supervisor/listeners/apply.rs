//! Applies a new plan: binds what opens, closes what the plan has no more, changes the rest.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use tokio::sync::watch;

use super::{Listeners, Retiring};
use crate::{
    config::{self, LimitSettings, ListenerPlan, Plan, PlanDiff, Service, Settings},
    mapping::{ListenAddr, ListenerKey, MappingId, MappingName, Timeout},
    meter::Ended,
    policy::{GateInput, Refuse},
    sock::{bind::Listening, transparent},
    supervisor::{
        bind::{
            BindError, Staged, Tolerance, explained, may_be_transparent, say_ipv4_only, stage_all, stage_over,
        },
        budgets::Needs,
        named::ChangedNames,
        outcome::Applied,
        running::Running,
        wait,
    },
};

/// The listeners of a plan that have a line each in the log when they open. The others are counted:
/// a range of ports may have thousands.
const NAMED: usize = 100;

/// What the configuration says for all mappings together.
#[derive(Debug)]
pub(in crate::supervisor) struct Globals {
    pub(in crate::supervisor) gate: GateInput,
    pub(in crate::supervisor) limits: LimitSettings,
    /// How long sessions of listeners that close may go on.
    pub(in crate::supervisor) grace: Timeout,
    /// Where the API listens, or will.
    pub(in crate::supervisor) api: Vec<ListenAddr>,
}

impl Globals {
    pub(in crate::supervisor) fn of(gate: GateInput, settings: &Settings) -> Self {
        let api = settings.api.listen.iter().chain(&settings.metrics.listen).cloned().collect();
        Self { gate, limits: settings.limits, grace: settings.grace, api }
    }
}

/// The outcome of an applied plan.
#[derive(Debug)]
pub(in crate::supervisor) struct Changed {
    pub(in crate::supervisor) applied: Applied,
    /// A live session may have lost its access.
    pub(in crate::supervisor) revokes: bool,
}

impl Listeners {
    /// Applies `plan`. A new listener whose failure `tolerance` allows waits, and the log says so.
    ///
    /// # Errors
    /// Every listener that could not be opened. Then nothing has changed.
    pub(in crate::supervisor) async fn apply(
        &mut self,
        plan: Plan,
        globals: &Globals,
        tolerance: Tolerance,
    ) -> Result<Changed, Vec<BindError>> {
        match self.change_to(plan, globals, tolerance).await {
            Ok((changed, waiting)) => {
                self.say_waiting(waiting).await;
                Ok(changed)
            }
            Err(errors) => Err(explained(errors).await),
        }
    }

    async fn change_to(
        &mut self,
        plan: Plan,
        globals: &Globals,
        tolerance: Tolerance,
    ) -> Result<(Changed, Vec<BindError>), Vec<BindError>> {
        may_be_transparent(&plan)?;
        let diff = config::diff(&self.plan, &plan);
        let staged = self.stage(&diff, &plan, tolerance)?;
        let changes = self.changes(&diff, &plan);

        // Nothing fails from here on.
        let closed = diff.replace.iter().map(|r| r.close.len()).sum::<usize>() + diff.close.len();
        let replaced = diff.replace.iter().map(|r| r.open.len()).sum::<usize>();
        let opened = staged.len() - replaced;
        let replaced_keys = diff.replace.iter().flat_map(|r| &r.close).map(|key| (key, true));
        let gone = diff.close.iter().map(|key| (key, false)).chain(replaced_keys);
        let gone: Vec<_> = gone.filter_map(|(key, replaced)| self.retire(key, replaced)).collect();
        let listens_elsewhere = !gone.is_empty() || !staged.is_empty();
        self.end_removed(&plan, globals.grace);
        for running in gone {
            running.stopped_listening().await;
        }
        self.take_back(staged.iter().map(|(key, _)| key)).await;
        let mut revokes = self.take_terms(&plan, globals);
        for key in &diff.retune {
            // A name may have other rules now.
            revokes |= plan.listeners[key].service.leads_by_names();
            if let Some(running) = self.running.get_mut(key) {
                running.retune(&plan.listeners[key]);
            }
        }
        let bound = staged.iter().filter(|(_, staged)| matches!(staged, Staged::Bound(_)));
        if listens_elsewhere {
            self.note_listening(bound.map(|(key, _)| key));
        }
        let waiting = self.open(&plan, staged);
        self.outages.apply(&plan, &self.mappings);
        self.outages.withdraw(&plan);
        let names = ChangedNames::of(&diff, &self.plan, &plan);
        self.plan = Arc::new(plan);
        self.revision += 1;
        self.retiring.retain(|retiring| Arc::strong_count(&retiring.running) > 1);
        let applied = Applied { opened, closed, retuned: diff.retune.len(), replaced, names, changes };
        Ok((Changed { applied, revokes }, waiting))
    }

    /// Opens what was bound, and keeps what waits. Returns why it does.
    fn open(&mut self, plan: &Plan, staged: Vec<(ListenerKey, Staged)>) -> Vec<BindError> {
        let (mut waiting, mut opening) = (Vec::new(), Vec::with_capacity(staged.len()));
        let mut served = 0;
        for (key, staged) in staged {
            let listener = plan.listeners[&key].clone();
            let mapping = self.mappings.of(&listener);
            let mut running = Running::new(key.clone(), listener, mapping, Arc::clone(&self.shared));
            match staged {
                Staged::Bound(bound) => {
                    say_ipv4_only(&key, &bound, &mut self.said_ipv4_only);
                    self.shared.inherited.note_used(&bound.socket);
                    served += 1;
                    running.serve(bound.socket, served <= NAMED);
                }
                Staged::Waiting(error) => {
                    running.waits_for(error.errno());
                    waiting.push(error);
                }
            }
            opening.push((key, running));
        }
        if let Some(left_out @ 1..) = served.checked_sub(NAMED) {
            tracing::info!(left_out, "more listeners listening");
        }
        match self.running.is_empty() {
            // A map that is made of a sorted list has full nodes.
            true => self.running = opening.into_iter().collect(),
            false => self.running.extend(opening),
        }
        waiting
    }

    /// Binds every listener that opens. One that replaces others is bound over their sockets. If a
    /// bind fails, nothing has changed.
    fn stage(
        &self,
        diff: &PlanDiff,
        plan: &Plan,
        tolerance: Tolerance,
    ) -> Result<Vec<(ListenerKey, Staged)>, Vec<BindError>> {
        let port = |key: &ListenerKey| (key.protocol, key.addr.port);
        let replaced = diff.replace.iter().flat_map(|group| &group.close);
        let closing = replaced
            .filter_map(|key| self.running.get(key))
            .chain(self.retiring.iter().map(|retiring| &*retiring.running));
        let mut old: BTreeMap<_, Vec<Listening>> = BTreeMap::new();
        for running in closing {
            old.entry(port(running.key())).or_default().extend(running.socket());
        }
        let open = diff.open.iter().chain(diff.replace.iter().flat_map(|group| &group.open));
        // In a hand-over, they are the sockets of the process that goes.
        let passed = self.shared.inherited.in_the_way(open.clone().map(|key| (key.protocol, &key.addr)));
        for (port, socket) in &passed {
            old.entry(*port).or_default().push(Arc::downgrade(socket));
        }
        let (taken, free): (Vec<_>, Vec<_>) = open.cloned().partition(|key| old.contains_key(&port(key)));
        let wanted: HashSet<_> = taken.iter().map(port).collect();
        old.retain(|port, _| wanted.contains(port));
        let old =
            old.into_iter().flat_map(|((protocol, _), all)| all.into_iter().map(move |s| (protocol, s)));
        let inherited = &self.shared.inherited;
        match (
            stage_all(&free, plan, tolerance, inherited),
            stage_over(old.collect(), &taken, plan, inherited),
        ) {
            (Ok(mut staged), Ok(over)) => {
                staged.extend(over);
                Ok(staged)
            }
            (free, over) => Err(free.err().into_iter().chain(over.err()).flatten().collect()),
        }
    }

    /// Applies the globals and the mappings of `plan`. Returns whether a live session may have lost
    /// its access.
    fn take_terms(&mut self, plan: &Plan, globals: &Globals) -> bool {
        self.shared.gate.apply(&globals.gate);
        self.shared.dialer.api_listens_on(globals.api.iter());
        let shares = (globals.limits, Needs::of(plan));
        if self.shares.replace(shares) != Some(shares) {
            self.shared.budgets.retune(shares.0, shares.1);
        }
        let any_drops = plan.mappings.values().any(|mapping| mapping.policy.refuse == Refuse::Drop);
        if any_drops && plan.listeners.values().any(|listener| drops_clients(plan, listener)) {
            self.shared.budgets.silence.say_how_quiet();
        }
        if !self.said_routing && plan.listeners.values().any(|listener| listener.service.is_transparent()) {
            self.said_routing = true;
            say_lack_of_routing();
        }
        self.shared.wakers.keep(plan.wakes());
        let mut revokes = self.mappings.apply(plan);
        for (key, running) in &self.running {
            // A mapping that stays is the one that it joined before.
            let other = plan.listeners.get(key).filter(|now| now.mapping.as_ref() != running.mapping());
            if let Some(mapping) = other.and_then(|listener| self.mappings.of(listener)) {
                revokes |= running.join(mapping);
            }
        }
        revokes
    }

    /// Makes closed listeners release the sockets of ports that have a new listener. Such a
    /// listener was replaced, or its mapping was removed a moment ago and comes back.
    async fn take_back(&self, wanted: impl Iterator<Item = &ListenerKey>) {
        let wanted: HashSet<_> = wanted.map(|key| (key.protocol, key.addr.port)).collect();
        for Retiring { running, .. } in &self.retiring {
            if wanted.contains(&(running.key().protocol, running.key().addr.port)) {
                running.release().await;
            }
        }
    }

    /// Closes a listener. Its sessions go on until [`Self::end_removed`] says how long they may.
    fn retire(&mut self, key: &ListenerKey, is_replaced: bool) -> Option<Arc<Running>> {
        let running = self.running.remove(key)?;
        running.close();
        running.tell_closed();
        let running = Arc::new(running);
        let retired = Arc::clone(&running);
        let (grace, mut granted) = watch::channel(None);
        self.retiring.push(Retiring { running: Arc::clone(&running), is_replaced, grace });
        let alarm = self.shared.alarm.clone();
        let end = async move {
            let over = async {
                let grace = granted.wait_for(Option::is_some).await.ok().and_then(|grace| *grace);
                wait(grace.unwrap_or(Timeout::Never)).await;
            };
            tokio::select! {
                () = running.finished() => {}
                () = over => {
                    running.cut(Ended::Reload);
                    running.finished().await;
                }
            }
            tracing::debug!(listener = %running.key(), "listener closed");
        };
        self.retirement.watch().spawn(async move { alarm.guard("end of a listener", end).await });
        Some(retired)
    }

    /// Cuts the sessions of closed listeners after the grace. Those of a replaced listener stay as
    /// long as their mapping does.
    fn end_removed(&self, plan: &Plan, grace: Timeout) {
        for Retiring { running, is_replaced, grace: granted } in &self.retiring {
            let goes_on = *is_replaced
                && plan.listeners.iter().any(|(key, listener)| {
                    key.protocol == running.key().protocol
                        && name_of(listener.mapping.as_ref()) == name_of(running.mapping())
                });
            // The first grace counts: a later reload does not start the time again.
            granted
                .send_if_modified(|granted| !goes_on && granted.replace(granted.unwrap_or(grace)).is_none());
        }
    }
}

fn name_of(mapping: Option<&MappingId>) -> Option<&MappingName> {
    mapping.map(|id| &id.name)
}

/// Warns where the replies of targets that see the client's own address would not come back.
fn say_lack_of_routing() {
    if transparent::lacks_routing() {
        tracing::warn!(
            commands = transparent::ROUTING.replace('\n', "; "),
            "no routing for `transparent`: replies of targets go to the clients past portway; run the commands"
        );
    }
}

/// Whether it drops refused clients in silence.
fn drops_clients(plan: &Plan, listener: &ListenerPlan) -> bool {
    matches!(listener.service, Service::Tcp(_))
        && plan.mapping_of(listener).is_some_and(|mapping| mapping.policy.refuse == Refuse::Drop)
}
