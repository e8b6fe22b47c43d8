//! The operator's view of refusals: one line a mapping, at most once a minute.
//!
//! There is a timer only while there is something unsaid: it is started by a refusal, and an idle daemon has none.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::keepers::Admissions;
use crate::policy::{Admission, Refusal};

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
    /// What was said of each doorkeeper that has refused anyone: known by where it lies, which can at worst delay a line.
    said: HashMap<usize, u64>,
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
        let mut said = HashMap::new();
        for (mapping, admission) in admissions {
            let key = Arc::as_ptr(admission).addr();
            let mut told = self.said.get(&key).copied().unwrap_or_default();
            if let Some(summary) = admission.summary(now) {
                let refused = summary.total();
                tracing::info!(%mapping, refused, reasons = %summary, "sessions refused");
                told += refused;
            }
            if told != total(admission) {
                self.next = Some(now + AGAIN);
            }
            if told > 0 {
                said.insert(key, told);
            }
        }
        self.said = said;
    }
}

/// All that a doorkeeper has refused.
fn total(admission: &Admission) -> u64 {
    Refusal::ALL.into_iter().map(|reason| admission.refused(reason)).sum()
}
