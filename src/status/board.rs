//! The [`Board`]: read ends of everything that runs, and the values that they make.
//!
//! Every answer is made when it is asked for, from what runs at that moment. While nothing asks,
//! the board costs nothing. A clone reads the same. It takes the locks of the meters for the time
//! of copying references, so a reader does not hold up the relay.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::SystemTime,
};

use tokio::{sync::watch, time::Instant};

use super::{addresses::addresses, ago, history::History, millis, rfc3339, router, view};
use crate::{
    config::{self, About, ListenerPlan, Plan, Settings},
    gateway::RouterStatus,
    log_level::LevelControl,
    mapping::{ListenerKey, MappingId, MappingName, Protocol},
    meter::{LiveSession, MappingTotals, Totals},
    policy::{Ban, BanReason, Gate, Grant},
    sock::interfaces::Interfaces,
    supervisor::{
        Admissions, AllPools, AllTotals, Budgets, Changes, Handle, LastReload, ListenerRecord, Preview,
        ReloadError, Roster, Serving,
    },
    targets::{Dialer, Leg, Target, Targets},
    version,
    wake::{Shown, State, Wakers},
};

/// The most reasons that `not_ready` lists.
const MOST_REASONS: usize = 20;

/// What does not change while the daemon runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// When it started.
    pub(crate) started: SystemTime,
    /// The same, by the monotonic clock.
    pub(crate) since: Instant,
    /// How many descriptors it may have.
    pub(crate) descriptors: u64,
}

/// Reads what runs.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    pub(super) facts: Facts,
    /// The interfaces at the start.
    interfaces: Option<Interfaces>,
    roster: watch::Receiver<Arc<Roster>>,
    pub(super) last_reload: watch::Receiver<Option<Arc<LastReload>>>,
    admissions: watch::Receiver<Admissions>,
    pub(super) totals: watch::Receiver<AllTotals>,
    pools: watch::Receiver<AllPools>,
    settings: watch::Receiver<Settings>,
    router: watch::Receiver<RouterStatus>,
    log_level: LevelControl,
    pub(super) gate: Arc<Gate>,
    dialer: Dialer,
    wakers: Wakers,
    pub(super) history: History,
    pub(super) budgets: Budgets,
}

impl Board {
    /// The board of what `handle` leads to, of the router, and of the level of the log.
    pub(crate) fn new(
        facts: Facts,
        handle: &Handle,
        router: watch::Receiver<RouterStatus>,
        log_level: LevelControl,
    ) -> Self {
        Self {
            facts,
            interfaces: Interfaces::now(),
            roster: handle.roster(),
            last_reload: handle.last_reload(),
            admissions: handle.admissions(),
            totals: handle.totals(),
            pools: handle.pools(),
            settings: handle.settings(),
            router,
            log_level,
            gate: Arc::clone(handle.gate()),
            dialer: handle.dialer().clone(),
            wakers: handle.wakers().clone(),
            history: History::default(),
            budgets: handle.budgets().clone(),
        }
    }

    pub(super) fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.roster.borrow())
    }

    /// The daemon as a whole.
    pub(crate) fn status(&self) -> view::Status {
        let roster = self.roster();
        let planned = roster.listeners.iter().filter(|listener| listener.state != Serving::Closing);
        let count = |protocol| -> usize {
            let of = roster.listeners.iter().filter(|listener| listener.key.protocol == protocol);
            of.map(|listener| listener.meter.live_count()).sum()
        };
        let not_ready = self.reasons(&roster);
        view::Status {
            version: version::VERSION.to_owned(),
            commit: version::COMMIT.map(str::to_owned),
            pid: std::process::id(),
            started: rfc3339(self.facts.started),
            uptime_ms: millis(self.facts.since.elapsed()),
            ready: not_ready.is_empty(),
            not_ready,
            mappings: roster.plan.about.len(),
            listeners: planned.count(),
            sessions: count(Protocol::Tcp),
            flows: count(Protocol::Udp),
            bans: self.gate.guard().count(Instant::now()),
            grants: self.grants(),
            last_reload: self.last_reload.borrow().as_deref().map(last_reload),
            wakes: self.wakers.shown().iter().map(wake).collect(),
            warnings: warnings(&roster),
            descriptors: view::Descriptors { open: open_descriptors(), limit: self.facts.descriptors },
            external: self.router.borrow().external.map(|ip| ip.to_string()),
            addresses: addresses(),
            log_level: Some(self.log_level.level().to_string()),
        }
    }

    /// The clients that are let in by a knock.
    pub(crate) fn grants(&self) -> Vec<view::Grant> {
        let grants = self.gate.knocks().grants(Instant::now()).into_iter();
        let grant = |grant: Grant| view::Grant {
            client: grant.client.to_string(),
            key: grant.key.to_string(),
            until: rfc3339(grant.until),
            count: grant.knocks,
        };
        grants.map(grant).collect()
    }

    /// The warnings of the configuration that runs.
    pub(crate) fn warnings(&self) -> Vec<view::Problem> {
        warnings(&self.roster.borrow())
    }

    /// Why the daemon is not ready: the listeners that do not listen, a network that is gone, and
    /// the stop. Nothing while it is.
    pub(crate) fn not_ready(&self) -> Vec<String> {
        self.reasons(&self.roster.borrow())
    }

    fn reasons(&self, roster: &Roster) -> Vec<String> {
        let network = lost_network(self.interfaces, Interfaces::now());
        network.map(str::to_owned).into_iter().chain(not_ready(roster)).collect()
    }

    /// Measures rates, and how long each session has moved nothing, while that is wanted. One of
    /// these runs, among the tasks of the relay.
    pub(crate) fn measure(&self) -> impl Future<Output = ()> + Send + use<> {
        self.history.clone().run(self.totals.clone())
    }

    /// The rates, which another process may go on with.
    pub(crate) fn rates(&self) -> History {
        self.history.clone()
    }

    /// Says whether a window wants that.
    pub(crate) fn switch_history(&self, on: bool) {
        self.history.switch(on);
    }

    /// The rates of the last `minutes`, of the mapping with this name or of all together; `None`
    /// for an unknown name. It has no points while nothing measures them.
    pub(crate) fn history(&self, name: Option<&MappingName>, minutes: u32) -> Option<view::History> {
        let Some(name) = name else { return Some(self.history.view(None, minutes)) };
        let id = id_of(name, &self.roster())?;
        Some(self.history.view(Some(&id), minutes))
    }

    /// The configuration that runs, without secrets.
    pub(crate) fn config(&self) -> serde_json::Value {
        config::effective(&self.roster().plan, &self.settings.borrow(), &self.gate.spec())
    }

    /// Every mapping, in the order of their names.
    pub(crate) fn mappings(&self) -> Vec<view::Mapping> {
        let roster = self.roster();
        // Once for all mappings: there may be thousands, and thousands of listeners.
        let mut records: HashMap<&MappingId, Vec<&ListenerRecord>> = HashMap::new();
        for record in &roster.listeners {
            if let Some(id) = &record.mapping {
                records.entry(id).or_default().push(record);
            }
        }
        let of = |id| records.get(id).map(Vec::as_slice).unwrap_or_default();
        let mappings = roster.plan.about.iter();
        mappings.map(|(id, about)| self.mapping_view(id, about, &roster.plan, of(id))).collect()
    }

    /// The mapping with this name, or with a listener of this name.
    pub(crate) fn mapping(&self, name: &MappingName) -> Option<view::Mapping> {
        let roster = self.roster();
        let id = id_of(name, &roster)?;
        let about = roster.plan.about.get(&id)?;
        let records: Vec<_> = roster.listeners.iter().filter(|l| l.mapping.as_ref() == Some(&id)).collect();
        Some(self.mapping_view(&id, about, &roster.plan, &records))
    }

    /// The view of a mapping; `records` are its listeners, those that listen first.
    fn mapping_view(
        &self,
        id: &MappingId,
        about: &About,
        plan: &Plan,
        records: &[&ListenerRecord],
    ) -> view::Mapping {
        let keys = about.listeners.iter().filter(|_| about.is_open());
        let planned: Vec<_> = keys.filter_map(|key| plan.listeners.get_key_value(key)).collect();
        // Reversed, so that of two with one key the first stays: the other has closed.
        let by_key: HashMap<_, _> = records.iter().rev().map(|record| (&record.key, *record)).collect();
        let live: Vec<_> = records.iter().flat_map(|record| record.meter.live()).collect();
        let (totals, rates) = (self.totals_of(id), self.history.rates(id));
        let sum = |count: fn(&Totals) -> u64| totals.iter().map(count).sum();
        let exposed = planned.iter().any(|(_, listener)| listener.exposure.is_some());
        view::Mapping {
            name: id.name.to_string(),
            origin: about.origin,
            place: Some(about.place.clone()),
            enabled: about.enabled,
            paused: about.paused,
            until: about.until.map(rfc3339),
            listeners: about.listeners.iter().map(|key| listener(key, by_key.get(key).copied())).collect(),
            targets: if about.is_open() { self.targets(id, &planned, &live) } else { closed_targets(about) },
            sessions: live.len() as u64,
            sessions_total: sum(|totals| totals.sessions),
            bytes_in: sum(|totals| totals.moved.bytes_in),
            bytes_out: sum(|totals| totals.moved.bytes_out),
            rate_in: rates.map(|(bytes_in, _)| bytes_in),
            rate_out: rates.map(|(_, bytes_out)| bytes_out),
            refused: self.refused(id),
            grants: plan.mappings.get(id).filter(|mapping| mapping.policy.knock).map(|_| self.grants()),
            router: exposed.then(|| self.openings(&planned)),
            policy: about.options(),
        }
    }

    /// The targets of the listeners of one mapping, each once.
    fn targets(
        &self,
        id: &MappingId,
        planned: &[(&ListenerKey, &ListenerPlan)],
        live: &[Arc<LiveSession>],
    ) -> Vec<view::Target> {
        let mut sessions: HashMap<String, u64> = HashMap::new();
        for target in live.iter().filter_map(|session| session.target_text()) {
            *sessions.entry(target).or_default() += 1;
        }
        let pool = find(&self.pools.borrow(), id).cloned().unwrap_or_default();
        let (mut views, mut places) = (Vec::<view::Target>::new(), HashMap::new());
        for (key, listener) in planned {
            for target in listener.service.target_lists().flat_map(Targets::all) {
                let addr = &target.addr;
                let place = *places.entry((key.protocol, addr)).or_insert_with(|| {
                    let address = addr.to_string();
                    let known = views.iter().position(|view| view.address == address);
                    let place = known.unwrap_or_else(|| {
                        views.push(target_view(target, address, pool.is_paused(addr)));
                        views.len() - 1
                    });
                    let view = &mut views[place];
                    view.sessions += match pool.member(key.protocol, addr) {
                        Some(member) => u64::from(member.sessions()),
                        None => sessions.remove(&view.address).unwrap_or_default(),
                    };
                    place
                });
                let leg =
                    Leg { mapping: listener.name.clone(), protocol: key.protocol, target: addr.clone() };
                if let Some(down) = self.dialer.down(&leg) {
                    let view = &mut views[place];
                    if view.state != view::TargetState::Paused {
                        view.state = view::TargetState::Down;
                    }
                    view.since = Some(ago(down.since.elapsed()));
                    view.last_error = Some(down.error);
                }
            }
        }
        // A name leads to addresses. With one target, all sessions lead there.
        if let [view] = &mut views[..] {
            view.sessions = live.len() as u64;
        }
        views
    }

    /// What happened on a mapping, by protocol, since it came into the plan.
    fn totals_of(&self, id: &MappingId) -> Vec<Totals> {
        let all = self.totals.borrow();
        let protocols = [Protocol::Tcp, Protocol::Udp];
        let read = |totals: &Arc<MappingTotals>| protocols.map(|protocol| totals.read(protocol));
        find(&all, id).into_iter().flat_map(read).collect()
    }

    fn refused(&self, id: &MappingId) -> BTreeMap<String, u64> {
        let admissions = self.admissions.borrow();
        let refused = find(&admissions, id).map(|admission| admission.refusals());
        let counted = refused.into_iter().flatten().filter(|(_, count)| *count > 0);
        counted.map(|(refusal, count)| (refusal.as_str().to_owned(), count)).collect()
    }

    fn openings(&self, planned: &[(&ListenerKey, &ListenerPlan)]) -> Vec<view::Opening> {
        let (status, now) = (self.router.borrow(), Instant::now());
        let keys: HashSet<_> = planned.iter().map(|(key, _)| *key).collect();
        let openings = status.openings.iter().filter(|opening| keys.contains(&opening.key.listener));
        openings.map(|opening| router::opening(opening, now)).collect()
    }

    pub(super) fn country(&self, client: IpAddr) -> Option<String> {
        self.gate.country(client).map(|country| country.as_str().to_owned())
    }

    /// The bans in force; the one that ends first comes first.
    pub(crate) fn bans(&self) -> Vec<view::Ban> {
        let bans = self.gate.guard().bans(Instant::now());
        bans.iter().map(view::Ban::from).collect()
    }

    /// The router, and what is open on it.
    pub(crate) fn router(&self) -> view::Router {
        router::router(&self.router.borrow(), Instant::now())
    }
}

/// What belongs to this mapping. The supervisor sends `all` in the order of the mappings.
fn find<'a, T>(all: &'a [(MappingId, T)], id: &MappingId) -> Option<&'a T> {
    let place = all.binary_search_by(|(of, _)| of.cmp(id)).ok()?;
    Some(&all[place].1)
}

fn warnings(roster: &Roster) -> Vec<view::Problem> {
    roster.warnings.iter().map(view::Problem::from).collect()
}

/// How it is with a target that sessions start.
fn wake(shown: &Shown) -> view::Wake {
    let now = Instant::now();
    let (mut since_ms, mut error, mut retry_ms) = (None, None, None);
    match &shown.state {
        State::Starting { since } => since_ms = Some(millis(now.saturating_duration_since(*since))),
        State::Failed { error: why, next_try } => {
            error = Some(why.to_string());
            retry_ms = Some(millis(next_try.saturating_duration_since(now)));
        }
        State::Asleep | State::Running | State::Stopping => {}
    }
    view::Wake {
        mapping: shown.mapping.to_string(),
        what: shown.what.to_string(),
        state: shown.state.as_str().to_owned(),
        sessions: shown.sessions,
        since_ms,
        error,
        retry_ms,
    }
}

/// What has become of the network since the start. A container that shares the network of another
/// one keeps it when that one goes away, and its interfaces are gone all the same.
fn lost_network(at_start: Option<Interfaces>, now: Option<Interfaces>) -> Option<&'static str> {
    match (at_start?, now?) {
        (Interfaces { others: true, .. }, Interfaces { others: false, .. }) => Some(
            "network: its interfaces are gone, as when the container that it belongs to was restarted; restart \
             portway",
        ),
        (Interfaces { loopback: true, .. }, Interfaces { loopback: false, .. }) => {
            Some("network: the loopback interface is down (`ip link set lo up`)")
        }
        _ => None,
    }
}

fn not_ready(roster: &Roster) -> Vec<String> {
    if roster.is_stopping {
        return vec!["the daemon is stopping".to_owned()];
    }
    let reason = |listener: &ListenerRecord| match &listener.state {
        Serving::Waiting(trouble) | Serving::Failed(trouble) => {
            Some(format!("{} {}: {}", listener.meter.mapping(), listener.key, trouble.error))
        }
        Serving::Listening | Serving::Closing => None,
    };
    roster.listeners.iter().filter_map(reason).take(MOST_REASONS).collect()
}

/// A listener of a mapping; closed, where nothing of it runs.
fn listener(key: &ListenerKey, record: Option<&ListenerRecord>) -> view::Listener {
    let (state, trouble) = match record.map(|record| &record.state) {
        Some(Serving::Listening) => (view::ListenerState::Listening, None),
        Some(Serving::Waiting(trouble)) => (view::ListenerState::Waiting, Some(trouble)),
        Some(Serving::Failed(trouble)) => (view::ListenerState::Failed, Some(trouble)),
        Some(Serving::Closing) | None => (view::ListenerState::Closed, None),
    };
    view::Listener {
        protocol: Some(key.protocol),
        listen: key.addr.to_string(),
        state,
        error: trouble.map(|trouble| trouble.error.clone()),
        holder: trouble.and_then(|trouble| trouble.holder.clone()),
    }
}

/// A target of which nothing else is known.
fn target_view(target: &Target, address: String, is_paused: bool) -> view::Target {
    let state = if is_paused { view::TargetState::Paused } else { view::TargetState::Up };
    let weight = Some(target.weight.get()).filter(|weight| *weight != 1);
    view::Target { address, state, weight, backup: target.backup, ..view::Target::default() }
}

/// The targets of a mapping that has no listeners, of which nothing is known.
fn closed_targets(about: &About) -> Vec<view::Target> {
    let view = |address: String| view::Target { address, ..view::Target::default() };
    about.targets.iter().map(|target| view(target.to_string())).collect()
}

/// The mapping of the plan with this name, or with a listener of this name.
fn id_of(name: &MappingName, roster: &Roster) -> Option<MappingId> {
    let mappings = &roster.plan.about;
    let of_listener = || {
        let named = roster.listeners.iter().find(|listener| listener.has_name(name));
        named.and_then(|listener| listener.mapping.clone())
    };
    let id = mappings.keys().find(|id| id.name == *name).cloned().or_else(of_listener)?;
    mappings.contains_key(&id).then_some(id)
}

fn last_reload(last: &LastReload) -> view::LastReload {
    let said = |message: &String| view::Problem { message: message.clone(), ..view::Problem::default() };
    view::LastReload {
        at: rfc3339(last.at),
        outcome: if last.is_applied() { "applied" } else { "refused" }.to_owned(),
        problems: last
            .problems
            .iter()
            .map(view::Problem::from)
            .chain(last.refused.iter().map(said))
            .collect(),
    }
}

/// How many descriptors the process has open; 0 where the system does not say.
fn open_descriptors() -> u64 {
    let open = procfs::process::Process::myself().and_then(|me| me.fd_count());
    open.map_or(0, |count| count as u64)
}

impl From<&Ban> for view::Ban {
    fn from(ban: &Ban) -> Self {
        Self {
            client: ban.client.to_string(),
            since: rfc3339(ban.since),
            until: ban.until.map(rfc3339),
            reason: ban.note.clone().unwrap_or_else(|| ban.reason.to_string()),
            count: ban.repeats.saturating_add(1),
            manual: ban.reason == BanReason::Operator,
        }
    }
}

impl From<&config::Problem> for view::Problem {
    fn from(problem: &config::Problem) -> Self {
        Self {
            code: Some(problem.code.as_str().to_owned()),
            file: Some(problem.file.clone()),
            line: Some(problem.line),
            column: Some(problem.column),
            message: problem.message.clone(),
            help: problem.help.clone(),
        }
    }
}

impl From<&Changes> for view::Reload {
    fn from(changes: &Changes) -> Self {
        let shown = |all: &[(MappingName, ListenerKey)]| {
            all.iter().map(|(name, key)| format!("{name} {key}")).collect()
        };
        Self {
            opened: shown(&changes.opened),
            closed: shown(&changes.closed),
            changed: shown(&changes.changed),
            replaced: shown(&changes.replaced),
            sessions_cut: changes.cut.clone(),
            sessions_cut_count: changes.cut_count as u64,
            ..Self::default()
        }
    }
}

impl From<&Preview> for view::Reload {
    fn from(preview: &Preview) -> Self {
        let warnings = preview.warnings.iter().map(view::Problem::from).collect();
        Self { dry_run: true, warnings, ..Self::from(&preview.changes) }
    }
}

impl From<&ReloadError> for view::Failure {
    fn from(error: &ReloadError) -> Self {
        let said = |message: String| view::Problem { message, ..view::Problem::default() };
        let (error, problems) = match error {
            ReloadError::Config(problems) => (
                format!("the configuration has {} problem(s); nothing has changed", problems.len()),
                problems.iter().map(view::Problem::from).collect(),
            ),
            ReloadError::Bind(errors) => (
                format!("{} listener(s) cannot be opened; nothing has changed", errors.len()),
                errors.iter().map(|error| said(error.to_string())).collect(),
            ),
            ReloadError::Job(_) | ReloadError::Stopping | ReloadError::HandedOver => {
                (error.to_string(), Vec::new())
            }
        };
        Self { error, problems }
    }
}
