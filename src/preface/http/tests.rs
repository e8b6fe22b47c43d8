use proptest::prelude::*;

use super::*;
use crate::preface::{Match, Reader as AnyReader, claims};

fn verdict(bytes: &[u8]) -> Verdict {
    claims::http(bytes);
    AnyReader::new(Match::HttpHost).read(bytes)
}

fn name(name: &str) -> Verdict {
    Verdict::Name(name.into())
}

/// A request with these lines after the first.
fn get(lines: &str) -> Verdict {
    verdict(format!("GET / HTTP/1.1\r\n{lines}\r\n").as_bytes())
}

#[test]
fn the_host_is_read_in_one_spelling() {
    for (value, expected) in [
        ("a.example.org", "a.example.org"),
        ("A.Example.ORG", "a.example.org"),
        ("a.example.org.", "a.example.org"),
        ("a.example.org:8080", "a.example.org"),
        ("a.example.org.:8080", "a.example.org"),
        ("a.example.org:", "a.example.org"),
        ("  my_host \t", "my_host"),
        ("203.0.113.9:80", "203.0.113.9"),
        ("[2001:DB8:0::1]", "2001:db8::1"),
        ("[2001:db8::1]:8080", "2001:db8::1"),
    ] {
        assert_eq!(get(&format!("Host: {value}\r\n")), name(expected), "{value:?}");
        assert_eq!(get(&format!("A: b\r\nhOST:{value}\r\nC: d\r\n")), name(expected), "{value:?}");
    }
}

#[test]
fn a_request_without_a_host_is_nameless() {
    for lines in ["", "A: b\r\n", "Host:\r\n", "Host: \r\n", "X-Host: a.example.org\r\n", "Host: :80\r\n"] {
        assert_eq!(get(lines), Verdict::Nameless, "{lines:?}");
    }
    assert_eq!(verdict(b"GET / HTTP/1.0\r\n\r\n"), Verdict::Nameless);
    assert_eq!(get("Host: m\u{fc}nchen.example\r\n"), Verdict::Nameless, "no name in the table is so");
    assert_eq!(get("Host: a..example.org\r\n"), Verdict::Nameless);
}

#[test]
fn a_host_that_two_readers_could_read_in_two_ways_is_invalid() {
    for lines in [
        "Host: a.example\r\nHost: b.example\r\n",
        "Host: a.example\r\nHost: a.example\r\n",
        "Host: a.example\r\nX: y\r\nhost:\r\n",
        "Host: a.example, b.example\r\n",
        "Host: a.example b.example\r\n",
        "Host: user@a.example\r\n",
        "Host: a.example:80:80\r\n",
        "Host: a.example:http\r\n",
        "Host: a.example/b\r\n",
        "Host: [::1\r\n",
        "Host: [::1]x\r\n",
        "Host: [a.example]\r\n",
        "Host: ::1\r\n",
        "Host : a.example\r\n",
        "Host: a.example\r\n b.example\r\n",
        "X: y\r\n\tHost: b.example\r\nHost: a.example\r\n",
        " Host: b.example\r\nHost: a.example\r\n",
        "Host: a.example\0\r\n",
        "Host: a.example\rHost: b.example\r\n",
        "no colon\r\nHost: a.example\r\n",
    ] {
        assert_eq!(get(lines), Verdict::Invalid, "{lines:?}");
    }
}

#[test]
fn the_authority_of_the_target_is_stronger_than_the_header() {
    for (line, expected) in [
        ("GET http://A.example/x HTTP/1.1", name("a.example")),
        ("GET http://a.example:8080 HTTP/1.1", name("a.example")),
        ("GET HTTP://[2001:db8::1]:80?q HTTP/1.1", name("2001:db8::1")),
        ("GET http://a.example#x HTTP/1.1", name("a.example")),
        ("CONNECT a.example:443 HTTP/1.1", name("a.example")),
        ("OPTIONS * HTTP/1.1", name("b.example")),
        ("GET /http://a.example/ HTTP/1.1", name("b.example")),
        ("GET http:///x HTTP/1.1", Verdict::Nameless),
        ("GET http://user@a.example/ HTTP/1.1", Verdict::Invalid),
        ("GET a.example HTTP/1.1", Verdict::Invalid),
        ("GET http:/a.example/ HTTP/1.1", Verdict::Invalid),
        ("GET /ht:tp://a.example/ HTTP/1.1", name("b.example")),
        ("GET x/y://a.example/ HTTP/1.1", Verdict::Invalid),
    ] {
        assert_eq!(verdict(format!("{line}\r\nHost: b.example\r\n\r\n").as_bytes()), expected, "{line:?}");
    }
}

#[test]
fn only_the_first_request_counts() {
    let one = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\n";
    assert_eq!(verdict(one.as_bytes()), name("a.example"));
    assert_eq!(
        verdict(format!("{one}xxGET / HTTP/1.1\r\nHost: b.example\r\n\r\n").as_bytes()),
        name("a.example")
    );
    assert_eq!(verdict(b"\r\n\r\nGET / HTTP/1.1\nHost: a.example\n\n"), name("a.example"));
}

#[test]
fn the_head_must_end() {
    let head = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
    for cut in 0..head.len() {
        assert_eq!(verdict(&head[..cut]), Verdict::More, "{cut}");
    }
    let long = format!("GET / HTTP/1.1\r\nHost: a.example\r\nX: {}", "x".repeat(LIMIT));
    assert_eq!(verdict(&long.as_bytes()[..LIMIT - 1]), Verdict::More);
    assert_eq!(verdict(&long.as_bytes()[..LIMIT]), Verdict::Invalid);
    let many = "A: b\r\n".repeat(200);
    assert_eq!(get(&many), Verdict::Invalid);
}

#[test]
fn another_protocol_is_told_by_its_first_bytes() {
    for bytes in [
        &b"\x16\x03"[..],
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"HELO a\r\n",
        b"GET /\r\n",
        b"GET / HTTP/2.0\r\n",
        b"OPTIONS rtsp://a.example RTSP/1.0\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX",
        b"\0",
        b" GET",
        &[b'A'; 40],
    ] {
        let verdict = verdict(bytes);
        assert!(matches!(verdict, Verdict::Foreign), "{bytes:?}: {verdict:?}");
    }
}

/// Parts of HTTP/2, as clients make them.
mod two {
    pub(super) fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
        let length = (content.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
    }

    pub(super) fn start() -> Vec<u8> {
        [super::PREFACE, &frame(4, 0, 0, &[0, 3, 0, 0, 0, 100]), &frame(8, 0, 0, &[0, 1, 0, 0])].concat()
    }

    /// A request with this header block, in one frame.
    pub(super) fn request(block: &[u8]) -> Vec<u8> {
        [start(), frame(1, 5, 1, block)].concat()
    }

    /// `:method: GET`, `:scheme: http`, `:path: /`
    pub(super) const PLAIN: &[u8] = &[0x82, 0x86, 0x84];
}

#[test]
fn http2_says_the_name_in_the_authority() {
    // RFC 7541, appendix C.3.1 and C.4.1: as it is, and in the code of Huffman.
    let plain = b"\x82\x86\x84\x41\x0fwww.example.com";
    let coded = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
    for block in [&plain[..], coded] {
        assert_eq!(verdict(&two::request(block)), name("www.example.com"));
    }
    let rest = |rest: &[u8]| verdict(&two::request(&[two::PLAIN, rest].concat()));
    assert_eq!(rest(b"\x01\x09A.Example"), name("a.example"), "without indexing");
    assert_eq!(rest(b"\x11\x0ba.example:8"), name("a.example"), "never indexed");
    assert_eq!(rest(b"\x40\x0a:authority\x09a.example"), name("a.example"), "with the name in full");
    assert_eq!(rest(b"\x66\x09a.example"), name("a.example"), "in the field host");
    assert_eq!(rest(b"\x41\x09a.example\x66\x09a.example"), name("a.example"), "in both");
    assert_eq!(rest(b"\x3f\xe1\x1f\x41\x09a.example"), name("a.example"), "after a change of the table");
    assert_eq!(
        rest(b"\x40\x01x\x01y\x40\x01z\x01y\xbe\xbf\x0f\x2f\x01y\x41\x09a.example"),
        name("a.example")
    );
    assert_eq!(rest(b""), Verdict::Nameless);
    assert_eq!(rest(b"\x81"), Verdict::Nameless, "an empty authority");
    assert_eq!(rest(b"\x40\x81\xff"), Verdict::Invalid);
}

#[test]
fn a_malformed_block_is_invalid() {
    for block in [
        &b"\x41\x09a.example\x41\x09b.example"[..],
        b"\x41\x09a.example\xbe",
        b"\x41\x09a.example\x7e\x09b.example",
        b"\x41\x09a.example\x66\x09b.example",
        b"\x80",
        b"\xbe",
        b"\xff\xff\xff\xff\xff\x01",
        b"\x41\x0aa.example",
        b"\x41",
        b"\x41\x7f",
        b"\x41\x81\x00",
        b"\x41\x84\xff\xff\xff\xff",
        b"\x3f\xe2\x1f",
        b"\x01\x09a example",
    ] {
        let bytes = two::request(&[two::PLAIN, block].concat());
        assert_eq!(verdict(&bytes), Verdict::Invalid, "{block:x?}");
    }
}

#[test]
fn a_block_may_come_in_parts() {
    let block = b"\x82\x86\x84\x41\x0fwww.example.com";
    let expected = name("www.example.com");
    let padded = [&[3, 0x80, 0, 0, 0, 15][..], block, &[0; 3]].concat();
    let parts = |at: usize| {
        let (a, b) = block.split_at(at);
        [two::start(), two::frame(1, 0, 3, a), two::frame(9, 0, 3, b), two::frame(9, 4, 3, b"")].concat()
    };
    assert_eq!(verdict(&[two::start(), two::frame(1, 0x2d, 1, &padded)].concat()), expected);
    for at in 0..block.len() {
        assert_eq!(verdict(&parts(at)), expected, "{at}");
    }
    let others = [two::frame(4, 1, 0, b""), two::frame(6, 0, 0, &[0; 8]), two::frame(0xee, 0, 9, b"grease")];
    assert_eq!(verdict(&[two::start(), others.concat(), two::frame(1, 4, 1, block)].concat()), expected);
}

#[test]
fn frames_out_of_order_are_invalid() {
    let block = b"\x82\x86\x84\x41\x0fwww.example.com";
    let after = |frames: &[Vec<u8>]| verdict(&[two::start(), frames.concat()].concat());
    for frames in [
        vec![two::frame(0, 0, 1, b"data")],
        vec![two::frame(9, 4, 1, block)],
        vec![two::frame(5, 4, 1, block)],
        vec![two::frame(1, 4, 0, block)],
        vec![two::frame(1, 4, 2, block)],
        vec![two::frame(1, 0, 1, block), two::frame(4, 0, 0, b"")],
        vec![two::frame(1, 0, 1, block), two::frame(9, 4, 3, b"")],
        vec![two::frame(1, 0xc, 1, b"\x05abc")],
        vec![two::frame(1, 0x24, 1, b"abcd")],
    ] {
        assert_eq!(after(&frames), Verdict::Invalid, "{frames:x?}");
    }
    assert_eq!(verdict(&[PREFACE, &two::frame(1, 4, 1, block)].concat()), Verdict::Invalid, "no settings");
    assert_eq!(verdict(&[PREFACE, b"\0\x40\x01\x04\0\0\0\0\0"].concat()), Verdict::Invalid, "too long");
    assert_eq!(verdict(&[PREFACE, b"\0\x3f\xff\x04\0\0\0\0\0"].concat()), Verdict::More);
}

#[test]
fn a_client_that_waits_for_the_settings_is_nameless_in_the_end() {
    let mut reader = AnyReader::new(Match::HttpHost);
    assert_eq!(reader.read(&two::start()), Verdict::More);
    assert_eq!(reader.finish(&two::start()), Verdict::Nameless);
    assert_eq!(reader.spoken(), Some(Spoken::Http2 { stream: None }));
    assert_eq!(AnyReader::new(Match::HttpHost).finish(PREFACE), Verdict::More);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_head_is_read_alike_in_steps_and_at_once(
        parts in proptest::collection::vec(prop_oneof![
            "(GET|POST|CONNECT|PRI|x) (/|\\*|http://[a-c.:@]{0,9}/?|[ -~]{0,9}) HTTP/1.[012]\r?\n",
            "[hH]ost ?: ?[a-cA-C.:@\\[\\] ,]{0,12}\r?\n",
            "[A-Za-z-]{1,8}:[ -~]{0,12}\r\n",
            "\r?\n",
            "[\\x00-\\xff]{0,4}",
        ], 0..7),
    ) {
        claims::http(parts.concat().as_bytes());
    }

    #[test]
    fn any_frames_are_read_alike_in_steps_and_at_once(
        frames in proptest::collection::vec((0..10_u8, any::<u8>(), 0..4_u32, block()), 0..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let frames = frames.into_iter().map(|(kind, flags, stream, block)| two::frame(kind, flags, stream, &block));
        let bytes = [two::start(), frames.flatten().collect()].concat();
        claims::http(&bytes[..cut.index(bytes.len() + 1)]);
    }
}

/// A header block, or something like it.
fn block() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just(b"\x82\x86\x84".to_vec()),
        Just(b"\x41\x09a.example".to_vec()),
        Just(b"\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff".to_vec()),
        Just(b"\x66\x09b.example".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..6),
    ];
    proptest::collection::vec(part, 0..4).prop_map(|parts| parts.concat())
}

#[test]
fn the_examples_of_the_rfc_are_decoded() {
    // RFC 7541, appendix C.4 and C.6.
    for (coded, text) in [
        ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
        ("a8eb10649cbf", "no-cache"),
        ("25a849e95ba97d7f", "custom-key"),
        ("25a849e95bb8e8b4bf", "custom-value"),
        ("6402", "302"),
        ("640eff", "307"),
        ("aec3771a4b", "private"),
        ("d07abe941054d444a8200595040b8166e082a62d1bff", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("9d29ad171863c78f0b97c8e9ae82ae43d3", "https://www.example.com"),
        (
            "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
            "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
        ),
    ] {
        let pair = |at| u8::from_str_radix(&coded[at..at + 2], 16).unwrap();
        let coded: Vec<u8> = (0..coded.len()).step_by(2).map(pair).collect();
        let mut buffer = [0; 64];
        let length = huffman::decode(&coded, &mut buffer).unwrap();
        assert_eq!(str::from_utf8(&buffer[..length]), Ok(text));
        assert_eq!(huffman::decode(&coded, &mut buffer[..text.len() - 1]), None, "no room");
    }
    for bad in [&[0xff, 0xff, 0xff, 0xff][..], &[0x1f, 0xff], &[0x00], &[0xfe]] {
        assert_eq!(huffman::decode(bad, &mut [0; 64]), None, "{bad:x?}");
    }
}
