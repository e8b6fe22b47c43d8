//! The log lines of bans.
//!
//! An operator wants to know of each ban. But strangers cause bans, and one of them may have very
//! many addresses. So the log has [`AT_ONCE`] bans after a quiet time, then one each [`PERIOD`].

use std::time::Duration;

use tokio::time::Instant;

use super::{Ban, ban::rfc3339};
use crate::{
    log_limiter::LogLimiter,
    mapping::{ClientKey, Timeout},
};

const AT_ONCE: u32 = 60;
const PERIOD: Duration = Duration::from_secs(1);

/// The lines of automatic bans.
#[derive(Debug)]
pub(super) struct Lines(LogLimiter);

impl Default for Lines {
    fn default() -> Self {
        Self(LogLimiter::new(AT_ONCE, PERIOD))
    }
}

impl Lines {
    /// Logs an automatic ban of that length.
    pub(super) fn banned(&self, ban: &Ban, length: Duration, now: Instant) {
        let Some(untold) = self.0.take(now) else { return };
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
