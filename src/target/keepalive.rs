//! TCP keepalive: how a peer is found out that went away without a word.
//!
//! A connection that was silent for the idle time is probed, and [`PROBES`] probes without an answer end it. The kernel's
//! own pace after the first probe is a setting of the whole machine, by default nine probes in eleven minutes, which would
//! make the idle time next to meaningless; so both are always said.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};

use crate::mapping::Timeout;

/// Probes without an answer that end a connection.
const PROBES: u32 = 3;
/// The most between two of them; where the idle time is shorter, they come as often as that.
const LONGEST_INTERVAL: Duration = Duration::from_secs(15);
/// The kernel counts in whole seconds.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Sets or clears keepalive. What a listener accepts inherits its setting.
///
/// # Errors
/// What the system says.
pub fn set_keepalive(socket: &SockRef<'_>, keepalive: Timeout) -> io::Result<()> {
    match keepalive {
        Timeout::Never => socket.set_keepalive(false),
        Timeout::After(idle) => {
            let interval = idle.clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
            let pace = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(PROBES);
            socket.set_tcp_keepalive(&pace)
        }
    }
}

/// What the kernel holds for a socket: the idle time, the interval and the probes, where keepalive is on.
#[cfg(test)]
pub(crate) fn keepalive_of(socket: &SockRef<'_>) -> Option<(Duration, Duration, u32)> {
    let pace = || {
        (
            socket.tcp_keepalive_time().unwrap(),
            socket.tcp_keepalive_interval().unwrap(),
            socket.tcp_keepalive_retries().unwrap(),
        )
    };
    socket.keepalive().unwrap().then(pace)
}
