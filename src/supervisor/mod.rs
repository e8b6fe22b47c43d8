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

mod apply;
mod bind;
mod budgets;
mod hand;
mod holder;
mod kind;
mod knocks;
mod mapping;
mod named;
mod outages;
mod pulse;
mod quiet_stop;
mod reloads;
mod roster;
mod running;
mod shared;
mod state;
mod summaries;
mod sweep;

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

pub(crate) use bind::BindError;
pub use bind::Tolerance;
pub use budgets::Budgets;
pub(crate) use hand::{Frozen, HandOver, Inheritance, Part, Snapshot, TakenOver};
#[cfg(feature = "api")]
pub(crate) use holder::holders;
pub(crate) use mapping::{Admissions, AllPools, AllTotals};
pub(crate) use pulse::Pulse;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    alarm::Alarm,
    config::{self, Loaded, Problems, ReadSet, Settings},
    events::{Draft, EventKind, Events},
    gateway::RouterSettings,
    job::JobError,
    mapping::{LiveSet, MappingName, Timeout},
    meter::{Ended, Ledger},
    policy::Gate,
    relay::tcp::SilentDrops,
    sock::inherited::Inherited,
    targets::{Dialer, watch_over},
    wake::Wakers,
};
use apply::{Globals, Listeners};
use hand::{Command, Hand, Sessions, Wish};
use knocks::KnockTurns;
pub(crate) use named::ChangedNames;
use pulse::Beat;
use quiet_stop::lull;
pub(crate) use reloads::{PlanSource, Turns};
use reloads::{Reloads, Reply};
pub(crate) use roster::{Changes, LastReload, ListenerRecord, Roster, Serving, SessionFilter};
pub(crate) use state::{Started, SupervisorState};
use summaries::Summaries;
use sweep::Sweep;

/// How often a waiting listener is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long sessions that were cut may take to settle.
const SETTLE: Duration = Duration::from_secs(2);

/// What applying a plan did, in numbers of listeners, and the names of their mappings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Newly opened.
    pub opened: usize,
    /// Closed for good.
    pub closed: usize,
    /// Changed in place: same socket, same sessions.
    pub retuned: usize,
    /// Opened in the place of others that overlapped.
    pub replaced: usize,
    /// Their mappings.
    pub names: ChangedNames,
    /// The listeners themselves.
    pub(crate) changes: Changes,
}

impl Applied {
    /// Whether all runs as before.
    fn is_nothing(&self) -> bool {
        self.opened + self.closed + self.retuned + self.replaced == 0
    }
}

/// What a reload would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Preview {
    /// The listeners that would change, and the sessions that would end.
    pub(crate) changes: Changes,
    /// The warnings of the configuration.
    pub(crate) warnings: Vec<config::Problem>,
}

/// Why a plan was not applied; what ran before runs on.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] Problems),
    /// Some listeners could not be opened.
    #[error("{}", lines(.0))]
    Bind(Vec<BindError>),
    /// The configuration could not be read.
    #[error("read the configuration: {0}")]
    Job(#[from] JobError),
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
    /// Another process serves now.
    #[error("another process has taken over, and reads the configuration again; ask it")]
    HandedOver,
}

impl ReloadError {
    /// Everything that was wrong, for a log: an event is one line.
    fn on_one_line(&self) -> String {
        match self {
            Self::Config(problems) => joined(problems.iter().map(config::Problem::one_line), problems.len()),
            Self::Bind(errors) => joined(errors.iter().map(ToString::to_string), errors.len()),
            Self::Job(_) | Self::Stopping | Self::HandedOver => self.to_string(),
        }
    }
}

/// The first few of `count` messages.
fn joined(messages: impl Iterator<Item = String>, count: usize) -> String {
    const SHOWN: usize = 10;
    let mut line = messages.take(SHOWN).collect::<Vec<_>>().join("; ");
    if count > SHOWN {
        line.push_str(&format!("; and {} more", count - SHOWN));
    }
    line
}

/// Each error on a line of its own.
fn lines(errors: &[BindError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Why a plan is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// An operator, a file, or the API asked for it.
    Reload,
    /// Containers came, went or changed.
    Containers,
}

enum Request {
    Read(Reply),
    Stop(oneshot::Sender<()>),
    HandOver(Wish),
    TakeOver(Box<Inheritance>, oneshot::Sender<TakenOver>),
    Begin(oneshot::Sender<()>),
}

/// The way to ask the supervisor for something. Clones lead to the same one.
#[derive(Clone, Debug)]
pub struct Handle {
    mailbox: mpsc::Sender<Request>,
    at_once: CancellationToken,
    settings: watch::Receiver<Settings>,
    router: watch::Receiver<RouterSettings>,
    read: watch::Receiver<ReadSet>,
    gate: Arc<Gate>,
    admissions: watch::Receiver<Admissions>,
    totals: watch::Receiver<AllTotals>,
    pools: watch::Receiver<AllPools>,
    live: watch::Receiver<LiveSet>,
    roster: watch::Receiver<Arc<Roster>>,
    last_reload: watch::Receiver<Option<Arc<LastReload>>>,
    turns: watch::Receiver<Turns>,
    budgets: Budgets,
    dialer: Dialer,
    wakers: Wakers,
    ledger: Ledger,
    pulse: Pulse,
    /// Cancelled when the listeners take clients.
    serves: CancellationToken,
}

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

    /// Reads the configuration again and applies it, whole or not at all. Requests that come while
    /// it is being read share one more reading after that.
    ///
    /// # Errors
    /// [`ReloadError`]; what ran before runs on.
    pub async fn reload(&self) -> Result<Applied, Arc<ReloadError>> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Request::Read(Reply::Apply(reply))).await.map_err(|_| ReloadError::Stopping)?;
        answer.await.unwrap_or_else(|_| Err(ReloadError::Stopping.into()))
    }

    /// Applies what the labels of containers say now. No file of mappings is read: what changed in
    /// one waits for a reload.
    ///
    /// # Errors
    /// [`ReloadError`]; what ran before runs on.
    #[cfg(feature = "docker")]
    pub(crate) async fn heed_containers(&self) -> Result<Applied, Arc<ReloadError>> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Read(Reply::Containers(reply));
        self.mailbox.send(request).await.map_err(|_| ReloadError::Stopping)?;
        answer.await.unwrap_or_else(|_| Err(ReloadError::Stopping.into()))
    }

    /// Reads the configuration again, and says what [`Handle::reload`] would change. It changes and
    /// binds nothing.
    ///
    /// # Errors
    /// [`ReloadError`]: the configuration is wrong, or another program has a port.
    pub(crate) async fn reload_dry_run(&self) -> Result<Preview, Arc<ReloadError>> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Request::Read(Reply::DryRun(reply))).await.map_err(|_| ReloadError::Stopping)?;
        answer.await.unwrap_or_else(|_| Err(ReloadError::Stopping.into()))
    }

    /// Ends the sessions that `which` means, with the reason `closed-by-operator`. Returns how many
    /// these are. Each ends within a turn of its task.
    pub(crate) fn close_sessions(&self, which: &SessionFilter) -> usize {
        self.roster.borrow().close_sessions(which)
    }

    /// The plan and its listeners. It changes only when these do.
    pub(crate) fn roster(&self) -> watch::Receiver<Arc<Roster>> {
        self.roster.clone()
    }

    /// What came of the last reload; `None` before the first one.
    pub(crate) fn last_reload(&self) -> watch::Receiver<Option<Arc<LastReload>>> {
        self.last_reload.clone()
    }

    /// How many reloads were asked for, and how many have ended.
    pub(crate) fn reloads(&self) -> watch::Receiver<Turns> {
        self.turns.clone()
    }

    /// Which targets are down.
    pub(crate) fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Which targets were started, and how it is with them.
    pub(crate) fn wakers(&self) -> &Wakers {
        &self.wakers
    }

    /// What the data plane may use of the machine, and uses now.
    pub(crate) fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// Stops: no new sessions; those that live have the grace, then they are cut. Returns when all
    /// have ended.
    pub async fn stop(&self) {
        let (reply, stopped) = oneshot::channel();
        if self.mailbox.send(Request::Stop(reply)).await.is_ok() {
            let _ = stopped.await;
        }
    }

    /// Begins a hand-over to another process. From then on no configuration is applied. With it
    /// come duplicates of the sockets that listen. `None` where the supervisor has ended, or where
    /// another hand-over is under way.
    pub(crate) async fn hand_over(&self) -> Option<(HandOver, Vec<OwnedFd>)> {
        let (reply, begun) = oneshot::channel();
        self.mailbox.send(Request::HandOver(reply)).await.ok()?;
        begun.await.ok()
    }

    /// Takes what another process hands over. Nothing of it moves before [`Handle::begin`].
    pub(crate) async fn take_over(&self, inheritance: Inheritance) -> Option<TakenOver> {
        let (reply, taken) = oneshot::channel();
        self.mailbox.send(Request::TakeOver(Box::new(inheritance), reply)).await.ok()?;
        taken.await.ok()
    }

    /// Takes clients from now on, and lets move what was taken over.
    pub(crate) async fn begin(&self) {
        let (reply, begun) = oneshot::channel();
        if self.mailbox.send(Request::Begin(reply)).await.is_ok() {
            let _ = begun.await;
        }
    }

    /// Waits until the supervisor has ended.
    pub(crate) async fn ended(&self) {
        self.mailbox.closed().await;
    }

    /// Ends the grace of a stop that is under way, or to come.
    pub fn stop_at_once(&self) {
        self.at_once.cancel();
    }

    /// The settings of the configuration that runs.
    pub fn settings(&self) -> watch::Receiver<Settings> {
        self.settings.clone()
    }

    /// The part of them that says how the home router is asked.
    pub(crate) fn router_settings(&self) -> watch::Receiver<RouterSettings> {
        self.router.clone()
    }

    /// What all admissions share: the lists, the countries, and the guard with its bans.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// The admission of every mapping, with its counters. Each applied plan sends them again.
    pub fn admissions(&self) -> watch::Receiver<Admissions> {
        self.admissions.clone()
    }

    /// What the sessions of every mapping did since the mapping came into the plan. Each applied
    /// plan sends them again.
    pub(crate) fn totals(&self) -> watch::Receiver<AllTotals> {
        self.totals.clone()
    }

    /// What chooses among the targets of every mapping. Each applied plan sends them again.
    pub(crate) fn pools(&self) -> watch::Receiver<AllPools> {
        self.pools.clone()
    }

    /// Pauses a target of a mapping, or resumes it: a paused one takes no new sessions. Returns
    /// whether there is such a target.
    pub(crate) fn pause_target(&self, mapping: &MappingName, target: &str, is_paused: bool) -> bool {
        let roster = self.roster.borrow();
        let Some((id, about)) = roster.plan.about.iter().find(|(id, _)| id.name == *mapping) else {
            return false;
        };
        let Some(addr) = about.targets.iter().find(|addr| addr.to_string() == target) else { return false };
        let pools = self.pools.borrow();
        let Some((_, pool)) = pools.iter().find(|(of, _)| of == id) else { return false };
        pool.pause(addr, is_paused);
        tracing::info!(
            mapping = %mapping,
            target.addr = %addr,
            "{}",
            if is_paused { "target paused" } else { "target resumed" }
        );
        true
    }

    /// The files that the last reading of the configuration looked at, whether it was applied or
    /// refused.
    pub fn read_set(&self) -> watch::Receiver<ReadSet> {
        self.read.clone()
    }

    /// Tells whether the supervisor still turns.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// What really listens; it changes only when that does.
    pub(crate) fn live(&self) -> watch::Receiver<LiveSet> {
        self.live.clone()
    }
}

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

/// Waits for the limit. Without one it does not return.
async fn wait(limit: Timeout) {
    match limit.duration() {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

fn report(cause: Cause, outcome: &Result<Applied, Arc<ReloadError>>, events: &Events) {
    let (of, applied, refused) = match cause {
        Cause::Reload => ("configuration", "reload applied", "reload refused"),
        Cause::Containers => ("containers", "containers applied", "containers not applied"),
    };
    match outcome {
        // A container whose change changes no mapping is worth no line.
        Ok(applied) if cause == Cause::Containers && applied.is_nothing() => {}
        Ok(Applied { opened, closed, retuned, replaced, names, .. }) => {
            tracing::info!(
                opened,
                closed,
                retuned,
                replaced,
                "opened.names" = names.opened.as_deref(),
                "closed.names" = names.closed.as_deref(),
                "changed.names" = names.changed.as_deref(),
                "{applied}"
            );
            events.emit(EventKind::ReloadApplied, || {
                Draft::new(format_args!(
                    "{of} applied: {opened} listeners opened, {closed} closed, {retuned} changed, \
                     {replaced} replaced"
                ))
            });
        }
        Err(error) => {
            let error = error.on_one_line();
            events.emit(EventKind::ReloadRefused, || Draft::new(format_args!("{of} refused: {error}")));
            tracing::warn!(error, "{refused}");
        }
    }
}

#[cfg(test)]
mod tests;
