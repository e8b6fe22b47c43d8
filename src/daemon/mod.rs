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

mod bans;
mod containers;
mod limits;
mod lists;
mod logging;
mod rights;
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
    job,
    log_level::LevelControl,
    policy::Gate,
    sock::inherited::Inherited,
    supervisor::{Budgets, Handle, Means, PlanSource, Tolerance},
    version,
};
use bans::BanSaver;
use limits::Descriptors;
use signals::{Signal, Signals};
use systemd::Notifier;
use windows::{Opened, View, Windows};

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
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// The time just before the configuration is read for the first time: the daemon reloads by
    /// itself when a file changes.
    pub watch: Option<SystemTime>,
    /// The start fails where any listener cannot be opened.
    pub strict: bool,
}

/// Runs the daemon until a signal stops it. It reads `source` first, and again for each reload.
/// `given` is what the service manager passed.
///
/// # Errors
/// [`StartError`] when it did not come up; then nothing listens.
pub(crate) fn run(source: PlanSource, options: Options, given: Given) -> Result<(), StartError> {
    signals::hold()?;
    let descriptors = limits::raise_descriptors()?;
    // Before there is another thread: rights belong to a thread.
    rights::raise();
    let runtime = runtime()?;
    let result = runtime.block_on(live(source, options, given, descriptors));
    // Neither a name lookup that hangs in the system resolver nor a file that cannot be read must
    // hold the exit.
    runtime.shutdown_background();
    logging::flush();
    result
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
    given: Given,
    descriptors: Descriptors,
) -> Result<(), StartError> {
    let (mut signals, reload) = (Signals::install()?, Notify::new());
    let first = Arc::clone(&source);
    let load = job::run_within(READ_LIMIT, "portway-config", move || first());
    let Some(loaded) = signals.unless_stopped(&reload, load).await else { return Ok(()) };
    let loaded = loaded.map_err(StartError::Read)??;
    rights::check(&loaded.settings.daemon)?;
    let Some(loaded) = signals.unless_stopped(&reload, containers::first_look(loaded)).await else {
        return Ok(());
    };
    let log = &loaded.settings.log;
    let (target, format) = (log.target.clone(), log.format);
    let open = job::run_within(READ_LIMIT, "portway-open", move || logging::Sink::open(&target, format));
    let Some(sink) = signals.unless_stopped(&reload, open).await else { return Ok(()) };
    let sink = sink.unwrap_or_else(|error| Err(io::Error::other(error)));
    let sink = sink.map_err(|error| StartError::Log { target: log.target.clone(), error })?;
    let logging = logging::init(log, sink)?;
    rights::tell(&loaded.settings.daemon);
    for warning in &loaded.warnings {
        tracing::warn!(warning = %warning.one_line(), "configuration");
    }
    let inherited = Inherited::default();
    given.put_into(&inherited);
    let start = Box::pin(Daemon::start(source, loaded, options, inherited, descriptors, logging.level()));
    if let Some(daemon) = signals.unless_stopped(&reload, start).await {
        let daemon = daemon?;
        let served = daemon.serve(&mut signals, &reload, &logging).await;
        let ended = match served {
            Ok(()) => daemon.stop(&mut signals).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            return Err(daemon.fail(error).await);
        }
    }
    tracing::info!("stopped");
    Ok(())
}

/// The parts that run.
struct Daemon {
    handle: Handle,
    gateway: Gateway,
    bans: Arc<BanSaver>,
    windows: Windows,
    alarm: Alarm,
    events: Events,
    manager: Notifier,
}

impl Daemon {
    async fn start(
        source: PlanSource,
        loaded: Loaded,
        options: Options,
        inherited: Inherited,
        descriptors: Descriptors,
        log_level: &LevelControl,
    ) -> Result<Self, StartError> {
        let descriptors = descriptors.told();
        let started = (SystemTime::now(), Instant::now());
        let (tasks, alarm) = (TaskTracker::new(), Alarm::default());
        let (listeners, log) = (loaded.plan.listeners.len(), loaded.settings.log.clone());
        let budgets = Budgets::new(descriptors, !limits::fast_paths_are_off());
        let events = Events::default();
        let gate = Gate::telling(SystemTime::now, events.clone());
        let bans = BanSaver::of(&gate);
        bans.restore(&loaded.gate.spec).await;
        let windows = Opened::open(&loaded.settings, &events).await?;
        let tolerance = if options.strict { Tolerance::Nothing } else { Tolerance::AbsentOrTaken };
        let means = Means {
            budgets,
            gate,
            alarm: alarm.clone(),
            events: events.clone(),
            inherited: inherited.clone(),
        };
        let containers = loaded.containers.clone();
        let handle = Handle::start(source, loaded, tolerance, means, &tasks).await;
        let handle = handle.map_err(|errors| StartError::Bind(Unopened::log(errors, &log)))?;
        systemd::say_left(&inherited);
        let (manager, speaker) = systemd::manager(&handle, &inherited);
        watchdog::start(handle.pulse(), speaker)?;
        let spawn = |name: &'static str, task: Pin<Box<dyn Future<Output = ()> + Send>>| {
            let alarm = alarm.clone();
            tasks.spawn(async move { alarm.guard(name, task).await });
        };
        spawn("ban saver", Box::pin(Arc::clone(&bans).follow(handle.clone())));
        spawn("list follower", Box::pin(lists::follow(handle.clone())));
        spawn("service manager", Box::pin(manager.clone().follow(handle.reloads())));
        spawn("container follower", containers::follow(handle.clone(), containers));
        let gateway =
            Gateway::start(handle.live(), handle.router_settings(), alarm.clone(), events.clone(), &tasks);
        if let Some(read_from) = options.watch {
            spawn("configuration watcher", Box::pin(watch::follow(handle.clone(), read_from)));
        }
        let view =
            View { started, descriptors, handle: &handle, gateway: &gateway, log_level, events: &events };
        let windows = windows.serve(&view, &alarm, &tasks).await;
        let listening = handle.live().borrow().len();
        let (version, commit) = (version::VERSION, version::COMMIT);
        let waiting = listeners.saturating_sub(listening);
        tracing::info!(version, commit, listeners, listening, waiting, descriptors, "ready");
        manager.ready();
        Ok(Self { handle, gateway, bans, windows, alarm, events, manager })
    }

    /// Does what signals ask for, until they ask for the end.
    ///
    /// # Errors
    /// A part that ended without plan.
    async fn serve(
        &self,
        signals: &mut Signals,
        reload: &Notify,
        logging: &logging::Logging,
    ) -> Result<(), StartError> {
        let reloads = reload_when_asked(&self.handle, reload);
        let levels = logging.level().follow(|level| {
            let draft = || Draft::new(format_args!("the log has the level {level} again"));
            self.events.emit(EventKind::LogLevel, draft);
        });
        tokio::pin!(reloads, levels);
        let mut settings = self.handle.settings();
        let mut process = settings.borrow().daemon.clone();
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Reload => reload.notify_one(),
                    Signal::Stop => return Ok(()),
                    Signal::HandOver => tracing::warn!(
                        "SIGUSR2 is ignored: this version cannot hand over to a new program; restart it"
                    ),
                },
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

    /// Logs what has failed, and saves what it can in a moment: nothing is left that would end the
    /// sessions in order.
    async fn fail(&self, error: StartError) -> StartError {
        tracing::error!(%error, "portway ends by a mistake of its own");
        let end = async { tokio::join!(self.gateway.stop(), self.bans.save_last()) };
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
            saved = timeout(LAST_SAVE, self.bans.save_last()) => if saved.is_err() {
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

/// Reloads for each wish; those that come during a reload are one more after it. The outcome is
/// logged where it is decided.
async fn reload_when_asked(handle: &Handle, asked: &Notify) -> Infallible {
    loop {
        asked.notified().await;
        let _ = handle.reload().await;
    }
}
