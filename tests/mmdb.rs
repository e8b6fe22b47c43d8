//! Small databases in MaxMind's format, for tests: <https://maxmind.github.io/MaxMind-DB/>.
//!
//! A search tree over the bits of IPv6 addresses (IPv4 addresses are at `::a.b.c.d`), 24-bit
//! records, sixteen zero bytes, the data section, the marker, the metadata. Uses nothing of the
//! crate: unit and integration tests take this file in by its path.

use std::net::{IpAddr, Ipv6Addr};

/// A database that has each network in the country of its code.
pub(crate) fn database(networks: &[(&str, &str)]) -> Vec<u8> {
    let records: Vec<_> = networks.iter().map(|(net, code)| (*net, iso_code(code))).collect();
    with_records("GeoLite2-Country", &records)
}

/// A database of any kind: each network with its encoded record.
pub(crate) fn with_records(kind: &str, records: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut data = Vec::new();
    let mut tree = vec![[Record::Nothing; 2]];
    for (net, record) in records {
        let (bits, len) = position(net);
        insert(&mut tree, bits, len, data.len());
        data.extend_from_slice(record);
    }
    let nodes = tree.len();
    let mut file = Vec::new();
    for record in tree.into_iter().flatten() {
        let value = match record {
            Record::Nothing => nodes,
            Record::Node(node) => node,
            Record::Data(offset) => nodes + 16 + offset,
        };
        file.extend_from_slice(&u32::try_from(value).expect("a small database").to_be_bytes()[1..]);
    }
    file.extend_from_slice(&[0; 16]);
    file.extend_from_slice(&data);
    file.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
    file.extend_from_slice(&map(&[
        ("binary_format_major_version", &number(5, 2)),
        ("binary_format_minor_version", &number(5, 0)),
        ("build_epoch", &number(9, 1_700_000_000)),
        ("database_type", &text(kind)),
        ("description", &map(&[("en", &text("for tests"))])),
        ("ip_version", &number(5, 6)),
        ("languages", &[0x01, 0x04, 0x42, b'e', b'n']),
        ("node_count", &number(6, nodes)),
        ("record_size", &number(5, 24)),
    ]));
    file
}

/// A record as GeoLite2 and DB-IP have it.
pub(crate) fn iso_code(code: &str) -> Vec<u8> {
    map(&[("continent", &map(&[("code", &text("EU"))])), ("country", &map(&[("iso_code", &text(code))]))])
}

/// A record as the smallest database of IPinfo has it.
pub(crate) fn country_code(code: &str) -> Vec<u8> {
    map(&[("country", &text("A country")), ("country_code", &text(code))])
}

/// A record with the code in place of a country's name.
pub(crate) fn country_text(code: &str) -> Vec<u8> {
    map(&[("country", &text(code))])
}

/// A map of up to 28 fields with encoded values.
pub(crate) fn map(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut encoded = vec![0b1110_0000 | u8::try_from(fields.len()).expect("a small map")];
    for (key, value) in fields {
        encoded.extend_from_slice(&text(key));
        encoded.extend_from_slice(value);
    }
    encoded
}

fn text(text: &str) -> Vec<u8> {
    let len = u8::try_from(text.len()).expect("a short text");
    let head = if len < 29 { vec![0b0100_0000 | len] } else { vec![0b0101_1101, len - 29] };
    [&head, text.as_bytes()].concat()
}

/// A number of one of the types 5 (16 bits), 6 (32 bits) and 9 (64 bits).
fn number(kind: u8, value: usize) -> Vec<u8> {
    let bytes: Vec<u8> = value.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
    let len = u8::try_from(bytes.len()).expect("a number");
    let head = if kind < 8 { vec![kind << 5 | len] } else { vec![len, kind - 7] };
    [head, bytes].concat()
}

#[derive(Clone, Copy)]
enum Record {
    Nothing,
    Node(usize),
    Data(usize),
}

fn position(net: &str) -> (u128, u32) {
    let (ip, len) = net.split_once('/').expect("a network");
    let len: u32 = len.parse().expect("a length");
    match ip.parse().expect("an address") {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), len + 96),
        IpAddr::V6(ip) => (Ipv6Addr::to_bits(ip), len),
    }
}

fn insert(tree: &mut Vec<[Record; 2]>, bits: u128, len: u32, offset: usize) {
    let mut node = 0;
    for depth in 0..len {
        let side = usize::from(bits >> (127 - depth) & 1 == 1);
        if depth + 1 == len {
            tree[node][side] = Record::Data(offset);
            return;
        }
        node = match tree[node][side] {
            Record::Node(next) => next,
            _ => {
                tree.push([Record::Nothing; 2]);
                let next = tree.len() - 1;
                tree[node][side] = Record::Node(next);
                next
            }
        };
    }
}
