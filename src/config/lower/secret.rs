//! Tokens: how one is read from its file, and how it is kept.
//!
//! A [`Secret`] never shows what it holds: neither `Debug`, nor a problem, nor JSON has it.

use std::{fmt, path::Path, sync::Arc};

use crate::config::text::read::read;

/// The shortest token, in bytes. A shorter one can be guessed.
const SHORTEST_TOKEN: usize = 16;
/// The longest file with a token: a token goes into one line of a request.
const LONGEST_TOKEN: u64 = 4096;
const TOKEN_TOO_LONG: &str = "more than 4 KiB";

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// The text. Compare it in constant time.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// The token in a file, or why there is none and what helps. The words do not have the token.
pub(crate) fn load_token(path: &Path) -> Result<Secret, (String, Option<&'static str>)> {
    const MAKE_ONE: &str = "make one, as by `openssl rand -hex 32 > FILE`";
    let bytes = read(path, LONGEST_TOKEN, TOKEN_TOO_LONG)
        .map_err(|error| (format!("cannot be read: {error}"), error.hint()))?;
    let token = bytes.trim_ascii();
    if !token.iter().all(u8::is_ascii_graphic) {
        return Err(("has more than one word, or characters that are not ASCII".into(), Some(MAKE_ONE)));
    }
    if token.len() < SHORTEST_TOKEN {
        let message = format!("has a token of {} characters; the least is {SHORTEST_TOKEN}", token.len());
        return Err((message, Some(MAKE_ONE)));
    }
    Ok(Secret(token.into()))
}
