//! The composition root: starts the parts in order, and stops them in order.
//!
//! Start: signals, descriptors, threads, the configuration, logging, the bans of the last run, the
//! sockets of the API, the first plan, the gateway, the API, ready. If the first plan cannot be
//! applied, the daemon exits. Stop: no new sessions, then the grace for the live ones, while the
//! gateway closes their ports on the router. Then sessions are cut, and the bans are saved. Last,
//! the API ends, so that all of this can be watched. Problems of the configuration go to the
//! terminal and not to the log.
//!
//! Signals are handled at every moment. A stop during the start ends it, and neither a reload nor a
//! disk that hangs delays a signal.
//!
//! A part that ends unexpectedly (a panic) or that hangs ends the process with an error. The
//! service manager can restart a process, but it cannot see a part that is gone.

mod again;
mod bans;
mod containers;
mod dump;
mod handover;
mod knocks;
mod limits;
mod lists;
mod logging;
mod rights;
mod sandbox;
mod signals;
mod start;
mod systemd;
mod watch;
mod watchdog;
mod windows;

use std::{
    convert::Infallible,
    io,
    num::NonZero,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

pub(crate) use logging::for_stderr;
pub(crate) use rights::give_up_root;
pub(crate) use sandbox::{Confined, enter as enter_sandbox};
pub(crate) use signals::hold as hold_signals;
pub(crate) use start::{StartError, Unopened};
pub(crate) use systemd::Given;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    alarm::Alarm,
    config::Loaded,
    events::{Draft, EventKind, Events},
    gateway::Gateway,
    handover::{Report, Requests, Upgrades, requests},
    job,
    log_level::LevelControl,
    policy::{Gate, GateSpec},
    sock::inherited::Inherited,
    supervisor::{Budgets, Handle, Means, PlanSource, Serving, Tolerance},
    version,
};
use bans::BanSaver;
use handover::{Desk, Done, Known, Learnt, Left, Program, Successor, Taken};
use knocks::KnockSaver;
use limits::Descriptors;
use signals::{Signal, Signals};
use systemd::Notifier;
use windows::{Opened, Passed, View, Windows};

/// How long a router may take to close its ports when the end is wanted at once.
const LAST_MOMENT: Duration = Duration::from_millis(500);
/// Threads beside those of the runtime: for the log, the watchdog, the API, and work that may
/// block.
const OTHER_THREADS: usize = 5;
/// How long the configuration may take to be read: far more than the longest lists need.
const READ_LIMIT: Duration = Duration::from_secs(60);
/// How long the bans may take to be saved at the end, and everything when the end is wanted at
/// once.
const LAST_SAVE: Duration = Duration::from_secs(5);

/// How the daemon runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// The time just before the configuration is read for the first time: the daemon reloads by
    /// itself when a file changes.
    pub watch: Option<SystemTime>,
    /// The start fails where any listener cannot be opened.
    pub strict: bool,
    /// Another process could not read the configuration: it comes from a stream of this one.
    pub once_readable: bool,
    /// What the process has given up.
    pub confined: Confined,
}

/// Runs the daemon until a signal stops it. It reads `source` first, and again for each reload.
/// `given` is what the service manager passed.
///
/// # Errors
/// [`StartError`] when it did not come up; then nothing listens.
pub(crate) fn run(source: PlanSource, options: Options, mut given: Given) -> Result<(), StartError> {
    signals::hold()?;
    let start =
        (successor(&mut given)?, Program::of_this_process(options.once_readable, options.confined.mark()));
    let descriptors = limits::raise_descriptors()?;
    // Before there is another thread: rights belong to a thread.
    rights::raise();
    let runtime = runtime()?;
    let result = runtime.block_on(live(source, options, (given, start), descriptors));
    // Neither a name lookup that hangs in the system resolver nor a file that cannot be read must
    // hold the exit.
    runtime.shutdown_background();
    logging::flush();
    result
}

/// What this process takes over: from another process, or from the one before it.
fn successor(given: &mut Given) -> Result<Option<Successor>, handover::TakeError> {
    if let Some(successor) = handover::successor()? {
        return Ok(Some(successor));
    }
    Ok(handover::stored_successor(given.stored()).unwrap_or_else(|error| {
        given.note(error);
        None
    }))
}

/// A thread for each processor that this process may use, whatever `TOKIO_WORKER_THREADS` says: it
/// is meant for other programs. With one processor, the threads' means to share work would only
/// cost.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut builder = match processors {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if processors > 1 {
        builder.worker_threads(processors);
    }
    builder.enable_all().thread_name("portway").thread_stack_size(job::STACK);
    try_threads(processors + OTHER_THREADS)?;
    builder.build()
}

/// Makes so many threads at once, and ends them. The library panics where it gets none for the
/// runtime, and then waits for those that it got; so the system is asked first.
fn try_threads(count: usize) -> io::Result<()> {
    let door = Arc::new(Mutex::new(()));
    let closed = door.lock().unwrap_or_else(PoisonError::into_inner);
    let made: Result<Vec<_>, _> = (0..count)
        .map(|_| {
            let door = Arc::clone(&door);
            job::thread("portway-try", move || drop(door.lock()))
        })
        .collect();
    drop(closed);
    let made = made.map_err(|(error, _)| {
        io::Error::other(format!(
            "the system makes no {count} threads ({error}); raise TasksMax= in the unit, or `ulimit -u`"
        ))
    })?;
    for thread in made {
        // It only waits, and cannot panic.
        let _ = thread.join();
    }
    Ok(())
}

/// From the first signal that may come to the end.
async fn live(
    source: PlanSource,
    options: Options,
    (given, (mut successor, program)): (Given, (Option<Successor>, Program)),
    descriptors: Descriptors,
) -> Result<(), StartError> {
    let (mut signals, reload) = (Signals::install()?, Notify::new());
    let first = Arc::clone(&source);
    if let Some(successor) = &mut successor {
        successor.hello().await?;
    }
    let load = job::run_within(READ_LIMIT, "portway-config", move || first());
    let Some(loaded) = signals.unless_stopped(&reload, load).await else { return Ok(()) };
    let checked = loaded.map_err(StartError::Read).and_then(|loaded| {
        let loaded = loaded?;
        rights::check(&loaded.settings.daemon)?;
        Ok(loaded)
    });
    let loaded = match checked {
        Ok(loaded) => loaded,
        Err(error) => return Err(refused(successor, error).await),
    };
    if let Some(successor) = successor.take_if(|successor| successor.is_check()) {
        return Ok(successor.passes().await?);
    }
    let Some(loaded) = signals.unless_stopped(&reload, containers::first_look(loaded)).await else {
        return Ok(());
    };
    let log = &loaded.settings.log;
    let (target, format) = (log.target.clone(), log.format);
    let open = job::run_within(READ_LIMIT, "portway-open", move || logging::Sink::open(&target, format));
    let Some(sink) = signals.unless_stopped(&reload, open).await else { return Ok(()) };
    let sink = sink.unwrap_or_else(|error| Err(io::Error::other(error)));
    let sink = match sink.map_err(|error| StartError::Log { target: log.target.clone(), error }) {
        Ok(sink) => sink,
        Err(error) => return Err(refused(successor, error).await),
    };
    let logging = logging::init(log, sink)?;
    rights::tell(&loaded.settings.daemon);
    options.confined.tell(&loaded.settings.daemon);
    for warning in &loaded.warnings {
        tracing::warn!(warning = %warning.one_line(), "configuration");
    }
    let (upgrades, mut requests) = requests();
    let means = (options, given, descriptors, upgrades);
    let start = Box::pin(Daemon::start(source, loaded, means, logging.level(), successor));
    let Some(daemon) = signals.unless_stopped(&reload, start).await else { return Ok(()) };
    let (daemon, wants_reload) = daemon?;
    if wants_reload {
        reload.notify_one();
    }
    let served = daemon.serve(&mut signals, &reload, &logging, (&mut requests, &program)).await;
    daemon.end(served, (&mut signals, logging.level())).await
}

/// Tells the process that hands over why this one does not take over.
async fn refused(successor: Option<Successor>, error: StartError) -> StartError {
    if let Some(mut successor) = successor {
        successor.refuse(error.refusal()).await;
    }
    error
}

/// What the listeners are opened from, and whether every one of them has to open.
type Opening = (PlanSource, Loaded, Means, bool);

/// The parts that run.
struct Daemon {
    handle: Handle,
    gateway: Gateway,
    bans: Arc<BanSaver>,
    knocks: Arc<KnockSaver>,
    windows: Windows,
    alarm: Alarm,
    events: Events,
    manager: Notifier,
    upgrades: Upgrades,
}

impl Daemon {
    /// Brings everything up, or takes it over. Returns also whether the configuration is to be read
    /// again at once.
    async fn start(
        source: PlanSource,
        loaded: Loaded,
        (options, given, descriptors, upgrades): (Options, Given, Descriptors, Upgrades),
        log_level: &LevelControl,
        successor: Option<Successor>,
    ) -> Result<(Self, bool), StartError> {
        let descriptors = descriptors.told();
        let started = (SystemTime::now(), Instant::now());
        let (tasks, alarm) = (TaskTracker::new(), Alarm::default());
        let listeners = loaded.plan.listeners.len();
        let budgets = Budgets::new(descriptors, !limits::fast_paths_are_off());
        let events = Events::default();
        let gate = Gate::telling(SystemTime::now, events.clone());
        let (bans, knocks) = (BanSaver::of(&gate), KnockSaver::of(&gate));
        let spec = loaded.gate.spec.clone();
        let inherited = Inherited::default();
        given.put_into(&inherited);
        let (alarms, telling) = (alarm.clone(), events.clone());
        let means = Means { budgets, gate, alarm: alarms, events: telling, inherited: inherited.clone() };
        if successor.is_none() {
            tokio::join!(bans.restore(&spec), knocks.restore(knocks::state(&spec)));
        }
        let containers = loaded.containers.clone();
        let opening = (source, loaded, means, options.strict);
        let (windows, handle, taken) = match successor {
            Some(successor) => Self::take_over(opening, &tasks, successor, log_level).await?,
            None => Self::open(opening, &tasks).await?,
        };
        systemd::say_left(&inherited);
        let (manager, speaker) = systemd::manager(&handle, &inherited);
        watchdog::start(handle.pulse(), speaker)?;
        let (wants_reload, learnt) = match taken {
            Some(taken) => settle(taken, &upgrades, (&bans, &knocks), &spec).await,
            None => Default::default(),
        };
        let spawn = |name: &'static str, task: Pin<Box<dyn Future<Output = ()> + Send>>| {
            let alarm = alarm.clone();
            tasks.spawn(async move { alarm.guard(name, task).await });
        };
        spawn("saver", Box::pin(save(&bans, &knocks, &handle)));
        spawn("list follower", Box::pin(lists::follow(handle.clone())));
        spawn("service manager", Box::pin(manager.clone().follow(handle.reloads())));
        spawn("container follower", containers::follow(handle.clone(), containers));
        let gateway = follow_router(&handle, (&alarm, &events), learnt.openings, &tasks);
        if let Some(read_from) = options.watch {
            spawn("configuration watcher", Box::pin(watch::follow(handle.clone(), read_from)));
        }
        let view = View {
            started,
            descriptors,
            handle: &handle,
            gateway: &gateway,
            log_level,
            events: &events,
            upgrades: &upgrades,
            rates: learnt.rates,
        };
        let windows = windows.serve(&view, &alarm, &tasks).await;
        let listening = handle.live().borrow().len();
        let (version, commit) = (version::VERSION, version::COMMIT);
        let waiting = listeners.saturating_sub(listening);
        tracing::info!(version, commit, listeners, listening, waiting, descriptors, "ready");
        manager.ready();
        Ok((Self { handle, gateway, bans, knocks, windows, alarm, events, manager, upgrades }, wants_reload))
    }

    /// Opens the windows and every listener.
    async fn open(
        (source, loaded, means, is_strict): Opening,
        tasks: &TaskTracker,
    ) -> Result<(Opened, Handle, Option<Taken>), StartError> {
        let log = loaded.settings.log.clone();
        let windows = Opened::open(&loaded.settings, &means.events, Passed::default()).await?;
        let tolerance = if is_strict { Tolerance::Nothing } else { Tolerance::AbsentOrTaken };
        let handle = Handle::start(source, loaded, tolerance, means, tasks).await;
        let handle = handle.map_err(|errors| StartError::Bind(Unopened::log(errors, &log)))?;
        Ok((windows, handle, None))
    }

    /// Takes the windows and the listeners over from another process: from here on, they serve.
    async fn take_over(
        (source, loaded, means, _): Opening,
        tasks: &TaskTracker,
        mut successor: Successor,
        log_level: &LevelControl,
    ) -> Result<(Opened, Handle, Option<Taken>), StartError> {
        let arrived = successor.arrived(&means.inherited).await?;
        let (log, events) = (loaded.settings.log.clone(), means.events.clone());
        let inherited = means.inherited.clone();
        let prepared = async {
            let windows = Opened::open(&loaded.settings, &events, arrived.doors).await?;
            let handle = Handle::prepare(source, loaded, Tolerance::AbsentOrTaken, means, tasks).await;
            let handle = handle.map_err(|errors| StartError::Bind(Unopened::log(errors, &log)))?;
            match newly_waiting(&handle, &arrived.waiting) {
                Some(error) => Err(StartError::Window(error)),
                None => Ok((windows, handle)),
            }
        };
        let (windows, handle) = match prepared.await {
            Ok(prepared) => prepared,
            Err(error) => return Err(refused(Some(successor), error).await),
        };
        let taken = successor.take_over(&handle, (&events, log_level)).await?;
        inherited.close_left();
        let Report { pid, sessions, flows, .. } = taken.report;
        let lost = taken.report.left_behind;
        tracing::info!(pid, sessions, flows, lost, moved_ms = taken.report.pause_ms, "took over");
        events.emit(EventKind::HandedOver, || {
            Draft::new(format_args!("process {pid} has taken over {sessions} sessions and {flows} flows"))
        });
        Ok((windows, handle, Some(taken)))
    }

    /// What this process knows, for the next one.
    fn known(&self, log_level: &LevelControl) -> Known {
        Known {
            handle: self.handle.clone(),
            events: self.events.clone(),
            log_level: log_level.clone(),
            rates: self.windows.rates(),
            openings: self.gateway.remembered(),
        }
    }

    /// Does what signals and others ask for, until they ask for the end or another process serves.
    ///
    /// # Errors
    /// A part that ended without plan.
    async fn serve(
        &self,
        signals: &mut Signals,
        reload: &Notify,
        logging: &logging::Logging,
        (requests, program): (&mut Requests, &Program),
    ) -> Result<Done, StartError> {
        let reloads = reload_when_asked(&self.handle, reload);
        let levels = logging.level().follow(|level| {
            let draft = || Draft::new(format_args!("the log has the level {level} again"));
            self.events.emit(EventKind::LogLevel, draft);
        });
        tokio::pin!(reloads, levels);
        let mut settings = self.handle.settings();
        let mut process = settings.borrow().daemon.clone();
        let known = self.known(logging.level());
        let mut desk = Desk::new(&self.handle, &self.windows, &self.upgrades, program, known);
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Reload => reload.notify_one(),
                    Signal::Stop => if desk.stop() { return Ok(Done::Stop) },
                    Signal::HandOver => desk.ask(None),
                    Signal::Dump => dump::write(&self.windows, &self.events),
                    Signal::Restart if !systemd::is_there() => {}
                    Signal::Restart if desk.is_idle() => return Ok(Done::Restart),
                    Signal::Restart => _ = desk.stop(),
                },
                reply = requests.next() => desk.ask(Some(reply)),
                done = desk.done() => return Ok(done),
                never = &mut reloads => match never {},
                never = &mut levels => match never {},
                part = self.alarm.raised() => return Err(StartError::Part(part)),
                Ok(()) = settings.changed() => {
                    let settings = settings.borrow_and_update();
                    logging.retune(&settings.log);
                    if process != settings.daemon {
                        process = settings.daemon.clone();
                        tracing::warn!("a change of [daemon] takes effect when portway starts again");
                    }
                }
            }
        }
    }

    /// Leaves everything to the process that serves now: nothing is closed on the router, no file
    /// is written or removed. Sessions that it could not take go on until they end by themselves. A
    /// stop ends them with the grace.
    async fn leave(&self, mut left: Left, signals: &mut Signals) {
        self.manager.leave();
        tokio::join!(self.gateway.leave(), self.bans.leave(), self.knocks.leave());
        left.released().await;
        left.leave();
        let drained = async { tokio::join!(self.windows.leave(), self.handle.ended()) };
        tokio::pin!(drained);
        tokio::select! {
            _ = &mut drained => return,
            () = signals.stop() => {}
        }
        let stopped = async { tokio::join!(self.handle.stop(), drained) };
        tokio::select! {
            _ = stopped => {}
            () = signals.stop() => {}
        }
    }

    /// Does what comes after serving.
    ///
    /// # Errors
    /// A part that ended without plan, or that does not end.
    async fn end(
        &self,
        served: Result<Done, StartError>,
        (signals, log_level): (&mut Signals, &LevelControl),
    ) -> Result<(), StartError> {
        let ended = match served {
            Ok(Done::Stop) => self.stop(signals).await,
            Ok(Done::Restart) => self.restart(signals, &self.known(log_level)).await,
            Ok(Done::HandedOver(left)) => {
                self.leave(left, signals).await;
                return Ok(());
            }
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            return Err(self.fail(error).await);
        }
        tracing::info!("stopped");
        Ok(())
    }

    /// Leaves everything to the next start of this service. Where that does not work, stops.
    ///
    /// # Errors
    /// As [`Daemon::stop`].
    async fn restart(&self, signals: &mut Signals, known: &Known) -> Result<(), StartError> {
        match handover::put_aside(known, &self.upgrades).await {
            Ok(sockets) => tracing::info!(sockets, "left to the next start"),
            Err(error) => {
                tracing::info!(error, "sessions cannot go on over a restart");
                return self.stop(signals).await;
            }
        }
        self.manager.leave();
        self.handle.stop_at_once();
        let ended = async {
            let supervisor = async { tokio::join!(self.handle.stop(), self.handle.ended()) };
            tokio::join!(
                supervisor,
                self.gateway.leave(),
                self.bans.save_last(),
                self.knocks.save(),
                self.windows.stop()
            )
        };
        if timeout(LAST_SAVE, ended).await.is_err() {
            tracing::warn!("a part does not end; it is left behind");
        }
        Ok(())
    }

    /// Logs what has failed, and saves what it can in a moment: nothing is left that would end the
    /// sessions in order.
    async fn fail(&self, error: StartError) -> StartError {
        tracing::error!(%error, "portway ends by a mistake of its own");
        let end = async { tokio::join!(self.gateway.stop(), self.bans.save_last(), self.knocks.save()) };
        let _ = timeout(LAST_MOMENT, end).await;
        error
    }

    /// Ends the sessions, and closes what is open on the router meanwhile; then saves the bans. A
    /// second signal ends all of this at once.
    ///
    /// # Errors
    /// A part that ended without plan, or that does not end.
    async fn stop(&self, signals: &mut Signals) -> Result<(), StartError> {
        tracing::info!("stopping");
        self.manager.stopping();
        self.events.emit(EventKind::Stopping, || Draft::new("the daemon stops"));
        let in_a_hurry = CancellationToken::new();
        let gateway_stopped = async {
            tokio::select! {
                () = self.gateway.stop() => {}
                // What is then still open on the router is remembered, and taken over or back at
                // the next start.
                () = async { in_a_hurry.cancelled().await; sleep(LAST_MOMENT).await } => {}
            }
        };
        let stopped = async { tokio::join!(self.handle.stop(), gateway_stopped) };
        tokio::pin!(stopped);
        let overdue = async {
            in_a_hurry.cancelled().await;
            sleep(LAST_SAVE).await;
        };
        tokio::pin!(overdue);
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                part = self.alarm.raised() => return Err(StartError::Part(part)),
                () = &mut overdue => return Err(StartError::Part("supervisor".into())),
                () = signals.stop() => {
                    tracing::info!("stopping at once");
                    self.handle.stop_at_once();
                    in_a_hurry.cancel();
                },
            }
        }
        tokio::select! {
            saved = timeout(LAST_SAVE, async { tokio::join!(self.bans.save_last(), self.knocks.save()) }) => if saved.is_err() {
                tracing::warn!("bans not saved: the disk does not answer");
            },
            () = signals.stop() => {}
        }
        tokio::select! {
            () = self.windows.stop() => {}
            () = signals.stop() => {}
        }
        Ok(())
    }
}

/// Saves bans and grants whenever they change, until the supervisor has stopped.
fn save(
    bans: &Arc<BanSaver>,
    knocks: &Arc<KnockSaver>,
    handle: &Handle,
) -> impl Future<Output = ()> + Send + use<> {
    let (bans, knocks) = (Arc::clone(bans).follow(handle.clone()), Arc::clone(knocks).follow(handle.clone()));
    async { _ = tokio::join!(bans, knocks) }
}

/// Takes over what the other process kept in files. Returns whether the configuration is to be read
/// again.
async fn settle(
    mut taken: Taken,
    upgrades: &Upgrades,
    (bans, knocks): (&Arc<BanSaver>, &Arc<KnockSaver>),
    spec: &GateSpec,
) -> (bool, Learnt) {
    taken.released().await;
    upgrades.note(taken.report.clone());
    match taken.learnt.has_bans {
        true => bans.go_on(spec).await,
        false => bans.restore(spec).await,
    }
    knocks.restore(knocks::state(spec)).await;
    (taken.reload, taken.learnt)
}

/// Follows what is live to the router; another process may have opened some of it.
fn follow_router(
    handle: &Handle,
    (alarm, events): (&Alarm, &Events),
    openings: Option<serde_json::Value>,
    tasks: &TaskTracker,
) -> Gateway {
    let (live, settings) = (handle.live(), handle.router_settings());
    Gateway::start(live, settings, alarm.clone(), events.clone(), openings, tasks)
}

/// A listener that has no socket here, and has one in the process that hands over or is new.
fn newly_waiting(handle: &Handle, waiting: &[String]) -> Option<String> {
    let roster = handle.roster();
    let roster = roster.borrow();
    roster.listeners.iter().find_map(|listener| match &listener.state {
        Serving::Waiting(trouble) if trouble.is_taken => {
            let key = listener.key.to_string();
            (!waiting.contains(&key)).then(|| format!("bind {key}: {}", trouble.error))
        }
        _ => None,
    })
}

/// Reloads for each wish; those that come during a reload are one more after it. The outcome is
/// logged where it is decided.
async fn reload_when_asked(handle: &Handle, asked: &Notify) -> Infallible {
    loop {
        asked.notified().await;
        let _ = handle.reload().await;
    }
}
