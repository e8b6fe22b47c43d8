//! The journal and the syslog of this machine: datagrams to a socket with a name.
//!
//! The socket is connected, so that it says when there is room. After a restart of the other side
//! it is connected again. As long as nothing is there, records wait.

use std::{
    fs::File,
    io::{self, Write as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixDatagram,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    io::Errno,
};

use super::{Sent, is_full};
use crate::sock;

/// A socket with a name.
#[derive(Debug)]
pub(super) struct Local {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Local {
    /// Nothing is opened yet.
    pub(super) fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), socket: None }
    }

    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Connects, unless that is done.
    pub(super) fn reach(&mut self) -> io::Result<()> {
        self.connected().map(drop)
    }

    fn connected(&mut self) -> io::Result<&UnixDatagram> {
        if self.socket.is_none() {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            socket.connect(&self.path)?;
            self.socket = Some(socket);
        }
        self.socket.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Sends a datagram. One that is too long goes in a file of its own, where `takes_files`.
    pub(super) fn send(&mut self, datagram: &[u8], takes_files: bool) -> Sent {
        let mut was_connected = self.socket.is_some();
        loop {
            let socket = match self.connected() {
                Ok(socket) => socket,
                Err(error) => return Sent::Away(error),
            };
            let sent = match socket.send(datagram) {
                Err(error) if takes_files && is_too_long(&error) => send_file(socket, datagram),
                sent => sent.map(drop),
            };
            match sent {
                Ok(()) => return Sent::Bytes(datagram.len()),
                Err(error) if is_full(&error) => return Sent::Busy,
                Err(error) if is_gone(&error) => {
                    self.socket = None;
                    // Behind the name may be a new one.
                    if !std::mem::take(&mut was_connected) {
                        return Sent::Away(error);
                    }
                }
                Err(error) => return Sent::Failed(error),
            }
        }
    }
}

fn is_too_long(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MSGSIZE | Errno::NOBUFS))
}

/// Whether the other side has ended.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotConnected, NotFound};
    matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | NotConnected | NotFound)
}

/// Sends an entry to the journal in a sealed file (systemd's "Journal Native Protocol").
fn send_file(socket: &UnixDatagram, entry: &[u8]) -> io::Result<()> {
    let file = memfd_create("portway-log", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(file);
    file.write_all(entry)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
    sock::send_file(socket, &file)
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::fd::OwnedFd, time::Duration};

    use super::*;

    fn server(path: &Path) -> UnixDatagram {
        let _ = std::fs::remove_file(path);
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = vec![0; 64 << 10];
        let count = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    #[test]
    fn datagrams_wait_for_a_receiver_and_find_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let mut local = Local::at(&path);
        assert!(matches!(local.send(b"none", true), Sent::Away(e) if e.kind() == io::ErrorKind::NotFound));
        let first = server(&path);
        assert!(matches!(local.send(b"one", true), Sent::Bytes(3)));
        assert_eq!(received(&first), "one");
        drop(first);
        let refused = local.send(b"none", true);
        assert!(matches!(refused, Sent::Away(e) if e.kind() == io::ErrorKind::ConnectionRefused));
        let second = server(&path);
        assert!(matches!(local.send(b"two", true), Sent::Bytes(3)));
        drop(second);
        let third = server(&path);
        assert!(matches!(local.send(b"three", true), Sent::Bytes(5)));
        assert_eq!(received(&third), "three");
    }

    #[test]
    fn a_receiver_that_does_not_read_is_busy_and_says_when_it_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let (server, mut local) = (server(&path), Local::at(&path));
        let mut sent = 0;
        while matches!(local.send(b"line", true), Sent::Bytes(_)) {
            sent += 1;
            assert!(sent < 1_000_000, "the queue of a socket is bounded");
        }
        assert!(matches!(local.send(b"line", true), Sent::Busy));
        for _ in 0..sent {
            received(&server);
        }
        super::super::wait_for(local.as_fd(), Duration::from_secs(20));
        assert!(matches!(local.send(b"line", true), Sent::Bytes(4)));
    }

    #[test]
    fn an_entry_too_long_for_a_datagram_goes_in_a_sealed_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let (server, mut local) = (server(&path), Local::at(&path));
        let long = vec![b'x'; 1 << 20];
        assert!(matches!(local.send(&long, false), Sent::Failed(_)));
        assert!(matches!(local.send(&long, true), Sent::Bytes(n) if n == long.len()));
        let file: OwnedFd = sock::receive_file(&server).unwrap();
        let seals = rustix::fs::fcntl_get_seals(&file).unwrap();
        assert!(seals.contains(SealFlags::WRITE | SealFlags::SEAL));
        let mut file = File::from(file);
        io::Seek::rewind(&mut file).unwrap();
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert!(read == long, "{} bytes", read.len());
    }
}
