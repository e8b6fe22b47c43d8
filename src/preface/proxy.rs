//! The PROXY protocol: a header before the first byte that says who the client is.
//!
//! Owns what a received header means ([`read`]) and the header that a target gets ([`Outgoing`]),
//! in both versions. The layout of version 2 and the addresses of version 1 are read by
//! `proxy-header`; here is what it leaves open: the sum, the limits, and the rules that it does not
//! enforce. A header says nothing about who may send one: the caller asks only peers that are
//! trusted.

mod checksum;
mod decode;
mod encode;
mod tlv;

use std::net::SocketAddr;

pub(crate) use decode::{Invalid, Received, read};
pub(crate) use encode::{Outgoing, local};

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

/// What a received header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The client and where it connected to; `None` where the peer speaks for itself (LOCAL, as of
    /// a health check) or does not say: then the peer is the client.
    pub addresses: Option<Addresses>,
    /// The bytes of the header; what follows is the client's.
    pub length: usize,
    /// What else it says, to be passed on: TLVs as they came, but for the sum and the padding.
    pub extras: Box<[u8]>,
    /// Whether it had a sum, so that the next one should have one.
    pub has_sum: bool,
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// Where it connected to.
    pub destination: SocketAddr,
}

#[cfg(test)]
mod tests;
