//! The supervisor's task: one loop that owns every listener, and does one thing after another.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Means, SETTLE,
    bind::{self, BindError, Tolerance},
    budgets::Budgets,
    hand::{Command, Hand, Sessions},
    handle::{Handle, Request},
    knocks::KnockTurns,
    listeners::{Globals, Listeners},
    mapping::{Admissions, AllPools, AllTotals},
    outcome::{Applied, Cause, LastReload, Preview, ReloadError, report},
    pulse::{self, Beat, Pulse},
    quiet_stop::lull,
    reloads::{PlanSource, Reloads, Reply, Turns},
    roster::Roster,
    summaries::Summaries,
    sweep::Sweep,
    wait,
};
use crate::{
    config::{self, Loaded, ReadSet, Settings},
    events::Events,
    gateway::RouterSettings,
    mapping::LiveSet,
    meter::Ended,
    policy::Gate,
    relay::tcp::SilentDrops,
    targets::watch_over,
};

/// How often a waiting listener is tried again.
const RETRY: Duration = Duration::from_secs(1);

impl Handle {
    /// Starts to supervise: brings up everything in `loaded`. A reload reads `source`.
    ///
    /// # Errors
    /// All listeners that could not be opened and may not wait by `tolerance`; then none is open.
    pub async fn start(
        source: PlanSource,
        loaded: Loaded,
        tolerance: Tolerance,
        means: Means,
        tasks: &TaskTracker,
    ) -> Result<Self, Vec<BindError>> {
        let handle = Self::prepare(source, loaded, tolerance, means, tasks).await?;
        handle.serves.cancel();
        Ok(handle)
    }

    /// The same, but the listeners take no client before [`Handle::begin`].
    ///
    /// # Errors
    /// As [`Handle::start`].
    pub(crate) async fn prepare(
        source: PlanSource,
        loaded: Loaded,
        tolerance: Tolerance,
        Means { budgets, gate, alarm, events, inherited }: Means,
        tasks: &TaskTracker,
    ) -> Result<Self, Vec<BindError>> {
        let (summaries, mut reloads) = (Summaries::default(), Reloads::new(source));
        reloads.keep(loaded.texts);
        let (silence, sweep) = (budgets.silence.clone(), Sweep::of(&gate));
        let knocks = KnockTurns::of(&gate);
        let (beat, pulse) = pulse::pair();
        let shared_budgets = budgets.clone();
        let mut listeners = Listeners::new(
            budgets,
            Arc::clone(&gate),
            summaries.bell(),
            alarm.clone(),
            events.clone(),
            inherited,
        );
        listeners.apply(loaded.plan, &Globals::of(loaded.gate, &loaded.settings), tolerance).await?;
        let warnings = loaded.warnings.into();
        let (mailbox, requests) = mpsc::channel(16);
        let supervisor = Supervisor {
            reloads,
            router: watch::Sender::new(loaded.settings.router.clone()),
            settings: watch::Sender::new(loaded.settings),
            read: watch::Sender::new(loaded.read),
            admissions: watch::Sender::new(listeners.admissions()),
            totals: watch::Sender::new(listeners.totals()),
            pools: watch::Sender::new(listeners.pools()),
            target_changes: listeners.dialer().target_changes(),
            live: watch::Sender::new(listeners.live()),
            roster: watch::Sender::new(Arc::new(listeners.roster(&warnings, false))),
            shown: listeners.revision(),
            show_again: false,
            listeners,
            warnings,
            last_reload: watch::Sender::new(None),
            turns: watch::Sender::default(),
            summaries,
            sweep,
            knocks,
            silence,
            at_once: CancellationToken::new(),
            beat,
            events,
            hand: Hand::default(),
        };
        let handle = supervisor.handle(mailbox, gate, shared_budgets, pulse);
        let probes = watch_over(handle.dialer.clone(), supervisor.listeners.probes());
        let guard = alarm.clone();
        tasks.spawn(async move { guard.guard("probes", probes).await });
        tasks.spawn(async move { alarm.guard("supervisor", Box::pin(supervisor.run(requests))).await });
        Ok(handle)
    }
}

/// Everything that the loop owns.
struct Supervisor {
    reloads: Reloads,
    listeners: Listeners,
    settings: watch::Sender<Settings>,
    router: watch::Sender<RouterSettings>,
    read: watch::Sender<ReadSet>,
    admissions: watch::Sender<Admissions>,
    totals: watch::Sender<AllTotals>,
    pools: watch::Sender<AllPools>,
    summaries: Summaries,
    sweep: Sweep,
    knocks: KnockTurns,
    /// Clients that are dropped in silence. The loop releases them when their time is over.
    silence: SilentDrops,
    /// Marked when a target goes down or comes back.
    target_changes: watch::Receiver<()>,
    live: watch::Sender<LiveSet>,
    roster: watch::Sender<Arc<Roster>>,
    /// The revision of the listeners that `roster` shows.
    shown: u64,
    /// The warnings are other ones.
    show_again: bool,
    /// The warnings of the configuration that runs.
    warnings: Arc<[config::Problem]>,
    last_reload: watch::Sender<Option<Arc<LastReload>>>,
    turns: watch::Sender<Turns>,
    at_once: CancellationToken,
    beat: Beat,
    events: Events,
    /// The hand-over to another process.
    hand: Hand,
}

impl Supervisor {
    /// What leads to it.
    fn handle(
        &self,
        mailbox: mpsc::Sender<Request>,
        gate: Arc<Gate>,
        budgets: Budgets,
        pulse: Pulse,
    ) -> Handle {
        Handle {
            mailbox,
            at_once: self.at_once.clone(),
            settings: self.settings.subscribe(),
            router: self.router.subscribe(),
            read: self.read.subscribe(),
            gate,
            admissions: self.admissions.subscribe(),
            totals: self.totals.subscribe(),
            pools: self.pools.subscribe(),
            live: self.live.subscribe(),
            roster: self.roster.subscribe(),
            last_reload: self.last_reload.subscribe(),
            turns: self.turns.subscribe(),
            budgets,
            dialer: self.listeners.dialer().clone(),
            wakers: self.listeners.wakers().clone(),
            ledger: self.listeners.ledger().clone(),
            pulse,
            serves: self.listeners.serves().clone(),
        }
    }

    /// Turns until a stop, or until another process serves and the last session has ended.
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut retry = interval(RETRY);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.hand.is_wanted() && self.reloads.is_idle() {
                self.hand.begin(|| self.listeners.twins());
            }
            let (is_frozen, is_held) = (self.hand.is_frozen(), self.hand.is_under_way());
            tokio::select! {
                request = requests.recv() => match request {
                    Some(Request::Read(reply)) => self.read(reply),
                    Some(Request::HandOver(wish)) => self.hand.want(wish),
                    Some(Request::TakeOver(inheritance, reply)) => {
                        let _ = reply.send(self.listeners.take_over(*inheritance));
                    }
                    Some(Request::Begin(reply)) => {
                        self.listeners.begin();
                        let _ = reply.send(());
                    }
                    Some(Request::Stop(reply)) => {
                        // Requests from here on are refused: no task would answer them.
                        requests.close();
                        self.stop().await;
                        let _ = reply.send(());
                        return;
                    }
                    None => return self.stop().await,
                },
                command = self.hand.command() => {
                    if self.obey(command).await {
                        return self.drain(requests).await;
                    }
                }
                (loaded, replies) = self.reloads.done() => self.reload(loaded, replies).await,
                Ok(()) = self.target_changes.changed(), if !is_frozen => self.listeners.heed_targets(),
                failed = self.listeners.next_failed() => self.listeners.suspend(&failed),
                _ = retry.tick(), if !is_held && self.listeners.any_waiting() => self.listeners.retry().await,
                any = self.knocks.due() => self.listeners.heed_knocks(any),
                () = self.sweep.due(), if !is_frozen => self.sweep.run(|| self.listeners.sweep()),
                () = self.summaries.due() => {
                    self.summaries.say(&self.admissions.borrow(), &self.listeners.session_logs(), false);
                }
                () = self.silence.tend() => {}
                () = self.beat.asked() => self.beat.answer(),
            }
            self.publish();
        }
    }

    /// Reads the configuration, now or after the hand-over.
    fn read(&mut self, reply: Reply) {
        let Some(reply) = self.hand.keep(reply) else { return };
        if matches!(reply, Reply::Apply(_)) {
            self.turns.send_modify(|turns| turns.asked += 1);
        }
        self.reloads.ask(reply);
    }

    /// Does the next step of a hand-over. Returns whether another process serves now.
    async fn obey(&mut self, command: Option<Command>) -> bool {
        match command {
            Some(Command::Ahead(reply)) => {
                let _ = reply.send(self.listeners.ahead());
                false
            }
            Some(Command::Freeze(reply)) => {
                self.hand.set_frozen(true);
                // What is not taken goes on.
                if reply.send(self.listeners.freeze().await).is_err() {
                    self.hand.set_frozen(false);
                }
                false
            }
            Some(Command::Thaw(frozen, sessions, reply)) => {
                if sessions == Sessions::End {
                    self.listeners.cut_live(Ended::Shutdown);
                }
                drop(frozen);
                self.hand.set_frozen(false);
                let _ = reply.send(());
                false
            }
            Some(Command::LetGo(frozen, not_taken, reply)) => {
                self.listeners.close_all();
                frozen.listeners.into_iter().for_each(|(_, frozen)| frozen.let_go(&not_taken));
                for kept in self.hand.end() {
                    kept.refuse(&Arc::new(ReloadError::HandedOver));
                }
                let _ = reply.send(());
                true
            }
            None => {
                self.hand.end().into_iter().for_each(|reply| self.read(reply));
                false
            }
        }
    }

    /// After a hand-over: waits for the sessions that the other process could not take, however
    /// long they live. A stop ends them with grace.
    async fn drain(mut self, mut requests: mpsc::Receiver<Request>) {
        self.listeners.close_all();
        self.roster.send_replace(Arc::new(self.listeners.roster(&self.warnings, true)));
        let stopped = loop {
            tokio::select! {
                () = self.listeners.finished() => break None,
                request = requests.recv() => match request {
                    Some(Request::Stop(reply)) => break Some(reply),
                    Some(Request::Read(reply)) => reply.refuse(&Arc::new(ReloadError::HandedOver)),
                    // What is dropped is refused.
                    Some(_) => {}
                    None => break None,
                },
                () = self.beat.asked() => self.beat.answer(),
                () = self.sweep.due() => self.sweep.run(|| self.listeners.sweep()),
            }
        };
        requests.close();
        self.stop().await;
        if let Some(reply) = stopped {
            let _ = reply.send(());
        }
    }

    /// Applies what was read, and answers the requests for it.
    async fn reload(&mut self, loaded: Result<Loaded, ReloadError>, replies: Vec<Reply>) {
        let cause =
            if replies.iter().all(Reply::is_of_containers) { Cause::Containers } else { Cause::Reload };
        // What keeps the managed file out of the texts kept it out before.
        let loaded = loaded.and_then(|loaded| match loaded.problems_of_managed_file() {
            Some(problems) if cause == Cause::Reload => Err(ReloadError::Config(problems)),
            _ => Ok(loaded),
        });
        let loaded = loaded.map_err(Arc::new);
        let asked = replies.iter().filter(|reply| matches!(reply, Reply::Apply(_))).count();
        let (mut apply, mut dry_run) = (Vec::new(), Vec::new());
        for reply in replies {
            match reply {
                Reply::Apply(reply) => apply.push(reply),
                Reply::DryRun(reply) => dry_run.push(reply),
                #[cfg(feature = "docker")]
                Reply::Containers(reply) => apply.push(reply),
            }
        }
        if !dry_run.is_empty() {
            let preview = match &loaded {
                Ok(loaded) => self.preview(loaded).await.map_err(Arc::new),
                Err(error) => Err(Arc::clone(error)),
            };
            for reply in dry_run {
                let _ = reply.send(preview.clone());
            }
        }
        if apply.is_empty() {
            return;
        }
        let outcome = match loaded {
            Ok(loaded) => self.take(loaded, cause).await.map_err(Arc::new),
            Err(error) => {
                if let ReloadError::Config(problems) = &*error {
                    self.read.send_replace(problems.read.clone());
                }
                Err(error)
            }
        };
        if cause == Cause::Reload {
            let last = LastReload::of(&outcome, self.last_reload.borrow().as_deref());
            self.last_reload.send_replace(Some(Arc::new(last)));
        }
        // Neither an answer nor a line comes before what it says can be seen.
        self.publish();
        self.turns.send_modify(|turns| turns.done += asked as u64);
        report(cause, &outcome, &self.events);
        for reply in apply {
            let _ = reply.send(outcome.clone());
        }
    }

    /// What `loaded` would change.
    ///
    /// # Errors
    /// The listeners whose port another program has.
    async fn preview(&self, loaded: &Loaded) -> Result<Preview, ReloadError> {
        let changes = self.listeners.preview(&loaded.plan);
        let taken = bind::held(changes.opened.iter().map(|(_, key)| key.clone()).collect()).await;
        if !taken.is_empty() {
            return Err(ReloadError::Bind(taken));
        }
        Ok(Preview { changes, warnings: loaded.warnings.clone() })
    }

    async fn take(&mut self, loaded: Loaded, cause: Cause) -> Result<Applied, ReloadError> {
        self.read.send_replace(loaded.read);
        let globals = Globals::of(loaded.gate, &loaded.settings);
        let changed = self.listeners.apply(loaded.plan, &globals, Tolerance::Absent).await;
        let changed = changed.map_err(ReloadError::Bind)?;
        self.reloads.keep(loaded.texts);
        // Containers come and go all day: what was said once is not said for each of them.
        let is_new = |warning: &&config::Problem| cause == Cause::Reload || !self.warnings.contains(warning);
        for warning in loaded.warnings.iter().filter(is_new) {
            tracing::warn!(warning = %warning.one_line(), "configuration");
        }
        if *self.warnings != *loaded.warnings {
            self.show_again = true;
        }
        self.warnings = loaded.warnings.into();
        if changed.revokes {
            self.sweep.request();
        }
        self.admissions.send_replace(self.listeners.admissions());
        self.totals.send_replace(self.listeners.totals());
        self.pools.send_replace(self.listeners.pools());
        send_if_other(&self.router, loaded.settings.router.clone());
        if cause == Cause::Reload {
            // Also when they are the same: each reload ends a log level that an operator asked for.
            self.settings.send_replace(loaded.settings);
        }
        Ok(changed.applied)
    }

    /// Shows what has changed.
    fn publish(&mut self) {
        let revision = self.listeners.revision();
        let again = std::mem::take(&mut self.show_again);
        if std::mem::replace(&mut self.shown, revision) != revision || again {
            send_if_other(&self.live, self.listeners.live());
            self.roster.send_replace(Arc::new(self.listeners.roster(&self.warnings, false)));
        }
    }

    async fn stop(&mut self) {
        self.end_sessions().await;
        self.summaries.say(&self.admissions.borrow(), &self.listeners.session_logs(), true);
        self.silence.clear();
    }

    /// A sweep can cut sessions during the grace, too.
    async fn end_sessions(&mut self) {
        let grace = wait(self.settings.borrow().grace);
        self.listeners.close_all();
        send_if_other(&self.live, LiveSet::new());
        self.roster.send_replace(Arc::new(self.listeners.roster(&self.warnings, true)));
        let ended = self.listeners.finished();
        let lull = lull(|| self.listeners.left());
        tokio::pin!(ended, grace, lull);
        loop {
            tokio::select! {
                () = &mut ended => return,
                () = &mut grace => break,
                () = &mut lull => break,
                () = self.at_once.cancelled() => break,
                () = self.beat.asked() => self.beat.answer(),
                () = self.sweep.due() => self.sweep.run(|| self.listeners.sweep()),
            }
        }
        self.listeners.cut_all(Ended::Shutdown);
        // A session that was cut settles within a turn; the limit is for one that hangs.
        let _ = timeout(SETTLE, self.listeners.finished()).await;
    }
}

/// Sends a value that differs from the last one.
fn send_if_other<T: PartialEq>(sender: &watch::Sender<T>, value: T) {
    sender.send_if_modified(|last| {
        let changed = *last != value;
        *last = value;
        changed
    });
}
