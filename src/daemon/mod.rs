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
mod bring_up;
mod containers;
mod dump;
mod ending;
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
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

pub(crate) use logging::for_stderr;
pub(crate) use rights::give_up_root;
pub(crate) use sandbox::{Confined, enter as enter_sandbox};
pub(crate) use signals::hold as hold_signals;
pub(crate) use start::StartError;
pub(crate) use systemd::Given;
use tokio::sync::Notify;

use crate::{
    alarm::Alarm,
    events::{Draft, EventKind, Events},
    gateway::Gateway,
    handover::{Requests, Upgrades, requests},
    job,
    log_level::LevelControl,
    supervisor::{Handle, PlanSource},
};
use bans::BanSaver;
use handover::{Desk, Done, Known, Program, Successor};
use knocks::KnockSaver;
use limits::Descriptors;
use signals::{Signal, Signals};
use systemd::Notifier;
use windows::Windows;

/// Threads beside those of the runtime: for the log, the watchdog, the API, and work that may
/// block.
const OTHER_THREADS: usize = 5;
/// How long the configuration may take to be read: far more than the longest lists need.
const READ_LIMIT: Duration = Duration::from_secs(60);

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
}

/// Reloads for each wish; those that come during a reload are one more after it. The outcome is
/// logged where it is decided.
async fn reload_when_asked(handle: &Handle, asked: &Notify) -> Infallible {
    loop {
        asked.notified().await;
        let _ = handle.reload().await;
    }
}
