//! The scope of an address: the interface of a link-local one, and whether an address is of this
//! machine.

use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
};

use rustix::net::netdevice;
use socket2::{Domain, Socket, Type};

use super::routes;
use crate::mapping::Zone;

/// The address with the scope number that its zone has now.
///
/// # Errors
/// The system has no interface of that name.
pub(crate) fn scoped(ip: IpAddr, zone: &Zone, port: u16) -> io::Result<SocketAddr> {
    let IpAddr::V6(ip) = ip else { return Ok(SocketAddr::new(ip, port)) };
    let scope = match zone.as_str().parse::<u32>() {
        Ok(number) => number,
        Err(_) => netdevice::name_to_index(&Socket::new(Domain::IPV6, Type::DGRAM, None)?, zone.as_str())?,
    };
    Ok(SocketAddrV6::new(ip, port, 0, scope).into())
}

/// Whether the kernel delivers to this machine what is sent to `addr`.
///
/// # Errors
/// The kernel has no route to it.
pub(crate) fn leads_here(addr: SocketAddr) -> io::Result<bool> {
    // The kernel goes from another address to a second one of an interface, so the source says too
    // little.
    if let Ok(route) = routes::route(addr, None) {
        return Ok(route.is_local);
    }
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, None)?;
    // Sends nothing.
    socket.connect(&addr.into())?;
    let from = socket.local_addr()?.as_socket();
    Ok(from.is_some_and(|from| from.ip() == addr.ip()))
}

/// The name of the interface by which a packet from one address to another leaves.
///
/// # Errors
/// The kernel has no such route.
#[cfg(feature = "api")]
pub(crate) fn leaves_by(from: IpAddr, to: IpAddr) -> io::Result<String> {
    let route = routes::route(SocketAddr::new(to, 0), Some(from))?;
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    Ok(netdevice::index_to_name(&socket, route.interface)?)
}
