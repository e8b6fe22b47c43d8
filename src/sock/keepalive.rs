//! TCP keepalive: how a peer is found that vanished.
//!
//! A connection that was silent for the idle time is probed, and [`PROBES`] probes without an
//! answer end it. The kernel's own pace after the first probe is a setting of the whole machine, by
//! default nine probes in eleven minutes. So both are always set.
//!
//! The kernel sends no probe while bytes are on their way to the peer: it repeats them instead, for
//! a quarter of an hour. `TCP_USER_TIMEOUT` limits that to the same time as the probes take
//! ([`unanswered_limit`]). The kernel applies it to a peer without room for more bytes, too,
//! although that peer answers. Such a session has to raise the limit ([`set_unanswered_limit`]), as
//! long as the peer answers.
//!
//! These are five system calls. A listener makes them once, and what it accepts inherits the
//! setting. A socket that connects inherits nothing. So where the first probe is far away
//! ([`may_wait`]), a session makes them when it has lived for a while.

use std::{io, os::fd::AsFd, time::Duration};

use socket2::{SockRef, TcpKeepalive};

use crate::mapping::Timeout;

/// Probes without an answer that end a connection.
const PROBES: u32 = 3;
/// The most between two of them; where the idle time is shorter, they come as often as that.
const LONGEST_INTERVAL: Duration = Duration::from_secs(15);
/// An idle time that a delay of seconds does not change much.
const FAR: Duration = Duration::from_secs(30);
/// The kernel counts in whole seconds.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Whether a connection can do without the setting for its first seconds.
pub(crate) fn may_wait(keepalive: Timeout) -> bool {
    keepalive.duration().is_none_or(|idle| idle >= FAR)
}

/// Sets or clears keepalive. What a listener accepts inherits its setting.
///
/// # Errors
/// What the system says.
pub(crate) fn set_keepalive(socket: &impl AsFd, keepalive: Timeout) -> io::Result<()> {
    let sock = SockRef::from(socket);
    match keepalive {
        Timeout::Never => sock.set_keepalive(false)?,
        Timeout::After(idle) => {
            let pace = TcpKeepalive::new().with_time(idle).with_interval(interval(idle)).with_retries(PROBES);
            sock.set_tcp_keepalive(&pace)?;
        }
    }
    set_unanswered_limit(socket, unanswered_limit(keepalive))
}

/// Gives `to` the setting of `from`.
///
/// # Errors
/// What the system says.
pub(super) fn copy_keepalive(from: &impl AsFd, to: &impl AsFd) -> io::Result<()> {
    let (from, to) = (SockRef::from(from), SockRef::from(to));
    let pace = TcpKeepalive::new()
        .with_time(from.tcp_keepalive_time()?)
        .with_interval(from.tcp_keepalive_interval()?)
        .with_retries(from.tcp_keepalive_retries()?);
    if from.keepalive()? {
        to.set_tcp_keepalive(&pace)?;
    }
    to.set_tcp_user_timeout(from.tcp_user_timeout()?)
}

/// How long a peer may leave bytes, or probes after silence, without an answer.
pub(crate) fn unanswered_limit(keepalive: Timeout) -> Option<Duration> {
    keepalive.duration().map(|idle| idle.saturating_add(interval(idle) * PROBES))
}

/// Sets the limit for bytes without an answer; `None` leaves it to the kernel.
///
/// # Errors
/// What the system says.
pub(crate) fn set_unanswered_limit(socket: &impl AsFd, limit: Option<Duration>) -> io::Result<()> {
    // The kernel counts milliseconds in an integer: 24 days.
    SockRef::from(socket)
        .set_tcp_user_timeout(limit.map(|limit| limit.min(Duration::from_millis(i32::MAX as u64))))
}

fn interval(idle: Duration) -> Duration {
    idle.clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL)
}
