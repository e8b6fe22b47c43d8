//! UDP: a listener's flows.

use std::{net::IpAddr, time::Duration};

use crate::{mapping::Timeout, target::Targets};

/// What a UDP listener does with a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpSpec {
    /// Where flows lead.
    pub targets: Targets,
    /// How they are treated.
    pub options: UdpOptions,
}

/// How UDP flows are treated; the keys of the interface, section 3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpOptions {
    /// No datagram in either direction for this long ends the flow.
    pub idle_timeout: Timeout,
    /// The local address of the socket to the target.
    pub source: Option<IpAddr>,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self { idle_timeout: Timeout::After(Duration::from_secs(60)), source: None }
    }
}
