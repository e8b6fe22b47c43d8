//! Openings by the Port Control Protocol (RFC 6887), through the `crab_nat` library.
//!
//! Owns what a PCP answer means for an opening. Knows nothing of when an opening is wanted.
//! Invariants:
//! - Every request asks for the wanted lifetime, not for the last one granted.
//! - Every request carries the nonce of its opening: without it, the router refuses to renew or
//!   close.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
};

use crab_nat::{
    GatewayAddress, PortMappingType,
    pcp::{self, BaseMapRequest, DropMappingRange, Failure},
};
use tokio::time::timeout;

use super::{
    RouterProtocol,
    port5351::{PATIENCE, PORT, announce, external_address, granted, leaves_from, options, protocol, silent},
    router::{CALL, Found, Granted, Health, MapRequest, RouterAddr, RouterError},
};
use crate::text::clean;

/// A router that speaks PCP.
#[derive(Debug)]
pub(super) struct Pcp {
    at: RouterAddr,
    /// The external address of the last opening: the protocol reports it nowhere else.
    external: Mutex<Option<IpAddr>>,
}

impl Pcp {
    /// Asks the gateway whether it speaks PCP.
    pub(super) async fn search(at: &RouterAddr) -> Result<(Self, Found), RouterError> {
        announce(at.own, at.gateway_at(PORT)).await?;
        Ok((Self { at: at.clone(), external: Mutex::default() }, at.found(RouterProtocol::Pcp)))
    }

    /// Opens the requested port or another one.
    pub(super) async fn any_port(&self, request: &MapRequest) -> Result<Granted, RouterError> {
        let router = self.router_for(request)?;
        let (own, port) = (request.internal.ip(), request.internal_port()?);
        let base = BaseMapRequest::new(router, own, protocol(request), port);
        let mapped = pcp::port_mapping(base, Some(words(request.nonce)), None, options(request));
        let mapping = timeout(CALL, mapped).await.map_err(|_| silent())?.map_err(|e| error(&e))?;
        if let PortMappingType::Pcp { external_ip, .. } = mapping.mapping_type()
            && own.is_ipv4()
        {
            *self.external.lock().unwrap_or_else(PoisonError::into_inner) = Some(external_ip);
        }
        Ok(granted(&mapping))
    }

    /// Closes what the router opened under the nonce of `request`.
    pub(super) async fn close(&self, request: &MapRequest) -> Result<(), RouterError> {
        let router = self.router_for(request)?;
        let internal_port = request.internal_port()?;
        let one = DropMappingRange::Single { internal_port, protocol: protocol(request) };
        let nonce = words(request.nonce);
        let dropped = pcp::try_drop_mapping(router, request.internal.ip(), nonce, one, Some(PATIENCE));
        match timeout(CALL, dropped).await.map_err(|_| silent())? {
            // RFC 6887 section 15 calls it a success if there is nothing to close. miniupnpd sends
            // this error.
            Ok(()) | Err(Failure::NoResources(_)) => Ok(()),
            Err(failure) => Err(error(&failure)),
        }
    }

    /// Its epoch, and the external address as far as it is known.
    pub(super) async fn health(&self) -> Result<Health, RouterError> {
        let server = self.at.gateway_at(PORT);
        let epoch = announce(self.at.own, server).await?;
        let mut external = *self.external.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tells = external.is_some();
        // Most PCP servers speak NAT-PMP as well, which reports a changed address.
        if self.at.gateway.is_ipv4()
            && let Ok(told) = external_address(self.at.own, server).await
        {
            (external, tells) = (told.external, true);
        }
        Ok(Health { external, tells, epoch: Some(epoch), boot_id: None })
    }

    /// The router's address in the family of the request.
    fn router_for(&self, request: &MapRequest) -> Result<GatewayAddress, RouterError> {
        let router = match (request.internal, self.at.gateway, self.at.gateway6) {
            (SocketAddr::V4(_), IpAddr::V4(gateway), _) => IpAddr::V4(gateway),
            (SocketAddr::V6(_), IpAddr::V6(gateway), _) => IpAddr::V6(gateway),
            (SocketAddr::V6(_), _, Some(gateway)) => IpAddr::V6(gateway),
            _ => return Err(RouterError::Failed("its address of that family is not known".into())),
        };
        if matches!(router, IpAddr::V6(ip) if ip.is_unicast_link_local()) {
            // It would open the link-local address of this machine, and report success.
            return Err(RouterError::Failed("PCP needs the router's global IPv6 address".into()));
        }
        leaves_from(request, router)?;
        Ok(router.into())
    }
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
