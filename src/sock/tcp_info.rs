//! What the kernel says of a TCP connection, by the socket options that no crate has.
//!
//! Owns the system calls `getsockopt(TCP_INFO)` and `setsockopt(TCP_INQ)`. Invariant of the unsafe
//! code: each call gets a pointer to a value on the stack and that value's size, and the value is
//! an integer or a C struct of integers.

#![allow(unsafe_code, reason = "no crate in the tree has TCP_INFO and TCP_INQ")]

use std::{
    io,
    mem::size_of_val,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use nix::libc;

/// From the kernel's `linux/tcp.h`; the C libraries do not all have it.
const TCP_INQ: libc::c_int = 36;

/// Lets each read say how much is left in the socket, as a control message. What a listener accepts
/// inherits it.
pub(super) fn announce_rest(socket: &impl AsFd) {
    let on: libc::c_int = 1;
    let len = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or(0);
    let fd = socket.as_fd().as_raw_fd();
    // Linux before 4.18 sends no such message, and a reader asks once more.
    // SAFETY: the pointer and the length are those of `on`.
    unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, TCP_INQ, (&raw const on).cast(), len) };
}

/// What is on its way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flight {
    /// Nothing.
    Nothing,
    /// Bytes that the peer has not acknowledged.
    Unacknowledged {
        /// Whether the peer acknowledged something lately.
        answers: bool,
    },
    /// Bytes that the peer has no room for. It answers the kernel's probes, or does not.
    NoRoom {
        /// Whether the peer answered lately.
        answers: bool,
    },
}

impl Flight {
    /// Looks at a socket. A peer that answered within `lately` answers.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn of(socket: &impl AsFd, lately: Duration) -> io::Result<Self> {
        let info = info(socket)?;
        let heard = Duration::from_millis(info.tcpi_last_ack_recv.into());
        // The backoff counts the probes of a closed window when nothing is in flight, else
        // retransmissions.
        Ok(if info.tcpi_unacked > 0 {
            Self::Unacknowledged { answers: heard <= lately }
        } else if info.tcpi_probes > 0 || info.tcpi_backoff > 0 {
            // The pause between probes grows to two minutes: one that is not answered yet says
            // nothing.
            Self::NoRoom { answers: info.tcpi_probes <= 1 || heard <= lately }
        } else {
            Self::Nothing
        })
    }
}

/// How many connections wait at a listening socket to be accepted.
pub(crate) fn queued(listener: &impl AsFd) -> u32 {
    // Of a socket that listens, the kernel counts these here.
    info(listener).map_or(0, |info| info.tcpi_unacked)
}

fn info(socket: &impl AsFd) -> io::Result<libc::tcp_info> {
    // SAFETY: the struct has integers only, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = libc::socklen_t::try_from(size_of_val(&info)).unwrap_or(0);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes no more than `len` bytes, which is the size of `info`.
    let failed = unsafe {
        libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut len)
    };
    if failed == 0 { Ok(info) } else { Err(io::Error::last_os_error()) }
}
