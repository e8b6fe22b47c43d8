//! How the home router is asked: what `[router]` sets, and limits for it.

use std::{net::IpAddr, num::NonZeroU16, time::Duration};

use serde::Serialize;

/// A protocol that opens ports on a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RouterProtocol {
    /// UPnP Internet Gateway Device.
    Upnp,
    /// Port Control Protocol (RFC 6887).
    Pcp,
    /// NAT Port Mapping Protocol (RFC 6886).
    NatPmp,
}

impl RouterProtocol {
    /// The word for it in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Upnp => "upnp",
            Self::Pcp => "pcp",
            Self::NatPmp => "natpmp",
        }
    }
}

/// What to do when another machine holds the port on the router.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnConflict {
    /// Leave it closed and report the holder.
    #[default]
    Fail,
    /// Take another external port, and keep that one.
    AnyPort,
}

/// How the home router is asked (`[router]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterSettings {
    /// The protocols, tried in this order; never empty.
    pub protocols: Vec<RouterProtocol>,
    /// The router's address, with the port of its UPnP search where that is not 1900; the default
    /// gateway where `None`.
    pub gateway: Option<(IpAddr, Option<NonZeroU16>)>,
    /// The interface toward the router; that of the default route where `None`.
    pub interface: Option<String>,
    /// The lease that is asked for.
    pub lease: Duration,
    /// What to do about a port that another machine holds.
    pub on_conflict: OnConflict,
    /// How often the router is asked whether all is still as it should be.
    pub check_every: Duration,
}

impl Default for RouterSettings {
    fn default() -> Self {
        Self {
            protocols: vec![RouterProtocol::Upnp, RouterProtocol::Pcp, RouterProtocol::NatPmp],
            gateway: None,
            interface: None,
            lease: Duration::from_secs(3600),
            on_conflict: OnConflict::Fail,
            check_every: Duration::from_secs(60),
        }
    }
}
