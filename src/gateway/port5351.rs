//! What NAT-PMP and PCP share: the router's port 5351, and two questions to it.
//!
//! Owns two questions that the library does not ask: NAT-PMP's for the external address, and PCP's
//! ANNOUNCE. Each costs one datagram and gets the router's epoch, which the library drops. An epoch
//! that went back means that the router forgot every opening. Also owns how a [`MapRequest`] looks
//! to the library. Invariants:
//! - A question leaves from the given address and ends within [`CALL`](super::router::CALL).
//! - Only answers of the asked router count, and no bytes in them cause a panic.
//!
//! The library sends from the address that the routing table names; both protocols open the
//! sender's address. If the two differ, the router would refuse, so [`leaves_from`] refuses first.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use crab_nat::{InternetProtocol, PortMapping, PortMappingOptions, TimeoutConfig};
use tokio::{net::UdpSocket, time::timeout};

use super::{
    route,
    router::{Granted, Health, MapRequest, RouterError},
};
use crate::mapping::Protocol;

/// Where NAT-PMP and PCP servers listen (RFC 6886 section 3.1, RFC 6887 section 19.1).
pub(super) const PORT: u16 = 5351;

/// How long each copy of the question waits for its answer: together less than
/// [`CALL`](super::router::CALL).
const WAITS: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(1)];

/// One retry. A short first wait would be worse: a router that looks for a free port answers after
/// almost two seconds, and first works through every copy of the question.
pub(super) const PATIENCE: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_secs(1),
    max_retries: 1,
    max_retry_timeout: Some(Duration::from_secs(2)),
};

/// Requested in place of an opening without end, which these protocols do not have.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// Asks for the external address and the epoch over NAT-PMP (RFC 6886 section 3.2).
pub(super) async fn external_address(own: IpAddr, router: SocketAddr) -> Result<Health, RouterError> {
    ask(own, router, &[0, 0], parse_address).await
}

/// Asks a PCP server to announce itself (RFC 6887 section 14.1), and gives its epoch.
pub(super) async fn announce(own: IpAddr, router: SocketAddr) -> Result<u32, RouterError> {
    ask(own, router, &announce_request(own), parse_announce).await
}

/// Checks that the library's datagrams to the router leave from the internal address of the
/// request.
pub(super) fn leaves_from(request: &MapRequest, router: IpAddr) -> Result<(), RouterError> {
    let wanted = request.internal.ip();
    match route::source_toward(SocketAddr::new(router, PORT)) {
        Ok(source) if source == wanted => Ok(()),
        Ok(source) => Err(RouterError::Failed(format!(
            "this machine reaches it from {source} and can open only that address, not {wanted}: use UPnP"
        ))),
        Err(e) => Err(RouterError::Lost(e.to_string())),
    }
}

pub(super) fn silent() -> RouterError {
    RouterError::Lost("no answer from its port 5351".into())
}

pub(super) fn protocol(request: &MapRequest) -> InternetProtocol {
    match request.protocol {
        Protocol::Tcp => InternetProtocol::Tcp,
        Protocol::Udp => InternetProtocol::Udp,
    }
}

pub(super) fn options(request: &MapRequest) -> PortMappingOptions {
    let lease = request.lease.unwrap_or(LONGEST).as_secs();
    PortMappingOptions {
        external_port: Some(request.external_port),
        // 0 would close the opening.
        lifetime_seconds: Some(u32::try_from(lease).unwrap_or(u32::MAX).max(1)),
        timeout_config: Some(PATIENCE),
    }
}

pub(super) fn granted(mapping: &PortMapping) -> Granted {
    let lease = Some(Duration::from_secs(mapping.lifetime().into()));
    Granted { external_port: mapping.external_port(), lease, pinhole: None }
}

/// Sends a question until `parse` understands an answer; it skips others.
async fn ask<T>(
    own: IpAddr,
    router: SocketAddr,
    question: &[u8],
    parse: impl Fn(&[u8]) -> Option<Result<T, RouterError>>,
) -> Result<T, RouterError> {
    let lost = |e: std::io::Error| match e.kind() {
        ErrorKind::ConnectionRefused => RouterError::Lost("nothing listens on its port 5351".into()),
        _ => RouterError::Lost(e.to_string()),
    };
    let socket = UdpSocket::bind((own, 0)).await.map_err(lost)?;
    // A connected socket receives only the router's datagrams, and reports a closed port.
    socket.connect(router).await.map_err(lost)?;
    let mut answer = [0; 1100];
    for wait in WAITS {
        socket.send(question).await.map_err(lost)?;
        let understood = async {
            loop {
                let len = socket.recv(&mut answer).await.map_err(lost)?;
                if let Some(told) = parse(&answer[..len]) {
                    return told;
                }
            }
        };
        if let Ok(told) = timeout(wait, understood).await {
            return told;
        }
    }
    Err(silent())
}

/// The answer about the external address: version 0, operation 128, result, epoch, address.
fn parse_address(answer: &[u8]) -> Option<Result<Health, RouterError>> {
    if answer.len() < 8 || answer[1] & 0x80 == 0 {
        return None;
    }
    if answer[0] != 0 {
        return Some(Err(RouterError::Lost(format!("it speaks version {} and no NAT-PMP", answer[0]))));
    }
    if answer[1] != 0x80 {
        return None;
    }
    let epoch = Some(u32_at(answer, 4)?);
    let health = |external| Ok(Health { external, tells: true, epoch, boot_id: None });
    Some(match (u16::from_be_bytes([answer[2], answer[3]]), answer.get(8..12)) {
        (0, Some(ip)) => {
            let ip = Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3]);
            health(Some(IpAddr::V4(ip)).filter(|ip| !ip.is_unspecified()))
        }
        // "Network failure": the router is there, and has no address yet.
        (3, _) => health(None),
        (0, None) => return None,
        (2, _) => Err(RouterError::Denied("NAT-PMP is switched off".into())),
        (code, _) => Err(RouterError::Lost(format!("NAT-PMP result {code}"))),
    })
}

/// Version 2, operation 0, no lifetime, the client's address.
fn announce_request(own: IpAddr) -> [u8; 24] {
    let mut request = [0; 24];
    request[0] = 2;
    let own = match own {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    request[8..].copy_from_slice(&Ipv6Addr::octets(&own));
    request
}

/// The head of every PCP answer: version 2, operation with the top bit, result at 3, epoch at 8
/// (RFC 6887 section 7.2).
fn parse_announce(answer: &[u8]) -> Option<Result<u32, RouterError>> {
    if answer.len() < 4 || answer[1] & 0x80 == 0 {
        return None;
    }
    if answer[0] != 2 {
        return Some(Err(RouterError::Lost(format!("it speaks version {} and no PCP", answer[0]))));
    }
    let epoch = u32_at(answer, 8)?;
    Some(match answer[3] {
        // A server that does not know the operation still is a PCP server.
        0 | 4 => Ok(epoch),
        1 => Err(RouterError::Lost("it does not speak PCP version 2".into())),
        2 => Err(RouterError::Denied("PCP is not for this machine".into())),
        12 => {
            Err(RouterError::Failed("it sees another address of this machine than the machine itself".into()))
        }
        code => Err(RouterError::Lost(format!("PCP result {code}"))),
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_answer_is_read_by_its_result() {
        let address =
            |result, rest: &[u8]| parse_address(&[&[0, 0x80, 0, result, 0, 0, 0, 9][..], rest].concat());
        let here = |external| Some(Ok(Health { external, tells: true, epoch: Some(9), boot_id: None }));
        assert_eq!(address(0, &[11, 99, 0, 1]), here(Some([11, 99, 0, 1].into())));
        assert_eq!(address(0, &[0; 4]), here(None));
        assert_eq!(address(3, &[]), here(None), "it is there, without an address");
        assert_eq!(address(0, &[11]), None, "cut short");
        assert!(matches!(address(2, &[]), Some(Err(RouterError::Denied(_)))));
    }

    proptest! {
        #[test]
        fn no_answer_is_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..40), head in 0_usize..4) {
            let heads: [&[u8]; 4] = [&[], &[0, 0x80], &[2, 0x80], &[2, 0x80, 0, 0]];
            let answer = [heads[head], &bytes].concat();
            let _ = parse_address(&answer);
            let _ = parse_announce(&answer);
        }
    }
}
