use super::*;
use crate::preface::tls::tests::hello;

fn read(by: Match, bytes: &[u8]) -> (Verdict, Option<Spoken>) {
    let mut reader = Reader::new(by);
    (reader.read(bytes), reader.spoken())
}

#[test]
fn auto_takes_tls_and_http() {
    let name = |name: &str| Verdict::Name(name.into());
    let request = b"GET / HTTP/1.1\r\nHost: b.example.org\r\n\r\n";
    assert_eq!(read(Match::Auto, &hello::usual("a.example.org")), (name("a.example.org"), Some(Spoken::Tls)));
    assert_eq!(read(Match::Auto, request), (name("b.example.org"), Some(Spoken::Http1)));
    assert_eq!(read(Match::Auto, b"SSH-2.0-OpenSSH_9.9\r\n").0, Verdict::Foreign);
    assert_eq!(read(Match::Auto, b""), (Verdict::More, None));
    assert_eq!(Reader::new(Match::Auto).finish(b""), Verdict::More);
}

#[test]
fn what_comes_after_the_limit_is_not_read() {
    let late = |bytes: &str| {
        let filler = format!("GET / HTTP/1.1\r\nX: {}\r\n", "x".repeat(LIMIT));
        read(Match::HttpHost, (filler + bytes).as_bytes()).0
    };
    assert_eq!(late("Host: a.example.org\r\n\r\n"), Verdict::Invalid);
}
