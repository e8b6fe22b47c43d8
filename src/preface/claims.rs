//! What must hold for any bytes: the claims of the property tests, and of the fuzz targets.
#![allow(unreachable_pub, reason = "the fuzz targets are outside of the library")]
#![allow(clippy::missing_panics_doc, reason = "a claim that does not hold panics, and that is its use")]

use proxy_header::{ParseConfig, ProxyHeader};
use rustls::server::Acceptor;

use super::{
    LIMIT, Match, Reader, Spoken, Verdict,
    minecraft::{Greeting, Notice, StandIn, Turn},
    proxy::{self, Outgoing, Received, SendProxy},
};
use crate::mapping::Protocol;

/// The most places at which bytes are cut.
const MOST_CUTS: usize = 512;

/// Lengths of the start of something with so many bytes: all, or of a long one many.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    (0..=length).step_by(length / MOST_CUTS + 1).chain([length])
}

/// What a client speaks, and says of itself.
type Said = (Verdict, Option<Spoken>, Option<Greeting>);

fn said(reader: &Reader, verdict: Verdict) -> Said {
    match verdict {
        Verdict::More | Verdict::Foreign => (verdict, None, None),
        _ => (verdict, reader.spoken(), reader.greeting().cloned()),
    }
}

/// The name of a ClientHello, as rustls finds it in the bytes as they are.
pub fn tls(bytes: &[u8]) {
    let verdict = verdict(Match::TlsSni, bytes);
    let mut rest = &bytes[..bytes.len().min(LIMIT)];
    let mut acceptor = Acceptor::default();
    let accepted = loop {
        if rest.is_empty() || acceptor.read_tls(&mut rest).is_err() {
            break None;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => break Some(accepted),
            Ok(None) => {}
            Err(_) => break None,
        }
    };
    let found = accepted.and_then(|accepted| accepted.client_hello().server_name().map(str::to_owned));
    match &verdict {
        Verdict::Name(name) => assert_eq!(found.as_deref(), Some(&**name)),
        _ => assert!(found.is_none() || !is_tls(bytes), "{verdict:?}, and rustls found {found:?}"),
    }
}

/// Whether no record says another version: rustls takes those of DTLS too, which no stream has.
fn is_tls(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some((&[_, major, _, high, low], after)) = rest.split_first_chunk() {
        if major != 3 {
            return false;
        }
        rest = after.get(usize::from(u16::from_be_bytes([high, low]))..).unwrap_or_default();
    }
    true
}

/// An HTTP request.
pub fn http(bytes: &[u8]) {
    verdict(Match::HttpHost, bytes);
    verdict(Match::Auto, bytes);
}

/// A Minecraft client, and one that is answered in place of its server.
pub fn minecraft(bytes: &[u8]) {
    verdict(Match::Minecraft, bytes);
    let mut reader = Reader::new(Match::Minecraft);
    reader.finish(bytes);
    let Some(greeting) = reader.greeting() else { return };
    let notice = Notice { motd: "§casleep", players: (0, 20), farewell: "later" };
    let mut stand_in = StandIn::new(greeting.clone());
    let whole = stand_in.hear(bytes, &notice);
    let mut stand_in = StandIn::new(greeting.clone());
    let mut steps = Turn::default();
    for cut in cuts(bytes.len()) {
        let turn = stand_in.hear(&bytes[..cut], &notice);
        steps.answer.extend(turn.answer);
        steps.is_over = turn.is_over;
        if steps.is_over {
            break;
        }
    }
    assert_eq!(steps, whole, "in steps and at once");
    assert!(whole.answer.len() < 4096, "{}", whole.answer.len());
}

/// A PROXY header: the verdict stays, and what a header says survives being sent on.
pub fn proxy(bytes: &[u8]) {
    let whole = proxy::read(bytes);
    let mut is_decided = false;
    for cut in cuts(bytes.len()) {
        let verdict = proxy::read(&bytes[..cut]);
        is_decided |= verdict != Received::More;
        assert!(!is_decided || verdict == whole, "{verdict:?} after {cut} bytes, and {whole:?}");
    }
    assert!(bytes.len() < LIMIT || whole != Received::More, "nothing after {LIMIT} bytes");
    let Received::Header(header) = whole else { return };
    let (_, length) = ProxyHeader::parse(bytes, ParseConfig::default()).expect("a header for others too");
    assert_eq!(length, header.length);
    let Some(addresses) = header.addresses else { return };
    let outgoing = Outgoing {
        protocol: Protocol::Tcp,
        addresses,
        id: b"1",
        authority: Some("example.org"),
        received: Some(&header),
    };
    for form in [SendProxy::V1, SendProxy::V2] {
        let bytes = outgoing.encode(form);
        if bytes.len() > LIMIT {
            continue;
        }
        let Received::Header(again) = proxy::read(&bytes) else { panic!("{bytes:?} is no header") };
        assert_eq!((again.addresses, again.length), (header.addresses, bytes.len()));
        if form == SendProxy::V2 {
            assert!(again.extras.ends_with(&header.extras));
            assert_eq!(again.has_sum, header.has_sum);
        }
    }
}

/// The verdict does not depend on how the bytes were cut, and comes after [`LIMIT`] bytes at last.
fn verdict(by: Match, bytes: &[u8]) -> Verdict {
    let mut reader = Reader::new(by);
    let verdict = reader.read(bytes);
    let whole = said(&reader, verdict);
    let mut reader = Reader::new(by);
    let mut steps = cuts(bytes.len()).map(|cut| reader.read(&bytes[..cut]));
    let verdict = steps.find(|verdict| *verdict != Verdict::More).unwrap_or(Verdict::More);
    assert_eq!(said(&reader, verdict), whole, "in steps and at once");
    assert!(bytes.len() < LIMIT || whole.0 != Verdict::More, "nothing after {LIMIT} bytes");
    if let Verdict::Name(name) = &whole.0 {
        assert!((1..=253).contains(&name.len()) && !name.bytes().any(|c| c.is_ascii_uppercase()), "{name}");
    }
    match (Reader::new(by).finish(bytes), &whole.0) {
        (_, Verdict::More) => {}
        (finished, verdict) => assert_eq!(finished, *verdict, "at the end"),
    }
    whole.0
}
