//! Sums up what strangers caused without a line of its own: refusals, and session lines over the
//! budget. Each mapping has one line of each kind, at most once a minute.
//!
//! A refusal or a line that was left out starts a timer. An idle daemon has none.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::mapping::{Admissions, SessionLogs};
use crate::{mapping::MappingName, meter::LeftOut, policy::Summary};

/// How long after the first event the first summary is written, so that it counts what follows at
/// once.
const FIRST: Duration = Duration::from_secs(1);
/// How often a due summary is looked for, while there is something to sum up.
const AGAIN: Duration = Duration::from_secs(5);

/// Whether there is something to sum up, and when to look next.
#[derive(Debug, Default)]
pub(super) struct Summaries {
    /// Notified when there is something to sum up.
    bell: Arc<Notify>,
    next: Option<Instant>,
}

impl Summaries {
    /// What admissions and session logs notify when there is something to sum up.
    pub(super) fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.bell)
    }

    /// Waits for the time of the next [`Summaries::say`]. May be dropped at any time.
    pub(super) async fn due(&mut self) {
        let next = match self.next {
            Some(next) => next,
            // While the timer runs, this waits for it alone: a flood wakes no task.
            None => {
                self.bell.notified().await;
                *self.next.insert(Instant::now() + FIRST)
            }
        };
        sleep_until(next).await;
    }

    /// Writes what is due, or everything that is left where this is the last time. Stops the timer
    /// when nothing is left.
    pub(super) fn say(&mut self, admissions: &Admissions, logs: &SessionLogs, is_last: bool) {
        let now = Instant::now();
        let mut is_left = false;
        for (mapping, admission) in admissions {
            if let Some(summary) = admission.summary(now, is_last) {
                say_refused(&mapping.name, &summary);
            }
            is_left |= admission.unsaid();
        }
        for (mapping, log) in logs {
            if let Some(left_out) = log.summary(now, is_last) {
                say_left_out(mapping, &left_out);
            }
            is_left |= log.unsaid();
        }
        self.next = is_left.then(|| now + AGAIN);
    }
}

fn say_refused(mapping: &MappingName, summary: &Summary) {
    tracing::info!(%mapping, refused = summary.total(), reasons = %summary, "sessions refused");
}

fn say_left_out(mapping: &MappingName, left_out: &LeftOut) {
    tracing::info!(
        %mapping,
        count = left_out.count(),
        "bytes.in" = left_out.bytes_in,
        "bytes.out" = left_out.bytes_out,
        reasons = %left_out,
        "session lines left out"
    );
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::{
        mapping::{MappingId, MappingName, Protocol},
        policy::{AccessSpec, Admission, Entries, Gate, Policy},
    };

    const MINUTE: Duration = Duration::from_secs(60);

    fn closed_to_everyone() -> Admissions {
        let access = AccessSpec { allow: Some(Entries::default()), ..AccessSpec::default() };
        let admission = Admission::new(
            &Arc::new(Policy { access, ..Policy::default() }),
            &Gate::new(std::time::SystemTime::now),
        );
        vec![(MappingId { name: MappingName::new("closed").unwrap(), nth: 0 }, admission)]
    }

    fn refuse(summaries: &Summaries, admissions: &Admissions) {
        let client = IpAddr::from([192, 0, 2, 1]);
        admissions[0].1.admit(client, Protocol::Udp, Instant::now()).unwrap_err();
        summaries.bell().notify_one();
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_wakes_while_everything_is_said() {
        let (mut summaries, admissions) = (Summaries::default(), closed_to_everyone());
        assert!(timeout(MINUTE, summaries.due()).await.is_err(), "nothing was refused");
        for _ in 0..1_000 {
            refuse(&summaries, &admissions);
        }
        let start = Instant::now();
        summaries.due().await;
        assert_eq!(start.elapsed(), FIRST, "the first summary takes in what came at once");
        summaries.say(&admissions, &SessionLogs::new(), false);
        assert!(!admissions[0].1.unsaid(), "all thousand");
        assert!(timeout(10 * MINUTE, summaries.due()).await.is_err(), "an idle daemon has no timer");
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_a_summary_is_said_a_minute_later_and_not_forgotten() {
        let (mut summaries, admissions) = (Summaries::default(), closed_to_everyone());
        refuse(&summaries, &admissions);
        summaries.due().await;
        summaries.say(&admissions, &SessionLogs::new(), false);
        let said = Instant::now();
        sleep(MINUTE / 6).await;
        refuse(&summaries, &admissions);
        while admissions[0].1.unsaid() {
            summaries.due().await;
            summaries.say(&admissions, &SessionLogs::new(), false);
        }
        assert!((MINUTE..MINUTE + 2 * AGAIN).contains(&said.elapsed()), "{:?}", said.elapsed());
        assert!(summaries.next.is_none());
    }
}
