//! What it costs to read the name that a client wants, to look it up, and to say who the client is.
//!
//! `cargo bench --bench preface`

#![allow(clippy::missing_docs_in_private_items, reason = "the macros of criterion make functions")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use portway::testing::preface::{Hosts, dribble, name, proxy};

/// A hello of OpenSSL 3, and a request.
const HELLO: &[u8] = include_bytes!("../fuzz/seeds/tls/openssl-1.3");
const REQUEST: &[u8] = b"GET /index.html HTTP/1.1\r\nHost: a.example.org\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; \
    rv:140.0) Gecko/20100101 Firefox/140.0\r\nAccept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.5\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n\r\n";

fn names(c: &mut Criterion) {
    for (what, bytes) in [("a TLS hello", HELLO), ("an HTTP request", REQUEST)] {
        assert_eq!(name(bytes).as_deref(), Some("a.example.org"));
        c.bench_function(&format!("the name in {what}"), |b| b.iter(|| name(black_box(bytes))));
    }
    // A hello of two records, of which the second one never ends.
    let mut endless = HELLO.to_vec();
    endless[..9].copy_from_slice(&[22, 3, 1, HELLO[3], HELLO[4], 1, 0, 0x3f, 0]);
    endless.extend([22, 3, 1, 0x40, 0]);
    endless.resize(16 << 10, 7);
    c.bench_function("16 KiB of TLS, byte after byte", |b| b.iter(|| dribble(black_box(&endless))));
    let mut endless = b"GET / HTTP/1.1\r\n".to_vec();
    while endless.len() < 16 << 10 {
        endless.extend_from_slice(b"a:b\r\n");
    }
    c.bench_function("16 KiB of HTTP, byte after byte", |b| b.iter(|| dribble(black_box(&endless))));
}

fn hosts(c: &mut Criterion) {
    let mut hosts = Hosts::default();
    (0..9_000).for_each(|n| hosts.insert(&format!("host-{n}.customer-{}.example.org", n % 97)));
    (0..1_000).for_each(|n| hosts.insert(&format!("*.site-{n}.example.net")));
    let exact: Vec<_> = (0..1024).map(|n| format!("host-{n}.customer-{}.example.org", n % 97)).collect();
    let wild: Vec<_> = (0..1024).map(|n| format!("a.b.c.site-{}.example.net", n % 1000)).collect();
    let absent: Vec<_> = (0..1024).map(|n| format!("{n}.some.other.example.com")).collect();
    for (what, names, is_there) in
        [("exact", exact, true), ("by wildcard", wild, true), ("absent", absent, false)]
    {
        let mut names = names.iter().cycle();
        c.bench_function(&format!("look up one of 10,000 names, {what}"), |b| {
            b.iter(|| assert_eq!(hosts.get(names.next().expect("it goes round")).is_some(), is_there));
        });
    }
}

fn headers(c: &mut Criterion) {
    let (source, destination) = ("[2001:db8::9]:50312", "[2001:db8::1]:443");
    let (source, destination) =
        (source.parse().expect("an address"), destination.parse().expect("an address"));
    c.bench_function("a PROXY header of version 2", |b| {
        b.iter(|| proxy(black_box(source), destination, b"4711", "a.example.org"));
    });
}

criterion_group!(benches, names, hosts, headers);
criterion_main!(benches);
