//! The listeners that run, and how a new plan is applied to them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Applied, BindError, Budgets, ChangedNames,
    bind::{
        Place, Staged, Tolerance, explained, may_be_transparent, say_ipv4_only, say_waiting, stage,
        stage_all, stage_over,
    },
    budgets::Needs,
    hand::{Frozen, Inheritance, ListenerSnapshot, TakenOver, Twins},
    kind::{Ahead, Freezing, FrozenListener},
    mapping::{Admissions, AllPools, AllTotals, Mappings, SessionLogs},
    outages::Outages,
    quiet_stop::Remaining,
    roster::{Changes, Roster},
    running::Running,
    shared::{Failed, Shared},
    wait,
};
use crate::{
    alarm::Alarm,
    config::{self, LimitSettings, ListenerPlan, Plan, PlanDiff, Problem, Service, Settings},
    events::Events,
    mapping::{ListenAddr, ListenerKey, LiveListener, LiveSet, MappingId, MappingName, Timeout},
    meter::{Ended, Ledger},
    policy::{Gate, GateInput, Refuse},
    relay::{Drain, tcp::AT_ONCE},
    sock::{
        bind::{Listening, Overlap},
        inherited::Inherited,
        transparent,
    },
    targets::{Dialer, Probes},
    wake::Wakers,
};

/// What the configuration says for all mappings together.
#[derive(Debug)]
pub(super) struct Globals {
    pub(super) gate: GateInput,
    pub(super) limits: LimitSettings,
    /// How long sessions of listeners that close may go on.
    pub(super) grace: Timeout,
    /// Where the API listens, or will.
    pub(super) api: Vec<ListenAddr>,
}

impl Globals {
    pub(super) fn of(gate: GateInput, settings: &Settings) -> Self {
        let api = settings.api.listen.iter().chain(&settings.metrics.listen).cloned().collect();
        Self { gate, limits: settings.limits, grace: settings.grace, api }
    }
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
    shared: Shared,
    events: Events,
    failed: mpsc::UnboundedReceiver<Failed>,
    outages: Outages,
    /// What another process has handed over and does not move yet.
    arrived: Frozen,
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
            shared: Shared {
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
            },
            events,
            failed,
            outages: Outages::new(&dialer),
            arrived: Frozen::default(),
        }
    }

    /// Applies `plan`. A new listener whose failure `tolerance` allows waits, and the log says so.
    ///
    /// # Errors
    /// Every listener that could not be opened. Then nothing has changed.
    pub(super) async fn apply(
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
        self.note_listening(bound.map(|(key, _)| key));
        let mut waiting = Vec::new();
        for (key, staged) in staged {
            let listener = plan.listeners[&key].clone();
            let mapping = self.mappings.of(&listener);
            let mut running = Running::new(key.clone(), listener, mapping, self.shared.clone());
            match staged {
                Staged::Bound(bound) => {
                    say_ipv4_only(&key, &bound, &mut self.said_ipv4_only);
                    self.shared.inherited.note_used(&bound.socket);
                    running.serve(bound.socket);
                }
                Staged::Waiting(error) => {
                    running.waits_for(error.errno());
                    waiting.push(error);
                }
            }
            self.running.insert(key, running);
        }
        self.outages.apply(&plan, &self.mappings);
        self.outages.withdraw(&plan);
        let names = ChangedNames::of(&diff, &self.plan, &plan);
        self.plan = Arc::new(plan);
        self.revision += 1;
        self.retiring.retain(|retiring| Arc::strong_count(&retiring.running) > 1);
        let applied = Applied { opened, closed, retuned: diff.retune.len(), replaced, names, changes };
        Ok((Changed { applied, revokes }, waiting))
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
        if plan.listeners.values().any(|listener| drops_clients(plan, listener)) {
            self.shared.budgets.silence.say_how_quiet();
        }
        if !self.said_routing && plan.listeners.values().any(|listener| listener.service.is_transparent()) {
            self.said_routing = true;
            say_lack_of_routing();
        }
        self.shared.wakers.keep(plan.wakes());
        let mut revokes = self.mappings.apply(plan);
        for (key, running) in &self.running {
            if let Some(mapping) = plan.listeners.get(key).and_then(|listener| self.mappings.of(listener)) {
                revokes |= running.join(mapping);
            }
        }
        revokes
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

    /// Binds the socket of a listener that has none. If that fails, the listener waits. The error
    /// is returned if its cause is a new one.
    fn bind_again(&mut self, key: &ListenerKey) -> Option<BindError> {
        let (running, plan) = (self.running.get_mut(key)?, self.plan.listeners.get(key)?);
        if !running.is_waiting() {
            return None;
        }
        let place = Place { overlap: Overlap::Nothing, inherited: &self.shared.inherited };
        match stage(place, key, plan, Tolerance::Nothing) {
            Ok(Staged::Bound(bound)) => {
                say_ipv4_only(key, &bound, &mut self.said_ipv4_only);
                self.shared.inherited.note_used(&bound.socket);
                running.serve(bound.socket);
                self.note_listening(std::iter::empty());
                self.revision += 1;
                None
            }
            Ok(Staged::Waiting(error)) | Err(error) => running.waits_for(error.errno()).then_some(error),
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

    /// The next socket that died.
    pub(super) async fn next_failed(&mut self) -> Failed {
        match self.failed.recv().await {
            Some(failed) => failed,
            None => unreachable!("the sender is kept in `shared`"),
        }
    }

    /// Notes that a listener's socket died. The next [`Listeners::retry`] binds it again.
    pub(super) fn suspend(&mut self, failed: &Failed) {
        if let Some(running) = self.running.get_mut(&failed.key) {
            running.failed(failed);
            self.revision += 1;
            self.note_listening(std::iter::empty());
        }
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
            let waits =
                !self.has_knocked && self.plan.mapping_of(plan).is_some_and(|mapping| mapping.policy.knock);
            let exposure = plan.exposure.filter(|_| !waits);
            Some((key.clone(), LiveListener { mapping: plan.name.clone(), exposure }))
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
        let news: Vec<_> = waiting.iter().filter_map(|key| self.bind_again(key)).collect();
        self.say_waiting(news).await;
    }

    /// Notes and logs why listeners wait.
    async fn say_waiting(&mut self, errors: Vec<BindError>) {
        if errors.is_empty() {
            return;
        }
        let errors = explained(errors).await;
        for error in &errors {
            if let Some(running) = self.running.get_mut(&error.key) {
                running.is_in_trouble(error.trouble());
            }
        }
        self.revision += 1;
        say_waiting(&errors, &self.plan, &self.events);
    }

    /// Cancelled when the listeners may take clients.
    pub(super) fn serves(&self) -> &CancellationToken {
        &self.shared.serves
    }

    /// Duplicates of the sockets that listen, and the listeners that have none.
    pub(super) fn twins(&self) -> Twins {
        let waiting = self.running.values().filter(|running| running.is_waiting());
        Twins {
            listening: self.running.values().filter_map(Running::twin).collect(),
            staying: self.shared.inherited.that_stay(),
            waiting: waiting.map(|running| running.key().to_string()).collect(),
        }
    }

    /// Copies of the sockets of live sessions, in batches.
    pub(super) fn ahead(&self) -> Vec<Ahead> {
        let batches = self.running.values().flat_map(|running| {
            let live = running.meter().live();
            let batches = live.chunks(AT_ONCE).map(<[_]>::to_vec).collect::<Vec<_>>();
            batches.into_iter().map(|batch| running.ahead(batch))
        });
        batches.collect()
    }

    /// Stops every listener of the plan and its sessions. Those of closed listeners go on.
    pub(super) async fn freeze(&self) -> Frozen {
        // All are asked before one is waited for.
        let asked = self.running.iter().map(|(key, running)| (key, Asked::new(running.freeze())));
        let mut asked: Vec<_> = asked.collect();
        std::future::poll_fn(|cx| {
            asked.iter_mut().for_each(|(_, asked)| asked.poll(cx));
            Poll::Ready(())
        })
        .await;
        let mut listeners = Vec::with_capacity(asked.len());
        for (key, asked) in asked {
            listeners.push((key.clone(), asked.frozen().await));
        }
        Frozen { listeners }
    }

    /// Takes what another process hands over, or a part of it. What a listener is not there for is
    /// not taken.
    pub(super) fn take_over(&mut self, Inheritance { snapshot, mut unpacker }: Inheritance) -> TakenOver {
        let running: HashMap<String, &Running> =
            self.running.iter().map(|(key, running)| (key.to_string(), running)).collect();
        let mut taken = TakenOver::default();
        for ListenerSnapshot { listener, has } in snapshot.listeners {
            let Some(running) = running.get(&listener) else {
                taken.not_taken.extend(has.clients());
                continue;
            };
            let (frozen, not_taken) = running.take_over(&has, &mut unpacker);
            taken.not_taken.extend(not_taken);
            self.arrived.listeners.push((running.key().clone(), frozen));
        }
        (taken.sessions, taken.flows) = self.arrived.counts();
        taken.unpacker = unpacker;
        taken
    }

    /// Takes clients from now on, and lets move what was taken over.
    pub(super) fn begin(&mut self) {
        self.shared.serves.cancel();
        let arrived = std::mem::take(&mut self.arrived);
        arrived.listeners.into_iter().for_each(|(_, frozen)| frozen.resume());
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

/// The outcome of an applied plan.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) applied: Applied,
    /// A live session may have lost its access.
    pub(super) revokes: bool,
}

/// A freeze that has begun.
enum Asked {
    Begun(Freezing),
    Over(FrozenListener),
}

impl Asked {
    fn new(freezing: Freezing) -> Self {
        Self::Begun(freezing)
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        if let Self::Begun(freezing) = self
            && let Poll::Ready(frozen) = freezing.as_mut().poll(cx)
        {
            *self = Self::Over(frozen);
        }
    }

    async fn frozen(self) -> FrozenListener {
        match self {
            Self::Begun(freezing) => freezing.await,
            Self::Over(frozen) => frozen,
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
