//! The PROXY protocol: a header before the first byte that says who the client is.

/// The PROXY header that a target gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SendProxy {
    /// None.
    #[default]
    Off,
    /// The text form, for TCP alone.
    V1,
    /// The binary form: before the first byte, or in the first datagram.
    V2,
    /// The binary form in each datagram; for TCP the same as [`SendProxy::V2`].
    V2Each,
}

impl SendProxy {
    /// The word for it in the interface.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::V2Each => "v2-each",
        }
    }
}
