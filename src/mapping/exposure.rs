//! The wish that a listener can be reached from the internet through the home router.

use std::num::NonZeroU16;

/// The wish to be open on the router (`router = true`, or a table with details).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Exposure {
    /// The port to open on the router. `None` is the listener's own.
    pub external_port: Option<NonZeroU16>,
    /// Open the router's IPv6 firewall for the listener's global addresses, too.
    pub ipv6: bool,
    /// What becomes of it while every target is down.
    pub while_down: WhileDown,
}

/// What becomes of an opening on the router while no target of the listener works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum WhileDown {
    /// It stays.
    #[default]
    Keep,
    /// It is closed until a target is back.
    Close,
}

impl WhileDown {
    /// The word for it in the interface.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Close => "close",
        }
    }
}
