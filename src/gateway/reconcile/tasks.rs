//! What the reconcile does when it is a thing's turn, and what it leaves when it ends.
//!
//! Each task asks one question at a time, and ends in what the next choice will be made from: a
//! place, a router, its health, an opening's next state. A task may be dropped at any `await`; what
//! it changed by then holds. Owns how long to wait for a router that does not answer. It does not
//! choose the next task and publishes nothing.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::{RELEASE, Reconciler, Router, Task};
use crate::gateway::{
    driver::Driver,
    jitter::wait_after,
    lease::{Call, Gone, State},
    openings::Slot,
    questions::{limited, put, search, take_back},
    record::Calendar,
    route,
    router::{Found, Health, RouterAddr, RouterError},
    want::Own,
};

/// How often the way to the router is looked at.
pub(super) const LOOK_AROUND: Duration = Duration::from_secs(10);
/// How many openings are taken back at once at the end.
const RELEASED_AT_ONCE: usize = 8;
/// Every so many checks the router is searched for again: the number of its start tells whether it
/// was restarted.
const CHECKS_TO_A_SEARCH: u32 = 5;
/// A router that was just lost is most likely starting: for so long it is searched for at least so
/// often.
pub(super) const LIKELY_BACK: Duration = Duration::from_secs(15 * 60);
pub(super) const WHILE_LIKELY: Duration = Duration::from_secs(60);
/// Two clocks that part by so much: this machine slept, or its clock was set.
const JUMP: u64 = 30;

impl Reconciler {
    /// Does one thing.
    pub(super) async fn perform(&mut self, task: Task) {
        match task {
            Task::LookAround => self.look_around(),
            Task::Search(router_addr) => self.search(router_addr).await,
            Task::Check => self.check().await,
            Task::Request(slot, call) => self.request(slot, call).await,
            Task::Wait(_) => {}
        }
    }

    /// Looks at the way to the router, and at the addresses of this machine.
    pub(super) fn look_around(&mut self) {
        let now = Instant::now();
        self.look_at = now + LOOK_AROUND;
        self.look_at_clocks();
        let router_addr = route::router_addr(self.settings.gateway, self.settings.interface.as_deref());
        if let Ok(router_addr) = &router_addr {
            let with_ipv6 = self.live.values().any(|live| live.exposure.is_some_and(|e| e.ipv6));
            let global = match with_ipv6 {
                true => route::global_addresses(router_addr.interface),
                false => Vec::new(),
            };
            let own = Own { toward_router: router_addr.own, global, host: self.host.clone() };
            if self.own.as_ref() != Some(&own) {
                self.own = Some(own);
                self.retarget();
            }
        }
        if self.router_addr.as_ref() != Some(&router_addr) {
            self.forget_router();
            self.searches = 0;
            self.router_addr = Some(router_addr);
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

    pub(super) fn forget_router(&mut self) {
        if let Some(Router { health, health_at: Some(at), .. }) = self.router.take() {
            self.last_health = Some((health, at));
        }
        self.search_at = Instant::now();
    }

    async fn search(&mut self, router_addr: RouterAddr) {
        match search(&self.settings.protocols, &router_addr).await {
            Ok((driver, found)) => self.found(driver, found),
            Err(why) => {
                self.searches += 1;
                self.search_error = why;
                self.search_at = Instant::now() + self.patience(self.searches);
            }
        }
    }

    /// How long to wait before the next search, after so many in vain.
    pub(super) fn patience(&mut self, searches: u32) -> Duration {
        let now = Instant::now();
        let since = *self.away_since.get_or_insert(now);
        let wait = wait_after(&mut self.rng, searches);
        if now < since + LIKELY_BACK { wait.min(WHILE_LIKELY) } else { wait }
    }

    pub(super) fn found(&mut self, driver: Driver, found: Found) {
        let now = Instant::now();
        let was_away = std::mem::take(&mut self.searches) > 0;
        if self.router_id.as_ref() == Some(&found.id) {
            // Not every router tells its restarts: one that did not answer for a while may have had
            // one.
            if was_away { self.openings.try_again(now) } else { self.openings.doubt(now) }
        } else {
            self.openings.move_to(self.memory.of(&found.id, &self.calendar), now);
            self.router_id = Some(found.id.clone());
            self.last_health = None;
            self.leftovers = false;
        }
        let health = Health::default();
        let driver = Arc::new(driver);
        self.router = Some(Router { driver, found, health, health_at: None, checks: 0, check_at: now });
    }

    /// Asks how the router is doing.
    pub(super) async fn check(&mut self) {
        let Some(router) = &mut self.router else { return };
        let driver = Arc::clone(&router.driver);
        router.checks += 1;
        let mut health = match limited(driver.health()).await {
            Ok(health) => health,
            Err(RouterError::Lost(why)) => return self.lose(&why),
            // It is there, and does not tell.
            Err(_) => Health { external: None, tells: false, ..router.health.clone() },
        };
        if router.checks.is_multiple_of(CHECKS_TO_A_SEARCH) {
            match limited(driver.still_there()).await {
                Ok(boot_id) => health.boot_id = boot_id.or(health.boot_id),
                Err(RouterError::Lost(why)) => return self.lose(&why),
                Err(_) => {}
            }
        }
        let now = Instant::now();
        let lost = self.last_health.take();
        let before = router.health_at.map(|at| (router.health.clone(), at)).or(lost);
        let restarted = before.is_some_and(|(before, at)| restarted(&before, at, &health, now));
        router.health = health;
        router.health_at = Some(now);
        // What it is here for is still to be seen: this takes back no strike.
        router.check_at = now + self.settings.check_every;
        if restarted {
            self.reporter.report_restart(now);
            self.openings.try_again(now);
        }
    }

    /// The router does not answer: it is searched for at once, and more and more seldom when that
    /// does not help.
    pub(super) fn lose(&mut self, why: &str) {
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

    async fn request(&mut self, slot: Slot, call: Call) {
        let (Some(router), Some(Ok(RouterAddr { own, .. }))) = (&self.router, &self.router_addr) else {
            return;
        };
        let (driver, own) = (Arc::clone(&router.driver), *own);
        self.openings.sending(&slot, &call, Instant::now());
        self.remember();
        let answer = put(&driver, own, &call).await;
        tracing::debug!(?call, ?answer, "router asked");
        let lost = if let Err(RouterError::Lost(why)) = &answer { Some(why.clone()) } else { None };
        self.openings.answered(slot, &call, answer, Instant::now(), &self.settings);
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
        self.memory.keep(id, self.openings.record(), &self.calendar);
    }

    /// Takes everything back, within [`RELEASE`]; what the router did not take back stays
    /// remembered. Dropped on the way, it can be done again.
    pub(super) async fn take_everything_back(&mut self) {
        let until = Instant::now() + RELEASE;
        let leases = self.openings.parting(Instant::now());
        let mut waiting = leases.iter().map(|lease| lease.want().key.clone()).collect::<Vec<_>>();
        let mut left = leases.clone();
        if waiting.is_empty() {
            return self.openings.leave_behind(left);
        }
        if let (None, Some(Ok(router_addr))) = (&self.router, &self.router_addr) {
            // It was lost a moment ago, perhaps to be found elsewhere.
            if let Ok(Ok((driver, found))) =
                timeout_at(until, search(&self.settings.protocols, router_addr)).await
                && self.router_id.as_ref() == Some(&found.id)
            {
                self.found(driver, found);
            }
        }
        if let (Some(router), Some(Ok(RouterAddr { own, .. }))) = (&self.router, &self.router_addr) {
            let mut queue = leases.into_iter();
            let mut tasks = JoinSet::new();
            let one = |lease| {
                let (driver, settings) = (Arc::clone(&router.driver), self.settings.clone());
                take_back(driver, *own, lease, settings, self.openings.habits())
            };
            queue.by_ref().take(RELEASED_AT_ONCE).for_each(|lease| drop(tasks.spawn(one(lease))));
            while let Ok(Some(done)) = timeout_at(until, tasks.join_next()).await {
                if let Some(lease) = queue.next() {
                    tasks.spawn(one(lease));
                }
                let Ok(lease) = done else { continue };
                let State::Gone(how) = lease.state() else { continue };
                waiting.retain(|key| *key != lease.want().key);
                if !matches!(how, Gone::Left(_)) {
                    left.retain(|other| other.want() != lease.want());
                }
                self.reporter.report_departed(&lease);
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

/// Whether the router restarted between two checks.
pub(super) fn restarted(before: &Health, before_at: Instant, now: &Health, now_at: Instant) -> bool {
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
