//! What must hold for any bytes: the claims of the tests, and of the fuzz target.
#![allow(unreachable_pub, reason = "the fuzz targets are outside of the library")]
#![allow(clippy::missing_panics_doc, reason = "a claim that does not hold panics, and that is its use")]

use std::time::{Duration, SystemTime};

use super::{
    keys::{self, ClientKey},
    packet::{LEN, Lock, retagged, seal},
};

/// The server's secret.
const SERVER: [u8; 32] = [9; 32];

/// Any bytes as a datagram, as a change of a true one, and as a key.
pub fn knock(bytes: &[u8]) {
    let key = ClientKey::new("anna", [1; 32], keys::server_public(&SERVER)).expect("a good name");
    let lock = Lock::new(&SERVER, [key.public()].iter());
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let is_true = |datagram: &[u8]| lock.look(datagram, now).and_then(|said| lock.open(said)).is_ok();
    let sealed = seal(&key, None, now, [5; 32]);
    assert!(is_true(&sealed), "a true knock is taken");
    assert!(bytes == sealed || !is_true(bytes), "other bytes are false");
    let mut changed = sealed;
    changed.iter_mut().zip(bytes).for_each(|(byte, change)| *byte ^= change);
    assert!(changed == sealed || !is_true(&changed), "a changed knock is false");
    // As by one that knows the key of the tag: it gets further, and not in.
    let tagged = retagged(&lock, &changed);
    assert!(tagged == sealed || !is_true(&tagged), "a changed knock with a right tag is false");
    let mut other = [0; LEN];
    other.iter_mut().zip(bytes).for_each(|(byte, from)| *byte = *from);
    assert!(!is_true(&retagged(&lock, &other)), "nor is any with a right tag");
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(key) = ClientKey::parse(text) {
        assert_eq!(ClientKey::parse(&key.line()).map(|key| key.line()), Ok(key.line()));
    }
    let _ = (keys::parse_public(text), keys::parse_server(text));
}
