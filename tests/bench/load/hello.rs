//! The first message of a TLS client, for relays that route by the name in it.

/// The name in it.
pub(crate) const NAME: &str = "bench.example.org";
/// The length that browsers gave theirs for years.
const LENGTH: usize = 517;

/// A ClientHello of TLS 1.3 with a server name, in one record (RFC 8446, section 4.1.2).
pub(crate) fn client_hello() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(32);
    body.extend([9; 32]);
    // Cipher suites, and no compression.
    body.extend([0, 6, 0x13, 1, 0x13, 2, 0x13, 3, 1, 0]);
    let mut extensions = Vec::new();
    let name = NAME.as_bytes();
    extension(&mut extensions, 0, &[&sized(&[&[0][..], &sized(name)].concat())[..]].concat());
    // Groups, signature algorithms, ALPN, versions, and a key share of X25519.
    extension(&mut extensions, 10, &[0, 4, 0, 29, 0, 23]);
    extension(&mut extensions, 13, &[0, 6, 4, 3, 8, 4, 4, 1]);
    extension(&mut extensions, 16, b"\0\x0c\x02h2\x08http/1.1");
    extension(&mut extensions, 43, &[2, 3, 4]);
    extension(&mut extensions, 51, &sized(&[&[0, 29][..], &sized(&[5; 32])].concat()));
    // Padding (RFC 7685) up to the length: record, handshake and extensions have 5, 4 and 2 bytes, this one 4.
    let padding = LENGTH - (5 + 4 + body.len() + 2 + extensions.len() + 4);
    extension(&mut extensions, 21, &vec![0; padding]);
    body.extend(sized(&extensions));
    let mut handshake = vec![1, 0];
    handshake.extend(sized(&body));
    let mut record = vec![22, 3, 1];
    record.extend(sized(&handshake));
    record
}

fn extension(all: &mut Vec<u8>, kind: u8, value: &[u8]) {
    all.extend([0, kind]);
    all.extend(sized(value));
}

/// A value behind its length in two bytes.
fn sized(value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], value].concat()
}
