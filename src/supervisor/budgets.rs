//! What the data plane may use of the machine, and how much of it the configuration allows.
//!
//! Descriptors are divided between sessions, flows and a reserve. Configuration and state files,
//! new listeners and name lookups use the reserve. Each plan divides them again, so a listener that
//! a reload adds takes its descriptor from the sessions and not from the reserve.

use std::sync::Arc;

use crate::{
    config::{LimitSettings, Plan},
    mapping::Protocol,
    relay::{
        LogLimits,
        tcp::{SessionBudget, SilentDrops, WAITING_ROOM},
        udp::FlowBudget,
    },
};

/// Descriptors of everything but listeners, sessions and flows: the standard streams and the
/// runtime (10), a configuration that is read (4), the bans (2), the search for the holder of a
/// port (4), a few name lookups (12). It is at most a quarter of a small limit.
const CONTROL: u64 = 32;
/// Descriptors of the API: its clients (64, and a quarter of that for others that come when it is
/// full), its sockets (3), its runtime (4), and one for each file that a request reads or writes.
/// It is at most an eighth of a small limit, and the API takes fewer clients then.
const API: u64 = 90;
/// The part of them that is not for clients.
const API_OWN: u64 = 10;
const API_CLIENTS: u64 = 64;
/// One of so many descriptors is kept for listeners that a reload adds. The next reload has as many
/// again.
const NEW_SHARE: u64 = 16;
const MOST_NEW: u64 = 256;
/// Descriptors of the router thread: its runtime, its state, and up to eight requests side by side.
const ROUTER: u64 = 16;
/// Clients that were accepted and wait for a session slot, a few for each listener. If more wait
/// than this, accepting fails for a moment, which listeners survive.
const MOST_WAITING: u64 = 64;
/// One of so many descriptors may go to clients that are dropped in silence, up to [`MOST_SILENT`].
const SILENT_SHARE: u64 = 32;
const MOST_SILENT: u64 = 256;
/// One of so many descriptors may go to the pipes of bulk sessions, two for each pipe, up to
/// [`MOST_PIPES`] pipes. More sessions do not fill their pipes at once. A pipe with a slow reader
/// holds 256 KiB, and the kernel gives a user 64 MiB in all.
const PIPES_SHARE: u64 = 32;
const MOST_PIPES: u64 = 128;

/// What the data plane may use of the machine, over all listeners. Clones share one count.
#[derive(Clone, Debug)]
pub struct Budgets {
    /// TCP sessions.
    pub(super) sessions: SessionBudget,
    /// UDP flows.
    pub(super) flows: FlowBudget,
    /// Clients that are dropped in silence.
    pub(super) silence: SilentDrops,
    /// Whether the kernel may join and split datagrams.
    pub(super) joins: bool,
    /// The lines that outsiders can cause.
    pub(super) log: Arc<LogLimits>,
    /// The limit that they are divided from.
    descriptors: u64,
}

/// How much of something there may be, and is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Taken now. It is more than the limit after that was lowered.
    pub used: usize,
    /// As much as may be taken.
    pub limit: usize,
}

/// What a plan needs of the descriptors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    listeners: usize,
    with_router: bool,
    /// No TCP client can come.
    without_tcp: bool,
}

impl Needs {
    /// Those of `plan`.
    pub(super) fn of(plan: &Plan) -> Self {
        let with_router = plan.listeners.values().any(|listener| listener.exposure.is_some());
        let without_tcp = plan.listeners.keys().all(|key| key.protocol == Protocol::Udp);
        Self { listeners: plan.listeners.len(), with_router, without_tcp }
    }
}

impl Budgets {
    /// The budgets of a process with this limit of descriptors. The first plan divides them.
    /// Without `fast`, plain reads and writes move every byte.
    pub fn new(descriptors: u64, fast: bool) -> Self {
        let Shares { pipes, silent, sessions, flows } = Shares::of(descriptors, Needs::default());
        Self {
            sessions: SessionBudget::new(sessions, if fast { pipes } else { 0 }),
            flows: FlowBudget::new(flows),
            silence: SilentDrops::new(silent),
            joins: fast,
            log: Arc::default(),
            descriptors,
        }
    }

    /// TCP sessions, with those that wait for their target.
    pub(crate) fn sessions(&self) -> Usage {
        Usage { used: self.sessions.used(), limit: self.sessions.limit() }
    }

    /// UDP flows.
    pub(crate) fn flows(&self) -> Usage {
        Usage { used: self.flows.used(), limit: self.flows.limit() }
    }

    /// How many clients of the API the reserve has room for.
    pub(crate) fn api_clients(&self) -> usize {
        let clients = api_share(self.descriptors).saturating_sub(API_OWN) * 4 / 5;
        usize::try_from(clients.clamp(1, API_CLIENTS)).unwrap_or(1)
    }

    /// Sets the limits by the needs of a plan and the configuration, as far as the descriptors
    /// allow. A lowered limit ends no session.
    pub(super) fn retune(&self, limits: LimitSettings, needs: Needs) {
        let Shares { sessions, flows, .. } = Shares::of(self.descriptors, needs);
        let wanted = |limit: Option<std::num::NonZeroU32>| limit.map(|n| n.get() as usize);
        self.sessions.set_limit(within("limits.sessions", wanted(limits.sessions), sessions));
        self.flows.set_limit(within("limits.flows", wanted(limits.flows), flows));
    }
}

/// The descriptors of the API; none in a build without it.
fn api_share(descriptors: u64) -> u64 {
    if cfg!(feature = "api") { API.min(descriptors / 8) } else { 0 }
}

/// How the descriptors are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shares {
    pipes: usize,
    silent: usize,
    sessions: usize,
    flows: usize,
}

impl Shares {
    /// TCP sessions, two descriptors each, may take all that listeners, pipes and control leave.
    /// UDP flows, one each, may take half of that, so that forged UDP clients cannot keep TCP
    /// clients out. Where there is no TCP listener, they may take three quarters: the last one is
    /// for TCP listeners that a reload adds while flows hold all that they may.
    fn of(descriptors: u64, Needs { listeners, with_router, without_tcp }: Needs) -> Self {
        let control = CONTROL.min(descriptors / 4) + api_share(descriptors);
        let reserve = control + (descriptors / NEW_SHARE).min(MOST_NEW);
        let pipes = (descriptors / PIPES_SHARE / 2).min(MOST_PIPES);
        let silent = (descriptors / SILENT_SHARE).min(MOST_SILENT);
        let listeners = listeners as u64;
        let waiting = (listeners * WAITING_ROOM as u64).min(MOST_WAITING);
        let router = if with_router { ROUTER } else { 0 };
        let taken = reserve + router + listeners + waiting + silent + 2 * pipes;
        let rest = descriptors.saturating_sub(taken);
        let most = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).max(1);
        let flows = if without_tcp { rest / 4 * 3 } else { rest / 2 };
        Self { pipes: most(pipes), silent: most(silent), sessions: most(rest / 2), flows: most(flows) }
    }
}

fn within(key: &'static str, wanted: Option<usize>, most: usize) -> usize {
    match wanted {
        Some(wanted) if wanted > most => {
            tracing::warn!(
                key,
                wanted,
                allowed = most,
                "limit beyond what the descriptors allow; raise LimitNOFILE="
            );
            most
        }
        Some(wanted) => wanted,
        None => most,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn a_limit_is_never_above_what_the_descriptors_allow_and_auto_is_all_of_it() {
        let budgets = Budgets::new(1024, true);
        let Shares { sessions, flows, .. } = Shares::of(1024, Needs::default());
        let most = u32::try_from(flows).unwrap();
        let limits =
            |n| LimitSettings { sessions: Some(NonZeroU32::new(n).unwrap()), flows: NonZeroU32::new(n) };
        budgets.retune(limits(10), Needs::default());
        assert_eq!((budgets.sessions.limit(), budgets.flows.limit()), (10, 10));
        budgets.retune(limits(most + 1), Needs::default());
        assert_eq!((budgets.sessions.limit(), budgets.flows.limit()), (sessions, flows));
        budgets.retune(LimitSettings::default(), Needs::default());
        assert_eq!((budgets.sessions.limit(), budgets.flows.limit()), (sessions, flows));
    }

    #[test]
    fn what_is_shared_out_fits_into_the_limit() {
        for (descriptors, listeners) in [(128, 1), (1024, 10), (20_000, 10_000), (1_048_576, 3)] {
            for (router, with_router) in [(0, false), (ROUTER, true)] {
                let Shares { pipes, silent, sessions, .. } =
                    Shares::of(descriptors, Needs { listeners, with_router, without_tcp: false });
                let waiting = (4 * listeners).min(64);
                let new = (descriptors / NEW_SHARE).min(MOST_NEW);
                let used = CONTROL
                    + api_share(descriptors)
                    + new
                    + router
                    + (listeners + waiting + silent + 2 * (pipes + sessions)) as u64;
                assert!(used <= descriptors && sessions > 10, "{used} of {descriptors}");
            }
        }
    }

    #[test]
    fn tcp_keeps_half_of_the_descriptors() {
        let needs = Needs { listeners: 2, with_router: true, without_tcp: false };
        let Shares { sessions, flows, .. } = Shares::of(1024, needs);
        assert!(flows <= sessions);
    }

    #[test]
    fn flows_get_more_where_no_tcp_client_can_come() {
        let needs = Needs { listeners: 1, ..Needs::default() };
        let [shared, alone] =
            [false, true].map(|without_tcp| Shares::of(20_000, Needs { without_tcp, ..needs }));
        assert!(shared.flows < 10_000 && alone.flows > 14_000, "{} and {}", shared.flows, alone.flows);
        assert_eq!(alone.sessions, shared.sessions);
    }

    #[test]
    fn a_tiny_limit_still_forwards_one_of_each() {
        let needs = Needs { listeners: 2, with_router: true, without_tcp: false };
        assert_eq!(Shares::of(16, needs), Shares { pipes: 1, silent: 1, sessions: 1, flows: 1 });
    }
}
