//! What the guard hands to the next process: more than a file keeps over a restart, because that
//! process begins a moment later.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{super::rate::ClientLimiterRecord, Ban, Guard, GuardSnapshot, ban::PastBans};
use crate::handover::lenient;

/// Everything that the guard remembers, but for the budget of its log lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct GuardRecord {
    #[serde(deserialize_with = "lenient::each")]
    bans: Vec<Ban>,
    #[serde(deserialize_with = "lenient::each")]
    past: Vec<PastBans>,
    /// The refusals that have not earned a ban yet.
    #[serde(deserialize_with = "lenient::some")]
    offences: Option<ClientLimiterRecord>,
    #[serde(deserialize_with = "lenient::some")]
    trap_touches: Option<u64>,
}

impl Guard {
    /// What the guard hands over.
    pub(crate) fn hand_over(&self, now: Instant) -> GuardRecord {
        let GuardSnapshot { bans, past } = self.snapshot(now);
        let offences = self.terms.load().as_ref().and_then(|terms| terms.refusals.snapshot(now));
        GuardRecord { bans, past, offences, trap_touches: Some(self.trap_touches()) }
    }

    /// Takes over what an earlier process handed over. It can be called again with what was handed
    /// over later: the guard's own bans stay.
    pub(crate) fn take_over(&self, record: GuardRecord, now: Instant) {
        let GuardRecord { bans, past, offences, trap_touches } = record;
        self.restore(GuardSnapshot { bans, past }, now);
        if let (Some(terms), Some(offences)) = (&*self.terms.load(), &offences) {
            terms.refusals.take_over(offences, now);
        }
        self.trap_touches.fetch_max(trap_touches.unwrap_or_default(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{guard, ip},
        *,
    };
    use crate::fixture::each_spoilt;

    #[tokio::test(start_paused = true)]
    async fn bans_and_offences_without_one_yet_go_on_in_the_next_process() {
        let (before, now) = (guard(""), Instant::now());
        before.trap(ip("192.0.2.7"), now);
        before.ban(ip("198.51.100.1"), None, now);
        assert!((0..3).all(|_| before.offence(ip("192.0.2.9"), now).is_none()));
        let json = serde_json::to_string(&before.hand_over(now)).unwrap();
        let next = guard("");
        next.take_over(serde_json::from_str(&json).unwrap(), now);
        let shown =
            |guard: &Guard| guard.bans(now).iter().map(|ban| (ban.client, ban.reason)).collect::<Vec<_>>();
        assert_eq!(shown(&next), shown(&before));
        assert_eq!(next.trap_touches(), 1);
        assert!(next.keeps_out(ip("192.0.2.7"), now) && next.keeps_out(ip("198.51.100.1"), now));
        assert!(next.offence(ip("192.0.2.9"), now).is_some(), "the fourth refusal");
        next.take_over(before.hand_over(now), now);
        assert_eq!(next.bans(now).len(), 3, "what was handed over twice counts once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_spoilt_record_costs_no_more_than_what_is_wrong_in_it() {
        let (before, now) = (guard(""), Instant::now());
        before.trap(ip("192.0.2.7"), now);
        before.trap(ip("2001:db8::1"), now);
        before.offence(ip("192.0.2.9"), now);
        each_spoilt(&before.hand_over(now), |spoilt| {
            let Ok(record) = serde_json::from_value::<GuardRecord>(spoilt) else { return };
            let next = guard("");
            next.take_over(record, now);
            assert!(next.bans(now).len() <= 3);
            assert!(!next.keeps_out(ip("203.0.113.1"), now));
        });
    }
}
