//! The operator's view of refusals: one line a mapping, at most once a minute.
//!
//! There is a timer only while there is something unsaid: it is started by a refusal, and an idle daemon has none.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::keepers::Admissions;

/// A first summary takes in what follows the first refusal at once.
const FIRST: Duration = Duration::from_secs(1);
/// How often it is looked whether a summary is due, while there is something unsaid.
const AGAIN: Duration = Duration::from_secs(5);

/// Whether there is something unsaid, and when to look next.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Told after each refusal.
    refused: Arc<Notify>,
    next: Option<Instant>,
}

impl Refusals {
    /// What doors tell of their refusals.
    pub(super) fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.refused)
    }

    /// Waits until it is time for [`Refusals::say`]. May be dropped at any time.
    pub(super) async fn due(&mut self) {
        let next = match self.next {
            Some(next) => next,
            // While the timer runs nobody listens: a flood of refusals wakes nobody.
            None => {
                self.refused.notified().await;
                *self.next.insert(Instant::now() + FIRST)
            }
        };
        sleep_until(next).await;
    }

    /// Says what is due, and stops the timer when nothing is left.
    pub(super) fn say(&mut self, admissions: &Admissions) {
        let now = Instant::now();
        self.next = None;
        for (mapping, admission) in admissions {
            if let Some(summary) = admission.summary(now) {
                tracing::info!(%mapping, refused = summary.total(), reasons = %summary, "sessions refused");
            }
            if admission.unsaid() {
                self.next = Some(now + AGAIN);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::{
        mapping::{MappingName, Protocol},
        policy::{AccessSpec, Admission, Entries, Gate, Policy},
    };

    const MINUTE: Duration = Duration::from_secs(60);

    fn closed_to_everyone() -> Admissions {
        let access = AccessSpec { allow: Some(Entries::default()), ..AccessSpec::default() };
        let admission = Admission::new(&Arc::new(Policy { access, ..Policy::default() }), &Gate::new());
        vec![(MappingName::new("closed").unwrap(), admission)]
    }

    fn refuse(refusals: &Refusals, admissions: &Admissions) {
        let client = IpAddr::from([192, 0, 2, 1]);
        admissions[0].1.admit(client, Protocol::Udp, Instant::now()).unwrap_err();
        refusals.bell().notify_one();
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_woken_while_everything_is_said() {
        let (mut refusals, admissions) = (Refusals::default(), closed_to_everyone());
        assert!(timeout(MINUTE, refusals.due()).await.is_err(), "nothing was refused");
        for _ in 0..1_000 {
            refuse(&refusals, &admissions);
        }
        let start = Instant::now();
        refusals.due().await;
        assert_eq!(start.elapsed(), FIRST, "the first summary takes in what came at once");
        refusals.say(&admissions);
        assert!(!admissions[0].1.unsaid(), "all thousand");
        assert!(timeout(10 * MINUTE, refusals.due()).await.is_err(), "an idle daemon has no timer");
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_a_summary_is_said_a_minute_later_and_not_forgotten() {
        let (mut refusals, admissions) = (Refusals::default(), closed_to_everyone());
        refuse(&refusals, &admissions);
        refusals.due().await;
        refusals.say(&admissions);
        let said = Instant::now();
        sleep(MINUTE / 6).await;
        refuse(&refusals, &admissions);
        while admissions[0].1.unsaid() {
            refusals.due().await;
            refusals.say(&admissions);
        }
        assert!((MINUTE..MINUTE + 2 * AGAIN).contains(&said.elapsed()), "{:?}", said.elapsed());
        assert!(refusals.next.is_none());
    }
}
