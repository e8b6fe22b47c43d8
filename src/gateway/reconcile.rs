//! The loop that keeps the openings on the router equal to what is wanted.
//!
//! ```text
//! no network ─► searching ─► ready ─ every check: health, each opening ──────────┐
//!     ▲             ▲ ▲        │                                                 │
//!     │             │ └ lost ◄─┴── a call without an answer ◄────────────────────┘
//!     └─ the way to the router is looked at every 10 s, and after each error
//! ```
//!
//! Owns the [`Openings`], the [`Memory`] and the router that was found; does one thing at a time,
//! in order: an answer is always to the last question. Level-triggered: it compares what is wanted
//! with what is there. Knows nothing of sessions; nothing waits for it. On stop, it drops the call
//! under way, closes everything of ours within [`RELEASE`], and reports what it could not close. It
//! does the same before it follows settings that lead to another router or protocol. This file
//! chooses the next task and publishes the status; [`tasks`] performs the tasks.

mod tasks;

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    RouterSettings,
    driver::Driver,
    lease::Call,
    openings::{Next, Openings, Slot},
    record::{Calendar, Memory},
    report::Reporter,
    route::NoRoute,
    router::{Found, Health, RouterAddr},
    status::{OpeningStatus, RouterState, RouterStatus},
    verdict::Verdict,
    want::{Own, Unfit, Wants},
};
use crate::{events::Events, mapping::LiveSet};

/// How long taking everything back may take at the end.
pub(super) const RELEASE: Duration = Duration::from_secs(3);

/// What the loop follows and publishes.
#[derive(Debug)]
pub(super) struct Wires {
    pub(super) live: watch::Receiver<LiveSet>,
    pub(super) settings: watch::Receiver<RouterSettings>,
    pub(super) status: watch::Sender<RouterStatus>,
    pub(super) stop: CancellationToken,
    /// Cancelled before the stop where everything is to stay as it is on the router.
    pub(super) leave: CancellationToken,
    pub(super) events: Events,
}

/// The router that was found.
#[derive(Debug)]
struct Router {
    driver: Arc<Driver>,
    found: Found,
    health: Health,
    health_at: Option<Instant>,
    checks: u32,
    check_at: Instant,
}

/// What is to be done next.
#[derive(Debug)]
enum Task {
    LookAround,
    Search(RouterAddr),
    Check,
    Request(Slot, Call),
    Wait(Option<Instant>),
}

/// Keeps the openings on the router equal to what is wanted.
#[derive(Debug)]
pub(super) struct Reconciler {
    settings: RouterSettings,
    live: LiveSet,
    host: String,
    openings: Openings,
    unfit: Vec<Unfit>,
    memory: Memory,
    reporter: Reporter,
    rng: Rng,
    calendar: Calendar,
    /// The way to the router, or why it has none; `None` before the first look.
    router_addr: Option<Result<RouterAddr, NoRoute>>,
    own: Option<Own>,
    look_at: Instant,
    router: Option<Router>,
    /// Which router the openings are on.
    router_id: Option<String>,
    /// Its last health before it was lost, and when: it shows whether the router restarted
    /// meanwhile.
    last_health: Option<(Health, Instant)>,
    search_at: Instant,
    /// Searches in a row that found nothing, and why the last one did not.
    searches: u32,
    search_error: String,
    /// How often a router was lost since it last answered a question.
    strikes: u32,
    /// Why the last one was.
    lost_error: String,
    /// Since when no question has been answered.
    away_since: Option<Instant>,
    /// Whether openings of an earlier run may have to be taken back.
    leftovers: bool,
}

impl Reconciler {
    /// Follows `wires` until the stop, and then closes everything.
    pub(super) async fn run(memory: Memory, leftovers: bool, host: String, mut wires: Wires) {
        let settings = wires.settings.borrow().clone();
        let mut reconciler = Self::new(memory, leftovers, host, settings);
        reconciler.reporter = Reporter::telling(wires.events.clone());
        while reconciler.turn(&mut wires).await {
            reconciler.publish(&wires.status);
        }
        if !wires.leave.is_cancelled() {
            reconciler.take_everything_back().await;
        }
        wires.status.send_replace(RouterStatus::default());
    }

    fn new(memory: Memory, leftovers: bool, host: String, settings: RouterSettings) -> Self {
        let now = Instant::now();
        Self {
            settings,
            live: LiveSet::new(),
            host,
            openings: Openings::new(Rng::new()),
            unfit: Vec::new(),
            memory,
            reporter: Reporter::default(),
            rng: Rng::new(),
            calendar: Calendar::now(),
            router_addr: None,
            own: None,
            look_at: now,
            router: None,
            router_id: None,
            last_health: None,
            search_at: now,
            searches: 0,
            search_error: String::new(),
            strikes: 0,
            lost_error: String::new(),
            away_since: None,
            leftovers,
        }
    }

    /// Does the next thing; false when it is time to stop.
    async fn turn(&mut self, wires: &mut Wires) -> bool {
        let stop = wires.stop.clone();
        let settings = wires.settings.borrow_and_update().clone();
        if self.leads_elsewhere(&settings) && !self.openings.is_empty() {
            // With the former settings: after the change, these openings are out of sight.
            tokio::select! {
                biased;
                () = stop.cancelled() => return false,
                () = self.take_everything_back() => {}
            }
        }
        self.follow(&mut wires.live, settings);
        match self.next(Instant::now()) {
            Task::Wait(until) => {
                tokio::select! {
                    () = stop.cancelled() => return false,
                    // A closed channel comes just before the stop.
                    Ok(()) = wires.live.changed() => {}
                    Ok(()) = wires.settings.changed() => {}
                    () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
                }
                true
            }
            task => tokio::select! {
                biased;
                () = stop.cancelled() => false,
                () = self.perform(task) => true,
            },
        }
    }

    /// Whether these settings may lead to another router, or to the same one in another protocol.
    fn leads_elsewhere(&self, settings: &RouterSettings) -> bool {
        (&self.settings.gateway, &self.settings.interface, &self.settings.protocols)
            != (&settings.gateway, &settings.interface, &settings.protocols)
    }

    /// Takes what changed in the configuration or among the listeners.
    fn follow(&mut self, live: &mut watch::Receiver<LiveSet>, settings: RouterSettings) {
        if self.settings != settings {
            let moved = self.leads_elsewhere(&settings);
            self.settings = settings;
            if moved {
                self.forget_router();
                self.look_at = Instant::now();
                self.retarget();
            }
            self.openings.try_again(Instant::now());
            // A shorter time between checks holds from now on, not from the next check on.
            let soon = Instant::now() + self.settings.check_every;
            if let Some(router) = &mut self.router {
                router.check_at = router.check_at.min(soon);
            }
        }
        let live = live.borrow_and_update();
        if self.live != *live {
            self.live.clone_from(&live);
            self.retarget();
        }
    }

    /// Compares what is open with what is wanted.
    fn retarget(&mut self) {
        let Some(own) = &self.own else { return };
        let Wants { wants, unfit } = Wants::of(&self.live, own);
        self.unfit = unfit;
        self.openings.retarget(wants, Instant::now());
    }

    fn is_needed(&self) -> bool {
        let exposed = self.live.values().any(|live| live.exposure.is_some());
        exposed || self.leftovers || !self.openings.is_empty()
    }

    fn next(&mut self, now: Instant) -> Task {
        if !self.is_needed() {
            self.forget_router();
            return Task::Wait(None);
        }
        if self.look_at <= now {
            return Task::LookAround;
        }
        let Some(Ok(router_addr)) = &self.router_addr else { return Task::Wait(Some(self.look_at)) };
        let Some(router) = &self.router else {
            return match self.search_at <= now {
                true => Task::Search(router_addr.clone()),
                false => Task::Wait(Some(self.search_at.min(self.look_at))),
            };
        };
        if router.check_at <= now {
            return Task::Check;
        }
        let soon = router.check_at.min(self.look_at);
        match self.openings.next(now, &self.settings) {
            Next::Call(slot, call) => Task::Request(slot, call),
            Next::Wait(until) => Task::Wait(Some(until.min(soon))),
            Next::Rest => Task::Wait(Some(soon)),
        }
    }

    fn publish(&mut self, wire: &watch::Sender<RouterStatus>) {
        let status = self.status();
        self.reporter.report(&status, Instant::now());
        wire.send_if_modified(|old| {
            let changed = *old != status;
            *old = status;
            changed
        });
    }

    fn status(&self) -> RouterStatus {
        let ready = self.router.as_ref().filter(|router| router.health_at.is_some());
        let router = match (&self.router_addr, ready) {
            _ if !self.is_needed() => RouterState::Off,
            (Some(Err(error)), _) => RouterState::Missing(error.to_string()),
            (_, Some(router)) => RouterState::Ready(router.found.clone()),
            _ if self.router.is_none() && self.searches > 0 => {
                RouterState::Missing(self.search_error.clone())
            }
            // A router that answers a search and nothing else cannot be used.
            _ if self.strikes > 1 => {
                RouterState::Missing(format!("it answers the search alone: {}", self.lost_error))
            }
            _ => RouterState::Searching,
        };
        let (via, health) = (ready.map(|router| router.found.via), ready.map(|router| &router.health));
        let external = health.and_then(|health| health.external);
        let leases = self.openings.leases().map(|lease| OpeningStatus::of(lease, via, external));
        RouterStatus {
            router,
            external,
            verdict: health.filter(|health| health.tells).map(|_| Verdict::of(external)),
            openings: leases.chain(self.unfit.iter().map(OpeningStatus::unfit)).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
