//! The composition root: starts the parts in order, and stops them in order.
//!
//! Start: signals, the configuration, logging, descriptor limit, the bans of the last time, the first plan (all of it, or
//! exit), the gateway, ready. Stop: no new sessions, the grace for those that live while the gateway closes their ports on
//! the router, then they are cut; last, the bans are saved. What is wrong with the configuration is not logged: whoever
//! started the program sees it on the terminal.
//!
//! Signals are heard at every moment: a stop during the start ends it, and neither a reload nor a disk that hangs is waited
//! for.

mod bans;
mod limits;
mod lists;
mod logging;
mod signals;
mod start;
mod watch;

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime},
};

pub use start::{StartError, Unopened};
use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{Loaded, Problems, Source},
    gateway::Gateway,
    policy::Gate,
    supervisor::{Handle, Tolerance},
};
use bans::BanKeeper;
use signals::{Signal, Signals};

/// How long a router may take to close its ports when the end is wanted at once.
const LAST_MOMENT: Duration = Duration::from_millis(500);
/// How long the bans may take to be saved at the end.
const LAST_SAVE: Duration = Duration::from_secs(5);

/// How the daemon runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The time just before the configuration is read for the first time: the daemon reloads by itself when a file changes.
    pub watch: Option<SystemTime>,
    /// The start fails where any listener cannot be opened.
    pub strict: bool,
}

/// Runs the daemon until a signal stops it. It begins with `load`, which reads `source` and may block.
///
/// # Errors
/// [`StartError`] when it did not come up; then nothing listens.
pub fn run<L>(source: Source, load: L, options: Options) -> Result<(), StartError>
where
    L: FnOnce() -> Result<Loaded, Problems> + Send + 'static,
{
    let runtime = runtime()?;
    let result = runtime.block_on(live(source, load, options));
    // Neither a name lookup that hangs in the system resolver nor a file that cannot be read must hold the exit.
    runtime.shutdown_background();
    logging::flush();
    result
}

/// A thread for each processor that this process may use. With one, the threads' means to share work would only cost.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = match std::thread::available_parallelism() {
        Ok(processors) if processors.get() == 1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.enable_all().thread_name("portway").build()
}

/// From the first signal that may come to the end.
async fn live<L>(source: Source, load: L, options: Options) -> Result<(), StartError>
where
    L: FnOnce() -> Result<Loaded, Problems> + Send + 'static,
{
    let (mut signals, reload) = (Signals::install()?, Notify::new());
    let Some(loaded) = signals.unless_stopped(&reload, spawn_blocking(load)).await else { return Ok(()) };
    let loaded = loaded.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))?;
    let logging = logging::init(&loaded.settings.log)?;
    for warning in &loaded.warnings {
        tracing::warn!(warning = %warning.one_line(), "configuration");
    }
    let start = Box::pin(Daemon::start(source, loaded, options));
    if let Some(daemon) = signals.unless_stopped(&reload, start).await {
        let daemon = daemon?;
        daemon.serve(&mut signals, &reload, &logging).await;
        daemon.stop(&mut signals).await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// The parts that run.
struct Daemon {
    handle: Handle,
    gateway: Gateway,
    bans: Arc<BanKeeper>,
}

impl Daemon {
    async fn start(source: Source, loaded: Loaded, options: Options) -> Result<Self, StartError> {
        let descriptors = limits::raise_descriptors();
        let tasks = TaskTracker::new();
        let (listeners, format) = (loaded.plan.len(), loaded.settings.log.format);
        let with_router = loaded.plan.values().any(|listener| listener.exposure.is_some());
        let budgets = limits::share_out(descriptors, listeners, with_router);
        let gate = Gate::new();
        let bans = BanKeeper::of(&gate);
        bans.restore(&loaded.gate.spec).await;
        let tolerance = if options.strict { Tolerance::Nothing } else { Tolerance::AbsentOrTaken };
        let handle = Handle::start(source, loaded, tolerance, budgets, gate, &tasks).await;
        let handle = handle.map_err(|errors| StartError::Bind(Unopened::log(errors, format)))?;
        tasks.spawn(Arc::clone(&bans).follow(handle.clone()));
        tasks.spawn(lists::follow(handle.clone()));
        let gateway = Gateway::start(handle.live(), handle.settings(), &tasks);
        if let Some(read_from) = options.watch {
            tasks.spawn(watch::follow(handle.clone(), read_from));
        }
        let listening = handle.live().borrow().len();
        let (version, waiting) = (env!("CARGO_PKG_VERSION"), listeners.saturating_sub(listening));
        tracing::info!(version, listeners, listening, waiting, descriptors, "ready");
        Ok(Self { handle, gateway, bans })
    }

    /// Does what is asked for, until that is the end.
    async fn serve(&self, signals: &mut Signals, reload: &Notify, logging: &logging::Logging) {
        let reloads = reload_when_asked(&self.handle, reload);
        tokio::pin!(reloads);
        let mut settings = self.handle.settings();
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Reload => reload.notify_one(),
                    Signal::Stop => return,
                    Signal::HandOver => tracing::warn!(
                        "SIGUSR2 is ignored: this version cannot hand over to a new program; restart it"
                    ),
                },
                never = &mut reloads => match never {},
                Ok(()) = settings.changed() => logging.retune(&settings.borrow_and_update().log),
            }
        }
    }

    /// Ends the sessions, and closes what is open on the router meanwhile; then saves the bans. A second signal ends all
    /// of this at once.
    async fn stop(&self, signals: &mut Signals) {
        tracing::info!("stopping");
        let in_a_hurry = CancellationToken::new();
        let gateway_stopped = async {
            tokio::select! {
                () = self.gateway.stop() => {}
                // What is then still open on the router is remembered, and taken over or back at the next start.
                () = async { in_a_hurry.cancelled().await; sleep(LAST_MOMENT).await } => {}
            }
        };
        let stopped = async { tokio::join!(self.handle.stop(), gateway_stopped) };
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                _ = &mut stopped => break,
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
    }
}

/// Reloads for each wish; those that come during a reload are one more after it. The outcome is logged where it is decided.
async fn reload_when_asked(handle: &Handle, asked: &Notify) -> Infallible {
    loop {
        asked.notified().await;
        let _ = handle.reload().await;
    }
}
