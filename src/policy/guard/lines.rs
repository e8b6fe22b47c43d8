//! The log lines and the events of bans.
//!
//! An operator wants to know of each ban. But strangers cause bans, and one of them may have very
//! many addresses. So the log has [`AT_ONCE`] bans after a quiet time, then one each [`PERIOD`].

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Ban, BanReason,
    ban::{Banned, rfc3339},
};
use crate::{
    events::{Draft, EventKind, Events},
    log_limiter::LogLimiter,
    mapping::Timeout,
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
    pub(super) fn banned(&self, ban: &Ban, length: Duration, now: Instant, events: &Events) {
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
        tell(events, ban.client, Timeout::After(length), ban.reason);
    }
}

/// Logs a ban by the operator, without a limit.
pub(super) fn operator_banned(ban: &Ban, length: Option<Duration>, events: &Events) {
    let length = length.map_or(Timeout::Never, Timeout::After);
    let note = ban.note.as_deref();
    tracing::info!(client.addr = %ban.client, ban.r#for = %length, reason = "operator", note, "client banned");
    tell(events, ban.client, length, BanReason::Operator);
}

fn tell(events: &Events, client: Banned, length: Timeout, reason: BanReason) {
    events.emit(EventKind::Banned, || {
        let message = match length {
            Timeout::After(_) => format!("{client} is banned for {length}: {reason}"),
            Timeout::Never => format!("{client} is banned until an operator ends it: {reason}"),
        };
        Draft::new(message).client(client).reason(reason.as_str())
    });
}
