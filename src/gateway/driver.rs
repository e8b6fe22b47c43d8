//! One router, by any of the protocols: [`Driver`] passes each call on.
//!
//! Knows nothing of when an opening is wanted, what is persisted, or whose an opening is.
//! Invariants:
//! - Every call ends within [`LONGEST_CALL`], a search within [`LONGEST_SEARCH`], also without an
//!   answer.
//! - No answer of a router causes a panic or takes more than a few MiB. The text of a router is cut
//!   and cleaned.
//! - A driver holds no socket between two calls, so dropping it ends it.

use std::time::Duration;

use super::{
    RouterProtocol,
    natpmp::NatPmp,
    pcp::Pcp,
    router::{Entry, Found, Granted, Health, MapRequest, RouterAddr, RouterError},
    upnp::Upnp,
};

/// How long one call of [`Driver`] may take: most are one question; a list of openings or another
/// port take some more.
pub(super) const LONGEST_CALL: Duration = Duration::from_secs(9);

/// How long [`Driver::search`] may take: two tries.
pub(super) const LONGEST_SEARCH: Duration = Duration::from_secs(6);

/// A router, spoken to in one protocol.
#[derive(Debug)]
pub(super) enum Driver {
    /// UPnP Internet Gateway Device.
    Upnp(Box<Upnp>),
    /// Port Control Protocol.
    Pcp(Pcp),
    /// NAT Port Mapping Protocol.
    NatPmp(NatPmp),
}

impl Driver {
    /// Looks for the router in one protocol.
    ///
    /// # Errors
    ///
    /// [`RouterError::Lost`] if no router answers in that protocol, [`RouterError::Denied`] if it
    /// is switched off.
    pub(super) async fn search(via: RouterProtocol, at: &RouterAddr) -> Result<(Self, Found), RouterError> {
        match via {
            RouterProtocol::Upnp => {
                Upnp::search(at).await.map(|(upnp, found)| (Self::Upnp(Box::new(upnp)), found))
            }
            RouterProtocol::Pcp => Pcp::search(at).await.map(|(pcp, found)| (Self::Pcp(pcp), found)),
            RouterProtocol::NatPmp => {
                NatPmp::search(at).await.map(|(natpmp, found)| (Self::NatPmp(natpmp), found))
            }
        }
    }

    /// Opens a port, or renews it: the same request, and nothing is removed first.
    ///
    /// For an IPv6 `internal` address it is a pinhole in the router's firewall, whose external port
    /// is the internal one. What UPnP grants is what was asked for: only [`look`](Self::look) tells
    /// what the router really keeps.
    ///
    /// # Errors
    ///
    /// Each of [`RouterError`]. [`RouterError::Conflict`] also where the router gave another port,
    /// which was given back.
    pub(super) async fn open(&self, request: &MapRequest) -> Result<Granted, RouterError> {
        if let Self::Upnp(upnp) = self {
            return upnp.open(request).await;
        }
        let granted = self.any_port(request).await?;
        if granted.external_port == request.external_port {
            return Ok(granted);
        }
        // PCP and NAT-PMP may grant another port. If closing it fails, it ends with its lease.
        let _ = self.close(request).await;
        Err(RouterError::Conflict)
    }

    /// What the router has at the external port. Only UPnP can tell, and not for pinholes: else
    /// [`Entry::Unknown`].
    ///
    /// # Errors
    ///
    /// [`RouterError::Lost`], [`RouterError::Denied`], [`RouterError::Failed`].
    pub(super) async fn look(&self, request: &MapRequest) -> Result<Entry, RouterError> {
        match self {
            Self::Upnp(upnp) => upnp.look(request).await,
            Self::Pcp(_) | Self::NatPmp(_) => Ok(Entry::Unknown),
        }
    }

    /// Opens the external port asked for or, where that is taken, any other one.
    ///
    /// # Errors
    ///
    /// Each of [`RouterError`] but [`RouterError::Conflict`], unless no port is free.
    pub(super) async fn any_port(&self, request: &MapRequest) -> Result<Granted, RouterError> {
        match self {
            Self::Upnp(upnp) => upnp.any_port(request).await,
            Self::Pcp(pcp) => pcp.any_port(request).await,
            Self::NatPmp(natpmp) => natpmp.any_port(request).await,
        }
    }

    /// Closes what is open at the external port, whosever it is (UPnP; PCP and NAT-PMP only close
    /// one's own). One that is gone already is fine.
    ///
    /// # Errors
    ///
    /// [`RouterError::Lost`], [`RouterError::Denied`] (it is another machine's),
    /// [`RouterError::Failed`].
    pub(super) async fn close(&self, request: &MapRequest) -> Result<(), RouterError> {
        match self {
            Self::Upnp(upnp) => upnp.close(request).await,
            Self::Pcp(pcp) => pcp.close(request).await,
            Self::NatPmp(natpmp) => natpmp.close(request).await,
        }
    }

    /// The external address, and a number that tells a restart: with UPnP the one that the last
    /// search or [`still_there`](Self::still_there) saw.
    ///
    /// # Errors
    ///
    /// [`RouterError::Lost`] where the router does not answer.
    pub(super) async fn health(&self) -> Result<Health, RouterError> {
        match self {
            Self::Upnp(upnp) => upnp.health().await,
            Self::Pcp(pcp) => pcp.health().await,
            Self::NatPmp(natpmp) => natpmp.health().await,
        }
    }

    /// Searches again for this very router, and gives the number of its start, if it has one.
    ///
    /// # Errors
    ///
    /// [`RouterError::Lost`] where it is gone, or its description moved: then only a new search
    /// finds it.
    pub(super) async fn still_there(&self) -> Result<Option<u32>, RouterError> {
        match self {
            Self::Upnp(upnp) => upnp.still_there().await,
            Self::Pcp(_) | Self::NatPmp(_) => self.health().await.map(|health| health.boot_id),
        }
    }
}

#[cfg(test)]
mod tests;
