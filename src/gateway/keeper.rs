//! The loop that keeps the router as it shall be.
//!
//! ```text
//! no network ─► searching ─► ready ─ every check: pulse, a look at each opening ─┐
//!     ▲             ▲ ▲        │                                                 │
//!     │             │ └ lost ◄─┴── a call without an answer ◄────────────────────┘
//!     └─ the way to the router is looked at every 10 s, and after each error
//! ```
//!
//! Owns the [`Openings`], the [`Memory`] and the router that was found; does one thing at a time, in order: an answer is
//! always to the last question. Level-triggered: whatever changed meanwhile is compared with what is there. Knows
//! nothing of sessions; nothing waits for it. It ends when it is told to stop: what is under way is dropped, everything
//! of ours is taken back within [`RELEASE`], and what could not be is said. So it is, too, before a configuration is
//! followed that leads to another router or protocol.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    dice::Dice,
    driver::{Driver, Found, Place, Pulse, RouterError},
    lease::{Call, Gone, State, Terms},
    openings::{Departed, Next, Openings, Slot},
    questions::{limited, put, search, take_back},
    record::{Calendar, Known, Memory},
    report::Reporter,
    route::{self, NoRoute},
    status::{Frame, OpeningStatus, RouterState, RouterStatus},
    verdict::Verdict,
    want::{Key, Own, Unfit, Wants},
};
use crate::{
    config::{RouterSettings, Settings},
    supervisor::LiveSet,
};

/// How often the way to the router is looked at.
const LOOK_AROUND: Duration = Duration::from_secs(10);
/// How long taking everything back may take at the end.
pub(super) const RELEASE: Duration = Duration::from_secs(3);
/// How many openings are taken back at once at the end.
const RELEASED_AT_ONCE: usize = 8;
/// Every so many checks the router is searched for again: the number of its start tells whether it was restarted.
const CHECKS_TO_A_SEARCH: u32 = 5;
/// A router that was just lost is most likely starting: for so long it is searched for at least so often.
const LIKELY_BACK: Duration = Duration::from_secs(15 * 60);
const WHILE_LIKELY: Duration = Duration::from_secs(60);
/// Two clocks that part by so much: this machine slept, or its clock was set.
const JUMP: u64 = 30;

/// What the keeper follows and tells.
#[derive(Debug)]
pub(super) struct Wires {
    pub(super) live: watch::Receiver<LiveSet>,
    pub(super) settings: watch::Receiver<Settings>,
    pub(super) status: watch::Sender<RouterStatus>,
    pub(super) stop: CancellationToken,
}

/// The router that was found.
#[derive(Debug)]
struct Router {
    driver: Arc<Driver>,
    found: Found,
    pulse: Pulse,
    pulse_at: Option<Instant>,
    checks: u32,
    check_at: Instant,
}

/// What is to be done next.
#[derive(Debug)]
enum Task {
    LookAround,
    Search(Place),
    Check,
    Ask(Slot, Call),
    Wait(Option<Instant>),
}

/// Keeps the router as it shall be.
#[derive(Debug)]
pub(super) struct Keeper {
    settings: RouterSettings,
    live: LiveSet,
    host: String,
    openings: Openings,
    unfit: Vec<Unfit>,
    memory: Memory,
    reporter: Reporter,
    dice: Dice,
    calendar: Calendar,
    /// Where the router is, or why there is no way to it; `None` before the first look.
    place: Option<Result<Place, NoRoute>>,
    own: Option<Own>,
    look_at: Instant,
    router: Option<Router>,
    /// Which router the openings are on.
    router_id: Option<String>,
    /// How it was doing when it was lost, and when that was told: a restart meanwhile is told by it.
    last_pulse: Option<(Pulse, Instant)>,
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

impl Keeper {
    /// Follows `wires` until it is told to stop, and then takes everything back.
    pub(super) async fn run(memory: Memory, leftovers: bool, host: String, mut wires: Wires) {
        let settings = wires.settings.borrow().router.clone();
        let mut keeper = Self::new(memory, leftovers, host, settings);
        while keeper.turn(&mut wires).await {
            keeper.publish(&wires.status);
        }
        keeper.take_everything_back().await;
        wires.status.send_replace(RouterStatus::default());
    }

    fn new(memory: Memory, leftovers: bool, host: String, settings: RouterSettings) -> Self {
        let now = Instant::now();
        let mut dice = Dice::loaded_by_the_system();
        Self {
            settings,
            live: LiveSet::new(),
            host,
            openings: Openings::new(Dice::seeded(dice.number())),
            unfit: Vec::new(),
            memory,
            reporter: Reporter::default(),
            dice,
            calendar: Calendar::now(),
            place: None,
            own: None,
            look_at: now,
            router: None,
            router_id: None,
            last_pulse: None,
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
        let settings = wires.settings.borrow_and_update().router.clone();
        if self.leads_elsewhere(&settings) && !self.openings.is_empty() {
            // In the words and at the place in which it was opened: later nobody would look there.
            tokio::select! {
                biased;
                () = stop.cancelled() => return false,
                () = self.take_everything_back() => {}
            }
        }
        self.follow(&mut wires.live, settings);
        match self.next(Instant::now()) {
            Task::Wait(until) => {
                let over = async {
                    match until {
                        Some(until) => sleep_until(until).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = stop.cancelled() => return false,
                    // Who no longer tells what is live is about to stop, and says so in a moment.
                    Ok(()) = wires.live.changed() => {}
                    Ok(()) = wires.settings.changed() => {}
                    () = over => {}
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

    /// Compares what is open with what shall be.
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

    fn terms(&self) -> Terms {
        let RouterSettings { lease, on_conflict, check_every, .. } = self.settings;
        Terms { lease, on_conflict, check_every }
    }

    fn next(&mut self, now: Instant) -> Task {
        if !self.is_needed() {
            self.forget_router();
            return Task::Wait(None);
        }
        if self.look_at <= now {
            return Task::LookAround;
        }
        let Some(Ok(place)) = &self.place else { return Task::Wait(Some(self.look_at)) };
        let Some(router) = &self.router else {
            return match self.search_at <= now {
                true => Task::Search(place.clone()),
                false => Task::Wait(Some(self.search_at.min(self.look_at))),
            };
        };
        if router.check_at <= now {
            return Task::Check;
        }
        let soon = router.check_at.min(self.look_at);
        let terms = self.terms();
        match self.openings.next(now, &terms) {
            Next::Call(slot, call) => Task::Ask(slot, call),
            Next::Wait(until) => Task::Wait(Some(until.min(soon))),
            Next::Rest => Task::Wait(Some(soon)),
        }
    }

    async fn perform(&mut self, task: Task) {
        match task {
            Task::LookAround => self.look_around(),
            Task::Search(place) => self.search(place).await,
            Task::Check => self.check().await,
            Task::Ask(slot, call) => self.ask(slot, call).await,
            Task::Wait(_) => {}
        }
    }

    /// Looks at the way to the router, and at the addresses of this machine.
    fn look_around(&mut self) {
        let now = Instant::now();
        self.look_at = now + LOOK_AROUND;
        self.look_at_clocks();
        let place = route::place(self.settings.gateway, self.settings.interface.as_deref());
        if let Ok(place) = &place {
            let with_ipv6 = self.live.values().any(|live| live.exposure.is_some_and(|e| e.ipv6));
            let global = match with_ipv6 {
                true => route::global_addresses(place.interface).unwrap_or_default(),
                false => Vec::new(),
            };
            let own = Own { toward_router: place.own, global, host: self.host.clone() };
            if self.own.as_ref() != Some(&own) {
                self.own = Some(own);
                self.retarget();
            }
        }
        if self.place.as_ref() != Some(&place) {
            self.forget_router();
            self.searches = 0;
            self.place = Some(place);
        }
    }

    /// After this machine slept, leases have ended without a timer that tells.
    fn look_at_clocks(&mut self) {
        let now = Calendar::now();
        let expected = self.calendar.unix(Instant::now());
        let read = now.unix(Instant::now());
        if read.abs_diff(expected) > JUMP {
            self.calendar = now;
            if read > expected {
                tracing::debug!(
                    seconds = read - expected,
                    "the clock went ahead: looking at the router again"
                );
                self.openings.doubt(Instant::now());
            }
        }
    }

    fn forget_router(&mut self) {
        if let Some(Router { pulse, pulse_at: Some(at), .. }) = self.router.take() {
            self.last_pulse = Some((pulse, at));
        }
        self.search_at = Instant::now();
    }

    async fn search(&mut self, place: Place) {
        match search(&self.settings.protocols, &place).await {
            Ok((driver, found)) => self.found(driver, found),
            Err(why) => {
                self.searches += 1;
                self.search_error = why;
                self.search_at = Instant::now() + self.patience(self.searches);
            }
        }
    }

    /// How long to wait before the next search, after so many in vain.
    fn patience(&mut self, searches: u32) -> Duration {
        let now = Instant::now();
        let since = *self.away_since.get_or_insert(now);
        let wait = self.dice.wait_after(searches);
        if now < since + LIKELY_BACK { wait.min(WHILE_LIKELY) } else { wait }
    }

    fn found(&mut self, driver: Driver, found: Found) {
        let now = Instant::now();
        let was_away = std::mem::take(&mut self.searches) > 0;
        if self.router_id.as_ref() == Some(&found.id) {
            // Not every router tells its restarts: one that did not answer for a while may have had one.
            if was_away { self.openings.try_again(now) } else { self.openings.doubt(now) }
        } else {
            let Known { records, habits, formers } = self.memory.of(&found.id, &self.calendar);
            self.openings.move_to(records, habits, formers, now);
            self.router_id = Some(found.id.clone());
            self.last_pulse = None;
            self.leftovers = false;
        }
        let pulse = Pulse::default();
        let driver = Arc::new(driver);
        self.router = Some(Router { driver, found, pulse, pulse_at: None, checks: 0, check_at: now });
    }

    /// Asks how the router is doing.
    async fn check(&mut self) {
        let Some(router) = &mut self.router else { return };
        let driver = Arc::clone(&router.driver);
        router.checks += 1;
        let mut pulse = match limited(driver.pulse()).await {
            Ok(pulse) => pulse,
            Err(RouterError::Lost(why)) => return self.lose(&why),
            // It is there, and does not tell.
            Err(_) => Pulse { external: None, tells: false, ..router.pulse.clone() },
        };
        if router.checks.is_multiple_of(CHECKS_TO_A_SEARCH) {
            match limited(driver.still_there()).await {
                Ok(boot_id) => pulse.boot_id = boot_id.or(pulse.boot_id),
                Err(RouterError::Lost(why)) => return self.lose(&why),
                Err(_) => {}
            }
        }
        let now = Instant::now();
        let lost = self.last_pulse.take();
        let before = router.pulse_at.map(|at| (router.pulse.clone(), at)).or(lost);
        let restarted = before.is_some_and(|(before, at)| restarted(&before, at, &pulse, now));
        router.pulse = pulse;
        router.pulse_at = Some(now);
        // What it is here for is still to be seen: this takes back no strike.
        router.check_at = now + self.settings.check_every;
        if restarted {
            self.reporter.report_restart(now);
            self.openings.try_again(now);
        }
    }

    /// The router does not answer: it is searched for at once, and more and more seldom when that does not help.
    fn lose(&mut self, why: &str) {
        tracing::debug!(error = why, "router lost");
        self.forget_router();
        self.look_at = self.search_at;
        self.strikes += 1;
        self.lost_error = why.to_owned();
        self.away_since.get_or_insert(self.search_at);
        if self.strikes > 1 {
            let wait = self.patience(self.strikes - 1);
            self.search_at += wait;
        }
    }

    async fn ask(&mut self, slot: Slot, call: Call) {
        let (Some(router), Some(Ok(Place { own, .. }))) = (&self.router, &self.place) else { return };
        let (driver, own) = (Arc::clone(&router.driver), *own);
        self.openings.sending(&slot, &call, Instant::now());
        self.remember();
        let answer = put(&driver, own, &call).await;
        tracing::debug!(?call, ?answer, "router asked");
        let lost = answer.lost().map(str::to_owned);
        let terms = self.terms();
        self.openings.answered(slot, &call, answer, Instant::now(), &terms);
        for departed in self.openings.departed() {
            self.reporter.report_departed(&departed);
        }
        self.remember();
        match lost {
            Some(why) => self.lose(&why),
            None => (self.strikes, self.away_since) = (0, None),
        }
    }

    fn remember(&mut self) {
        let Some(id) = &self.router_id else { return };
        let known = Known {
            records: self.openings.records(),
            habits: self.openings.habits(),
            formers: self.openings.formers().to_vec(),
        };
        self.memory.keep(id, &known, &self.calendar);
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
        let (state, reason) = match (&self.place, &self.router) {
            _ if !self.is_needed() => (RouterState::Off, String::new()),
            (Some(Err(error)), _) => (RouterState::NoNetwork, error.to_string()),
            // One that answers a search and nothing else is none.
            (_, Some(router)) if router.pulse_at.is_some() => (RouterState::Ready, String::new()),
            (_, None) if self.searches > 0 => (RouterState::Lost, self.search_error.clone()),
            _ if self.strikes > 1 => {
                (RouterState::Lost, format!("it answers the search alone: {}", self.lost_error))
            }
            _ => (RouterState::Searching, String::new()),
        };
        let router = self.router.as_ref().filter(|router| router.pulse_at.is_some());
        let external = router.and_then(|router| router.pulse.external);
        RouterStatus {
            state,
            reason,
            model: router.map(|router| router.found.model.clone()).unwrap_or_default(),
            address: router.map(|router| router.found.addr),
            protocol: router.map(|router| router.driver.via()),
            external,
            verdict: router.filter(|router| router.pulse.tells).map(|_| Verdict::of(external)),
            openings: self
                .opening_statuses(Frame { via: router.map(|router| router.driver.via()), external }),
        }
    }

    fn opening_statuses(&self, frame: Frame) -> Vec<OpeningStatus> {
        let unix = |at| self.calendar.unix(at);
        if self.own.is_none() {
            let exposed = self.live.iter().filter(|(_, live)| live.exposure.is_some());
            let blank = exposed.map(|(listener, live)| {
                let key = Key { listener: listener.clone(), pinhole: None };
                OpeningStatus::blank(&key, live.mapping.clone())
            });
            return blank.collect();
        }
        let leases = self.openings.leases().map(|lease| OpeningStatus::of(lease, frame, unix));
        leases.chain(self.unfit.iter().map(OpeningStatus::unfit)).collect()
    }

    /// Takes everything back, within [`RELEASE`]; what the router did not take back stays remembered. Dropped on the way,
    /// it can be done again.
    async fn take_everything_back(&mut self) {
        let until = Instant::now() + RELEASE;
        let leases = self.openings.parting(Instant::now());
        let mut waiting = leases.iter().map(|lease| lease.want().key.clone()).collect::<Vec<_>>();
        let mut left = leases.clone();
        if waiting.is_empty() {
            return self.openings.leave_behind(left);
        }
        if let (None, Some(Ok(place))) = (&self.router, &self.place) {
            // It was lost a moment ago, perhaps to be found elsewhere.
            if let Ok(Ok((driver, found))) = timeout_at(until, search(&self.settings.protocols, place)).await
                && self.router_id.as_ref() == Some(&found.id)
            {
                self.found(driver, found);
            }
        }
        if let (Some(router), Some(Ok(Place { own, .. }))) = (&self.router, &self.place) {
            let terms = self.terms();
            let mut queue = leases.into_iter();
            let mut tasks = JoinSet::new();
            let one =
                |lease| take_back(Arc::clone(&router.driver), *own, lease, terms, self.openings.habits());
            queue.by_ref().take(RELEASED_AT_ONCE).for_each(|lease| drop(tasks.spawn(one(lease))));
            while let Ok(Some(done)) = timeout_at(until, tasks.join_next()).await {
                if let Some(lease) = queue.next() {
                    tasks.spawn(one(lease));
                }
                let Ok(lease) = done else { continue };
                let State::Gone(how) = lease.state().clone() else { continue };
                waiting.retain(|key| *key != lease.want().key);
                if !matches!(how, Gone::Left(_)) {
                    left.retain(|other| other.want() != lease.want());
                }
                let (want, external_port) = (lease.want().clone(), lease.external_port().get());
                self.reporter.report_departed(&Departed { want, external_port, how });
            }
        }
        if !waiting.is_empty() {
            tracing::warn!(
                openings = waiting.len(),
                "left open on the router, which does not answer; they end with their leases"
            );
        }
        self.openings.leave_behind(left);
        self.remember();
    }
}

/// Whether the router was started anew between two pulses.
fn restarted(before: &Pulse, before_at: Instant, now: &Pulse, now_at: Instant) -> bool {
    let boot_changed = matches!((before.boot_id, now.boot_id), (Some(old), Some(new)) if old != new);
    // RFC 6887, section 8.5: the epoch runs with the time, give or take an eighth and two seconds.
    let epoch_fell = match (before.epoch, now.epoch) {
        (Some(old), Some(new)) => {
            let elapsed = now_at.saturating_duration_since(before_at).as_secs();
            u64::from(new) + 2 < u64::from(old) + elapsed * 7 / 8
        }
        _ => false,
    };
    boot_changed || epoch_fell
}

#[cfg(test)]
mod tests;
