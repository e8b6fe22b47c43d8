//! PROXY headers in datagrams: what a listed peer says, and what a target gets.
//!
//! Only version 2 is one, because a datagram has no line. A listed peer has to begin a flow with a
//! header; in later datagrams it may. The target gets one before the first datagram that it is
//! sent, or before each. Pure: knows no socket and no clock.

use std::net::SocketAddr;

use super::batch::Run;
use crate::{
    mapping::Protocol,
    preface::proxy::{self, Addresses, Header, Outgoing, Received, SendProxy},
};

/// What each header of version 2 begins with.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest datagram, over IPv4.
pub(super) const LONGEST: usize = 65_507;

/// Whether one of these datagrams may begin with a header.
pub(super) fn may_have_header(run: Run<'_>) -> bool {
    run.datagrams().any(|datagram| datagram.starts_with(SIGNATURE))
}

/// The header that a datagram begins with, and what stands behind it.
pub(super) fn take_header(datagram: &[u8]) -> Option<(Header, &[u8])> {
    if !datagram.starts_with(SIGNATURE) {
        return None;
    }
    let Received::Header(header) = proxy::read(datagram) else { return None };
    let payload = &datagram[header.length..];
    Some((header, payload))
}

/// What the targets of one flow get to know of its client.
#[derive(Debug)]
pub(super) struct Introduction {
    header: Box<[u8]>,
    /// Each datagram has it, and not only the first.
    in_each: bool,
}

impl Introduction {
    /// The introduction of `client`, which sent to `hit`; `None` where targets get none. `received`
    /// is what a peer said.
    pub(super) fn new(
        form: SendProxy,
        client: SocketAddr,
        hit: SocketAddr,
        session: u64,
        received: Option<&Header>,
    ) -> Option<Self> {
        if form == SendProxy::Off {
            return None;
        }
        let told = received.and_then(|header| header.addresses);
        let destination = told.map_or(hit, |addresses| addresses.destination);
        let id = session.to_string();
        let outgoing = Outgoing {
            protocol: Protocol::Udp,
            addresses: Addresses { source: client, destination },
            id: id.as_bytes(),
            authority: None,
            received,
        };
        Some(Self { header: outgoing.encode(form).into(), in_each: form == SendProxy::V2Each })
    }

    /// The introduction of a flow that another process handed over; `None` for a header that is too
    /// long.
    pub(super) fn taken_over(header: &[u8], in_each: bool) -> Option<Self> {
        (header.len() <= LONGEST).then(|| Self { header: header.into(), in_each })
    }

    /// What stands before a datagram.
    pub(super) fn header(&self) -> &[u8] {
        &self.header
    }

    /// Whether every datagram has it.
    pub(super) fn is_in_each(&self) -> bool {
        self.in_each
    }

    /// Puts it before each datagram of a run. `None` where one gets too long then.
    pub(super) fn before(&self, run: Run<'_>) -> Option<Introduced> {
        let segment = run.datagrams().next().map_or(0, <[u8]>::len) + self.header.len();
        if segment > LONGEST {
            return None;
        }
        let mut bytes = Vec::with_capacity(run.bytes().len() + run.count() * self.header.len());
        for datagram in run.datagrams() {
            bytes.extend_from_slice(&self.header);
            bytes.extend_from_slice(datagram);
        }
        Some(Introduced { bytes, segment, added: self.header.len() })
    }
}

/// Datagrams with a header before each.
#[derive(Debug)]
pub(super) struct Introduced {
    bytes: Vec<u8>,
    segment: usize,
    /// The bytes that each of them has more.
    pub(super) added: usize,
}

impl Introduced {
    /// They are one run, as before.
    pub(super) fn run(&self) -> Run<'_> {
        Run::new(&self.bytes, self.segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn introduction(form: SendProxy) -> Option<Introduction> {
        Introduction::new(form, addr("203.0.113.9:50312"), addr("192.0.2.1:53"), 7, None)
    }

    #[test]
    fn what_is_put_before_a_datagram_is_what_is_taken_off_it() {
        let introduction = introduction(SendProxy::V2).unwrap();
        for payload in [&b""[..], b"x", &[7; 1400]] {
            let introduced = introduction.before(Run::single(payload)).unwrap();
            let (header, rest) = take_header(introduced.run().bytes()).unwrap();
            assert_eq!(rest, payload);
            let addresses = header.addresses.unwrap();
            assert_eq!(addresses.source, addr("203.0.113.9:50312"));
            assert_eq!(addresses.destination, addr("192.0.2.1:53"));
        }
        assert!(self::introduction(SendProxy::Off).is_none());
    }

    #[test]
    fn a_run_stays_one_with_a_header_in_each_datagram() {
        let bytes: Vec<u8> = (0..2500_u32).map(|i| i as u8).collect();
        let run = Run::new(&bytes, 1000);
        let introduced = introduction(SendProxy::V2Each).unwrap().before(run).unwrap();
        assert_eq!((introduced.run().count(), introduced.run().segment()), (3, 1000 + introduced.added));
        let without: Vec<&[u8]> =
            introduced.run().datagrams().map(|datagram| take_header(datagram).unwrap().1).collect();
        assert_eq!(without, run.datagrams().collect::<Vec<_>>());
    }

    #[test]
    fn a_datagram_that_gets_too_long_has_no_introduction() {
        let introduction = introduction(SendProxy::V2).unwrap();
        let added = introduction.before(Run::single(b"")).unwrap().added;
        assert!(introduction.before(Run::single(&vec![0; LONGEST - added])).is_some());
        assert!(introduction.before(Run::single(&vec![0; LONGEST - added + 1])).is_none());
    }

    #[test]
    fn version_1_and_pieces_of_a_header_are_only_bytes() {
        let introduced = introduction(SendProxy::V2).unwrap().before(Run::single(b"")).unwrap();
        let whole = introduced.run().bytes();
        for cut in 0..whole.len() {
            assert!(take_header(&whole[..cut]).is_none());
        }
        assert!(take_header(b"PROXY TCP4 203.0.113.9 192.0.2.1 50312 443\r\nx").is_none());
    }
}
