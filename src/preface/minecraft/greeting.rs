//! What a Minecraft client says first.

use crate::preface::name;

/// What a client said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// A handshake, since 1.7.
    Handshake {
        /// The version of the protocol that the client speaks.
        protocol: i32,
        /// What it wants next.
        next: Next,
        /// The bytes of the handshake; more of the client may follow.
        length: usize,
    },
    /// A ping from before 1.7.
    LegacyPing {
        /// The version of the protocol, where the client says it (1.6).
        protocol: Option<u8>,
        /// Whether the client understands an answer with versions (since 1.4).
        is_versioned: bool,
    },
    /// A join from before 1.7.
    LegacyJoin {
        /// The name of the player.
        player: Box<str>,
    },
}

impl Greeting {
    /// Whether the client only asks for an entry in its list of servers. That must not start
    /// anything.
    pub(crate) const fn is_ping(&self) -> bool {
        matches!(self, Self::Handshake { next: Next::Status, .. } | Self::LegacyPing { .. })
    }
}

/// What a client wants after its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// An entry in its list of servers.
    Status,
    /// To play.
    Login,
    /// To play, sent here by another server (since 1.20.5).
    Transfer,
}

/// What the bytes so far are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Not enough.
    More,
    /// Something else than Minecraft.
    Foreign,
    /// A greeting, with the name that the client wants.
    Greeting(Greeting, Option<Box<str>>),
}

/// The name in the address that a client says.
///
/// Behind the name may stand a marker of Forge or the data of a proxy, after a zero, and those of
/// TCPShield after `///`. A name that the client found by an SRV record ends in a dot.
pub(super) fn name_in(address: &[u8]) -> Option<Box<str>> {
    let address = address.split(|c| *c == 0).next()?;
    let end = address.windows(3).position(|part| part == b"///").unwrap_or(address.len());
    let host = &address[..end];
    name::plain(host.strip_prefix(b"_minecraft._tcp.").unwrap_or(host))
}
