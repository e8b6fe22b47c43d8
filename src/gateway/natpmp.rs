//! Openings by NAT-PMP (RFC 6886), through the `crab_nat` library.
//!
//! Owns what a NAT-PMP answer means for an opening. Knows nothing of when an opening is wanted. The
//! protocol opens the address that a request comes from, and no other.

use std::net::{IpAddr, SocketAddr};

use crab_nat::{
    GatewayAddress,
    natpmp::{self, Failure},
};
use tokio::time::timeout;

use super::{
    RouterProtocol,
    port5351::{PATIENCE, PORT, external_address, granted, leaves_from, options, protocol, silent},
    router::{CALL, Found, Granted, Health, MapRequest, RouterAddr, RouterError},
};
use crate::text::clean;

/// A router that speaks NAT-PMP.
#[derive(Debug)]
pub(super) struct NatPmp {
    at: RouterAddr,
}

impl NatPmp {
    /// Asks the gateway whether it speaks NAT-PMP.
    pub(super) async fn search(at: &RouterAddr) -> Result<(Self, Found), RouterError> {
        let natpmp = Self { at: at.clone() };
        natpmp.health().await?;
        Ok((natpmp, at.found(RouterProtocol::NatPmp)))
    }

    /// Opens the requested port or another one.
    pub(super) async fn any_port(&self, request: &MapRequest) -> Result<Granted, RouterError> {
        let router = self.router_for(request)?;
        let mapped =
            natpmp::port_mapping(router, protocol(request), request.internal_port()?, options(request));
        let mapping = timeout(CALL, mapped).await.map_err(|_| silent())?.map_err(|e| error(&e))?;
        Ok(granted(&mapping))
    }

    /// Closes what this machine has open at the internal port.
    pub(super) async fn close(&self, request: &MapRequest) -> Result<(), RouterError> {
        let router = self.router_for(request)?;
        let port = Some(request.internal_port()?);
        let dropped = natpmp::try_drop_mapping(router, protocol(request), port, Some(PATIENCE));
        timeout(CALL, dropped).await.map_err(|_| silent())?.map_err(|e| error(&e))
    }

    /// Its epoch and its external address.
    pub(super) async fn health(&self) -> Result<Health, RouterError> {
        external_address(self.at.own, self.at.gateway_at(PORT)).await
    }

    fn router_for(&self, request: &MapRequest) -> Result<GatewayAddress, RouterError> {
        let (IpAddr::V4(gateway), SocketAddr::V4(_)) = (self.at.gateway, request.internal) else {
            return Err(RouterError::Failed("NAT-PMP knows IPv4 only".into()));
        };
        leaves_from(request, gateway.into())?;
        Ok(gateway.into())
    }
}

fn error(failure: &Failure) -> RouterError {
    let text = || clean(&failure.to_string());
    match failure {
        Failure::NotAuthorized => RouterError::Denied("NAT-PMP result 2, not authorized".into()),
        Failure::NetworkFailure | Failure::OutOfResources | Failure::UnsupportedOpcode => {
            RouterError::Failed(text())
        }
        Failure::Timeout => silent(),
        Failure::Socket(_) | Failure::InvalidResponse(_) | Failure::UnsupportedVersion(_) => {
            RouterError::Lost(text())
        }
    }
}
