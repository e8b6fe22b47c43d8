//! The scope of an address: the interface of a link-local one, and whether an address is of this
//! machine.

use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
};

use rustix::net::netdevice;
use socket2::{Domain, Socket, Type};

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

/// Whether the kernel delivers to this machine what is sent to `addr`: then the address is its own
/// source.
///
/// # Errors
/// The kernel has no route to it.
pub(crate) fn leads_here(addr: SocketAddr) -> io::Result<bool> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, None)?;
    // Sends nothing.
    socket.connect(&addr.into())?;
    let from = socket.local_addr()?.as_socket();
    Ok(from.is_some_and(|from| from.ip() == addr.ip()))
}
