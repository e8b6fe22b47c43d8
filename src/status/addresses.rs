//! This machine's own addresses: what a friend has to be given, where a listener takes all of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use crate::config::{HostView as _, System};

/// The most that are listed.
const MOST: usize = 8;
/// An address that is on no network (RFC 5737), with the port of `discard`.
const ELSEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);

/// The addresses as text, without loopback. The one that leads to the internet comes first: the
/// others can be those of containers and virtual machines.
pub(super) fn addresses() -> Vec<String> {
    let mut all: Vec<IpAddr> = System.addresses().into_iter().collect();
    let outward = outward();
    all.sort_unstable_by_key(|ip| (Some(*ip) != outward, ip.is_ipv6(), *ip));
    all.iter().take(MOST).map(IpAddr::to_string).collect()
}

/// The address that the machine uses towards the internet, by its routes. Nothing is sent.
fn outward() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ELSEWHERE).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_not_an_address_for_a_friend() {
        let all: Vec<IpAddr> = addresses().iter().map(|text| text.parse().expect("an address")).collect();
        assert!(!all.iter().any(IpAddr::is_loopback), "{all:?}");
        if let Some(outward) = outward()
            && all.contains(&outward)
        {
            assert_eq!(all[0], outward, "{all:?}");
        }
    }
}
