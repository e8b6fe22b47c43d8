//! Brings the parts up in order, or takes over what another process has.

use std::{pin::Pin, sync::Arc, time::SystemTime};

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::{
    Daemon, Options,
    bans::BanSaver,
    containers,
    handover::{Learnt, Successor, Taken},
    knocks::{self, KnockSaver},
    limits::{self, Descriptors},
    lists, refused,
    start::{StartError, Unopened},
    systemd::{self, Given},
    watch, watchdog,
    windows::{Opened, Passed, View},
};
use crate::{
    alarm::Alarm,
    config::Loaded,
    events::{Draft, EventKind, Events},
    gateway::Gateway,
    handover::{Report, Upgrades},
    log_level::LevelControl,
    policy::{Gate, GateSpec},
    sock::inherited::Inherited,
    supervisor::{Budgets, Handle, Means, PlanSource, Serving, Tolerance},
    version,
};

/// What the listeners are opened from, and whether every one of them has to open.
type Opening = (PlanSource, Loaded, Means, bool);

impl Daemon {
    /// Brings everything up, or takes it over. Returns also whether the configuration is to be read
    /// again at once.
    pub(super) async fn start(
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
