//! Datagrams to everyone on the networks of this machine.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
};

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags, sys::socket::SockaddrStorage};

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
        let ip = |addr: Option<SockaddrStorage>| Some(addr?.as_sockaddr_in()?.ip());
        if let (Some(own), Some(mask)) = (ip(interface.address), ip(interface.netmask)) {
            all.extend(broadcast_of(own, mask).map(|to| (own, to)));
        }
    }
    Ok(all)
}

/// The broadcast address of a network. An interface often has none set, and the kernel knows it
/// anyhow. A network of one or two addresses has none.
fn broadcast_of(own: Ipv4Addr, mask: Ipv4Addr) -> Option<Ipv4Addr> {
    let hosts = !u32::from(mask);
    (hosts > 1).then(|| Ipv4Addr::from(u32::from(own) | hosts))
}

fn send(contents: &[u8], from: Ipv4Addr, to: SocketAddrV4) -> io::Result<()> {
    let socket = UdpSocket::bind((from, 0))?;
    socket.set_broadcast(true)?;
    socket.send_to(contents, to).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_its_last_address_for_everyone() {
        let of = |own: [u8; 4], mask: [u8; 4]| broadcast_of(own.into(), mask.into());
        assert_eq!(of([10, 1, 2, 3], [255, 255, 255, 0]), Some([10, 1, 2, 255].into()));
        assert_eq!(of([10, 1, 2, 3], [255, 255, 252, 0]), Some([10, 1, 3, 255].into()));
        assert_eq!(of([10, 1, 2, 3], [255, 255, 255, 254]), None);
        assert_eq!(of([10, 1, 2, 3], [255, 255, 255, 255]), None);
    }
}
