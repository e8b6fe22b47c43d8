//! Finds the program that holds a port.
//!
//! `/proc/self/net` names the socket, and the descriptors of a process lead to the program. Only
//! root sees the descriptors of another user. Without that right, or where the sandbox hides other
//! processes, the answer is the user's number.
//!
//! Own sockets do not count. After a refused reload, the old listener has the port again, but it
//! was not the cause.
//!
//! The search looks through all sockets and descriptors of the machine, which takes a while if
//! there are many. So it runs once for all ports, on a thread that may block.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::SocketAddr,
};

use procfs::process::{FDTarget, Process, all_processes};

use crate::{
    mapping::{ListenerKey, Protocol, collide},
    text::clean,
};

/// The holder of a port, as far as it can be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// A process.
    Process { pid: i32, program: String },
    /// A process of this user, which is not to be seen from here.
    User(u32),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, program } => write!(f, "{program} (pid {pid})"),
            Self::User(uid) => write!(f, "a program of user {uid} (as root, `ss -lntup` names it)"),
        }
    }
}

/// A socket of this network namespace.
#[derive(Clone, Copy, Debug)]
struct Held {
    addr: SocketAddr,
    inode: u64,
    uid: u32,
}

/// Finds the holder of an address that collides with each of `keys`. It may block.
pub(super) fn find(keys: &[ListenerKey]) -> Vec<Option<Holder>> {
    find_other(keys, &own_sockets())
}

/// The same as text: for a look from outside the daemon.
#[cfg(feature = "api")]
pub(crate) fn holders(keys: &[ListenerKey]) -> Vec<Option<String>> {
    find(keys).into_iter().map(|holder| holder.map(|holder| holder.to_string())).collect()
}

/// The same, but for the sockets with these inodes.
fn find_other(keys: &[ListenerKey], own: &HashSet<u64>) -> Vec<Option<Holder>> {
    let mut by_port: HashMap<(Protocol, u16), Vec<Held>> = HashMap::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        if keys.iter().any(|key| key.protocol == protocol) {
            for held in sockets(protocol).unwrap_or_default() {
                by_port.entry((protocol, held.addr.port())).or_default().push(held);
            }
        }
    }
    // An own socket is not the cause: a listener that will be replaced is still open beside the
    // other program's socket.
    let in_the_way = |key: &ListenerKey| {
        let of_its_port = by_port.get(&(key.protocol, key.addr.port.get()))?;
        of_its_port
            .iter()
            .copied()
            .find(|held| collide(held.addr.ip(), key.addr.ip) && !own.contains(&held.inode))
    };
    let held: Vec<Option<Held>> = keys.iter().map(in_the_way).collect();
    let processes = processes_with(held.iter().flatten().map(|held| held.inode).collect());
    let holder = |held: Held| processes.get(&held.inode).cloned().unwrap_or(Holder::User(held.uid));
    held.into_iter().map(|held| held.map(holder)).collect()
}

/// The inodes of this process's sockets.
fn own_sockets() -> HashSet<u64> {
    let fds = Process::myself().and_then(|me| me.fd()).into_iter().flatten().flatten();
    let sockets = fds.filter_map(|fd| match fd.target {
        FDTarget::Socket(inode) => Some(inode),
        _ => None,
    });
    sockets.collect()
}

/// The listening TCP or the bound UDP sockets.
fn sockets(protocol: Protocol) -> Option<Vec<Held>> {
    let me = Process::myself().ok()?;
    let found = match protocol {
        Protocol::Tcp => {
            let all = me.tcp().ok()?.into_iter().chain(me.tcp6().unwrap_or_default());
            all.filter(|s| s.state == procfs::net::TcpState::Listen)
                .map(|s| Held { addr: s.local_address, inode: s.inode, uid: s.uid })
                .collect()
        }
        Protocol::Udp => {
            let all = me.udp().ok()?.into_iter().chain(me.udp6().unwrap_or_default());
            all.map(|s| Held { addr: s.local_address, inode: s.inode, uid: s.uid }).collect()
        }
    };
    Some(found)
}

/// The processes that hold sockets with these inodes, as far as they can be seen.
fn processes_with(mut inodes: HashSet<u64>) -> HashMap<u64, Holder> {
    let mut found = HashMap::new();
    let Ok(processes) = all_processes() else { return found };
    for process in processes.flatten() {
        if inodes.is_empty() {
            break;
        }
        let Ok(fds) = process.fd() else { continue };
        let sockets = fds.flatten().filter_map(|fd| match fd.target {
            FDTarget::Socket(inode) => inodes.take(&inode),
            _ => None,
        });
        let sockets: Vec<u64> = sockets.collect();
        if !sockets.is_empty() {
            let program = process.stat().map_or_else(|_| "a program".to_owned(), |stat| stat.comm);
            // Another user chose the name: no control character in it may reach a terminal.
            let holder = Holder::Process { pid: process.pid(), program: clean(&program) };
            found.extend(sockets.into_iter().map(|inode| (inode, holder.clone())));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;
    use crate::{fixture::free_port, mapping::ListenAddr};

    #[test]
    fn the_holder_of_a_port_is_named_with_its_pid() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        let key = |protocol, port| {
            let addr = ListenAddr::every(NonZeroU16::new(port).unwrap());
            ListenerKey { protocol, addr }
        };
        let keys = [
            key(Protocol::Tcp, tcp.local_addr().unwrap().port()),
            key(Protocol::Tcp, free_port()),
            key(Protocol::Udp, udp.local_addr().unwrap().port()),
        ];
        assert!(find(&keys).iter().all(Option::is_none), "they are our own");
        let holders = find_other(&keys, &HashSet::new());
        for at in [0, 2] {
            let holder = &holders[at];
            assert!(matches!(holder, Some(Holder::Process { pid, .. }) if *pid == me), "{holder:?}");
        }
        assert_eq!((holders.len(), &holders[1]), (3, &None));
    }
}
