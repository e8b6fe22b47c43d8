//! The listeners that run, and how a new plan becomes them.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use super::{
    Applied, BindError, Budgets, Live, LiveSet,
    bind::{Staged, Tolerance, explained, say_waiting, stage},
    keepers::{Admissions, Keepers, SessionLogs},
    lull::Left,
    running::{Failed, Running, Shared},
    wait,
};
use crate::{
    config::{self, LimitSettings, ListenerKey, ListenerPlan, Plan, Replace, Service, Settings},
    mapping::Timeout,
    meter::Ended,
    policy::{Gate, GateInput, Refuse},
    relay::Drain,
    target::Dialer,
};

/// What a plan runs under: what the configuration says for all mappings.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) gate: GateInput,
    pub(super) limits: LimitSettings,
    /// What the sessions of listeners that close have to end by themselves.
    pub(super) grace: Timeout,
}

impl Terms {
    pub(super) fn of(gate: GateInput, settings: &Settings) -> Self {
        Self { gate, limits: settings.limits, grace: settings.grace }
    }
}

/// Every listener, and the plan that they carry out.
#[derive(Debug)]
pub(super) struct Listeners {
    plan: Plan,
    limits: Option<LimitSettings>,
    keepers: Keepers,
    running: BTreeMap<ListenerKey, Running>,
    /// Listeners that are on their way out; each has a task that sees it to its end.
    retiring: Vec<Arc<Running>>,
    retirement: Drain,
    shared: Shared,
    failed: mpsc::UnboundedReceiver<Failed>,
}

impl Listeners {
    pub(super) fn new(dialer: Dialer, budgets: Budgets, gate: Arc<Gate>, refused: Arc<Notify>) -> Self {
        let (sender, failed) = mpsc::unbounded_channel();
        Self {
            plan: Plan::new(),
            limits: None,
            keepers: Keepers::new(Arc::clone(&gate), Arc::clone(&refused)),
            running: BTreeMap::new(),
            retiring: Vec::new(),
            retirement: Drain::new(),
            shared: Shared { dialer, budgets, gate, refused, failed: sender, next: Arc::default() },
            failed,
        }
    }

    /// Makes `plan` what runs. New listeners that fail in a way that `tolerance` allows wait, and that is logged.
    ///
    /// # Errors
    /// Every listener that could not be opened; then nothing has changed.
    pub(super) async fn apply(
        &mut self,
        plan: Plan,
        terms: &Terms,
        tolerance: Tolerance,
    ) -> Result<Changed, Vec<BindError>> {
        match self.change_to(plan, terms, tolerance).await {
            Ok((changed, waiting)) => {
                say_waiting(&explained(waiting).await, &self.plan);
                Ok(changed)
            }
            // What was staged is gone: nothing of ours is in the way.
            Err(errors) => Err(explained(errors).await),
        }
    }

    async fn change_to(
        &mut self,
        plan: Plan,
        terms: &Terms,
        tolerance: Tolerance,
    ) -> Result<(Changed, Vec<BindError>), Vec<BindError>> {
        let diff = config::diff(&self.plan, &plan);
        self.take_back(diff.open.iter().chain(diff.replace.iter().flat_map(|r| &r.open))).await;
        let mut staged = stage_all(&diff.open, &plan, tolerance)?;
        let opened = staged.len();
        staged.extend(self.replace_all(&diff.replace, &plan).await?);

        // Nothing fails from here on.
        let replaced = staged.len() - opened;
        let closed = diff.replace.iter().map(|r| r.close.len()).sum::<usize>() + diff.close.len();
        let gone = diff.close.iter().chain(diff.replace.iter().flat_map(|r| &r.close));
        let gone: Vec<_> = gone.filter_map(|key| self.retire(key, terms.grace)).collect();
        for running in gone {
            running.stopped_listening().await;
        }
        let revokes = self.take_terms(&plan, terms);
        for key in &diff.retune {
            if let Some(running) = self.running.get(key) {
                running.retune(&plan[key]);
            }
        }
        let mut waiting = Vec::new();
        for (key, staged) in staged {
            let listener = plan[&key].clone();
            let keeper = self.keepers.of(&listener);
            let mut running = Running::new(key.clone(), listener, keeper, self.shared.clone());
            match staged {
                Staged::Bound(socket) => running.serve(socket),
                Staged::Waiting(error) => {
                    running.waits_for(error.errno());
                    waiting.push(error);
                }
            }
            self.running.insert(key, running);
        }
        self.plan = plan;
        self.retiring.retain(|running| Arc::strong_count(running) > 1);
        let applied = Applied { opened, closed, retuned: diff.retune.len(), replaced };
        Ok((Changed { applied, revokes }, waiting))
    }

    /// Takes the terms of `plan`; whether someone inside may have to leave.
    fn take_terms(&mut self, plan: &Plan, terms: &Terms) -> bool {
        self.shared.gate.apply(&terms.gate);
        if self.limits != Some(terms.limits) {
            self.shared.budgets.retune(terms.limits);
            self.limits = Some(terms.limits);
        }
        if plan.values().any(drops_clients) {
            self.shared.budgets.silence.say_how_quiet();
        }
        let mut revokes = self.keepers.apply(plan);
        for (key, running) in &self.running {
            if let Some((keeper, log)) = plan.get(key).and_then(|listener| self.keepers.of(listener)) {
                revokes |= running.keep_by(&keeper);
                running.log_to(&log);
            }
        }
        revokes
    }

    /// The doorkeepers of the plan.
    pub(super) fn admissions(&self) -> Admissions {
        self.keepers.admissions()
    }

    /// The budgets of session lines, also of mappings on their way out.
    pub(super) fn session_logs(&self) -> SessionLogs {
        self.keepers.session_logs()
    }

    /// Cuts the sessions and flows of clients who may no longer be there, also those of listeners on their way out.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        self.all().for_each(|running| running.sweep(now));
    }

    /// Binds what overlaps with listeners that close: they give their sockets up first, and get them back when any
    /// of this fails.
    async fn replace_all(
        &mut self,
        groups: &[Replace],
        plan: &Plan,
    ) -> Result<Vec<(ListenerKey, Staged)>, Vec<BindError>> {
        for key in groups.iter().flat_map(|group| &group.close) {
            if let Some(running) = self.running.get_mut(key) {
                running.release().await;
                running.suspend();
            }
        }
        let open: Vec<_> = groups.iter().flat_map(|group| group.open.iter().cloned()).collect();
        let staged = stage_all(&open, plan, Tolerance::Absent);
        if staged.is_err() {
            for key in groups.iter().flat_map(|group| &group.close) {
                // The next retry logs a failure.
                if let (Some(_), Some(running)) = (self.bind_again(key), self.running.get_mut(key)) {
                    running.waits_for(None);
                }
            }
        }
        staged
    }

    /// Makes listeners on their way out give up sockets that are wanted again: a mapping that was removed a moment ago
    /// comes back.
    async fn take_back(&self, wanted: impl Iterator<Item = &ListenerKey>) {
        let wanted: HashSet<_> = wanted.map(|key| (key.protocol, key.addr.port)).collect();
        for running in &self.retiring {
            if wanted.contains(&(running.key().protocol, running.key().addr.port)) {
                running.release().await;
            }
        }
    }

    /// Binds the socket of a listener that has none. Where that fails it waits, and is tried again: the error is given
    /// back where its cause is a new one.
    fn bind_again(&mut self, key: &ListenerKey) -> Option<BindError> {
        let (running, plan) = (self.running.get_mut(key)?, self.plan.get(key)?);
        if !running.is_waiting() {
            return None;
        }
        match stage(key, plan, Tolerance::Nothing) {
            Ok(Staged::Bound(socket)) => {
                running.serve(socket);
                None
            }
            Ok(Staged::Waiting(error)) | Err(error) => running.waits_for(error.errno()).then_some(error),
        }
    }

    /// Takes a listener out of the plan: it stops to listen at once; its sessions have the grace, then they are cut.
    fn retire(&mut self, key: &ListenerKey, grace: Timeout) -> Option<Arc<Running>> {
        let running = self.running.remove(key)?;
        running.close();
        let running = Arc::new(running);
        let retired = Arc::clone(&running);
        self.retiring.push(Arc::clone(&running));
        self.retirement.watch().spawn(async move {
            tokio::select! {
                () = running.finished() => {}
                () = wait(grace) => {
                    running.cut(Ended::Reload);
                    running.finished().await;
                }
            }
            tracing::debug!(listener = %running.key(), "listener closed");
        });
        Some(retired)
    }

    /// The next socket that died.
    pub(super) async fn next_failed(&mut self) -> Failed {
        match self.failed.recv().await {
            Some(failed) => failed,
            None => unreachable!("the sender is kept in `shared`"),
        }
    }

    /// Notes that a listener's socket died; it is bound again with the next [`Listeners::retry`].
    pub(super) fn suspend(&mut self, failed: &Failed) {
        if let Some(running) = self.running.get_mut(&failed.key) {
            running.failed(failed);
        }
    }

    /// What listens.
    pub(super) fn live(&self) -> LiveSet {
        let listening = self.running.iter().filter(|(_, running)| !running.is_waiting());
        let live = listening.filter_map(|(key, _)| {
            let plan = self.plan.get(key)?;
            Some((key.clone(), Live { mapping: plan.mapping.clone(), exposure: plan.exposure }))
        });
        live.collect()
    }

    /// Whether a listener has no socket.
    pub(super) fn any_waiting(&self) -> bool {
        self.running.values().any(Running::is_waiting)
    }

    /// Tries to bind every listener that has no socket, and logs new causes.
    pub(super) async fn retry(&mut self) {
        let waiting: Vec<_> =
            self.running.values().filter(|r| r.is_waiting()).map(|r| r.key().clone()).collect();
        let news = waiting.iter().filter_map(|key| self.bind_again(key)).collect();
        say_waiting(&explained(news).await, &self.plan);
    }

    /// Stops to listen, everywhere.
    pub(super) fn close_all(&self) {
        self.running.values().for_each(Running::close);
        self.retirement.close();
    }

    /// Cuts every session, also those of listeners that are on their way out.
    pub(super) fn cut_all(&self, reason: Ended) {
        self.all().for_each(|running| running.cut(reason));
    }

    /// Every listener, also those on their way out.
    fn all(&self) -> impl Iterator<Item = &Running> {
        self.running.values().chain(self.retiring.iter().map(AsRef::as_ref))
    }

    /// What there still is, also of listeners that are on their way out.
    pub(super) fn left(&self) -> Left {
        let mut left = Left::default();
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

/// What applying a plan came to.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) applied: Applied,
    /// Someone inside may have to leave.
    pub(super) revokes: bool,
}

/// Whether it says nothing to a client that it refuses.
fn drops_clients(listener: &ListenerPlan) -> bool {
    matches!(listener.service, Service::Tcp(_)) && listener.policy.refuse == Refuse::Drop
}

/// Binds every one of `keys`, or reports each that cannot be. Where ports are in use and not one listener opens, that is
/// a failure, too.
fn stage_all(
    keys: &[ListenerKey],
    plan: &Plan,
    tolerance: Tolerance,
) -> Result<Vec<(ListenerKey, Staged)>, Vec<BindError>> {
    let (mut staged, mut errors) = (Vec::with_capacity(keys.len()), Vec::new());
    for key in keys {
        match stage(key, &plan[key], tolerance) {
            Ok(socket) => staged.push((key.clone(), socket)),
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let opens = staged.iter().any(|(_, staged)| matches!(staged, Staged::Bound(_)));
    let is_taken = |staged: &Staged| matches!(staged, Staged::Waiting(error) if error.is_taken());
    if opens || !staged.iter().any(|(_, staged)| is_taken(staged)) {
        return Ok(staged);
    }
    let errors = staged.into_iter().filter_map(|(_, staged)| match staged {
        Staged::Waiting(error) => Some(error),
        Staged::Bound(_) => None,
    });
    Err(errors.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Source, System};

    #[tokio::test]
    async fn the_word_that_a_socket_died_means_no_other_one_in_its_place() {
        // An address that no other process has.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let publish = vec![format!("127.90.{high}.{}:8080:127.0.0.1:9", low.max(1))];
        let loaded = config::load(&Source { publish, ..Source::default() }, &System).unwrap();
        let (plan, terms) = (loaded.plan, Terms::of(loaded.gate, &loaded.settings));
        let budgets = Budgets::new(10, 10, 10);
        let mut listeners = Listeners::new(Dialer::new(), budgets, Gate::new(), Arc::default());
        for plan in [plan.clone(), Plan::new(), plan.clone()] {
            listeners.apply(plan, &terms, Tolerance::Absent).await.unwrap();
        }
        let key = plan.keys().next().unwrap();
        let died = |number| Failed { key: key.clone(), number };
        listeners.suspend(&died(0));
        assert!(!listeners.any_waiting(), "that was the socket before the last two reloads");
        listeners.suspend(&died(1));
        assert!(listeners.any_waiting());
    }
}
