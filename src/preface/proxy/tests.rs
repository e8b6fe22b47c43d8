use proptest::prelude::*;
use proxy_header::{ParseConfig, ProxyHeader, Tlv};

use super::*;
use crate::{mapping::Protocol, preface::claims};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn addresses(source: &str, destination: &str) -> Addresses {
    Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn v4() -> Addresses {
    addresses("203.0.113.9:50312", "192.0.2.1:443")
}

fn outgoing(addresses: Addresses) -> Outgoing<'static> {
    Outgoing { protocol: Protocol::Tcp, addresses, id: b"", authority: None, received: None }
}

fn receive(bytes: &[u8]) -> Received {
    claims::proxy(bytes);
    read(bytes)
}

fn header(bytes: &[u8]) -> Header {
    match receive(bytes) {
        Received::Header(header) => header,
        other => panic!("{other:?} for {bytes:x?}"),
    }
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    super::tlv::put(&mut all, kind, value);
    all
}

/// A header of version 2 for IPv4 with these TLVs.
fn with(tlvs: &[u8]) -> Vec<u8> {
    let length = (12 + tlvs.len() as u16).to_be_bytes();
    let addresses = [203, 0, 113, 9, 192, 0, 2, 1, 0xc4, 0x88, 1, 0xbb];
    [SIGNATURE, &[0x21, 0x11], &length, &addresses, tlvs].concat()
}

/// The same with a sum in front of the TLVs.
fn with_sum(tlvs: &[u8]) -> Vec<u8> {
    let mut bytes = with(&[&tlv(super::tlv::CRC32C, &[0; 4]), tlvs].concat());
    let sum = checksum::crc32c(&[&bytes]).to_be_bytes();
    bytes[31..35].copy_from_slice(&sum);
    bytes
}

#[test]
fn a_line_of_version_1_is_read() {
    for (line, expected) in [
        ("TCP4 203.0.113.9 192.0.2.1 50312 443", Some(v4())),
        ("TCP4 203.0.113.9 192.0.2.1 0 65535", Some(addresses("203.0.113.9:0", "192.0.2.1:65535"))),
        (
            "TCP6 2001:db8::9 2001:db8::1 50312 443",
            Some(addresses("[2001:db8::9]:50312", "[2001:db8::1]:443")),
        ),
        ("TCP6 ::ffff:203.0.113.9 ::ffff:192.0.2.1 50312 443", Some(v4())),
        ("UNKNOWN", None),
        ("UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535", None),
    ] {
        let bytes = format!("PROXY {line}\r\nGET / HTTP/1.1\r\n");
        let header = header(bytes.as_bytes());
        assert_eq!((header.addresses, header.length), (expected, line.len() + 8), "{line}");
        assert!(header.extras.is_empty() && !header.has_sum);
    }
}

#[test]
fn a_malformed_line_is_refused() {
    for line in [
        "TCP4 203.0.113.9 192.0.2.1 +80 443",
        "TCP4 203.0.113.9 192.0.2.1 0443 443",
        "TCP4 203.0.113.9 192.0.2.1 00 443",
        "TCP4 203.0.113.9 192.0.2.1 65536 443",
        "TCP4 203.0.113.9 192.0.2.1 50312 443 ",
        "TCP4 203.0.113.9 192.0.2.1 50312 443 1",
        "TCP4  203.0.113.9 192.0.2.1 50312 443",
        "TCP4 203.0.113.9 192.0.2.1 50312 ",
        "TCP4 203.0.113.9 192.0.2.1 50312",
        "TCP4 203.0.113.09 192.0.2.1 50312 443",
        "TCP4 2001:db8::9 2001:db8::1 50312 443",
        "TCP6 203.0.113.9 192.0.2.1 50312 443",
        "TCP6 fe80::9%1 2001:db8::1 50312 443",
        "TCP4 localhost 192.0.2.1 50312 443",
        "TCP5 203.0.113.9 192.0.2.1 50312 443",
        "UDP4 203.0.113.9 192.0.2.1 50312 443",
        "tcp4 203.0.113.9 192.0.2.1 50312 443",
        "UNKNOWNX",
        "",
        " TCP4 203.0.113.9 192.0.2.1 50312 443",
    ] {
        let bytes = format!("PROXY {line}\r\n");
        assert_eq!(receive(bytes.as_bytes()), Received::Invalid(Invalid::MalformedV1), "{line:?}");
    }
    for bytes in [
        "PROXY TCP4 203.0.113.9 192.0.2.1 50312 443\n",
        "PROXY UNKNOWN\n",
        "PROXY \n",
        "PROXY \r\n",
        "PROXY UNKNOWN a\rb\r\n",
    ] {
        assert_eq!(receive(bytes.as_bytes()), Received::Invalid(Invalid::MalformedV1), "{bytes:?}");
    }
}

#[test]
fn a_line_has_up_to_107_bytes() {
    let line = |more: usize| format!("PROXY UNKNOWN{}\r\n", "x".repeat(more)).replacen('x', " ", 1);
    let longest = line(107 - "PROXY UNKNOWN\r\n".len());
    assert_eq!(header(longest.as_bytes()).length, 107);
    let longer = line(108 - "PROXY UNKNOWN\r\n".len());
    assert_eq!(receive(longer.as_bytes()), Received::Invalid(Invalid::MalformedV1));
    assert_eq!(receive(&longer.as_bytes()[..106]), Received::More);
    assert_eq!(receive(&longer.as_bytes()[..107]), Received::Invalid(Invalid::MalformedV1));
}

#[test]
fn what_is_no_header_is_told_at_its_first_byte() {
    for bytes in [&b"G"[..], b"PROXX", b"PROXYv", b"\r\n\r\n\0\r\nQUIX", b"\r\r", b"\0", b"\x16", b"p"] {
        assert_eq!(receive(bytes), Received::Invalid(Invalid::Absent), "{bytes:x?}");
        assert_eq!(receive(&bytes[..bytes.len() - 1]), Received::More, "{bytes:x?}");
    }
    for bytes in
        [&b"\x22"[..], b"\x11", b"\x21\x13", b"\x21\x41", b"\x21\x01", b"\x21\x11\0\x0b", b"\x20\x21\0\x23"]
    {
        let bytes = [SIGNATURE, bytes].concat();
        assert_eq!(receive(&bytes), Received::Invalid(Invalid::MalformedV2), "{bytes:x?}");
    }
    let long = [SIGNATURE, b"\x21\x11\x3f\xf1"].concat();
    assert_eq!(receive(&long), Received::Invalid(Invalid::TooLong));
    let longest = [SIGNATURE, b"\x21\x11\x3f\xf0"].concat();
    assert_eq!(receive(&longest), Received::More);
}

#[test]
fn a_header_without_addresses_leaves_the_peer_as_it_is() {
    for (what, bytes) in [
        ("LOCAL", &b"\x20\0\0\0"[..]),
        ("LOCAL with addresses", b"\x20\x11\0\x0c\xcb\0\x71\x09\xc0\0\x02\x01\xc4\x88\x01\xbb"),
        ("UNSPEC", b"\x21\0\0\0"),
        ("UNSPEC with something", b"\x21\0\0\x05\x04\0\x02ab"),
        ("UNIX", &[&[0x21, 0x31, 0, 216][..], &[7; 216]].concat()),
    ] {
        let bytes = [SIGNATURE, bytes].concat();
        let header = header(&[&bytes, &b"data"[..]].concat());
        assert_eq!((header.addresses, header.length), (None, bytes.len()), "{what}");
    }
}

#[test]
fn tlvs_are_kept_and_the_sum_is_compared() {
    let kept = [
        tlv(0x01, b"h2"),
        tlv(0x02, b"a.example.org"),
        tlv(0x05, b"id"),
        tlv(0x20, b"\x01\0\0\0\0\x21\0\x07TLSv1.3"),
        tlv(0x30, b"netns"),
        tlv(0xe0, b"\xff\xfe"),
    ]
    .concat();
    let padded = [&tlv(0x04, &[0; 9])[..], &kept].concat();
    for (bytes, has_sum) in [(with(&padded), false), (with_sum(&padded), true)] {
        let header = header(&bytes);
        assert_eq!((&*header.extras, header.has_sum), (&*kept, has_sum));
        assert_eq!(header.addresses, Some(v4()));
    }
    let mut wrong = with_sum(&padded);
    for at in [17, 32, 60] {
        wrong[at] ^= 1;
        assert_eq!(receive(&wrong), Received::Invalid(Invalid::WrongSum), "{at}");
        wrong[at] ^= 1;
    }
    let twice = with_sum(&tlv(super::tlv::CRC32C, &[0; 4]));
    assert_eq!(receive(&twice), Received::Invalid(Invalid::WrongSum));
    for tlvs in [&b"\x01"[..], b"\x01\0", b"\x01\0\x01", b"\x03\0\x03abc", &tlv(5, &[0; 129])] {
        assert_eq!(receive(&with(tlvs)), Received::Invalid(Invalid::MalformedV2), "{tlvs:x?}");
    }
}

#[test]
fn the_sum_is_crc32c() {
    assert_eq!(checksum::crc32c(&[b"123456789"]), 0xe306_9283);
    assert_eq!(checksum::crc32c(&[b"1234", b"", b"56789"]), 0xe306_9283);
}

#[test]
fn a_header_is_written_in_the_family_of_both_ends() {
    let v6 = addresses("[2001:db8::9]:50312", "[2001:db8::1]:443");
    let mixed = addresses("203.0.113.9:50312", "[2001:db8::1]:443");
    let mapped = addresses("[::ffff:203.0.113.9]:50312", "[::ffff:192.0.2.1]:443");
    for (of, line) in [
        (v4(), "TCP4 203.0.113.9 192.0.2.1 50312 443"),
        (v6, "TCP6 2001:db8::9 2001:db8::1 50312 443"),
        (mixed, "TCP6 ::ffff:203.0.113.9 2001:db8::1 50312 443"),
        (mapped, "TCP4 203.0.113.9 192.0.2.1 50312 443"),
    ] {
        assert_eq!(outgoing(of).encode(SendProxy::V1), format!("PROXY {line}\r\n").into_bytes());
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let bytes = Outgoing { protocol, ..outgoing(of) }.encode(SendProxy::V2Each);
            let (theirs, _) = ProxyHeader::parse(&bytes, ParseConfig::default()).unwrap();
            let is_udp = theirs.proxied_address().unwrap().protocol == proxy_header::Protocol::Datagram;
            assert_eq!(is_udp, protocol == Protocol::Udp);
            let canonical = header(&outgoing(of).encode(SendProxy::V1)).addresses;
            assert_eq!(header(&bytes).addresses, canonical);
        }
    }
    assert_eq!(outgoing(v4()).encode(SendProxy::Off), b"");
    assert_eq!(outgoing(v4()).encode(SendProxy::V2), with(b""));
}

#[test]
fn a_header_says_the_session_and_the_name() {
    let bytes =
        Outgoing { id: b"4711", authority: Some("a.example.org"), ..outgoing(v4()) }.encode(SendProxy::V2);
    let (theirs, _) = ProxyHeader::parse(&bytes, ParseConfig::default()).unwrap();
    assert_eq!((theirs.unique_id(), theirs.authority()), (Some(&b"4711"[..]), Some("a.example.org")));
    let bytes = Outgoing { id: &[b'x'; 200], ..outgoing(v4()) }.encode(SendProxy::V2);
    let (theirs, _) = ProxyHeader::parse(&bytes, ParseConfig::default()).unwrap();
    assert_eq!(theirs.unique_id().map(<[u8]>::len), Some(128));
}

#[test]
fn what_a_received_header_says_is_passed_on() {
    let tlvs =
        [tlv(0x20, b"\x01\0\0\0\0"), tlv(0x02, b"first.example"), tlv(0x05, b"first"), tlv(0xe0, b"x")];
    let received = header(&with_sum(&tlvs.concat()));
    let outgoing = Outgoing {
        id: b"second",
        authority: Some("second.example"),
        received: Some(&received),
        ..outgoing(v4())
    };
    let bytes = outgoing.encode(SendProxy::V2);
    let (theirs, _) = ProxyHeader::parse(&bytes, ParseConfig::default()).unwrap();
    let all: Vec<_> = theirs.tlvs().map(Result::unwrap).collect();
    assert_eq!(all.len(), 5, "{all:?}");
    assert_eq!((theirs.unique_id(), theirs.authority()), (Some(&b"first"[..]), Some("first.example")));
    assert!(matches!(all[0], Tlv::Ssl(_)) && matches!(all[4], Tlv::Crc32c(_)));
    assert_eq!(header(&bytes), Header { length: bytes.len(), ..received.clone() });
    assert_eq!(bytes.capacity(), bytes.len() + 24, "one allocation, made for the longest addresses");
    assert!(outgoing.encode(SendProxy::V1).ends_with(b" 50312 443\r\n"));
}

#[test]
fn a_probe_says_that_it_is_local() {
    for form in [SendProxy::V1, SendProxy::V2, SendProxy::V2Each] {
        assert_eq!(header(local(form)).addresses, None);
    }
    assert_eq!(local(SendProxy::Off), b"");
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        source in any::<SocketAddr>(),
        destination in any::<SocketAddr>(),
        id in proptest::collection::vec(any::<u8>(), 1..128),
        name in proptest::option::of("[a-z.]{1,40}"),
        tlvs in proptest::collection::vec((6..=255_u8, proptest::collection::vec(any::<u8>(), 0..40)), 0..5),
        has_sum: bool,
        protocol in prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)],
    ) {
        // A zone means nothing to others.
        let bare = |addr: SocketAddr| canonical(SocketAddr::new(addr.ip(), addr.port()));
        let addresses = Addresses { source: bare(source), destination: bare(destination) };
        let extras: Vec<u8> = tlvs.iter().flat_map(|(kind, value)| tlv(*kind, value)).collect();
        let received = Header { addresses: None, length: 0, extras: extras.clone().into(), has_sum };
        let outgoing = Outgoing {
            protocol, addresses, id: &id, authority: name.as_deref(), received: Some(&received),
        };
        let read = header(&outgoing.encode(SendProxy::V1));
        prop_assert_eq!(read.addresses, Some(addresses));
        let bytes = outgoing.encode(SendProxy::V2);
        let read = header(&bytes);
        let name = name.map(|name| tlv(super::tlv::AUTHORITY, name.as_bytes())).unwrap_or_default();
        let all = [tlv(super::tlv::UNIQUE_ID, &id), name, extras].concat();
        prop_assert_eq!(read, Header {
            addresses: Some(addresses), length: bytes.len(), extras: all.into(), has_sum,
        });
    }

    #[test]
    fn any_bytes_are_judged_alike_in_steps_and_at_once(
        start in prop_oneof![Just(&b"PROXY TCP4 1.2.3.4 "[..]), Just(SIGNATURE), Just(&b"PROXY UNKNOWN"[..])],
        fixed in prop_oneof![Just(vec![0x21, 0x11, 0]), Just(vec![0x20, 0, 0]), Just(vec![]), Just(b"1.2.3.4 1 ".to_vec())],
        more in proptest::collection::vec(any::<u8>(), 0..60),
        line in "([0-9]{1,5}\r\n)?",
    ) {
        claims::proxy(&[start, &fixed, line.as_bytes(), &more].concat());
    }
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    crate::mapping::canonical_socket(addr)
}
