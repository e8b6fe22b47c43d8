use proptest::prelude::*;

use super::*;
use crate::preface::claims;

/// Messages of TLS, as clients make them.
pub(in crate::preface) mod hello {
    /// A text with its length before it, in so many bytes.
    pub(in crate::preface) fn with_length(bytes: usize, content: &[u8]) -> Vec<u8> {
        let length = content.len().to_be_bytes();
        [&length[length.len() - bytes..], content].concat()
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &with_length(2, content)].concat()
    }

    /// The extension with the name.
    pub(in crate::preface) fn server_name(name: &[u8]) -> Vec<u8> {
        extension(0, &with_length(2, &[&[0], &with_length(2, name)[..]].concat()))
    }

    /// The extension that rustls does not do without.
    pub(in crate::preface) fn signature_algorithms() -> Vec<u8> {
        extension(13, &with_length(2, &[8, 4, 4, 3]))
    }

    /// Padding, which makes a hello as large as one with keys that no quantum computer breaks.
    pub(in crate::preface) fn padding(length: usize) -> Vec<u8> {
        extension(21, &vec![0; length])
    }

    /// A hello with these extensions.
    pub(in crate::preface) fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
        let mut content = vec![3, 3];
        content.extend([7; 32]);
        content.extend(with_length(1, &[9; 32]));
        content.extend(with_length(2, &[0x13, 1, 0xc0, 0x2f]));
        content.extend(with_length(1, &[0]));
        content.extend(with_length(2, &extensions.concat()));
        [&[1], &with_length(3, &content)[..]].concat()
    }

    /// The hello in records of so many bytes.
    pub(in crate::preface) fn records(message: &[u8], size: usize) -> Vec<u8> {
        let record = |part: &[u8]| [&[22, 3, 1], &with_length(2, part)[..]].concat();
        message.chunks(size).flat_map(record).collect()
    }

    /// A usual hello.
    pub(in crate::preface) fn usual(name: &str) -> Vec<u8> {
        let extensions = [signature_algorithms(), padding(300), server_name(name.as_bytes())];
        records(&message(&extensions), 16 << 10)
    }
}

fn verdict(bytes: &[u8]) -> Verdict {
    claims::tls(bytes);
    Reader::default().read(bytes)
}

fn name(name: &str) -> Verdict {
    Verdict::Name(name.into())
}

#[test]
fn the_name_is_read_wherever_records_and_segments_end() {
    for (padding, size) in
        [(0, 16 << 10), (1800, 16 << 10), (12_000, 16 << 10), (0, 1), (0, 3), (0, 5), (1800, 100)]
    {
        let extensions =
            [hello::padding(padding), hello::signature_algorithms(), hello::server_name(b"a.example.org")];
        let bytes = hello::records(&hello::message(&extensions), size);
        assert_eq!(verdict(&bytes), name("a.example.org"), "{padding} bytes more, in records of {size}");
        assert_eq!(Reader::default().read(&bytes[..bytes.len() - 1]), Verdict::More);
    }
}

#[test]
fn a_name_has_one_spelling() {
    assert_eq!(verdict(&hello::usual("WWW.Example.ORG")), name("www.example.org"));
    assert_eq!(verdict(&hello::usual("my_host.lan")), name("my_host.lan"));
    assert_eq!(verdict(&hello::usual("nas")), name("nas"));
    assert_eq!(verdict(&hello::usual("xn--mnchen-3ya.example")), name("xn--mnchen-3ya.example"));
}

#[test]
fn bytes_after_the_hello_change_nothing() {
    let mut bytes = hello::usual("a.example.org");
    for more in
        [&b"\x14\x03\x03\0\x01\x01"[..], b"\x17\x03\x03\x40\0", b"\x17\x03\x03\x40\0early data", b"no record"]
    {
        bytes.extend(more);
        assert_eq!(verdict(&bytes), name("a.example.org"));
    }
}

#[test]
fn a_hello_without_a_name_that_can_be_read_is_nameless() {
    let algorithms = hello::signature_algorithms;
    let hellos = [
        ("no name", vec![algorithms()]),
        ("no signature algorithms, as of TLS 1.0", vec![hello::server_name(b"a.example.org")]),
        ("an address", vec![algorithms(), hello::server_name(b"203.0.113.9")]),
        ("an address of IPv6", vec![algorithms(), hello::server_name(b"2001:db8::1")]),
        ("an empty name", vec![algorithms(), hello::server_name(b"")]),
        ("a malformed name", vec![algorithms(), hello::server_name(b"a..example.org")]),
        ("a name in UTF-8", vec![algorithms(), hello::server_name("münchen.example".as_bytes())]),
        ("a zero in the name", vec![algorithms(), hello::server_name(b"a.example.org\0.evil.example")]),
        ("two names", vec![algorithms(), hello::server_name(b"a.example"), hello::server_name(b"b.example")]),
    ];
    for (what, extensions) in hellos {
        let bytes = hello::records(&hello::message(&extensions), 16 << 10);
        assert_eq!(verdict(&bytes), Verdict::Nameless, "{what}");
    }
}

#[test]
fn a_broken_record_is_nameless_and_waits_for_no_more() {
    for bytes in [
        &b"\x16\x03\x01\0\0"[..],
        b"\x16\x03\x01\xff\xff",
        // A ServerHello, and a hello that is longer than what is read.
        b"\x16\x03\x01\0\x04\x02\0\0\0",
        b"\x16\x03\x01\0\x04\x01\xff\xff\xff",
        // An alert in the middle of a hello.
        b"\x16\x03\x01\0\x04\x01\0\0\x10\x15\x03\x01\0\x02\x02\x28",
    ] {
        assert_eq!(verdict(bytes), Verdict::Nameless, "{bytes:x?}");
    }
    let endless =
        hello::records(&hello::message(&[hello::padding(16_000), hello::padding(16_000)]), 16 << 10);
    assert_eq!(Reader::default().read(&endless[..LIMIT - 1]), Verdict::More);
    assert_eq!(Reader::default().read(&endless[..LIMIT]), Verdict::Nameless);
}

#[test]
fn another_protocol_is_told_by_its_first_bytes() {
    for bytes in [
        &b"S"[..],
        b"GET / HTTP/1.1\r\n",
        b"\x10\0",
        b"\x16\x02",
        b"\x16\xfe\xfc",
        b"\x80\x2e\x01\x03\x01",
        b"\0",
    ] {
        assert_eq!(verdict(bytes), Verdict::Foreign, "{bytes:x?}");
    }
    assert_eq!(verdict(b"\x16"), Verdict::More);
    assert_eq!(verdict(b""), Verdict::More);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_read_alike_in_steps_and_at_once(
        extensions in proptest::collection::vec(extension(), 0..4),
        size in prop_oneof![1..40_usize, Just(16 << 10)],
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let mut bytes = hello::records(&hello::message(&extensions), size);
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        claims::tls(&bytes);
    }
}

fn extension() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(hello::signature_algorithms()),
        "[a-zA-Z0-9._-]{0,40}".prop_map(|name| hello::server_name(name.as_bytes())),
        (0..600_usize).prop_map(hello::padding),
        proptest::collection::vec(any::<u8>(), 0..20),
    ]
}
