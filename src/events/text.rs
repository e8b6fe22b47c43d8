//! The texts of an event: made at once, or when they are read.
//!
//! The events of sessions are many, and few of them are read. So they keep what their text is made
//! of, which costs a small part of the text. Owns nothing else. A text has one line and a bounded
//! length, however it was made.

use std::{
    fmt::{self, Debug, Display},
    net::SocketAddr,
    sync::Arc,
};

use crate::text::clean_start;

/// A text of an event.
#[derive(Clone)]
pub(crate) struct Text(Words);

#[derive(Clone)]
enum Words {
    Made(String),
    Later(Arc<dyn Display + Send + Sync>, usize),
    Client(SocketAddr),
}

impl Text {
    /// A text of this value, as it is now, with `most` characters.
    pub(super) fn now(value: &impl Display, most: usize) -> Self {
        Self(Words::Made(clean_start(&value.to_string(), most)))
    }

    /// A text of this value that is made when it is read.
    pub(super) fn later(value: impl Display + Send + Sync + 'static, most: usize) -> Self {
        Self(Words::Later(Arc::new(value), most))
    }

    /// The address of a client, with its port.
    pub(super) fn client(client: SocketAddr) -> Self {
        Self(Words::Client(client))
    }
}

impl Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Words::Made(text) => f.write_str(text),
            Words::Later(value, most) => f.write_str(&clean_start(&value.to_string(), *most)),
            Words::Client(client) => Display::fmt(client, f),
        }
    }
}

impl Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Debug::fmt(&self.to_string(), f)
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}
