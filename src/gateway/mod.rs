//! Keeps the home router open for exactly what is live and exposed.
//!
//! The caller provides the live listeners, which of them are exposed, and the router settings.
//! [`Gateway`] keeps the router's openings equal to that, by UPnP, PCP or NAT-PMP, and closes them
//! at the end. It has a thread of its own, so a router's answers never delay a session. Relay and
//! supervisor do not know it, and it does not know the configuration.
//!
//! ```text
//! LiveSet ─► want: what to open ─► openings: leases ─► reconcile ─► driver: upnp │ pcp │ natpmp ─► the router
//!                                            └ record: router.json        └ status, report: what people see
//! ```
//!
//! Pure parts decide and take the time as an argument (`want`, `lease`, `openings`, `verdict`).
//! `reconcile` and the drivers wait and send. Invariants: nothing that others opened is overwritten
//! or removed; an orderly end leaves nothing of ours behind, as long as the router answers.

mod driver;
mod jitter;
mod lease;
mod natpmp;
mod openings;
mod pcp;
mod port5351;
mod ports;
mod questions;
mod reconcile;
mod record;
mod report;
mod route;
mod router;
mod settings;
mod status;
#[cfg(feature = "api")]
mod survey;
mod upnp;
mod verdict;
mod want;

use std::{io, path::Path, time::Duration};

pub(crate) use ports::{MOST_OPENINGS, PortRefusal, RouterPorts};
pub(crate) use router::{Found, Holder};
pub(crate) use settings::{OnConflict, RouterProtocol, RouterSettings};
pub(crate) use status::{OpeningState, OpeningStatus, RouterState, RouterStatus};
#[cfg(feature = "api")]
pub(crate) use survey::{NoWay, Seen, Survey, Wanted, Way, routers, survey, way};
use tokio::{
    sync::{oneshot, watch},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
pub(crate) use verdict::Verdict;

use crate::{alarm::Alarm, events::Events, job, mapping::LiveSet, state::Directories};
use reconcile::{Reconciler, Wires};
use record::{Image, Memory};

/// How much longer than its own limit the end may take.
const SLACK: Duration = Duration::from_millis(500);
/// How long the files of the last run are waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// When the thread is tried again that the system did not make.
const RETRY: Duration = Duration::from_secs(10);

/// Keeps the router open for exactly what is live and exposed.
#[derive(Debug)]
pub(crate) struct Gateway {
    stop: CancellationToken,
    leave: CancellationToken,
    ended: watch::Receiver<bool>,
    status: watch::Receiver<RouterStatus>,
    remembered: Remembered,
}

/// What is remembered of openings on routers, for the next process: a file may do without it.
#[derive(Clone, Debug)]
pub(crate) struct Remembered(watch::Receiver<Image>);

impl Remembered {
    /// It as it is now; `None` for nothing.
    pub(crate) fn snapshot(&self) -> Option<serde_json::Value> {
        let image = self.0.borrow();
        image.has_openings().then(|| serde_json::to_value(&*image).ok()).flatten()
    }

    /// What another process remembered; nothing where it cannot be read.
    fn read(value: Option<serde_json::Value>) -> Image {
        let image = value.map(serde_json::from_value::<Image>);
        let image = image.and_then(|image| {
            image.inspect_err(|error| tracing::debug!(%error, "openings of another process")).ok()
        });
        image.unwrap_or_default().bounded()
    }
}

impl Gateway {
    /// Starts to follow what is live and how it is configured. As long as nothing is exposed, and
    /// nothing was left behind by an earlier run, this costs one waiting task of `tasks`. What
    /// another process remembered counts where no file does.
    pub(crate) fn start(
        live: watch::Receiver<LiveSet>,
        settings: watch::Receiver<RouterSettings>,
        alarm: Alarm,
        events: Events,
        remembered: Option<serde_json::Value>,
        tasks: &TaskTracker,
    ) -> Self {
        let status_tx = watch::Sender::new(RouterStatus::default());
        let status = status_tx.subscribe();
        let (ended_tx, ended) = watch::channel(false);
        let (stop, leave) = (CancellationToken::new(), CancellationToken::new());
        let wires =
            Wires { live, settings, status: status_tx, stop: stop.clone(), leave: leave.clone(), events };
        let before = Remembered::read(remembered);
        let told = watch::Sender::new(before.clone());
        let remembered = Remembered(told.subscribe());
        tasks.spawn(async move {
            let directories = Directories::new(|name| std::env::var_os(name));
            alarm.guard("router", watch_over(wires, directories, (before, told), &alarm)).await;
            ended_tx.send_replace(true);
        });
        Self { stop, leave, ended, status, remembered }
    }

    /// The router, and what is open on it. It changes when there is something to tell.
    pub(crate) fn status(&self) -> watch::Receiver<RouterStatus> {
        self.status.clone()
    }

    /// What is remembered of its openings.
    pub(crate) fn remembered(&self) -> Remembered {
        self.remembered.clone()
    }

    /// Ends without a word to the router: another process follows it, and finds what is open there.
    pub(crate) async fn leave(&self) {
        self.leave.cancel();
        self.stop().await;
    }

    /// Takes back what is open on the router, and returns within about three seconds, whatever the
    /// router does.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        let mut ended = self.ended.clone();
        // An error means that the task is gone, which is an end as well.
        let _ = timeout(reconcile::RELEASE + SLACK, ended.wait_for(|ended| *ended)).await;
    }
}

/// Waits until there is something to do, has a thread do it, and waits for its end.
async fn watch_over(
    mut wires: Wires,
    directories: Directories,
    (before, told): (Image, watch::Sender<Image>),
    alarm: &Alarm,
) {
    let exposed = |live: &LiveSet| live.values().any(|live| live.exposure.is_some());
    let leftovers = before.has_openings() || leftovers(&directories).await;
    let stop = wires.stop.clone();
    if !leftovers {
        tokio::select! {
            () = stop.cancelled() => return,
            found = wires.live.wait_for(exposed) => if found.is_err() { return },
        }
    }
    let (done, ended) = oneshot::channel();
    let mut work: Box<dyn FnOnce() + Send> = Box::new(move || {
        let dir = directories.prepared().map(Path::to_owned);
        let _ = done.send(on_this_thread(wires, || Memory::going_on(dir, before, told), leftovers));
    });
    let mut said = false;
    while let Err((error, back)) = job::thread("router", work) {
        if !std::mem::replace(&mut said, true) {
            let retry_s = RETRY.as_secs();
            tracing::error!(%error, retry_s, "the router cannot be followed: the system makes no thread");
        }
        work = back;
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(RETRY) => {}
        }
    }
    match ended.await {
        Ok(Ok(())) if stop.is_cancelled() => {}
        Ok(Err(error)) => tracing::error!(error = %error, "the router cannot be followed"),
        // The sender is dropped without a word by a panic alone.
        Ok(Ok(())) | Err(_) => alarm.raise("router"),
    }
}

/// Whether an earlier run may have left something open on the router.
async fn leftovers(directories: &Directories) -> bool {
    let directories = directories.clone();
    let look = move || directories.existing().is_some_and(record::remembers);
    let found = job::run_within(PATIENCE, "portway-state", look).await;
    found.unwrap_or_else(|error| {
        tracing::warn!(%error, "the openings of the last run on the router are not known");
        false
    })
}

fn on_this_thread(wires: Wires, memory: impl FnOnce() -> Memory, leftovers: bool) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    runtime.block_on(Reconciler::run(memory(), leftovers, host, wires));
    runtime.shutdown_background();
    Ok(())
}
