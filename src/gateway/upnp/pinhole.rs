//! Pinholes in the router's IPv6 firewall (WANIPv6FirewallControl:1).
//!
//! Owns where the firewall is, and what its answers mean. Knows nothing of IPv4. Invariants: the
//! firewall is asked over IPv6 and from the very address that is opened, since routers open no
//! other; a number that the router no longer knows is another pinhole to open, and a closed one to
//! close.

use std::{
    net::{Ipv6Addr, SocketAddrV6},
    sync::PoisonError,
    time::Duration,
};

use igd_next::{RequestError, aio::Ipv6FirewallGateway};
use tokio::time::timeout;

use super::{
    NO_ANSWER, Upnp,
    description::{Description, Service},
    find, gateway,
    http::{Bound, sent_from},
    no_service, protocol,
    refusal::refused,
};
use crate::gateway::router::{CALL, Granted, MapRequest, RouterError};

/// The longest lease (WANIPv6FirewallControl:1 section 2.4.3).
const LONGEST: u64 = 86_400;

impl Upnp {
    /// Opens a pinhole, or renews the one whose number is known.
    pub(super) async fn open_pinhole(
        &self,
        request: &MapRequest,
        internal: SocketAddrV6,
    ) -> Result<Granted, RouterError> {
        let source = request.internal.ip();
        let firewall = self.firewall(*internal.ip()).await?;
        let lease = request.lease.map_or(LONGEST, |lease| lease.as_secs().clamp(1, LONGEST));
        let seconds = u32::try_from(lease).unwrap_or(u32::MAX);
        let mut id = request.pinhole;
        if let Some(known) = id {
            match self.heard(sent_from(source, firewall.update_pinhole(known, seconds)).await) {
                Ok(()) => {}
                Err(error) if is_gone(&error) => id = None,
                Err(error) => return Err(refused(error)),
            }
        }
        if id.is_none() {
            let added = sent_from(source, firewall.add_pinhole(protocol(request), internal, seconds)).await;
            id = Some(self.heard(added).map_err(refused)?);
        }
        // A firewall translates nothing: the external port is the same.
        let external_port = request.internal_port()?;
        Ok(Granted { external_port, lease: Some(Duration::from_secs(lease)), pinhole: id })
    }

    /// The router's IPv6 firewall. It must be asked over IPv6, from the address that is opened
    /// (WANIPv6FirewallControl:1 section 2.2), and so must the search: the router then names its
    /// own address of that network.
    async fn firewall(&self, own: Ipv6Addr) -> Result<Ipv6FirewallGateway<Bound>, RouterError> {
        if let Some(known) = self.firewall.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(known);
        }
        let has_firewall = |description: &Description| description.firewall.is_some();
        let found = timeout(CALL, find(&self.at, own.into(), has_firewall));
        let (answer, described) = found.await.map_err(|_| RouterError::Lost(NO_ANSWER.into()))??;
        let service = Service { kind: "", control: String::new(), schema: None };
        let mut gateway = gateway(&answer, &service);
        gateway.ipv6_firewall_control_url = described.firewall;
        let firewall = gateway.ipv6_firewall().ok_or_else(no_service)?;
        *self.firewall.lock().unwrap_or_else(PoisonError::into_inner) = Some(firewall.clone());
        Ok(firewall)
    }

    /// Forgets where the firewall is when it does not answer there.
    fn heard<T>(&self, answer: Result<T, RequestError>) -> Result<T, RequestError> {
        if answer.as_ref().is_err_and(|error| !matches!(error, RequestError::ErrorCode(..))) {
            *self.firewall.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        answer
    }

    /// Closes the pinhole; without a number there is none.
    pub(super) async fn close_pinhole(&self, request: &MapRequest, own: Ipv6Addr) -> Result<(), RouterError> {
        let Some(id) = request.pinhole else { return Ok(()) };
        let firewall = self.firewall(own).await?;
        match self.heard(sent_from(own.into(), firewall.remove_pinhole(id)).await) {
            Err(error) if is_gone(&error) => Ok(()),
            other => other.map_err(refused),
        }
    }
}

/// Whether the router does not know the number. To some it is an argument out of range.
fn is_gone(error: &RequestError) -> bool {
    matches!(error, RequestError::ErrorCode(402 | 704, _))
}
