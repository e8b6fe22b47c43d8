//! Reading from a TCP socket, with the kernel's word on what is left in it.
//!
//! Owns the system call `recvmsg` with the control message `TCP_INQ`. A short read alone does not
//! mean that the socket is empty: a read stops at an urgent mark, although more bytes follow. The
//! control message costs no system call.
//!
//! Invariant of the unsafe code: every pointer of the message header points to a buffer that lives
//! through the call, and each length is that of its buffer.

#![allow(unsafe_code, reason = "no crate in the tree reads the control message of TCP_INQ")]

use std::{
    io,
    mem::{size_of, zeroed},
    os::fd::{AsFd, AsRawFd},
};

use nix::libc;

/// The kind of the control message, from the kernel's `linux/tcp.h`: that of the option `TCP_INQ`.
const TCP_CM_INQ: libc::c_int = 36;

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// So many bytes; none at the end of the stream.
    pub(crate) bytes: usize,
    /// The kernel says that nothing is left in the socket, not even the end.
    pub(crate) is_all: bool,
}

/// Room for one control message with an integer, aligned as its header.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    data: [u8; 16],
}

/// Reads what is there.
///
/// # Errors
/// What the system says.
pub(crate) fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: both are C structs of integers and pointers, for which zero is a value.
    let (mut control, mut message): (Control, libc::msghdr) = unsafe { (zeroed(), zeroed()) };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    // SAFETY: the header points to `part`, which is `buffer`, and to `control`, each with its own
    // length.
    let found = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, 0) };
    let bytes = usize::try_from(found).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has filled in `control` up to the length that the header has now.
    Ok(Received { bytes, is_all: unsafe { left(&message) } == Some(0) })
}

/// The bytes that are left, where the kernel says so.
///
/// # Safety
/// The control messages of `message` are valid.
unsafe fn left(message: &libc::msghdr) -> Option<libc::c_int> {
    // SAFETY: the first header lies within the buffer, or is null; its data follows it.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(message).as_ref()?;
        let is_inq = header.cmsg_level == libc::IPPROTO_TCP && header.cmsg_type == TCP_CM_INQ;
        is_inq.then(|| libc::CMSG_DATA(header).cast::<libc::c_int>().read_unaligned())
    }
}
