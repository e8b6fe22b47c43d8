//! Reads the name that a client wants, whichever way it says it.

use super::{
    http, minecraft, tls,
    verdict::{LIMIT, Spoken, Verdict},
};

/// Where a client says which name it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// In the server name of a TLS ClientHello.
    TlsSni,
    /// In the host of an HTTP request.
    HttpHost,
    /// In the handshake of Minecraft.
    Minecraft,
    /// In TLS or HTTP, whichever it speaks.
    Auto,
}

impl Match {
    /// The word for it in the interface.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::TlsSni => "tls-sni",
            Self::HttpHost => "http-host",
            Self::Minecraft => "minecraft",
            Self::Auto => "auto",
        }
    }
}

/// Reads the name from the first bytes of one client.
#[derive(Debug)]
pub(crate) struct Reader(State);

#[derive(Debug)]
enum State {
    Tls(tls::Reader),
    Http(http::Reader),
    Minecraft(minecraft::Reader),
    /// Before the first byte.
    Auto,
}

impl Reader {
    /// Starts to read for `by`.
    pub(crate) fn new(by: Match) -> Self {
        Self(match by {
            Match::TlsSni => State::Tls(tls::Reader::default()),
            Match::HttpHost => State::Http(http::Reader::default()),
            Match::Minecraft => State::Minecraft(minecraft::Reader::default()),
            Match::Auto => State::Auto,
        })
    }

    /// What `bytes` say: all that came so far, from the first byte on. Between two calls they only
    /// grow. After any verdict but [`Verdict::More`], do not call it again.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Verdict {
        let bytes = &bytes[..bytes.len().min(LIMIT)];
        let Some(first) = bytes.first() else { return Verdict::More };
        if let State::Auto = self.0 {
            self.0 = match *first {
                tls::FIRST_BYTE => State::Tls(tls::Reader::default()),
                _ => State::Http(http::Reader::default()),
            };
        }
        match &mut self.0 {
            State::Tls(reader) => reader.read(bytes),
            State::Http(reader) => reader.read(bytes),
            State::Minecraft(reader) => reader.read(bytes),
            State::Auto => Verdict::More,
        }
    }

    /// The verdict when no more bytes come, for the end of the time or of the stream: as
    /// [`Reader::read`], but that some clients wait for an answer before they go on: an old
    /// Minecraft client that pings, and some of HTTP/2.
    pub(crate) fn finish(&mut self, bytes: &[u8]) -> Verdict {
        let bytes = &bytes[..bytes.len().min(LIMIT)];
        match &mut self.0 {
            State::Minecraft(reader) => reader.finish(bytes),
            State::Http(reader) => reader.finish(bytes),
            _ => self.read(bytes),
        }
    }

    /// What the client speaks, once a verdict other than [`Verdict::More`] and [`Verdict::Foreign`]
    /// was given.
    pub(crate) fn spoken(&self) -> Option<Spoken> {
        match &self.0 {
            State::Tls(_) => Some(Spoken::Tls),
            State::Http(reader) => Some(reader.spoken()),
            State::Minecraft(_) => Some(Spoken::Minecraft),
            State::Auto => None,
        }
    }

    /// What a Minecraft client said of itself, once the verdict is a name or none.
    pub(crate) fn greeting(&self) -> Option<&minecraft::Greeting> {
        match &self.0 {
            State::Minecraft(reader) => reader.greeting(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
