//! Ports on every address for the unit and the integration tests, each for one test alone.
//!
//! A test that can choose its address needs none of these: it takes port 0, or a loopback address of its own. These are for
//! a listener on every address whose port must be known in advance. To ask the kernel for a port and let it go is a
//! race: the kernel may give it to another test. So test processes divide the ports up by names of abstract sockets.
//! Such a name belongs to one network namespace, as ports do, and is free again when its process ends.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    os::{linux::net::SocketAddrExt, unix::net},
};

/// Below the ports that the kernel gives to clients, and used for nothing else by any test.
pub(crate) const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A port that is free on every address for TCP and UDP, and that no other test gets while this process lives.
pub(crate) fn free_port() -> u16 {
    // Each process begins elsewhere: fewer names to try.
    let first = RANGE.start + u16::try_from(std::process::id() % 8_000).expect("below 8000");
    let mut ports = (first..RANGE.end).chain(RANGE.start..first);
    ports.find(|port| claim(&format!("port-{port}")) && is_free(*port)).expect("a free port in the range")
}

/// Takes a name for as long as this process lives. Only one process of this network namespace can have it.
pub(crate) fn claim(name: &str) -> bool {
    let name = format!("portway-test-{name}");
    let at = net::SocketAddr::from_abstract_name(name).expect("a short name");
    // The socket is never closed; the kernel does that at the end of the process.
    net::UnixDatagram::bind_addr(&at).map(std::mem::forget).is_ok()
}

/// Whether no program beside the tests has it.
fn is_free(port: u16) -> bool {
    let any = [IpAddr::from([0, 0, 0, 0]), IpAddr::from([0_u16; 8])];
    any.iter().all(|ip| {
        let addr = SocketAddr::new(*ip, port);
        let v6_is_off = ip.is_ipv6() && UdpSocket::bind((*ip, 0)).is_err();
        v6_is_off || (TcpListener::bind(addr).is_ok() && UdpSocket::bind(addr).is_ok())
    })
}
