//! Openings by the Port Control Protocol (RFC 6887), through the `crab_nat` library.
//!
//! Owns what a PCP answer means for an opening. Knows nothing of when one is wanted. Invariants: a port that is not the
//! one asked for is given back before it is reported as a conflict; every request asks for the lifetime that is wanted,
//! not for the last one granted; the nonce of an opening goes out with it, because without it nobody can take it back;
//! as long as the process lives, what has no nonce yet is asked for with the same one.
//!
//! The library sends from whatever address the routing table names, while the protocol wants it to be the one that is
//! opened. Where the two differ the router would answer ADDRESS_MISMATCH, so that is said without asking.

use std::{
    hash::{BuildHasher, RandomState},
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use crab_nat::{
    GatewayAddress, InternetProtocol, PortMapping, PortMappingOptions, PortMappingType, TimeoutConfig,
    pcp::{self, BaseMapRequest, DropMappingRange, Failure},
};
use tokio::time::timeout;

use super::{
    RouterProtocol,
    driver::{CALL, Found, Granted, Health, MapRequest, RouterAddr, RouterError},
    port5351, route,
};
use crate::{mapping::Protocol, text::clean};

/// One retry. A short first wait would be worse: a router that looks for a free port answers after almost two seconds,
/// and works through every copy of the question first.
pub(super) const PATIENCE: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_secs(1),
    max_retries: 1,
    max_retry_timeout: Some(Duration::from_secs(2)),
};

/// What is asked for where an opening without end is wanted: these protocols know none.
pub(super) const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// The nonce of what has none yet. With a new one at each try, an answer that was lost would leave an opening behind that
/// refuses every later request for it, until its lifetime is over. One for all is what RFC 6887 section 11.2 allows, and
/// nobody else can guess it.
static NONCE: LazyLock<[u8; 12]> = LazyLock::new(|| {
    let random = RandomState::new();
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&random.hash_one(0).to_be_bytes());
    nonce[8..].copy_from_slice(&random.hash_one(1).to_be_bytes()[..4]);
    nonce
});

/// A router that speaks PCP.
#[derive(Debug)]
pub(super) struct Pcp {
    at: RouterAddr,
    /// The external address of the last opening: the protocol has no other way to tell it.
    external: Mutex<Option<IpAddr>>,
}

impl Pcp {
    /// Asks the gateway whether it speaks PCP.
    pub(super) async fn search(at: &RouterAddr) -> Result<(Self, Found), RouterError> {
        let pcp = Self { at: at.clone(), external: Mutex::default() };
        pcp.epoch().await?;
        Ok((pcp, at.found(RouterProtocol::Pcp)))
    }

    /// Opens or renews a port; another port than the one asked for is given back.
    pub(super) async fn open(&self, request: &MapRequest) -> Result<Granted, RouterError> {
        let granted = self.map(request).await?;
        if granted.external_port == request.external_port {
            return Ok(granted);
        }
        let other = MapRequest { nonce: granted.nonce, ..request.clone() };
        // What cannot be given back ends by itself, with its lifetime.
        let _ = self.close(&other).await;
        Err(RouterError::Conflict)
    }

    /// Opens the port asked for or another one.
    pub(super) async fn any_port(&self, request: &MapRequest) -> Result<Granted, RouterError> {
        self.map(request).await
    }

    async fn map(&self, request: &MapRequest) -> Result<Granted, RouterError> {
        let router = self.router_for(request)?;
        let base =
            BaseMapRequest::new(router, request.internal.ip(), protocol(request), internal_port(request)?);
        let options = options(request);
        let mapped = pcp::port_mapping(base, Some(words(request.nonce.unwrap_or(*NONCE))), None, options);
        let mapping = timeout(CALL, mapped).await.map_err(|_| silent())?.map_err(|e| error(&e))?;
        let nonce = match mapping.mapping_type() {
            PortMappingType::Pcp { nonce, external_ip, .. } => {
                if request.internal.is_ipv4() {
                    *self.external.lock().unwrap_or_else(PoisonError::into_inner) = Some(external_ip);
                }
                Some(bytes(nonce))
            }
            PortMappingType::NatPmp => None,
        };
        Ok(granted(&mapping, nonce))
    }

    /// Takes an opening back; the router must have given it under the nonce of `request`.
    pub(super) async fn close(&self, request: &MapRequest) -> Result<(), RouterError> {
        let Some(nonce) = request.nonce else {
            return Err(RouterError::Failed("without its nonce an opening can only end by itself".into()));
        };
        let router = self.router_for(request)?;
        let one =
            DropMappingRange::Single { internal_port: internal_port(request)?, protocol: protocol(request) };
        let dropped = pcp::try_drop_mapping(router, request.internal.ip(), words(nonce), one, Some(PATIENCE));
        match timeout(CALL, dropped).await.map_err(|_| silent())? {
            // An opening that is gone should be a success (RFC 6887 section 15), and is this to miniupnpd.
            Ok(()) | Err(Failure::NoResources(_)) => Ok(()),
            Err(failure) => Err(error(&failure)),
        }
    }

    /// Its epoch, and the external address as far as it is known.
    pub(super) async fn health(&self) -> Result<Health, RouterError> {
        let epoch = self.epoch().await?;
        let mut external = *self.external.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tells = external.is_some();
        // Most PCP servers speak NAT-PMP as well, which can tell an address that changed.
        if self.at.gateway.is_ipv4()
            && let Ok(told) = port5351::address(self.at.own, self.server()).await
        {
            (external, tells) = (told.external.map(IpAddr::V4), true);
        }
        Ok(Health { external, tells, epoch: Some(epoch), boot_id: None })
    }

    async fn epoch(&self) -> Result<u32, RouterError> {
        port5351::announce(self.at.own, self.server()).await
    }

    fn server(&self) -> SocketAddr {
        self.at.gateway_at(port5351::PORT)
    }

    /// The router's address in the family of what shall be opened, if requests to it leave from what shall be opened.
    fn router_for(&self, request: &MapRequest) -> Result<GatewayAddress, RouterError> {
        let router = match (request.internal, self.at.gateway, self.at.gateway6) {
            (SocketAddr::V4(_), IpAddr::V4(gateway), _) => IpAddr::V4(gateway),
            (SocketAddr::V6(_), IpAddr::V6(gateway), _) => IpAddr::V6(gateway),
            (SocketAddr::V6(_), _, Some(gateway)) => IpAddr::V6(gateway),
            _ => return Err(RouterError::Failed("its address of that family is not known".into())),
        };
        if matches!(router, IpAddr::V6(ip) if ip.is_unicast_link_local()) {
            // It would open the link-local address of this machine, and call that a success.
            return Err(RouterError::Failed("PCP needs the router's global IPv6 address".into()));
        }
        same_source(router, request)?;
        Ok(router.into())
    }
}

/// Whether the library's datagrams to the router leave from the address that shall be opened.
pub(super) fn same_source(router: IpAddr, request: &MapRequest) -> Result<(), RouterError> {
    let (wanted, source) =
        (request.internal.ip(), route::source_toward(SocketAddr::new(router, port5351::PORT)));
    match source {
        Ok(source) if source == wanted => Ok(()),
        Ok(source) => Err(RouterError::Failed(format!(
            "this machine speaks to it from {source} and can open only that address, not {wanted}: use UPnP"
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

pub(super) fn internal_port(request: &MapRequest) -> Result<NonZeroU16, RouterError> {
    NonZeroU16::new(request.internal.port())
        .ok_or_else(|| RouterError::Failed("port 0 cannot be opened".into()))
}

pub(super) fn options(request: &MapRequest) -> PortMappingOptions {
    let lease = request.lease.unwrap_or(LONGEST).as_secs();
    PortMappingOptions {
        external_port: Some(request.external_port),
        // 0 would take the opening back.
        lifetime_seconds: Some(u32::try_from(lease).unwrap_or(u32::MAX).max(1)),
        timeout_config: Some(PATIENCE),
    }
}

pub(super) fn granted(mapping: &PortMapping, nonce: Option<[u8; 12]>) -> Granted {
    let lease = Some(Duration::from_secs(mapping.lifetime().into()));
    Granted { external_port: mapping.external_port(), lease, nonce, pinhole: None }
}

fn error(failure: &Failure) -> RouterError {
    let text = || clean(&failure.to_string());
    match failure {
        Failure::NotAuthorized(_) => RouterError::Denied("PCP NOT_AUTHORIZED".into()),
        Failure::CannotProvideExternal(_) => RouterError::Conflict,
        Failure::NoResources(s) | Failure::NetworkFailure(s) | Failure::UserExceededQuota(s) => {
            RouterError::Failed(format!("{}, for {s} seconds", text()))
        }
        Failure::AddressMismatch
        | Failure::UnsupportedOpcode
        | Failure::UnsupportedOption
        | Failure::UnsupportedProtocol
        | Failure::MalformedRequest
        | Failure::MalformedOption
        | Failure::ExcessiveRemotePeers => RouterError::Failed(text()),
        Failure::Timeout => silent(),
        Failure::Socket(_)
        | Failure::Nonce
        | Failure::InvalidResponse(_)
        | Failure::UnsupportedVersion(_) => RouterError::Lost(text()),
    }
}

/// A nonce as the library has it.
fn words(nonce: [u8; 12]) -> pcp::Nonce {
    let word = |at: usize| u32::from_be_bytes([nonce[at], nonce[at + 1], nonce[at + 2], nonce[at + 3]]);
    [word(0), word(4), word(8)]
}

/// A nonce as it goes over the wire and into a state file.
fn bytes(nonce: pcp::Nonce) -> [u8; 12] {
    let mut bytes = [0; 12];
    for (four, word) in bytes.chunks_exact_mut(4).zip(nonce) {
        four.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}
