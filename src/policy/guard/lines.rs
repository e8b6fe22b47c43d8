//! The log lines of bans.
//!
//! A ban is an operator's event, but strangers cause it, and one of them may have very many
//! addresses. So the log has one ban a second, sixty after a quiet time, and the next line has the
//! number of those left out.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    super::{Rate, rate::Limiter},
    Ban,
    ban::rfc3339,
};
use crate::mapping::{ClientKey, Timeout};

const AT_ONCE: NonZeroU32 = NonZeroU32::new(60).expect("it is not 0");
const IN: Duration = Duration::from_secs(60);

/// What may be told.
#[derive(Debug)]
pub(super) struct Lines {
    rate: Limiter,
    untold: AtomicU64,
}

impl Default for Lines {
    fn default() -> Self {
        let rate = Limiter::new(Rate { count: AT_ONCE, per: IN, burst: AT_ONCE });
        Self { rate, untold: AtomicU64::new(0) }
    }
}

impl Lines {
    /// Tells an automatic ban of that length.
    pub(super) fn banned(&self, ban: &Ban, length: Duration, now: Instant) {
        if !self.rate.take(now) {
            self.untold.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let untold = self.untold.swap(0, Ordering::Relaxed);
        tracing::info!(
            client.addr = %ban.client,
            ban.r#for = %Timeout::After(length),
            ban.until = ban.until.map(|until| tracing::field::display(rfc3339(until))),
            reason = %ban.reason,
            repeats = ban.repeats,
            untold = (untold > 0).then_some(untold),
            "client banned"
        );
    }
}

/// Logs a ban by the operator, without a limit.
pub(super) fn operator_banned(client: ClientKey, length: Option<Duration>) {
    let length = length.map_or(Timeout::Never, Timeout::After);
    tracing::info!(client.addr = %client, ban.r#for = %length, reason = "operator", "client banned");
}
