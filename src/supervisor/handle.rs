//! The way to ask the supervisor for something, and what it shows of itself.

use std::{os::fd::OwnedFd, sync::Arc};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{
    budgets::Budgets,
    hand::{HandOver, Inheritance, TakenOver, Wish},
    mapping::{Admissions, AllPools, AllTotals},
    outcome::{Applied, LastReload, Preview, ReloadError},
    pulse::Pulse,
    reloads::{Reply, Turns},
    roster::{Roster, SessionFilter},
};
use crate::{
    config::{ReadSet, Settings},
    gateway::RouterSettings,
    mapping::{LiveSet, MappingName},
    meter::Ledger,
    policy::Gate,
    targets::Dialer,
    wake::Wakers,
};

/// What the supervisor is asked for.
pub(super) enum Request {
    Read(Reply),
    Stop(oneshot::Sender<()>),
    HandOver(Wish),
    TakeOver(Box<Inheritance>, oneshot::Sender<TakenOver>),
    Begin(oneshot::Sender<()>),
}

/// The way to ask the supervisor for something. Clones lead to the same one.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) mailbox: mpsc::Sender<Request>,
    pub(super) at_once: CancellationToken,
    pub(super) settings: watch::Receiver<Settings>,
    pub(super) router: watch::Receiver<RouterSettings>,
    pub(super) read: watch::Receiver<ReadSet>,
    pub(super) gate: Arc<Gate>,
    pub(super) admissions: watch::Receiver<Admissions>,
    pub(super) totals: watch::Receiver<AllTotals>,
    pub(super) pools: watch::Receiver<AllPools>,
    pub(super) live: watch::Receiver<LiveSet>,
    pub(super) roster: watch::Receiver<Arc<Roster>>,
    pub(super) last_reload: watch::Receiver<Option<Arc<LastReload>>>,
    pub(super) turns: watch::Receiver<Turns>,
    pub(super) budgets: Budgets,
    pub(super) dialer: Dialer,
    pub(super) wakers: Wakers,
    pub(super) ledger: Ledger,
    pub(super) pulse: Pulse,
    /// Cancelled when the listeners take clients.
    pub(super) serves: CancellationToken,
}

impl Handle {
    /// Reads the configuration again and applies it, whole or not at all. Requests that come while
    /// it is being read share one more reading after that.
    ///
    /// # Errors
    /// [`ReloadError`]; what ran before runs on.
    pub async fn reload(&self) -> Result<Applied, Arc<ReloadError>> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Request::Read(Reply::Apply(reply))).await.map_err(|_| ReloadError::Stopping)?;
        answer.await.unwrap_or_else(|_| Err(ReloadError::Stopping.into()))
    }

    /// Applies what the labels of containers say now. No file of mappings is read: what changed in
    /// one waits for a reload.
    ///
    /// # Errors
    /// [`ReloadError`]; what ran before runs on.
    #[cfg(feature = "docker")]
    pub(crate) async fn heed_containers(&self) -> Result<Applied, Arc<ReloadError>> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Read(Reply::Containers(reply));
        self.mailbox.send(request).await.map_err(|_| ReloadError::Stopping)?;
        answer.await.unwrap_or_else(|_| Err(ReloadError::Stopping.into()))
    }

    /// Reads the configuration again, and says what [`Handle::reload`] would change. It changes and
    /// binds nothing.
    ///
    /// # Errors
    /// [`ReloadError`]: the configuration is wrong, or another program has a port.
    pub(crate) async fn reload_dry_run(&self) -> Result<Preview, Arc<ReloadError>> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(Request::Read(Reply::DryRun(reply))).await.map_err(|_| ReloadError::Stopping)?;
        answer.await.unwrap_or_else(|_| Err(ReloadError::Stopping.into()))
    }

    /// Ends the sessions that `which` means, with the reason `closed-by-operator`. Returns how many
    /// these are. Each ends within a turn of its task.
    pub(crate) fn close_sessions(&self, which: &SessionFilter) -> usize {
        self.roster.borrow().close_sessions(which)
    }

    /// The plan and its listeners. It changes only when these do.
    pub(crate) fn roster(&self) -> watch::Receiver<Arc<Roster>> {
        self.roster.clone()
    }

    /// What came of the last reload; `None` before the first one.
    pub(crate) fn last_reload(&self) -> watch::Receiver<Option<Arc<LastReload>>> {
        self.last_reload.clone()
    }

    /// How many reloads were asked for, and how many have ended.
    pub(crate) fn reloads(&self) -> watch::Receiver<Turns> {
        self.turns.clone()
    }

    /// Which targets are down.
    pub(crate) fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Which targets were started, and how it is with them.
    pub(crate) fn wakers(&self) -> &Wakers {
        &self.wakers
    }

    /// What the data plane may use of the machine, and uses now.
    pub(crate) fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// Stops: no new sessions; those that live have the grace, then they are cut. Returns when all
    /// have ended.
    pub async fn stop(&self) {
        let (reply, stopped) = oneshot::channel();
        if self.mailbox.send(Request::Stop(reply)).await.is_ok() {
            let _ = stopped.await;
        }
    }

    /// Begins a hand-over to another process. From then on no configuration is applied. With it
    /// come duplicates of the sockets that listen. `None` where the supervisor has ended, or where
    /// another hand-over is under way.
    pub(crate) async fn hand_over(&self) -> Option<(HandOver, Vec<OwnedFd>)> {
        let (reply, begun) = oneshot::channel();
        self.mailbox.send(Request::HandOver(reply)).await.ok()?;
        begun.await.ok()
    }

    /// Takes what another process hands over. Nothing of it moves before [`Handle::begin`].
    pub(crate) async fn take_over(&self, inheritance: Inheritance) -> Option<TakenOver> {
        let (reply, taken) = oneshot::channel();
        self.mailbox.send(Request::TakeOver(Box::new(inheritance), reply)).await.ok()?;
        taken.await.ok()
    }

    /// Takes clients from now on, and lets move what was taken over.
    pub(crate) async fn begin(&self) {
        let (reply, begun) = oneshot::channel();
        if self.mailbox.send(Request::Begin(reply)).await.is_ok() {
            let _ = begun.await;
        }
    }

    /// Waits until the supervisor has ended.
    pub(crate) async fn ended(&self) {
        self.mailbox.closed().await;
    }

    /// Ends the grace of a stop that is under way, or to come.
    pub fn stop_at_once(&self) {
        self.at_once.cancel();
    }

    /// The settings of the configuration that runs.
    pub fn settings(&self) -> watch::Receiver<Settings> {
        self.settings.clone()
    }

    /// The part of them that says how the home router is asked.
    pub(crate) fn router_settings(&self) -> watch::Receiver<RouterSettings> {
        self.router.clone()
    }

    /// What all admissions share: the lists, the countries, and the guard with its bans.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// The admission of every mapping, with its counters. Each applied plan sends them again.
    pub fn admissions(&self) -> watch::Receiver<Admissions> {
        self.admissions.clone()
    }

    /// What the sessions of every mapping did since the mapping came into the plan. Each applied
    /// plan sends them again.
    pub(crate) fn totals(&self) -> watch::Receiver<AllTotals> {
        self.totals.clone()
    }

    /// What chooses among the targets of every mapping. Each applied plan sends them again.
    pub(crate) fn pools(&self) -> watch::Receiver<AllPools> {
        self.pools.clone()
    }

    /// Pauses a target of a mapping, or resumes it: a paused one takes no new sessions. Returns
    /// whether there is such a target.
    pub(crate) fn pause_target(&self, mapping: &MappingName, target: &str, is_paused: bool) -> bool {
        let roster = self.roster.borrow();
        let Some((id, about)) = roster.plan.about.iter().find(|(id, _)| id.name == *mapping) else {
            return false;
        };
        let Some(addr) = about.targets.iter().find(|addr| addr.to_string() == target) else { return false };
        let pools = self.pools.borrow();
        let Some((_, pool)) = pools.iter().find(|(of, _)| of == id) else { return false };
        pool.pause(addr, is_paused);
        tracing::info!(
            mapping = %mapping,
            target.addr = %addr,
            "{}",
            if is_paused { "target paused" } else { "target resumed" }
        );
        true
    }

    /// The files that the last reading of the configuration looked at, whether it was applied or
    /// refused.
    pub fn read_set(&self) -> watch::Receiver<ReadSet> {
        self.read.clone()
    }

    /// Tells whether the supervisor still turns.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// What really listens; it changes only when that does.
    pub(crate) fn live(&self) -> watch::Receiver<LiveSet> {
        self.live.clone()
    }
}
