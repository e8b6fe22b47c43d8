//! The relay's log lines that outsiders can cause, each limited for all listeners together.

use std::time::Duration;

use crate::log_limiter::LogLimiter;

/// A limiter for each kind of line.
#[derive(Debug)]
pub(crate) struct LogLimits {
    /// No session slot is free.
    pub(super) full: LogLimiter,
    /// A connection could not be accepted.
    pub(super) accept: LogLimiter,
    /// A flow could not be opened.
    pub(super) open: LogLimiter,
    /// A datagram could not be received.
    pub(super) receive: LogLimiter,
}

impl Default for LogLimits {
    fn default() -> Self {
        let once_in = |seconds| LogLimiter::new(1, Duration::from_secs(seconds));
        Self { full: once_in(60), accept: once_in(60), open: once_in(1), receive: once_in(1) }
    }
}
