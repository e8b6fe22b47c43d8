//! Writes a header.

use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
};

use super::{Addresses, Header, SendProxy, checksum::crc32c, tlv};
use crate::mapping::{Protocol, canonical_socket};

/// What each header of version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest header of version 1, with its line end.
const LONGEST_V1: usize = 107;

/// The most bytes of version 2 without TLVs: the fixed part, and two addresses of IPv6 with ports.
const LONGEST_BARE: usize = 16 + 36;

/// What a target gets to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing<'a> {
    /// What carries the session.
    pub protocol: Protocol,
    /// The real client and where it connected to.
    pub addresses: Addresses,
    /// What tells the session from all others; at most 128 bytes of it count.
    pub id: &'a [u8],
    /// The name that the client wants, where it is known.
    pub authority: Option<&'a str>,
    /// The header that came before the session; what it says more is passed on.
    pub received: Option<&'a Header>,
}

impl Outgoing<'_> {
    /// The bytes of the header; none for [`SendProxy::Off`].
    pub(crate) fn encode(&self, form: SendProxy) -> Vec<u8> {
        match form {
            SendProxy::Off => Vec::new(),
            SendProxy::V1 => self.version_1(),
            SendProxy::V2 | SendProxy::V2Each => self.version_2(),
        }
    }

    fn version_1(&self) -> Vec<u8> {
        let mut line = Vec::with_capacity(LONGEST_V1);
        let (source, destination) = one_family(self.addresses);
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let (from, to) = (source.ip(), destination.ip());
        // A vector takes every byte.
        let _ = write!(line, "PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port());
        line
    }

    fn version_2(&self) -> Vec<u8> {
        let extras = self.received.map_or(&[][..], |header| &header.extras);
        let has_sum = self.received.is_some_and(|header| header.has_sum);
        // What was said before this session came here stays true for it.
        let id = Some(&self.id[..self.id.len().min(tlv::LONGEST_ID)]);
        let id = id.filter(|id| !id.is_empty() && !tlv::has(extras, tlv::UNIQUE_ID));
        let authority = self.authority.map(str::as_bytes).filter(|_| !tlv::has(extras, tlv::AUTHORITY));
        let added = |value: Option<&[u8]>| value.map_or(0, |value| tlv::HEADER + value.len());
        let sum = if has_sum { tlv::HEADER + 4 } else { 0 };
        let tlvs = extras.len() + added(id) + added(authority) + sum;

        let mut header = Vec::with_capacity(LONGEST_BARE + tlvs);
        header.extend_from_slice(SIGNATURE);
        put_addresses(&mut header, self.protocol, self.addresses, tlvs);
        id.inspect(|id| tlv::put(&mut header, tlv::UNIQUE_ID, id));
        authority.inspect(|name| tlv::put(&mut header, tlv::AUTHORITY, name));
        header.extend_from_slice(extras);
        if has_sum {
            tlv::put(&mut header, tlv::CRC32C, &[0; 4]);
            let sum = crc32c(&[&header]).to_be_bytes();
            let at = header.len() - sum.len();
            header[at..].copy_from_slice(&sum);
        }
        header
    }
}

/// Adds what stands between the signature and the TLVs, which have so many bytes.
fn put_addresses(header: &mut Vec<u8>, protocol: Protocol, addresses: Addresses, tlvs: usize) {
    let (source, destination) = one_family(addresses);
    let carrier = match protocol {
        Protocol::Tcp => 1,
        Protocol::Udp => 2,
    };
    let (family, bytes) = if source.is_ipv4() { (0x10, 12) } else { (0x20, 36) };
    header.extend_from_slice(&[0x21, family | carrier]);
    // A received header and its name are far shorter than 64 KiB.
    header.extend_from_slice(&((bytes + tlvs) as u16).to_be_bytes());
    for ip in [source.ip(), destination.ip()] {
        match ip {
            IpAddr::V4(ip) => header.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => header.extend_from_slice(&ip.octets()),
        }
    }
    for port in [source.port(), destination.port()] {
        header.extend_from_slice(&port.to_be_bytes());
    }
}

/// Both addresses in one family: where one is IPv6, the other is mapped into it.
fn one_family(Addresses { source, destination }: Addresses) -> (SocketAddr, SocketAddr) {
    let (source, destination) = (canonical_socket(source), canonical_socket(destination));
    if source.is_ipv4() == destination.is_ipv4() {
        return (source, destination);
    }
    let mapped = |addr: SocketAddr| match addr.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), addr.port()),
        IpAddr::V6(_) => addr,
    };
    (mapped(source), mapped(destination))
}

/// The header of a connection that portway makes for itself, as to see whether a target works.
pub(crate) fn local(form: SendProxy) -> &'static [u8] {
    match form {
        SendProxy::Off => b"",
        SendProxy::V1 => b"PROXY UNKNOWN\r\n",
        SendProxy::V2 | SendProxy::V2Each => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    }
}
