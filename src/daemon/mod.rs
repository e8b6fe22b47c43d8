//! The composition root: starts the parts in order, and stops them in order.
//!
//! Start: logging, descriptor limit, signals, the bans of the last time, the first plan (all of it, or exit), the gateway,
//! ready. Stop: no new sessions, the grace for those that live while the gateway closes their ports on the router, then they
//! are cut; last, the bans are saved. The configuration was read before, so that whoever started the
//! program sees what is wrong with it on the terminal, not in a log.

mod bans;
mod limits;
mod lists;
mod logging;
mod signals;
mod watch;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{Loaded, Source},
    gateway::Gateway,
    policy::Gate,
    supervisor::{BindError, Handle},
};
use bans::BanKeeper;
use signals::{Signal, Signals};

/// How long a router may take to close its ports when the end is wanted at once.
const LAST_MOMENT: Duration = Duration::from_millis(500);

/// Why the daemon did not come up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The runtime, a signal handler or another part of the machinery is missing.
    #[error("start: {0}")]
    System(#[from] std::io::Error),
    /// Listeners could not be opened; every one of them was said.
    #[error("{} of the listeners could not be opened", .0.len())]
    Bind(Vec<BindError>),
}

/// Runs the daemon until it is told to stop. With `watch`, the time just before `loaded` was read, it reloads by itself
/// when a file changes.
///
/// # Errors
/// [`StartError`] when it did not come up; then nothing listens.
pub fn run(source: Source, loaded: Loaded, watch: Option<SystemTime>) -> Result<(), StartError> {
    let logging = logging::init(&loaded.settings.log);
    for warning in &loaded.warnings {
        tracing::warn!(warning = %warning.one_line(), "configuration");
    }
    let descriptors = limits::raise_descriptors();
    let runtime = runtime()?;
    let result = runtime.block_on(serve(source, loaded, watch, descriptors, &logging));
    // A name lookup that hangs in the system resolver must not hold the exit.
    runtime.shutdown_background();
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

async fn serve(
    source: Source,
    loaded: Loaded,
    watch: Option<SystemTime>,
    descriptors: u64,
    logging: &logging::Logging,
) -> Result<(), StartError> {
    let mut signals = Signals::install()?;
    let tasks = TaskTracker::new();
    let listeners = loaded.plan.len();
    let with_router = loaded.plan.values().any(|listener| listener.exposure.is_some());
    let budgets = limits::share_out(descriptors, listeners, with_router);
    let gate = Gate::new();
    let bans = BanKeeper::of(&gate);
    bans.restore(&loaded.gate.spec).await;
    let handle = match Handle::start(source, loaded, budgets, gate, &tasks).await {
        Ok(handle) => handle,
        Err(errors) => {
            for error in &errors {
                tracing::error!("{error}");
            }
            return Err(StartError::Bind(errors));
        }
    };
    tasks.spawn(Arc::clone(&bans).follow(handle.clone()));
    tasks.spawn(lists::follow(handle.clone()));
    let gateway = Gateway::start(handle.live(), handle.settings(), &tasks);
    if let Some(read_from) = watch {
        tasks.spawn(watch::follow(handle.clone(), read_from));
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), listeners, descriptors, "ready");

    let mut settings = handle.settings();
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Reload => {
                    // The outcome is logged where it is decided.
                    let _ = handle.reload().await;
                }
                Signal::Stop => break,
            },
            Ok(()) = settings.changed() => logging.retune(&settings.borrow_and_update().log),
        }
    }

    stop(&handle, &gateway, &mut signals).await;
    bans.save_last().await;
    tracing::info!("stopped");
    Ok(())
}

/// Ends the sessions, and closes what is open on the router meanwhile. A second signal ends both at once.
async fn stop(handle: &Handle, gateway: &Gateway, signals: &mut Signals) {
    tracing::info!("stopping");
    let in_a_hurry = CancellationToken::new();
    let gateway_stopped = async {
        tokio::select! {
            () = gateway.stop() => {}
            // What is then still open on the router is remembered, and taken over or back at the next start.
            () = async { in_a_hurry.cancelled().await; sleep(LAST_MOMENT).await } => {}
        }
    };
    let stopped = async { tokio::join!(handle.stop(), gateway_stopped) };
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            signal = signals.next() => if signal == Signal::Stop {
                tracing::info!("stopping at once");
                handle.stop_at_once();
                in_a_hurry.cancel();
            },
        }
    }
}
