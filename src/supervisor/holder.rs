//! Who holds a port: the program behind a socket that is in the way.
//!
//! The socket is found in `/proc/self/net`, its process by its descriptors. Another user's descriptors can be seen only
//! by root; then the user's number is all there is to say.

use std::{fmt, net::SocketAddr};

use procfs::process::{FDTarget, Process, all_processes};

use crate::{
    config::ListenerKey,
    mapping::{ListenAddr, Protocol, canonical},
    text::clean,
};

/// The holder of a port, as far as it can be seen.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// A process.
    Process { pid: i32, program: String },
    /// A process that we may not look into, of this user.
    User(u32),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, program } => write!(f, "{program} (pid {pid})"),
            Self::User(uid) => write!(f, "a program of user {uid}"),
        }
    }
}

/// Finds who holds an address that collides with `key`.
pub(super) fn find(key: &ListenerKey) -> Option<Holder> {
    let (inode, uid) = sockets(key.protocol)?
        .into_iter()
        .find(|(addr, ..)| in_the_way(*addr, &key.addr))
        .map(|(_, inode, uid)| (inode, uid))?;
    Some(process_with(inode).unwrap_or(Holder::User(uid)))
}

/// The listening TCP or the bound UDP sockets of this network namespace: address, inode, user.
fn sockets(protocol: Protocol) -> Option<Vec<(SocketAddr, u64, u32)>> {
    let me = Process::myself().ok()?;
    let found = match protocol {
        Protocol::Tcp => {
            let all = me.tcp().ok()?.into_iter().chain(me.tcp6().unwrap_or_default());
            all.filter(|s| s.state == procfs::net::TcpState::Listen)
                .map(|s| (s.local_address, s.inode, s.uid))
                .collect()
        }
        Protocol::Udp => {
            let all = me.udp().ok()?.into_iter().chain(me.udp6().unwrap_or_default());
            all.map(|s| (s.local_address, s.inode, s.uid)).collect()
        }
    };
    Some(found)
}

fn in_the_way(held: SocketAddr, wanted: &ListenAddr) -> bool {
    held.port() == wanted.port.get()
        && (held.ip().is_unspecified()
            || wanted.is_wildcard()
            || canonical(held.ip()) == canonical(wanted.ip))
}

fn process_with(inode: u64) -> Option<Holder> {
    for process in all_processes().ok()?.flatten() {
        let Ok(fds) = process.fd() else { continue };
        if fds.flatten().any(|fd| matches!(fd.target, FDTarget::Socket(held) if held == inode)) {
            let program = process.stat().map_or_else(|_| "a program".to_owned(), |stat| stat.comm);
            // Its owner chose the name: nothing in it may reach a terminal as a control character.
            return Some(Holder::Process { pid: process.pid(), program: clean(&program) });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    #[test]
    fn the_holder_of_a_port_is_named_with_its_pid() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        for (protocol, port) in [
            (Protocol::Tcp, tcp.local_addr().unwrap().port()),
            (Protocol::Udp, udp.local_addr().unwrap().port()),
        ] {
            let addr = ListenAddr::every(NonZeroU16::new(port).unwrap());
            let holder = find(&ListenerKey { protocol, addr });
            assert!(matches!(holder, Some(Holder::Process { pid, .. }) if pid == me), "{holder:?}");
        }
    }
}
