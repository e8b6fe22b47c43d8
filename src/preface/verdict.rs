//! What the first bytes of a client say.

/// The most bytes that are read for a name.
pub(crate) const LIMIT: usize = 16 << 10;

/// What the bytes so far say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing yet: more bytes are needed.
    More,
    /// The client wants this name: in lower case, without a closing dot.
    Name(Box<str>),
    /// The client speaks the protocol, and says no name.
    Nameless,
    /// The client speaks another protocol.
    Foreign,
    /// The client speaks the protocol and breaks its rules, so that two readers could find two
    /// names. No target should get it.
    Invalid,
}

/// What a client turned out to speak. It says how to tell the client that its name leads nowhere:
/// see [`refusal`](super::answers::refusal) and [`StandIn`](super::minecraft::StandIn).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// TLS.
    Tls,
    /// HTTP/1.
    Http1,
    /// HTTP/2 without TLS, by prior knowledge.
    Http2 {
        /// The stream of its request, if it made one.
        stream: Option<u32>,
    },
    /// Minecraft.
    Minecraft,
}
