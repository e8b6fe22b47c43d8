//! The route that a packet would take, asked of the kernel: with its rules, and without sending
//! anything.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use rustix::{io::Errno, net::AddressFamily};

use super::netlink::{self, ERROR, REQUEST, u32_at};

/// Asks for the route to an address.
const GET_ROUTE: u16 = 26;
/// A route.
const ROUTE: u16 = 24;
/// The attributes: where a packet goes, where it comes from, the interface that it leaves by.
const DESTINATION: u16 = 1;
const SOURCE: u16 = 2;
const LEAVES_BY: u16 = 4;
/// The length of the head of a route, and where its type stands.
const ROUTE_HEAD: usize = 12;
const TYPE: usize = 7;
/// The type of a route to this machine.
const LOCAL: u8 = 2;

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// It ends at this machine.
    pub(super) is_local: bool,
    /// The number of the interface that packets leave by.
    pub(super) interface: u32,
}

/// The route to an address; `from` is the source of the packet, where that is known.
///
/// # Errors
/// There is none, or the kernel cannot be asked.
pub(super) fn route(to: SocketAddr, from: Option<IpAddr>) -> io::Result<Route> {
    let mut answers = netlink::ask(GET_ROUTE, REQUEST, &question(to, from))?;
    answer(answers.read()?)
}

fn question(to: SocketAddr, from: Option<IpAddr>) -> Vec<u8> {
    let bytes = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let bits = |ip: IpAddr| if ip.is_ipv4() { 32 } else { 128 };
    let ip = to.ip().to_canonical();
    let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let from = from.map(|from| from.to_canonical()).filter(|from| from.is_ipv4() == ip.is_ipv4());
    let mut body = vec![0; ROUTE_HEAD];
    body[0] = u8::try_from(family.as_raw()).unwrap_or_default();
    body[1] = bits(ip);
    body[2] = from.map_or(0, bits);
    netlink::push(&mut body, DESTINATION, &bytes(ip));
    if let Some(from) = from {
        netlink::push(&mut body, SOURCE, &bytes(from));
    }
    if let SocketAddr::V6(to) = to
        && to.scope_id() != 0
    {
        netlink::push(&mut body, LEAVES_BY, &to.scope_id().to_ne_bytes());
    }
    body
}

fn answer(part: &[u8]) -> io::Result<Route> {
    let nothing = || io::Error::from(io::ErrorKind::InvalidData);
    let (kind, body) = netlink::messages(part).next().ok_or_else(nothing)?;
    match kind {
        ROUTE => {
            let mut all = netlink::attributes(body.get(ROUTE_HEAD..).ok_or_else(nothing)?);
            let leaves_by = all.find(|(kind, _)| *kind == LEAVES_BY);
            Ok(Route {
                is_local: body[TYPE] == LOCAL,
                interface: leaves_by.and_then(|(_, value)| u32_at(value, 0)).unwrap_or_default(),
            })
        }
        ERROR => {
            let code = u32_at(body, 0).unwrap_or_default().cast_signed();
            Err(io::Error::from_raw_os_error(code.wrapping_neg()))
        }
        _ => Err(Errno::NOTSUP.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_addresses_lead_here_and_those_of_documents_do_not() {
        for to in ["127.0.0.1:80", "127.7.7.7:0", "[::ffff:127.0.0.1]:80"] {
            let route = route(to.parse().unwrap(), None).unwrap();
            assert!(route.is_local && route.interface > 0, "{to}: {route:?}");
        }
        // Perhaps there is no route at all.
        assert!(!route("192.0.2.1:80".parse().unwrap(), None).is_ok_and(|route| route.is_local));
    }

    #[test]
    fn a_refusal_is_the_error_of_the_kernel_and_no_bytes_break_the_reading() {
        let refused = netlink::message(ERROR, 0, &(-101_i32).to_ne_bytes());
        assert_eq!(answer(&refused).unwrap_err().raw_os_error(), Some(101));
        let mut body = vec![0; ROUTE_HEAD];
        netlink::push(&mut body, LEAVES_BY, &7_u32.to_ne_bytes());
        body[TYPE] = LOCAL;
        let whole = netlink::message(ROUTE, 0, &body);
        assert_eq!(answer(&whole).unwrap(), Route { is_local: true, interface: 7 });
        for end in 0..whole.len() {
            assert!(answer(&whole[..end]).is_err());
        }
        assert!(answer(&netlink::message(ROUTE, 0, &[0; 4])).is_err());
    }
}
