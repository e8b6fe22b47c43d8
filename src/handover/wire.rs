//! A unix stream socket that carries frames and descriptors, from one process to the other.
//!
//! Owns one end. Each call has a moment until which it may take, and blocks until then: it belongs
//! on a thread that may wait. The descriptors of a frame come with its head, so they arrive no
//! later than the frame. A connection that has seen an error is of no more use.
//!
//! Bounds: those of a [`Frame`], and [`MOST_FRAMES`] for a whole connection.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg,
        socketpair, sockopt::set_socket_send_buffer_size,
    },
};
use tokio::time::Instant;

use super::frame::{Frame, HEAD, Head, MOST_DESCRIPTORS, WireError, room};

/// The most frames that a connection takes: enough for four million descriptors.
pub(crate) const MOST_FRAMES: usize = 16 << 10;
/// The room for what is under way that is asked for.
const ROOM: usize = 4 << 20;
/// How long the other side gets to take descriptors where too many are under way.
const PAUSE: Duration = Duration::from_millis(1);

/// One end.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: OwnedFd,
    received: usize,
}

/// A frame that arrived, and its descriptors.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// What it says.
    pub(crate) frame: Frame,
    /// What came with it. They close at an exec.
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Wire {
    /// Two ends. Both close at an exec.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn pair() -> std::io::Result<(Self, Self)> {
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        Ok((Self::new(one), Self::new(other)))
    }

    /// The end that is this socket.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket, received: 0 }
    }

    /// The socket.
    pub(crate) fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// Sends a frame with its descriptors, which stay open here.
    ///
    /// # Errors
    /// [`WireError`]. The other side may have a part of it.
    pub(crate) fn send(
        &mut self,
        frame: &Frame,
        descriptors: &[BorrowedFd<'_>],
        until: Instant,
    ) -> Result<(), WireError> {
        let head = Head::new(descriptors.len(), frame.record.len(), frame.bytes.len())?.to_bytes();
        let mut sent = 0;
        let length = HEAD + frame.record.len() + frame.bytes.len();
        while sent < length {
            let parts = [&head[..], &frame.record, &frame.bytes];
            let mut skip = sent;
            let parts = parts.map(|part| {
                let from = skip.min(part.len());
                skip -= from;
                IoSlice::new(&part[from..])
            });
            // The kernel takes the descriptors with the first byte, or nothing at all.
            let with = if sent == 0 { descriptors } else { &[] };
            match self.send_some(&parts, with) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, until)?,
                // The other side has not taken those before.
                Err(Errno::TOOMANYREFS) if Instant::now() < until => {
                    let _ = poll(&mut [], Some(&timespec(PAUSE)));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits until the other side has taken what was sent, but for a small frame, and makes room
    /// for a large one.
    ///
    /// # Errors
    /// [`WireError`].
    pub(crate) fn taken(&self, until: Instant) -> Result<(), WireError> {
        // A socket can be written to when what is under way is little beside its buffer. The kernel
        // gives the least and the most that it may.
        set_socket_send_buffer_size(&self.socket, 1)?;
        let taken = self.wait(PollFlags::OUT, until);
        set_socket_send_buffer_size(&self.socket, ROOM)?;
        taken
    }

    fn send_some(&self, parts: &[IoSlice<'_>], descriptors: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        sendmsg(&self.socket, parts, &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
    }

    /// Waits for the next frame.
    ///
    /// # Errors
    /// [`WireError`].
    pub(crate) fn receive(&mut self, until: Instant) -> Result<Received, WireError> {
        self.received += 1;
        if self.received > MOST_FRAMES {
            let (value, limit) = (self.received, MOST_FRAMES);
            return Err(WireError::TooLarge { what: "frames", value, limit });
        }
        let mut descriptors = Vec::new();
        let mut head = [0; HEAD];
        let mut filled = 0;
        while filled < HEAD {
            filled += self.receive_some(&mut head[filled..], &mut descriptors, until)?;
        }
        let head = Head::parse(head)?;
        let mut part = |length: usize| -> Result<Vec<u8>, WireError> {
            let (mut part, mut filled) = (Vec::new(), 0);
            while filled < length {
                if filled == part.len() {
                    room(&mut part, length);
                }
                filled += self.receive_some(&mut part[filled..], &mut descriptors, until)?;
            }
            Ok(part)
        };
        let frame = Frame { record: part(head.record)?, bytes: part(head.bytes)? };
        match descriptors.len() == head.descriptors {
            true => Ok(Received { frame, descriptors }),
            false => Err(WireError::Broken("its descriptors are not those that it says")),
        }
    }

    /// Receives bytes and the descriptors before them: at least one byte.
    fn receive_some(
        &self,
        bytes: &mut [u8],
        descriptors: &mut Vec<OwnedFd>,
        until: Instant,
    ) -> Result<usize, WireError> {
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            match recvmsg(&self.socket, &mut [IoSliceMut::new(bytes)], &mut control, flags) {
                Ok(message) => {
                    for part in control.drain() {
                        if let RecvAncillaryMessage::ScmRights(arrived) = part {
                            descriptors.extend(arrived);
                        }
                    }
                    // So the kernel says that this process may not have so many.
                    if message.flags.contains(ReturnFlags::CTRUNC) {
                        return Err(WireError::Descriptors);
                    }
                    if descriptors.len() > MOST_DESCRIPTORS {
                        return Err(WireError::Broken("more descriptors than a frame may have"));
                    }
                    return if message.bytes == 0 { Err(WireError::Closed) } else { Ok(message.bytes) };
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::IN, until)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn wait(&self, what: PollFlags, until: Instant) -> Result<(), WireError> {
        let left = until.saturating_duration_since(Instant::now());
        let mut watched = [PollFd::new(&self.socket, what)];
        match poll(&mut watched, Some(&timespec(left))) {
            Ok(0) => Err(WireError::TimedOut),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn timespec(span: Duration) -> Timespec {
    Timespec { tv_sec: span.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: span.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::MetadataExt as _, thread};

    use super::*;
    use crate::handover::frame::LARGEST_RECORD;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn frame(record: &[u8], bytes: &[u8]) -> Frame {
        Frame { record: record.to_vec(), bytes: bytes.to_vec() }
    }

    #[test]
    fn frames_arrive_whole_and_in_order_with_their_descriptors() {
        let (mut one, mut other) = Wire::pair().unwrap();
        let files: Vec<File> = (0..MOST_DESCRIPTORS).map(|_| tempfile::tempfile().unwrap()).collect();
        let large = frame(&vec![b'x'; 3 << 20], &vec![b'y'; 2 << 20]);
        let sends = thread::scope(|scope| {
            let received = scope.spawn(|| {
                [
                    other.receive(soon()).unwrap(),
                    other.receive(soon()).unwrap(),
                    other.receive(soon()).unwrap(),
                ]
            });
            let descriptors: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            one.send(&frame(b"{}", b""), &descriptors, soon()).unwrap();
            one.send(&large, &descriptors[..1], soon()).unwrap();
            one.send(&frame(b"[]", b"z"), &[], soon()).unwrap();
            received.join().unwrap()
        });
        let [first, second, third] = sends;
        let numbers = |files: Vec<File>| -> Vec<u64> {
            files.iter().map(|file| file.metadata().unwrap().ino()).collect()
        };
        let arrived = first.descriptors.into_iter().map(File::from).collect();
        assert_eq!(numbers(arrived), numbers(files));
        assert_eq!(second.frame, large);
        assert_eq!((second.descriptors.len(), third.descriptors.len()), (1, 0));
        assert_eq!(third.frame, frame(b"[]", b"z"));
    }

    #[test]
    fn an_end_in_the_middle_and_silence_are_errors() {
        let (one, mut other) = Wire::pair().unwrap();
        let now = Instant::now();
        assert!(matches!(other.receive(now), Err(WireError::TimedOut)));
        one.send_some(&[IoSlice::new(b"PwHO")], &[]).unwrap();
        drop(one);
        assert!(matches!(other.receive(soon()), Err(WireError::Closed)));
        assert!(matches!(other.send(&frame(b"{}", b""), &[], soon()), Err(WireError::Closed)));
    }

    #[test]
    fn a_peer_that_does_not_read_does_not_hold_a_sender() {
        let (mut one, _other) = Wire::pair().unwrap();
        let until = Instant::now() + Duration::from_millis(20);
        let large = frame(&vec![0; 8 << 20], b"");
        assert!(matches!(one.send(&large, &[], until), Err(WireError::TimedOut)));
    }

    #[test]
    fn what_was_sent_is_taken_when_the_peer_has_read_it() {
        let (mut one, mut other) = Wire::pair().unwrap();
        one.taken(soon()).unwrap();
        for _ in 0..20 {
            one.send(&frame(b"{}", &[0; 1000]), &[], soon()).unwrap();
        }
        let shortly = Instant::now() + Duration::from_millis(20);
        assert!(matches!(one.taken(shortly), Err(WireError::TimedOut)));
        thread::scope(|scope| {
            let waits = scope.spawn(|| one.taken(soon()));
            (0..20).for_each(|_| drop(other.receive(soon()).unwrap()));
            waits.join().unwrap().unwrap();
        });
        one.send(&frame(b"{}", b""), &[], soon()).unwrap();
    }

    #[test]
    fn more_than_the_limits_is_refused_on_both_sides() {
        let (mut one, mut other) = Wire::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let many = vec![file.as_fd(); MOST_DESCRIPTORS + 1];
        let error = one.send(&frame(b"{}", b""), &many, soon()).unwrap_err();
        assert!(matches!(error, WireError::TooLarge { what: "descriptors", .. }), "{error}");
        let head = Head { format: 1, descriptors: 0, record: LARGEST_RECORD + 1, bytes: 0 };
        one.send_some(&[IoSlice::new(&head.to_bytes())], &[]).unwrap();
        let error = other.receive(soon()).unwrap_err();
        assert!(matches!(error, WireError::TooLarge { what: "bytes of records", .. }), "{error}");
        // More than the head says.
        let (one, mut other) = Wire::pair().unwrap();
        let head = Head { format: 1, descriptors: 0, record: 2, bytes: 0 };
        one.send_some(&[IoSlice::new(&head.to_bytes()), IoSlice::new(b"{}")], &[file.as_fd()]).unwrap();
        assert!(matches!(other.receive(soon()).unwrap_err(), WireError::Broken(_)));
    }

    #[test]
    fn a_connection_takes_so_many_frames_and_no_more() {
        let (mut one, mut other) = Wire::pair().unwrap();
        let mut last = Ok(());
        for _ in 0..=MOST_FRAMES {
            one.send(&frame(b"{}", b""), &[], soon()).unwrap();
            last = other.receive(soon()).map(drop);
        }
        assert!(matches!(last, Err(WireError::TooLarge { what: "frames", .. })));
    }
}
