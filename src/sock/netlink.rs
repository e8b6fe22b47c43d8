//! Questions to the kernel over netlink, and the parts of its answers (RFC 3549).
//!
//! Pure but for [`ask`] and [`Answers::read`], which never wait: the kernel answers in the call
//! that asks. No bytes of an answer can panic.

use std::{io, os::fd::OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink, recv, sendto,
    socket_with,
};

/// A message that is an error.
pub(super) const ERROR: u16 = 2;
/// The message that ends a list.
pub(super) const DONE: u16 = 3;
/// A question with one answer.
pub(super) const REQUEST: u16 = 1;
/// A question that wants a whole list.
pub(super) const REQUEST_DUMP: u16 = 0x301;
/// The length of the head of a message.
const HEAD: usize = 16;
/// The length of the head of an attribute.
const ATTRIBUTE_HEAD: usize = 4;

/// A question that was asked.
#[derive(Debug)]
pub(super) struct Answers {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

/// Asks the part of the kernel that knows addresses and routes.
///
/// # Errors
/// The system allows no such socket.
pub(super) fn ask(kind: u16, flags: u16, body: &[u8]) -> io::Result<Answers> {
    // No protocol is that of routing.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    sendto(&socket, &message(kind, flags, body), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    Ok(Answers { socket, buffer: vec![0; 32 * 1024] })
}

impl Answers {
    /// The next part of the answer: whole messages.
    ///
    /// # Errors
    /// The kernel has said everything, or lost some of it.
    pub(super) fn read(&mut self) -> io::Result<&[u8]> {
        let (length, _) = recv(&self.socket, &mut self.buffer, RecvFlags::DONTWAIT)?;
        Ok(&self.buffer[..length.min(self.buffer.len())])
    }
}

/// A message.
pub(super) fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEAD + body.len()).unwrap_or_default();
    let mut message = Vec::with_capacity(HEAD + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend(body);
    message
}

/// Adds an attribute to the body of a message.
pub(super) fn push(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(ATTRIBUTE_HEAD + value.len()).unwrap_or_default();
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// The messages of an answer: the kind and the body of each.
pub(super) fn messages(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let (kind, body) = (u16_at(rest, 4)?, rest.get(HEAD..length)?);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// The attributes at the end of a body: the kind and the value of each.
pub(super) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let (kind, value) = (u16_at(rest, 2)?, rest.get(ATTRIBUTE_HEAD..length)?);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A number of an answer.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_attributes_are_read_as_they_are_written() {
        let mut body = vec![];
        push(&mut body, 5, &[1, 2, 3]);
        push(&mut body, 6, &7_u32.to_ne_bytes());
        let read: Vec<_> = attributes(&body).collect();
        assert_eq!(read, [(5, &[1, 2, 3][..]), (6, &7_u32.to_ne_bytes()[..])]);
        let both = [message(24, REQUEST, &body), message(DONE, REQUEST, &[])].concat();
        let read: Vec<_> = messages(&both).collect();
        assert_eq!(read, [(24, &body[..]), (DONE, &[][..])]);
    }

    #[test]
    fn no_bytes_break_the_reading() {
        let mut body = vec![];
        push(&mut body, 5, &[1, 2, 3]);
        let whole = [message(24, REQUEST, &body), message(DONE, REQUEST, &[])].concat();
        for end in 0..whole.len() {
            assert!(messages(&whole[..end]).count() < 2);
            let _ = attributes(&whole[..end]).count();
        }
        for all in [[0; 64], [0xff; 64]] {
            assert_eq!((messages(&all).count(), attributes(&all).count()), (0, 0));
        }
    }
}
