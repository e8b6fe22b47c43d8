//! What a client says first: which name it wants, and which client is behind a proxy.
//!
//! Owns the parsers of what comes before the data: the PROXY header ([`proxy`]), the ClientHello of
//! TLS, the head of an HTTP request, the handshake of Minecraft; and what a client gets whose name
//! leads nowhere ([`answers`], [`minecraft`]). Everything here is pure: bytes in, verdicts out. It
//! knows no socket, no clock and no configuration.
//!
//! Each parser gets the whole of what came so far, and again when more came. Invariants: the
//! verdict does not depend on how the bytes were cut; no bytes make it panic; a call costs no more
//! than what is new; after [`LIMIT`] bytes the verdict is no longer [`Verdict::More`].

pub(crate) mod answers;
#[cfg(any(test, fuzzing))]
pub(crate) mod claims;
pub(crate) mod hosts;
mod http;
pub(crate) mod minecraft;
mod name;
pub(crate) mod proxy;
mod reader;
mod tls;
mod verdict;

pub(crate) use reader::{Match, Reader};
pub(crate) use verdict::{LIMIT, Spoken, Verdict};
