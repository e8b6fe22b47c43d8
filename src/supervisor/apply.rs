//! The listeners that run, and how a new plan becomes them.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use tokio::sync::mpsc;

use super::{
    Applied, BindError, Budgets, Live, LiveSet,
    bind::{Staged, stage},
    running::{Running, Shared},
    wait,
};
use crate::{
    config::{self, ListenerKey, Plan, Replace},
    mapping::Timeout,
    meter::Ended,
    relay::Drain,
    target::Resolver,
};

/// Every listener, and the plan that they carry out.
#[derive(Debug)]
pub(super) struct Listeners {
    plan: Plan,
    running: BTreeMap<ListenerKey, Running>,
    /// Listeners that are on their way out; each has a task that sees it to its end.
    retiring: Vec<Arc<Running>>,
    retirement: Drain,
    shared: Shared,
    failed: mpsc::UnboundedReceiver<ListenerKey>,
}

impl Listeners {
    pub(super) fn new(resolver: Resolver, budgets: Budgets) -> Self {
        let (sender, failed) = mpsc::unbounded_channel();
        Self {
            plan: Plan::new(),
            running: BTreeMap::new(),
            retiring: Vec::new(),
            retirement: Drain::new(),
            shared: Shared { resolver, budgets, failed: sender },
            failed,
        }
    }

    /// Makes `plan` what runs. Sessions of listeners that close have `grace`.
    ///
    /// # Errors
    /// Every listener that could not be opened; then nothing has changed.
    pub(super) async fn apply(&mut self, plan: Plan, grace: Timeout) -> Result<Applied, Vec<BindError>> {
        let diff = config::diff(&self.plan, &plan);
        self.take_back(diff.open.iter().chain(diff.replace.iter().flat_map(|r| &r.open))).await;
        let mut staged = stage_all(&diff.open, &plan)?;
        let opened = staged.len();
        staged.extend(self.replace_all(&diff.replace, &plan).await?);

        // Nothing fails from here on.
        let replaced = staged.len() - opened;
        let closed = diff.replace.iter().map(|r| r.close.len()).sum::<usize>() + diff.close.len();
        let gone = diff.close.iter().chain(diff.replace.iter().flat_map(|r| &r.close));
        let gone: Vec<_> = gone.filter_map(|key| self.retire(key, grace)).collect();
        for running in gone {
            running.stopped_listening().await;
        }
        for key in &diff.retune {
            if let Some(running) = self.running.get(key) {
                running.retune(&plan[key]);
            }
        }
        for (key, staged) in staged {
            let running = Running::new(key.clone(), plan[&key].clone(), staged, self.shared.clone());
            self.running.insert(key, running);
        }
        self.plan = plan;
        self.retiring.retain(|running| Arc::strong_count(running) > 1);
        Ok(Applied { opened, closed, retuned: diff.retune.len(), replaced })
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
        let staged = stage_all(&open, plan);
        if staged.is_err() {
            for key in groups.iter().flat_map(|group| &group.close) {
                self.bind_again(key);
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

    /// Binds the socket of a listener that has none. Where that fails it waits, and is tried again.
    fn bind_again(&mut self, key: &ListenerKey) {
        let (Some(running), Some(plan)) = (self.running.get_mut(key), self.plan.get(key)) else { return };
        if running.is_waiting()
            && let Ok(Staged::Bound(socket)) = stage(key, plan)
        {
            running.serve(socket);
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

    /// The next listener whose socket died.
    pub(super) async fn next_failed(&mut self) -> ListenerKey {
        match self.failed.recv().await {
            Some(key) => key,
            None => unreachable!("the sender is kept in `shared`"),
        }
    }

    /// Notes that a listener's socket died; it is bound again with the next [`Listeners::retry`].
    pub(super) fn suspend(&mut self, key: &ListenerKey) {
        if let Some(running) = self.running.get_mut(key) {
            running.suspend();
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

    /// Tries to bind every listener that has no socket.
    pub(super) fn retry(&mut self) {
        let waiting: Vec<_> =
            self.running.values().filter(|r| r.is_waiting()).map(|r| r.key().clone()).collect();
        for key in &waiting {
            self.bind_again(key);
        }
    }

    /// Stops to listen, everywhere.
    pub(super) fn close_all(&self) {
        self.running.values().for_each(Running::close);
        self.retirement.close();
    }

    /// Cuts every session, also those of listeners that are on their way out.
    pub(super) fn cut_all(&self, reason: Ended) {
        self.running.values().chain(self.retiring.iter().map(AsRef::as_ref)).for_each(|r| r.cut(reason));
    }

    /// Waits, after [`Listeners::close_all`], for the last session.
    pub(super) async fn finished(&self) {
        for running in self.running.values() {
            running.finished().await;
        }
        self.retirement.finished().await;
    }
}

/// Binds every one of `keys`, or reports each that cannot be.
fn stage_all(keys: &[ListenerKey], plan: &Plan) -> Result<Vec<(ListenerKey, Staged)>, Vec<BindError>> {
    let (mut staged, mut errors) = (Vec::with_capacity(keys.len()), Vec::new());
    for key in keys {
        match stage(key, &plan[key]) {
            Ok(socket) => staged.push((key.clone(), socket)),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(staged) } else { Err(errors) }
}
