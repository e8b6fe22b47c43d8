//! Offences and bans.

use std::time::SystemTime;

use serde::Serialize;

/// The bans of the daemon.
#[derive(Debug, Default)]
pub struct Guard {}

/// One ban.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ban {
    /// Who: an address, or an IPv6 /64.
    pub client: String,
    /// Until when.
    pub until: SystemTime,
}
