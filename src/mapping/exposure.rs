//! The wish that a listener can be reached from the internet through the home router.

use std::num::NonZeroU16;

/// The wish to be open on the router (`router = true`, or a table with details).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Exposure {
    /// The port to open on the router. `None` is the listener's own.
    pub external_port: Option<NonZeroU16>,
    /// Open the router's IPv6 firewall for the listener's global addresses, too.
    pub ipv6: bool,
}
