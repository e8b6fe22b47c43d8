use proptest::prelude::*;

use super::{greeting::Next, *};
use crate::preface::{Match, Reader as AnyReader, claims};

/// What a client sends.
mod client {
    use super::super::packet;

    pub(super) fn number(mut value: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value > 0x7f {
            bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    pub(super) fn text(text: &[u8]) -> Vec<u8> {
        [&number(text.len() as u32), text].concat()
    }

    pub(super) fn handshake(address: &str, next: u32) -> Vec<u8> {
        packet::with(0, &[&number(767), &text(address.as_bytes()), &25565_u16.to_be_bytes(), &number(next)])
    }

    pub(super) fn utf16(text: &str) -> Vec<u8> {
        let units: Vec<u16> = text.encode_utf16().collect();
        let length = (units.len() as u16).to_be_bytes();
        [length.to_vec(), units.into_iter().flat_map(u16::to_be_bytes).collect()].concat()
    }

    /// A ping of 1.6.
    pub(super) fn ping_of_1_6(address: &str) -> Vec<u8> {
        let content = [&[78], &utf16(address)[..], &25565_u32.to_be_bytes()].concat();
        let length = (content.len() as u16).to_be_bytes();
        [&b"\xfe\x01\xfa"[..], &utf16("MC|PingHost"), &length, &content].concat()
    }
}

fn read(bytes: &[u8]) -> (Verdict, Option<Greeting>) {
    claims::minecraft(bytes);
    let mut reader = AnyReader::new(Match::Minecraft);
    (reader.read(bytes), reader.greeting().cloned())
}

fn finish(bytes: &[u8]) -> (Verdict, Option<Greeting>) {
    let mut reader = AnyReader::new(Match::Minecraft);
    (reader.finish(bytes), reader.greeting().cloned())
}

fn name(name: &str) -> Verdict {
    Verdict::Name(name.into())
}

const NOTICE: Notice<'_> = Notice { motd: "asleep \"now\"", players: (3, 20), farewell: "come later" };

/// A stand-in for a client with this greeting.
fn stand_in(greeting: &[u8]) -> StandIn {
    StandIn::new(finish(greeting).1.unwrap())
}

/// A packet with a text as JSON.
fn json(packet: &[u8]) -> serde_json::Value {
    let mut rest = packet;
    let mut content = packet::frame(&mut rest, 1 << 15).unwrap().unwrap();
    assert_eq!(rest, b"");
    assert_eq!(packet::bytes(&mut content, 1), Ok(&[0][..]));
    let text = packet::text(&mut content).unwrap();
    assert_eq!(content, b"");
    serde_json::from_slice(text).unwrap()
}

/// The text of a kick.
fn kicked(packet: &[u8]) -> String {
    let (head, units) = packet.split_at(3);
    let units: Vec<u16> = units.as_chunks().0.iter().map(|unit| u16::from_be_bytes(*unit)).collect();
    assert_eq!(head, [&[0xff][..], &(units.len() as u16).to_be_bytes()].concat());
    String::from_utf16(&units).unwrap()
}

#[test]
fn the_name_is_read_without_what_is_added_to_it() {
    for (address, expected) in [
        ("mc.example.org", "mc.example.org"),
        ("MC.Example.org", "mc.example.org"),
        ("mc.example.org.", "mc.example.org"),
        ("mc.example.org\0FML\0", "mc.example.org"),
        ("mc.example.org.\0FML2\0", "mc.example.org"),
        ("mc.example.org\0FML3\0", "mc.example.org"),
        ("mc.example.org\x00203.0.113.9\x0069359037-9599-48e7-b8f2-48393c019135\0[]", "mc.example.org"),
        ("mc.example.org///203.0.113.9:50312///1700000000", "mc.example.org"),
        ("_minecraft._tcp.mc.example.org", "mc.example.org"),
        ("203.0.113.9", "203.0.113.9"),
        ("localhost", "localhost"),
    ] {
        assert_eq!(read(&client::handshake(address, 2)).0, name(expected), "{address:?}");
    }
    for address in ["", "\0FML\0", "a b", "\u{e9}.example", "a..b"] {
        assert_eq!(read(&client::handshake(address, 2)).0, Verdict::Nameless, "{address:?}");
    }
}

#[test]
fn the_handshake_says_what_comes_next() {
    for (next, expected) in [(1, Next::Status), (2, Next::Login), (3, Next::Transfer)] {
        let bytes = client::handshake("a.example", next);
        let length = bytes.len();
        let more = [bytes, client::number(1), vec![0]].concat();
        let greeting = Greeting::Handshake { protocol: 767, next: expected, length };
        assert_eq!(greeting.is_ping(), next == 1);
        assert_eq!(read(&more), (name("a.example"), Some(greeting)));
    }
    assert_eq!(read(&client::handshake("a.example", 4)).0, Verdict::Foreign);
    assert_eq!(read(&client::handshake("a.example", 0)).0, Verdict::Foreign);
}

#[test]
fn a_handshake_of_254_bytes_is_no_old_ping() {
    let around = client::handshake("", 2).len() - 1;
    let address = format!("a.example\0{}", "x".repeat(254 - around - 1 - "a.example\0".len()));
    let bytes = client::handshake(&address, 2);
    assert_eq!(bytes[..3], [0xfe, 1, 0]);
    assert_eq!(read(&bytes).0, name("a.example"));
    assert_eq!(read(&bytes[..2]).0, Verdict::More);
}

#[test]
fn what_is_no_handshake_is_told_at_once() {
    for bytes in [
        &b"GE"[..],
        b"SSH-2.0-x",
        b"\x16\x03",
        b"\0",
        b"\x10\x01",
        // A packet of 2 MiB, of 16 KiB, and one whose length has no end.
        b"\xff\xff\x7f",
        b"\x80\x80\x01",
        b"\xff\xff\xff",
        // A text that is longer than its packet.
        b"\x06\0\x01\x7fabc",
        // A text of a negative length.
        b"\x09\0\x01\xff\xff\xff\xff\x0fab",
        b"\xfe\x01\x7f",
        b"\xfe\x01\xfa\0\x04",
        b"\xfe\x01\xfa\0\x0b\0M\0C\0|\0B\0r\0a\0n\0d\0x\0y\0z\0",
        b"\x02\x49\0\x11",
    ] {
        assert_eq!(read(bytes).0, Verdict::Foreign, "{bytes:x?}");
    }
    for bytes in [&b""[..], b"\x10", b"\x10\0", b"\xff\xff", b"\xfe", b"\xfe\x01", b"\xfe\x01\xfa", b"\x02"] {
        assert_eq!(read(bytes).0, Verdict::More, "{bytes:x?}");
    }
    let trailing = packet::with(0, &[&client::number(767), &client::text(b"a"), &[0, 80], &[1, 7]]);
    assert_eq!(read(&trailing).0, Verdict::Foreign);
}

#[test]
fn old_pings_are_read() {
    let versioned = Greeting::LegacyPing { protocol: Some(78), is_versioned: true };
    assert!(versioned.is_ping());
    assert_eq!(read(&client::ping_of_1_6("MC.example.org")), (name("mc.example.org"), Some(versioned)));
    let unsaid = |is_versioned| Greeting::LegacyPing { protocol: None, is_versioned };
    assert_eq!(finish(b"\xfe\x01"), (Verdict::Nameless, Some(unsaid(true))));
    assert_eq!(finish(b"\xfe"), (Verdict::Nameless, Some(unsaid(false))));
    let cut = &client::ping_of_1_6("a.example")[..40];
    for started in [&b"\xfe\x01\xfa"[..], cut] {
        assert_eq!(finish(started), (Verdict::Nameless, Some(unsaid(true))));
    }
    assert_eq!(finish(&client::handshake("a.example", 1)[..5]), (Verdict::More, None));
    assert_eq!(finish(b""), (Verdict::More, None));
}

#[test]
fn old_joins_are_read() {
    let joined = |player: &str| Some(Greeting::LegacyJoin { player: player.into() });
    let address = [client::utf16("Alex"), client::utf16("mc.example.org"), 25565_u32.to_be_bytes().to_vec()];
    let of_1_6 = [vec![2, 78], address.concat()].concat();
    assert_eq!(read(&of_1_6), (name("mc.example.org"), joined("Alex")));
    let of_1_2 = [vec![2], client::utf16("Alex;mc.example.org:25565")].concat();
    assert_eq!(read(&of_1_2), (name("mc.example.org"), joined("Alex")));
    let of_beta = [vec![2], client::utf16("Alex")].concat();
    assert_eq!(read(&of_beta), (Verdict::Nameless, joined("Alex")));
    assert!(!joined("Alex").unwrap().is_ping());
    let turn = stand_in(&of_1_6).hear(&of_1_6, &NOTICE);
    assert_eq!((kicked(&turn.answer).as_str(), turn.is_over), ("come later", true));
    assert_eq!(stand_in(&of_1_6).player(), Some("Alex"));
}

#[test]
fn a_status_says_the_version_of_the_client_and_the_notice() {
    let mut bytes = client::handshake("a.example", 1);
    let mut stand_in = stand_in(&bytes);
    assert_eq!(stand_in.hear(&bytes, &NOTICE), Turn::default());
    bytes.extend([1, 0]);
    let turn = stand_in.hear(&bytes, &NOTICE);
    assert!(!turn.is_over);
    let status = json(&turn.answer);
    assert_eq!(status["version"]["protocol"], 767);
    assert_eq!(status["players"], serde_json::json!({ "online": 3, "max": 20 }));
    assert_eq!(status["description"]["text"], "asleep \"now\"");
    let ping = [9, 1, 1, 2, 3, 4, 5, 6, 7, 8];
    bytes.extend(ping);
    assert_eq!(stand_in.hear(&bytes, &NOTICE), Turn { answer: ping.to_vec(), is_over: true });
}

#[test]
fn a_status_is_said_once() {
    let bytes = [client::handshake("a.example", 1), [1, 0].repeat(5000)].concat();
    let turn = stand_in(&bytes).hear(&bytes, &NOTICE);
    assert!(turn.is_over && turn.answer.len() < 300);
    let bytes = [client::handshake("a.example", 1), vec![0xff, 0xff, 0x7f]].concat();
    assert_eq!(stand_in(&bytes).hear(&bytes, &NOTICE), Turn { answer: vec![], is_over: true });
}

#[test]
fn a_player_is_turned_away_after_its_name() {
    for next in [2, 3] {
        let mut bytes = client::handshake("a.example", next);
        let mut stand_in = stand_in(&bytes);
        assert_eq!(stand_in.hear(&bytes, &NOTICE), Turn::default());
        bytes.extend(packet::with(0, &[&client::text(b"Alex"), &[0; 16]]));
        let turn = stand_in.hear(&bytes, &NOTICE);
        assert!(turn.is_over);
        assert_eq!(json(&turn.answer), serde_json::json!({ "text": "come later" }));
        assert_eq!(stand_in.player(), Some("Alex"));
    }
}

#[test]
fn an_old_ping_is_answered_in_its_form() {
    let answer = |bytes: &[u8]| {
        let turn = stand_in(bytes).hear(bytes, &Notice { motd: "§easleep", ..NOTICE });
        assert!(turn.is_over);
        kicked(&turn.answer)
    };
    assert_eq!(answer(&client::ping_of_1_6("a.example")), "§1\x0078\0any\0§easleep\x003\x0020");
    assert_eq!(answer(b"\xfe\x01"), "§1\x0061\0any\0§easleep\x003\x0020");
    assert_eq!(answer(b"\xfe"), "easleep§3§20");
}

#[test]
fn a_long_text_of_a_kick_is_cut_between_characters() {
    let join = [vec![2], client::utf16("Alex")].concat();
    let farewell = "x".to_owned() + &"\u{1f634}".repeat(300);
    let turn = stand_in(&join).hear(&join, &Notice { farewell: &farewell, ..NOTICE });
    assert_eq!(kicked(&turn.answer), "x".to_owned() + &"\u{1f634}".repeat(119));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_bytes_are_read_alike_in_steps_and_at_once(
        address in "[a-c.\\x00/]{0,300}",
        next in 0..5_u32,
        kind in 0..5,
        after in proptest::collection::vec(any::<u8>(), 0..20),
        flip in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let start = match kind {
            0 => client::handshake(&address, next),
            1 => client::ping_of_1_6(&address),
            2 => [vec![2, 78], client::utf16("Alex"), client::utf16(&address)].concat(),
            3 => [vec![2], client::utf16(&address)].concat(),
            _ => vec![],
        };
        let mut bytes = [start, after].concat();
        if let Some((at, byte)) = flip && !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        claims::minecraft(&bytes);
    }
}
