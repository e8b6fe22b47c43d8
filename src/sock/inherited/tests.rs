//! Sockets that were passed, as a service manager makes them: blocking, without our options.

use std::{
    net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    num::NonZeroU16,
    time::Duration,
};

use super::*;
use crate::{
    fixture::{self, keepalive_of},
    sock::bind::{Overlap, bind_tcp},
};

fn free_port() -> NonZeroU16 {
    NonZeroU16::new(fixture::free_port()).unwrap()
}

fn at(ip: &str, port: NonZeroU16) -> ListenAddr {
    ListenAddr { ip: ip.parse().unwrap(), zone: None, port }
}

/// A socket on a wildcard of IPv6, as the manager makes it.
fn on_every_ipv6(kind: Type, port: NonZeroU16, only_v6: bool) -> OwnedFd {
    let socket = Socket::new(Domain::IPV6, kind, None).unwrap();
    socket.set_only_v6(only_v6).unwrap();
    socket.bind(&SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port.get()).into()).unwrap();
    if kind == Type::STREAM {
        socket.listen(1).unwrap();
    }
    socket.into()
}

#[test]
fn each_listener_finds_its_own_socket_by_address_and_protocol() {
    let (bag, port, other) = (Inherited::default(), free_port(), free_port());
    let tcp = TcpListener::bind(("127.0.0.1", port.get())).unwrap();
    let udp = UdpSocket::bind(("127.0.0.1", port.get())).unwrap();
    let six = TcpListener::bind(("::1", other.get())).unwrap();
    for socket in [OwnedFd::from(six), udp.into(), tcp.into()] {
        bag.add(socket, Stays::UntilUsed).unwrap();
    }
    let (v4, v6) = (at("127.0.0.1", port), at("::1", other));
    assert!(bag.tcp(&at("127.0.0.2", port), Timeout::Never).unwrap().is_none(), "another address");
    assert!(bag.tcp(&ListenAddr::every(port), Timeout::Never).unwrap().is_none(), "every address");
    assert!(bag.udp(&v6).unwrap().is_none(), "another protocol");
    let addr = |bound: Bound| SockRef::from(&bound.socket).local_addr().unwrap().as_socket().unwrap();
    assert_eq!(addr(bag.tcp(&v4, Timeout::Never).unwrap().unwrap()), SocketAddr::from(v4.clone()));
    assert_eq!(addr(bag.udp(&v4).unwrap().unwrap()), SocketAddr::from(v4));
    assert_eq!(addr(bag.tcp(&v6, Timeout::Never).unwrap().unwrap()), SocketAddr::from(v6));
}

#[test]
fn every_address_is_a_dual_stack_socket_and_not_one_of_ipv6_alone() {
    for only_v6 in [false, true] {
        let (bag, port) = (Inherited::default(), free_port());
        bag.add(on_every_ipv6(Type::STREAM, port, only_v6), Stays::UntilUsed).unwrap();
        let found = bag.tcp(&ListenAddr::every(port), Timeout::Never).unwrap();
        assert_eq!(found.is_some(), !only_v6);
        assert!(bag.tcp(&at("0.0.0.0", port), Timeout::Never).unwrap().is_none());
    }
    let (bag, port) = (Inherited::default(), free_port());
    bag.add(UdpSocket::bind(("0.0.0.0", port.get())).unwrap().into(), Stays::UntilUsed).unwrap();
    assert!(bag.udp(&ListenAddr::every(port)).unwrap().is_none(), "this machine has IPv6");
    assert!(bag.udp(&at("0.0.0.0", port)).unwrap().is_some());
}

#[test]
fn a_socket_that_was_passed_serves_as_one_that_was_bound() {
    let (bag, port) = (Inherited::default(), free_port());
    bag.add(on_every_ipv6(Type::STREAM, port, false), Stays::UntilUsed).unwrap();
    let keepalive = Duration::from_secs(30);
    let bound = bag.tcp(&ListenAddr::every(port), Timeout::After(keepalive)).unwrap().unwrap();
    let listener = TcpListener::from(bound.socket);
    let _client = TcpStream::connect(("127.0.0.1", port.get())).unwrap();
    let accepted = listener.accept().unwrap().0;
    assert!(accepted.nodelay().unwrap());
    assert!(SockRef::from(&accepted).out_of_band_inline().unwrap());
    assert_eq!(keepalive_of(&accepted).unwrap().0, keepalive);
    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_udp_socket_that_was_passed_keeps_other_programs_out() {
    let (bag, port) = (Inherited::default(), free_port());
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    let addr = SocketAddr::from(([127, 0, 0, 1], port.get()));
    socket.bind(&addr.into()).unwrap();
    bag.add(socket.into(), Stays::Always).unwrap();
    bag.udp(&at("127.0.0.1", port)).unwrap().unwrap();
    let second = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    second.set_reuse_address(true).unwrap();
    assert_eq!(second.bind(&addr.into()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
}

#[test]
fn a_socket_stays_until_a_listener_serves_on_it() {
    let (bag, port) = (Inherited::default(), free_port());
    let listen = at("127.0.0.1", port);
    bag.add(TcpListener::bind(("127.0.0.1", port.get())).unwrap().into(), Stays::UntilUsed).unwrap();
    drop(bag.tcp(&listen, Timeout::Never).unwrap().unwrap());
    assert_eq!(bag.left()[0].to_string(), format!("127.0.0.1:{port}/tcp"), "a plan that failed");
    let bound = bag.tcp(&listen, Timeout::Never).unwrap().unwrap();
    bag.note_used(&bound.socket);
    assert!(bag.left().is_empty() && bag.tcp(&listen, Timeout::Never).unwrap().is_none());
    drop(bound);
    bind_tcp(&listen, Timeout::Never, Overlap::Nothing).expect("nothing holds the port any more");
}

#[test]
fn a_socket_that_another_holds_open_is_found_again() {
    let (bag, port) = (Inherited::default(), free_port());
    let listen = at("127.0.0.1", port);
    let manager = TcpListener::bind(("127.0.0.1", port.get())).unwrap();
    bag.add(manager.try_clone().unwrap().into(), Stays::Always).unwrap();
    for _ in 0..2 {
        bag.note_used(bag.tcp(&listen, Timeout::Never).unwrap().unwrap().socket);
        assert!(bag.left().is_empty());
    }
}

#[test]
fn what_does_not_listen_is_refused() {
    let bag = Inherited::default();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let refused = |socket: OwnedFd| bag.add(socket, Stays::UntilUsed).unwrap_err();
    assert!(matches!(refused(client.into()), Unfit::Connected));
    let unbound = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    assert!(matches!(refused(unbound.into()), Unfit::Unbound));
    assert!(matches!(refused(std::fs::File::open("/dev/null").unwrap().into()), Unfit::NoSocket));
    let (unix, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    assert!(matches!(refused(unix.into()), Unfit::NoSocket));
}
