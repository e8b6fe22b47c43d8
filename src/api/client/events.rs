//! A stream of server-sent events, read as they come.
//!
//! A line is bounded, so a server that never ends one holds no memory here. Silence is bounded, as
//! the server sends a heartbeat: a daemon that hangs is noticed.

use std::{fmt, path::PathBuf, pin::Pin, time::Duration};

use http_body_util::BodyExt as _;
use hyper::{Response, body::Incoming, header};
use tokio::time::timeout;

use super::ClientError;
use crate::status::view;

/// How long the stream may be silent: three heartbeats.
const SILENCE: Duration = Duration::from_secs(45);
/// The longest line.
const LONGEST: usize = 1 << 20;

/// Something out of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Something happened.
    Event {
        /// What.
        event: Box<view::Event>,
        /// The same as it came.
        json: String,
    },
    /// So many events came too fast to be sent.
    Lost(u64),
}

/// The stream.
pub(crate) struct Events {
    socket: PathBuf,
    body: Incoming,
    connection: Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>,
    lines: Lines,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Events {
    pub(super) fn new(
        socket: PathBuf,
        response: Response<Incoming>,
        connection: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
    ) -> Result<Self, ClientError> {
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if !kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
            return Err(ClientError::stranger(&socket, "it sends no events"));
        }
        let body = response.into_body();
        Ok(Self { socket, body, connection: Some(connection), lines: Lines::default() })
    }

    /// What comes next; nothing where the daemon ended the stream. Dropped before it is ready, it
    /// loses nothing.
    ///
    /// # Errors
    /// A stream that broke off, or that is silent for too long.
    pub(crate) async fn next(&mut self) -> Result<Option<Received>, ClientError> {
        loop {
            if let Some(received) = self.lines.next(&self.socket)? {
                return Ok(Some(received));
            }
            let frame = timeout(SILENCE, self.frame()).await;
            let late = |_| ClientError::Slow { socket: self.socket.clone(), limit: SILENCE };
            match frame.map_err(late)? {
                Some(Ok(data)) => self.lines.unread.extend_from_slice(&data),
                Some(Err(error)) => return Err(ClientError::of_http(&self.socket, &error)),
                None => return Ok(None),
            }
        }
    }

    async fn frame(&mut self) -> Option<hyper::Result<hyper::body::Bytes>> {
        let mut body = std::pin::pin!(async {
            let frame = self.body.frame().await?;
            Some(frame.map(|frame| frame.into_data().unwrap_or_default()))
        });
        if let Some(connection) = &mut self.connection {
            tokio::select! {
                frame = &mut body => return frame,
                _ = connection => {}
            }
        }
        // The connection is over. What it has brought is still here.
        self.connection = None;
        body.await
    }
}

/// Lines out of bytes, and messages out of lines.
#[derive(Debug, Default)]
struct Lines {
    unread: Vec<u8>,
    kind: String,
    data: String,
}

impl Lines {
    /// The next message of those that are here.
    fn next(&mut self, socket: &std::path::Path) -> Result<Option<Received>, ClientError> {
        let mut start = 0;
        let mut found = Ok(None);
        while let Some(length) = self.unread[start..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.unread[start..start + length]);
            let line = line.strip_suffix('\r').unwrap_or(&line);
            start += length + 1;
            if !line.is_empty() {
                take(line, &mut self.kind, &mut self.data);
                continue;
            }
            let (kind, data) = (std::mem::take(&mut self.kind), std::mem::take(&mut self.data));
            if !data.is_empty() {
                let stranger = |_| ClientError::stranger(socket, "an event is not JSON of an event");
                found = received(&kind, data).map(Some).map_err(stranger);
                break;
            }
        }
        self.unread.drain(..start);
        if self.unread.len() > LONGEST || self.data.len() > LONGEST {
            return Err(ClientError::stranger(socket, "an event is longer than 1 MiB"));
        }
        found
    }
}

/// Takes a line of a message. Comments are heartbeats. The number of an event is also in its JSON.
fn take(line: &str, kind: &mut String, data: &mut String) {
    let (field, value) = line.split_once(':').unwrap_or((line, ""));
    let value = value.strip_prefix(' ').unwrap_or(value);
    match field {
        "event" => value.clone_into(kind),
        "data" => {
            if !data.is_empty() {
                data.push('\n');
            }
            data.push_str(value);
        }
        _ => {}
    }
}

fn received(kind: &str, data: String) -> serde_json::Result<Received> {
    if kind == "lost" {
        return Ok(Received::Lost(serde_json::from_str(&data)?));
    }
    Ok(Received::Event { event: serde_json::from_str(&data)?, json: data })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn all(lines: &mut Lines) -> Vec<Received> {
        std::iter::from_fn(|| lines.next(Path::new("s")).unwrap()).collect()
    }

    #[test]
    fn messages_come_whole_however_their_bytes_are_cut() {
        let text = ": hello\n\nid: 7\nevent: banned\ndata: {\"id\":7,\r\ndata: \"kind\":\"banned\"}\n\n\
                    event: lost\ndata: 12\n\n:\n\nid: 20\ndata:{\"id\":20}\n\n";
        for size in [1, 2, 7, 1000] {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for part in text.as_bytes().chunks(size) {
                lines.unread.extend_from_slice(part);
                found.extend(all(&mut lines));
            }
            let [Received::Event { event, json }, Received::Lost(12), Received::Event { event: last, .. }] =
                &*found
            else {
                panic!("{found:?}")
            };
            assert_eq!((event.id, &*event.kind, last.id), (7, "banned", 20));
            assert_eq!(json, "{\"id\":7,\n\"kind\":\"banned\"}");
        }
    }

    #[test]
    fn what_is_not_an_event_is_an_error_and_a_line_has_an_end() {
        let mut lines = Lines { unread: b"data: hello\n\n".to_vec(), ..Lines::default() };
        assert!(lines.next(Path::new("s")).is_err());
        let mut lines = Lines { unread: vec![b'a'; LONGEST + 1], ..Lines::default() };
        assert!(lines.next(Path::new("s")).is_err());
    }
}
