//! What of the machine the data plane may use, and how much of that the configuration lets it.

use crate::{
    config::LimitSettings,
    relay::{
        tcp::{SessionBudget, Silence},
        udp::FlowBudget,
    },
};

/// What of the machine the data plane may use, over all listeners. Clones share one count.
#[derive(Clone, Debug)]
pub struct Budgets {
    /// TCP sessions.
    pub(super) sessions: SessionBudget,
    /// UDP flows.
    pub(super) flows: FlowBudget,
    /// Clients that are dropped in silence.
    pub(super) silence: Silence,
    most: Most,
}

/// What the descriptors allow.
#[derive(Clone, Copy, Debug)]
struct Most {
    sessions: usize,
    flows: usize,
}

impl Budgets {
    /// What the descriptors allow: so many sessions, flows, and clients that are dropped in silence.
    pub fn new(sessions: usize, flows: usize, silent: usize) -> Self {
        Self {
            sessions: SessionBudget::new(sessions),
            flows: FlowBudget::new(flows),
            silence: Silence::new(silent),
            most: Most { sessions, flows },
        }
    }

    /// Takes what the configuration says, as far as the descriptors allow it. A lowered limit takes nothing away.
    pub(super) fn retune(&self, limits: LimitSettings) {
        let wanted = |limit: Option<std::num::NonZeroU32>| limit.map(|n| n.get() as usize);
        self.sessions.set_limit(within("limits.sessions", wanted(limits.sessions), self.most.sessions));
        self.flows.set_limit(within("limits.flows", wanted(limits.flows), self.most.flows));
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
        let budgets = Budgets::new(100, 50, 4);
        let limits =
            |n| LimitSettings { sessions: Some(NonZeroU32::new(n).unwrap()), flows: NonZeroU32::new(n) };
        budgets.retune(limits(10));
        assert_eq!((budgets.sessions.limit(), budgets.flows.limit()), (10, 10));
        budgets.retune(limits(70));
        assert_eq!((budgets.sessions.limit(), budgets.flows.limit()), (70, 50));
        budgets.retune(LimitSettings::default());
        assert_eq!((budgets.sessions.limit(), budgets.flows.limit()), (100, 50));
    }
}
