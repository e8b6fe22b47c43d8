//! What is on the way to an address: a datagram that may pass few routers, and the router that says
//! it has ended there.
//!
//! It needs no rights: the kernel keeps such an answer at the socket (`IP_RECVERR`). Many routers
//! do not answer, so silence means nothing.

use std::{
    io::{self, IoSliceMut},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsRawFd as _,
    time::Duration,
};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt::Ipv4RecvErr,
};
use tokio::{net::UdpSocket, time::timeout};

/// Ports that hardly any program uses: those of traceroute.
const PORT: u16 = 33_434;
/// Types of ICMP (RFC 792).
const UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
/// Space for an answer and the address of its sender.
const SPACE: usize = 256;

/// The answer of a router on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnTheWay {
    /// The datagram came so far.
    Router(Ipv4Addr),
    /// This router has no way on.
    Dead(Ipv4Addr),
}

/// The router that a datagram from `own` to `to` comes to after so many hops; `None` where none
/// answers in time.
///
/// # Errors
/// The system sends nothing.
pub(crate) async fn router_at(
    hops: u32,
    own: Ipv4Addr,
    to: Ipv4Addr,
    limit: Duration,
) -> io::Result<Option<OnTheWay>> {
    let socket = UdpSocket::bind((own, 0)).await?;
    setsockopt(&socket, Ipv4RecvErr, &true)?;
    socket.set_ttl(hops)?;
    socket.connect(SocketAddrV4::new(to, PORT)).await?;
    socket.send(&[0; 8]).await?;
    // What comes is an error, whose sender is kept beside it.
    match timeout(limit, socket.recv(&mut [0; 8])).await {
        Ok(Err(_)) => kept(&socket),
        Ok(Ok(_)) | Err(_) => Ok(None),
    }
}

fn kept(socket: &UdpSocket) -> io::Result<Option<OnTheWay>> {
    let (mut datagram, mut space) = ([0; 8], vec![0; SPACE]);
    let mut parts = [IoSliceMut::new(&mut datagram)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let answer = message.cmsgs()?.find_map(|part| {
        let ControlMessageOwned::Ipv4RecvErr(error, Some(from)) = part else { return None };
        let from = SockaddrIn::from(from).ip();
        match error.ee_type {
            TIME_EXCEEDED => Some(OnTheWay::Router(from)),
            UNREACHABLE => Some(OnTheWay::Dead(from)),
            _ => None,
        }
    });
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_port_of_this_machine_answers_itself() {
        let own = Ipv4Addr::LOCALHOST;
        let answer = router_at(1, own, own, Duration::from_secs(5)).await.unwrap();
        assert_eq!(answer, Some(OnTheWay::Dead(own)));
    }
}
