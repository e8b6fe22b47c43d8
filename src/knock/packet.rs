//! The datagram of a knock.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | the version, 1 |
//! | 8 | the time, in milliseconds since 1970 |
//! | 32 | an X25519 public key that is used once: it is the nonce, too |
//! | 8 | the tag: SipHash of everything else, by a key that all clients of the server know |
//! | 89 | sealed by ChaCha20-Poly1305: see below |
//! | 16 | the tag of the seal |
//!
//! Sealed are the id of the client's key (8), flags (1), the address wanted (16), and an Ed25519
//! signature of all (64). The key of the seal is HKDF-SHA256 of the shared secret, with both public
//! keys.
//!
//! The cheap checks come first, [`Lock::look`]: length, version, tag, time. A stranger does not
//! know the tag's key, so its datagrams end there. An old datagram ends there, too. The two curve
//! operations are in [`Lock::open`], and the caller bounds how often it comes to that.

use std::{
    collections::HashMap,
    fmt,
    hash::Hasher as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, SystemTime},
};

use chacha20poly1305::{AeadInOut as _, ChaCha20Poly1305, KeyInit as _};
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use hkdf::Hkdf;
use sha2::Sha256;
use siphasher::sip::SipHasher24;
use x25519_dalek::{PublicKey, StaticSecret};

use super::keys::{self, ClientKey};
use crate::mapping::canonical;

/// The version that is written, and the only one that is read.
const VERSION: u8 = 1;
/// How far the clocks of client and server may be apart.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);
/// The bytes before the tag: version, time, public key.
const HEAD: usize = 1 + 8 + 32;
/// The bytes before the seal.
const CLEAR: usize = HEAD + 8;
/// What is signed of the sealed part: id, flags, address.
const ASKED: usize = 8 + 1 + 16;
/// What is sealed.
const INSIDE: usize = ASKED + 64;
/// The length of every datagram.
pub(crate) const LEN: usize = CLEAR + INSIDE + 16;
/// The flag for "the address that this comes from".
const ANY: u8 = 1;
/// What a signature is for.
const CONTEXT: &[u8] = b"portway knock 1";

/// Why a knock is false.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum False {
    /// It is not a knock, or one for another server.
    Malformed,
    /// Its time is not that of the server.
    Old,
    /// The same datagram was taken before.
    Replayed,
    /// The server does not know the key, or the signature is not the key's.
    UnknownKey,
    /// It comes from another address than the one it asks for.
    OtherAddress,
    /// Too many come at once.
    TooMany,
}

/// A datagram that passed the cheap checks.
#[derive(Clone, Copy)]
pub(crate) struct Said<'d> {
    bytes: &'d [u8; LEN],
}

/// What a datagram asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    /// The place of the key in the list that the lock was made of.
    pub key: usize,
    /// The address to let in; `None` for the one that it comes from.
    pub address: Option<IpAddr>,
}

/// Makes a datagram. `random` is used once. Without an address, the one that it comes from is
/// meant.
pub(crate) fn seal(key: &ClientKey, address: Option<IpAddr>, at: SystemTime, random: [u8; 32]) -> [u8; LEN] {
    let once = StaticSecret::from(random);
    let server = PublicKey::from(key.server);
    let mut bytes = [0; LEN];
    bytes[0] = VERSION;
    bytes[1..9].copy_from_slice(&millis(at).to_be_bytes());
    bytes[9..HEAD].copy_from_slice(PublicKey::from(&once).as_bytes());
    let mut inside = [0; INSIDE];
    inside[..8].copy_from_slice(&keys::id(&key.public()));
    inside[8] = if address.is_none() { ANY } else { 0 };
    inside[9..ASKED].copy_from_slice(&octets(address));
    let signature = key.signing.sign(&signed(&key.server, &bytes[..HEAD], &inside[..ASKED]));
    inside[ASKED..].copy_from_slice(&signature.to_bytes());
    let cipher = cipher(once.diffie_hellman(&server).as_bytes(), &bytes[9..HEAD], server.as_bytes());
    let tag = cipher
        .encrypt_inout_detached(&[0; 12].into(), &bytes[..HEAD], inside.as_mut_slice().into())
        .expect("so few bytes can be sealed");
    bytes[CLEAR..CLEAR + INSIDE].copy_from_slice(&inside);
    bytes[CLEAR + INSIDE..].copy_from_slice(&tag);
    let tag = outer_tag(tag_key(server.as_bytes()), &bytes);
    bytes[HEAD..CLEAR].copy_from_slice(&tag.to_be_bytes());
    bytes
}

/// What opens datagrams: the server's secret, and the clients that it knows.
pub(crate) struct Lock {
    secret: StaticSecret,
    public: [u8; 32],
    tag_key: (u64, u64),
    clients: HashMap<[u8; 8], (usize, VerifyingKey)>,
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("clients", &self.clients.len()).finish_non_exhaustive()
    }
}

impl Lock {
    /// A lock for clients with these public halves. One that is none is left out.
    pub(crate) fn new<'k>(secret: &[u8; 32], clients: impl Iterator<Item = &'k [u8; 32]>) -> Self {
        let public = keys::server_public(secret);
        let known = clients.enumerate().filter_map(|(at, client)| {
            Some((keys::id(client), (at, VerifyingKey::from_bytes(client).ok()?)))
        });
        Self {
            secret: StaticSecret::from(*secret),
            public,
            tag_key: tag_key(&public),
            clients: known.collect(),
        }
    }

    /// The cheap checks, under a microsecond.
    ///
    /// # Errors
    /// [`False::Malformed`] or [`False::Old`].
    pub(crate) fn look<'d>(&self, datagram: &'d [u8], now: SystemTime) -> Result<Said<'d>, False> {
        let bytes: &[u8; LEN] = datagram.try_into().map_err(|_| False::Malformed)?;
        let said = Said { bytes };
        if bytes[0] != VERSION || outer_tag(self.tag_key, bytes).to_be_bytes() != bytes[HEAD..CLEAR] {
            return Err(False::Malformed);
        }
        if said.time().abs_diff(millis(now)) > window() {
            return Err(False::Old);
        }
        Ok(said)
    }

    /// Opens it, and checks who signed it: some hundred microseconds.
    ///
    /// # Errors
    /// [`False::Malformed`] or [`False::UnknownKey`].
    pub(crate) fn open(&self, said: Said<'_>) -> Result<Opened, False> {
        let bytes = said.bytes;
        let shared = self.secret.diffie_hellman(&PublicKey::from(said.nonce()));
        if !shared.was_contributory() {
            return Err(False::Malformed);
        }
        let cipher = cipher(shared.as_bytes(), &bytes[9..HEAD], &self.public);
        let mut inside = [0; INSIDE];
        inside.copy_from_slice(&bytes[CLEAR..CLEAR + INSIDE]);
        let mut tag = [0; 16];
        tag.copy_from_slice(&bytes[CLEAR + INSIDE..]);
        cipher
            .decrypt_inout_detached(
                &[0; 12].into(),
                &bytes[..HEAD],
                inside.as_mut_slice().into(),
                &tag.into(),
            )
            .map_err(|_| False::Malformed)?;
        let (mut id, mut signature, mut address) = ([0; 8], [0; 64], [0; 16]);
        id.copy_from_slice(&inside[..8]);
        address.copy_from_slice(&inside[9..ASKED]);
        signature.copy_from_slice(&inside[ASKED..]);
        let (key, client) = self.clients.get(&id).ok_or(False::UnknownKey)?;
        let signed = signed(&self.public, &bytes[..HEAD], &inside[..ASKED]);
        client.verify_strict(&signed, &Signature::from_bytes(&signature)).map_err(|_| False::UnknownKey)?;
        let address = canonical(IpAddr::V6(Ipv6Addr::from(address)));
        Ok(Opened { key: *key, address: (inside[8] & ANY == 0).then_some(address) })
    }
}

impl Said<'_> {
    /// Its time, in milliseconds since 1970.
    pub(crate) fn time(&self) -> u64 {
        let mut time = [0; 8];
        time.copy_from_slice(&self.bytes[1..9]);
        u64::from_be_bytes(time)
    }

    /// What no two datagrams share.
    pub(crate) fn nonce(&self) -> [u8; 32] {
        let mut nonce = [0; 32];
        nonce.copy_from_slice(&self.bytes[9..HEAD]);
        nonce
    }
}

/// Milliseconds since 1970.
pub(crate) fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// [`WINDOW`] in milliseconds.
fn window() -> u64 {
    u64::try_from(WINDOW.as_millis()).unwrap_or(u64::MAX)
}

fn octets(address: Option<IpAddr>) -> [u8; 16] {
    match address.map(canonical) {
        Some(IpAddr::V4(ip)) => ip.to_ipv6_mapped().octets(),
        Some(IpAddr::V6(ip)) => ip.octets(),
        None => Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets(),
    }
}

/// What a client signs.
fn signed(server: &[u8; 32], head: &[u8], asked: &[u8]) -> Vec<u8> {
    [CONTEXT, server, head, asked].concat()
}

fn cipher(shared: &[u8; 32], once: &[u8], server: &[u8; 32]) -> ChaCha20Poly1305 {
    let mut key = [0; 32];
    let info = [CONTEXT, once, server].concat();
    Hkdf::<Sha256>::new(None, shared).expand(&info, &mut key).expect("so short a key can be derived");
    ChaCha20Poly1305::new(&key.into())
}

/// The key of the outer tag: whoever has the server's public half can make it.
fn tag_key(server: &[u8; 32]) -> (u64, u64) {
    let mut key = [0; 16];
    Hkdf::<Sha256>::new(None, server).expand(b"portway knock tag", &mut key).expect("a short key");
    let (one, other) = key.split_at(8);
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    (number(one), number(other))
}

/// The tag of everything but itself.
fn outer_tag((one, other): (u64, u64), bytes: &[u8; LEN]) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(one, other);
    hasher.write(&bytes[..HEAD]);
    hasher.write(&bytes[CLEAR..]);
    hasher.finish()
}

/// The datagram with the tag that it needs.
#[cfg(any(test, fuzzing))]
pub(super) fn retagged(lock: &Lock, datagram: &[u8; LEN]) -> [u8; LEN] {
    let mut tagged = *datagram;
    tagged[HEAD..CLEAR].copy_from_slice(&outer_tag(lock.tag_key, datagram).to_be_bytes());
    tagged
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: [u8; 32] = [9; 32];

    fn key(n: u8) -> ClientKey {
        ClientKey::new("anna", [n; 32], keys::server_public(&SERVER)).unwrap()
    }

    fn lock(known: &[u8]) -> Lock {
        let known: Vec<_> = known.iter().map(|n| key(*n).public()).collect();
        Lock::new(&SERVER, known.iter())
    }

    fn opened(lock: &Lock, datagram: &[u8], now: SystemTime) -> Result<Opened, False> {
        lock.open(lock.look(datagram, now)?)
    }

    #[test]
    fn a_knock_says_whose_it_is_and_which_address_it_wants() {
        let (lock, now) = (lock(&[1, 2]), SystemTime::now());
        for address in [None, Some("203.0.113.9".parse().unwrap()), Some("2001:db8::9".parse().unwrap())] {
            let datagram = seal(&key(2), address, now, [5; 32]);
            assert_eq!(opened(&lock, &datagram, now), Ok(Opened { key: 1, address }));
        }
        assert_eq!(LEN, 154);
    }

    #[test]
    fn every_changed_bit_makes_it_false_and_a_stranger_gets_no_further_than_the_tag() {
        let (lock, now) = (lock(&[1]), SystemTime::now());
        let datagram = seal(&key(1), None, now, [5; 32]);
        for bit in 0..8 * LEN {
            let mut changed = datagram;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(lock.look(&changed, now).err(), Some(False::Malformed), "bit {bit}");
        }
        for len in [0, 1, LEN - 1, LEN + 1] {
            assert_eq!(lock.look(&vec![1; len], now).err(), Some(False::Malformed));
        }
    }

    #[test]
    fn a_changed_bit_behind_a_right_tag_is_found_by_the_seal_or_the_signature() {
        let (lock, now) = (lock(&[1]), SystemTime::now());
        let datagram = seal(&key(1), None, now, [5; 32]);
        for byte in (1..HEAD).chain(CLEAR..LEN) {
            let mut changed = datagram;
            changed[byte] ^= 1;
            assert!(opened(&lock, &retagged(&lock, &changed), now).is_err(), "byte {byte}");
        }
    }

    #[test]
    fn a_clock_that_is_a_minute_off_is_right_and_more_is_wrong() {
        let (lock, now) = (lock(&[1]), SystemTime::now());
        let second = Duration::from_secs(1);
        for (off, is_right) in [(59, true), (61, false), (3600, false)] {
            for at in [now + off * second, now - off * second] {
                let said = lock.look(&seal(&key(1), None, at, [5; 32]), now).err();
                assert_eq!(said, (!is_right).then_some(False::Old), "{off} s");
            }
        }
    }

    #[test]
    fn an_unknown_key_and_a_knock_for_another_server_are_false() {
        let (lock, now) = (lock(&[1]), SystemTime::now());
        assert_eq!(opened(&lock, &seal(&key(3), None, now, [5; 32]), now), Err(False::UnknownKey));
        let other = ClientKey::new("anna", [1; 32], keys::server_public(&[8; 32])).unwrap();
        assert_eq!(opened(&lock, &seal(&other, None, now, [5; 32]), now), Err(False::Malformed));
    }

    #[test]
    fn an_observer_reads_the_version_and_the_time_and_nothing_that_two_knocks_share() {
        let now = SystemTime::now();
        let (one, other) = (seal(&key(1), None, now, [5; 32]), seal(&key(1), None, now, [6; 32]));
        assert_eq!(one[..9], other[..9]);
        let same = one[9..].iter().zip(&other[9..]).filter(|(a, b)| a == b).count();
        assert!(same < 16, "{same} bytes are the same");
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn no_bytes_but_a_true_knock_are_taken(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            crate::knock::claims::knock(&bytes);
        }
    }
}
