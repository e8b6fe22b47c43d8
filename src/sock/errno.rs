//! What an error of a socket says, by the system's number for it. Each question has one answer for
//! the whole program.

use std::io;

use rustix::io::Errno;

fn is(error: &io::Error, of: &[Errno]) -> bool {
    Errno::from_io_error(error).is_some_and(|errno| of.contains(&errno))
}

/// Whether the process or the machine has run out of descriptors or memory. The socket itself is
/// sound.
pub(crate) fn is_exhaustion(error: &io::Error) -> bool {
    is(error, &[Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM])
}

/// Whether a new socket cannot reach its target because of this machine alone: it has run out of
/// something, which may be source ports.
pub(crate) fn is_own_shortage(error: &io::Error) -> bool {
    is_exhaustion(error) || is(error, &[Errno::AGAIN, Errno::ADDRINUSE])
}

/// Whether an operation is only to be tried again.
pub(crate) fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Whether a bind failed because the address, or its interface, does not exist now. That can
/// change: a dock, a VPN, an address that DHCP has not given yet.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    is(error, &[Errno::ADDRNOTAVAIL, Errno::NODEV, Errno::NXIO])
}

/// Whether the machine does no IPv6 at all, by the answer to a bind of `[::]`.
pub(super) fn lacks_ipv6(error: &io::Error) -> bool {
    is(error, &[Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL])
}

/// Whether accept(2) passes on an error of the connection that it would have returned.
pub(crate) fn is_of_one_connection(error: &io::Error) -> bool {
    is(
        error,
        &[
            Errno::CONNABORTED,
            Errno::CONNRESET,
            Errno::INTR,
            Errno::PERM,
            Errno::PROTO,
            Errno::NETDOWN,
            Errno::NOPROTOOPT,
            Errno::HOSTDOWN,
            Errno::NONET,
            Errno::HOSTUNREACH,
            Errno::NETUNREACH,
            Errno::TIMEDOUT,
        ],
    )
}

/// Whether a send of UDP has no way to its destination from the socket's own address, or from the
/// address that was asked for. Either the machine does not have that address (it was a broadcast
/// address, or is gone), or it has no route.
pub(crate) fn is_no_way(error: &io::Error) -> bool {
    is(error, &[Errno::INVAL, Errno::NETUNREACH, Errno::ADDRNOTAVAIL, Errno::NETDOWN, Errno::NODEV])
}

/// Whether an error of a send of UDP may stem from an earlier datagram. The other errors are about
/// this datagram: it is too long, the queue has no room, or it cannot be sent this way.
pub(crate) fn is_leftover(error: &io::Error) -> bool {
    let own =
        [Errno::AGAIN, Errno::MSGSIZE, Errno::INVAL, Errno::IO, Errno::NOBUFS, Errno::NOMEM, Errno::PERM];
    !is(error, &own)
}
