//! Datagrams to everyone on the networks of this machine.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
};

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};

/// Sends a datagram to a port of everyone: to 255.255.255.255, which is the network of the default
/// route, and to the broadcast address of each interface. Returns how many took it.
///
/// # Errors
/// What the system said last, where none took it.
pub(crate) fn send_everywhere(contents: &[u8], port: u16) -> io::Result<usize> {
    let mut sent = 0;
    let mut failed = None;
    for (from, to) in networks()? {
        match send(contents, from, SocketAddrV4::new(to, port)) {
            Ok(()) => sent += 1,
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if sent == 0 => Err(error),
        _ => Ok(sent),
    }
}

/// The broadcast addresses, each with the own address to send from.
fn networks() -> io::Result<BTreeSet<(Ipv4Addr, Ipv4Addr)>> {
    let mut all = BTreeSet::from([(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST)]);
    for interface in getifaddrs()? {
        if !interface.flags.contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_BROADCAST) {
            continue;
        }
        let ip = |addr: Option<nix::sys::socket::SockaddrStorage>| Some(addr?.as_sockaddr_in()?.ip());
        if let (Some(own), Some(to)) = (ip(interface.address), ip(interface.broadcast)) {
            all.insert((own, to));
        }
    }
    Ok(all)
}

fn send(contents: &[u8], from: Ipv4Addr, to: SocketAddrV4) -> io::Result<()> {
    let socket = UdpSocket::bind((from, 0))?;
    socket.set_broadcast(true)?;
    socket.send_to(contents, to).map(drop)
}
