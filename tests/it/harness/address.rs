//! Loopback addresses of one test each.
//!
//! All of 127.0.0.0/8 is local on Linux, so each test takes addresses of its own and any port on them. No port has to be
//! guessed, and tests run side by side. A listener on every address is the exception: see `tests/free_ports.rs`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering::Relaxed},
    },
};

use crate::free_ports::{RANGE, claim};

/// The second byte of this process's addresses, which no other process has. Not 0: other programs use 127.0.x.x.
static BLOCK: LazyLock<u8> = LazyLock::new(|| {
    let mut blocks = 1..=u8::MAX;
    blocks.find(|block| claim(&format!("block-{block}"))).expect("fewer than 256 test processes")
});

/// A loopback address that no other test gets.
pub(crate) fn own_ip() -> IpAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let nth = NEXT.fetch_add(1, Relaxed);
    let [high, low] = [nth / 254, nth % 254 + 1].map(|byte| u8::try_from(byte).expect("fewer than 65,000"));
    Ipv4Addr::new(127, *BLOCK, high, low).into()
}

/// A loopback address that no other test gets, with `port`. Only root may have a port below 1024.
pub(crate) fn own_addr(port: u16) -> SocketAddr {
    assert!(port == 0 || port > 1023, "port {port} is only for root");
    assert!(!RANGE.contains(&port), "port {port} may belong to a listener on every address");
    (own_ip(), port).into()
}
