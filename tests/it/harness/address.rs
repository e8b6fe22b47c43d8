//! Addresses that no one else uses.
//!
//! All of 127.0.0.0/8 is local on Linux, so each test takes addresses of its own and any port on them; nothing has to
//! be guessed, and tests run side by side.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A loopback address of its own. Another process gets other ones: the process id chooses the range.
pub(crate) fn own_ip() -> IpAddr {
    let nth = NEXT.fetch_add(1, Relaxed);
    let block = std::process::id().wrapping_mul(4).wrapping_add(nth / 254);
    let [_, _, high, low] = block.to_be_bytes();
    // The second byte is never 0: 127.0.x.x is where everyone else is.
    Ipv4Addr::new(127, high.max(1), low, u8::try_from(nth % 254 + 1).expect("at most 254")).into()
}

/// A loopback address of its own, with `port`: one above 1023, because not everyone may have the others.
pub(crate) fn own_addr(port: u16) -> SocketAddr {
    assert!(port == 0 || port > 1023, "port {port} is only for root");
    (own_ip(), port).into()
}

/// A port that is free on every address for TCP and UDP, outside the range that the kernel gives to clients.
///
/// Only for listeners on every address; someone may still take it first.
pub(crate) fn free_port() -> u16 {
    let first = 20_000 + u16::try_from(std::process::id() % 5_000).expect("below 5000");
    let offset = u16::try_from(NEXT.fetch_add(7, Relaxed) % 5_000).expect("below 5000");
    let mut candidates = (first + offset..32_000).chain(20_000..first + offset);
    candidates.find(|port| is_free(*port)).expect("a free port between 20000 and 32000")
}

fn is_free(port: u16) -> bool {
    let any = [IpAddr::from([0, 0, 0, 0]), IpAddr::from([0_u16; 8])];
    any.iter().all(|ip| {
        let addr = SocketAddr::new(*ip, port);
        let v6_is_off = ip.is_ipv6() && UdpSocket::bind((*ip, 0)).is_err();
        v6_is_off || (TcpListener::bind(addr).is_ok() && UdpSocket::bind(addr).is_ok())
    })
}
