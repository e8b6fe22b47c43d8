//! Offences and bans.

use std::{net::IpAddr, time::SystemTime};

use serde::Serialize;
use tokio::time::Instant;

/// The bans of the daemon.
#[derive(Debug, Default)]
pub struct Guard {}

impl Guard {
    /// A client has touched a decoy; the ban that it earned.
    pub fn trap(&self, _client: IpAddr, _now: Instant) -> Option<Ban> {
        None
    }
}

/// One ban.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ban {
    /// Who: an address, or an IPv6 /64.
    pub client: String,
    /// Until when.
    pub until: SystemTime,
}
