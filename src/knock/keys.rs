//! Keys, and the line of text that each of them is.
//!
//! - `NAME.key` is a client's: what it signs with, and the public half of the server.
//! - `NAME.pub` is what the server knows the client by. It is no secret.
//! - `server.key` is the secret of the server. All clients of a directory have its public half.
//!
//! Every line is `kind:…:hex`, and its hex digits may have either case.

use std::fmt;

use ed25519_dalek::SigningKey;
use sha2::{Digest as _, Sha256};
use x25519_dalek::{PublicKey, StaticSecret};

/// What the line of a client's key begins with.
const CLIENT: &str = "portway-knock";
/// What the line of a client's public half begins with.
const PUBLIC: &str = "portway-knock-public";
/// What the line of the server's key begins with.
const SERVER: &str = "portway-knock-server";
/// The longest name of a key.
pub(crate) const LONGEST_NAME: usize = 64;

/// Why a key cannot be used. It shows nothing of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    /// The line begins in another way.
    #[error("it is not {0}")]
    Kind(&'static str),
    /// The digits are not those of a key.
    #[error("it is damaged: its last part is not {0} hex digits")]
    Digits(usize),
    /// The name cannot be one.
    #[error(
        "its name is empty, longer than {LONGEST_NAME} characters, or has other characters than letters, digits, `.`, `_` and `-`"
    )]
    Name,
    /// The point is none that a signature could be checked with.
    #[error("it is no public key of Ed25519")]
    Point,
}

/// The file of the server's own key, beside the keys of clients.
pub(crate) const SERVER_KEY: &str = "server.key";

/// Whether a key can have this name.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name.len() <= LONGEST_NAME && name.chars().all(plain) && !name.starts_with('.')
}

/// A client's key.
#[derive(Clone)]
pub(crate) struct ClientKey {
    /// Its name.
    pub name: String,
    pub(super) signing: SigningKey,
    pub(super) server: [u8; 32],
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientKey").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ClientKey {
    /// A key made of 32 random bytes, for the server with this public half.
    ///
    /// # Errors
    /// The name.
    pub(crate) fn new(name: &str, random: [u8; 32], server: [u8; 32]) -> Result<Self, KeyError> {
        if !is_name(name) {
            return Err(KeyError::Name);
        }
        Ok(Self { name: name.to_owned(), signing: SigningKey::from_bytes(&random), server })
    }

    /// Reads its line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, KeyError> {
        let (name, digits) = named(text, CLIENT, "the key of a client (NAME.key)")?;
        let bytes: [u8; 64] = unhex(digits)?;
        let (seed, server) = (half(&bytes[..32]), half(&bytes[32..]));
        Self::new(name, seed, server)
    }

    /// Its line, which is secret.
    pub(crate) fn line(&self) -> String {
        let bytes = [self.signing.to_bytes(), self.server].concat();
        format!("{CLIENT}:{}:{}", self.name, hex(&bytes))
    }

    /// What the server knows it by.
    pub(crate) fn public(&self) -> [u8; 32] {
        self.signing.verifying_key().to_bytes()
    }

    /// The line of that.
    pub(crate) fn public_line(&self) -> String {
        format!("{PUBLIC}:{}:{}", self.name, hex(&self.public()))
    }
}

/// Reads the line of a client's public half.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse_public(text: &str) -> Result<[u8; 32], KeyError> {
    let (_, digits) = named(text, PUBLIC, "the public half of a key (NAME.pub)")?;
    let bytes = unhex(digits)?;
    ed25519_dalek::VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Point)?;
    Ok(bytes)
}

/// Reads the line of the server's key.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse_server(text: &str) -> Result<[u8; 32], KeyError> {
    match text.trim().split_once(':') {
        Some((SERVER, digits)) => unhex(digits),
        _ => Err(KeyError::Kind("the key of a server (server.key)")),
    }
}

/// The line of the server's key.
pub(crate) fn server_line(secret: &[u8; 32]) -> String {
    format!("{SERVER}:{}", hex(secret))
}

/// The public half of the server's key.
pub(crate) fn server_public(secret: &[u8; 32]) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(*secret)).to_bytes()
}

/// What a datagram calls a client's key by.
pub(super) fn id(public: &[u8; 32]) -> [u8; 8] {
    let digest = Sha256::digest(public);
    let mut id = [0; 8];
    id.copy_from_slice(&digest[..8]);
    id
}

/// The name and the digits of a line.
fn named<'t>(text: &'t str, kind: &str, meant: &'static str) -> Result<(&'t str, &'t str), KeyError> {
    let rest = text.trim().strip_prefix(kind).and_then(|rest| rest.strip_prefix(':'));
    let (name, digits) = rest.and_then(|rest| rest.split_once(':')).ok_or(KeyError::Kind(meant))?;
    if is_name(name) { Ok((name, digits)) } else { Err(KeyError::Name) }
}

fn half(bytes: &[u8]) -> [u8; 32] {
    let mut half = [0; 32];
    half.copy_from_slice(bytes);
    half
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // A string takes everything.
        let _ = write!(text, "{byte:02X}");
    }
    text
}

fn unhex<const N: usize>(text: &str) -> Result<[u8; N], KeyError> {
    let wrong = KeyError::Digits(2 * N);
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return Err(wrong);
    }
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0]).ok_or(wrong)? << 4 | value(pair[1]).ok_or(wrong)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_read_back_and_no_other_in_its_place() {
        let server = [7; 32];
        let key = ClientKey::new("anna", [1; 32], server_public(&server)).unwrap();
        assert_eq!(ClientKey::parse(&format!(" {}\n", key.line())).unwrap().line(), key.line());
        assert_eq!(parse_public(&key.public_line()), Ok(key.public()));
        assert_eq!(parse_server(&server_line(&server)), Ok(server));
        assert!(matches!(parse_public(&key.line()), Err(KeyError::Kind(_))));
        assert!(matches!(ClientKey::parse(&key.public_line()), Err(KeyError::Kind(_))));
        assert!(matches!(parse_server(&key.line()), Err(KeyError::Kind(_))));
        assert!(!format!("{key:?}").contains("0101"), "a key is not shown");
    }

    #[test]
    fn a_damaged_line_is_refused() {
        let line = ClientKey::new("anna", [1; 32], [2; 32]).unwrap().line();
        for damaged in [
            &line[..line.len() - 1],
            &line.replace("02", "0g"),
            &line.replace("anna", ""),
            &line.replace("anna", "a b"),
        ] {
            assert!(ClientKey::parse(damaged).is_err(), "{damaged}");
        }
        assert_eq!(ClientKey::new("../x", [1; 32], [2; 32]).err(), Some(KeyError::Name));
    }
}
