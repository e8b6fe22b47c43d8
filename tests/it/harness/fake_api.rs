//! A daemon's socket without a daemon: it answers as a test says, and keeps what it was asked.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

/// A request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Method and path, as in `GET /v1/status`.
    pub(crate) line: String,
    /// The header lines, in lower case.
    pub(crate) head: Vec<String>,
    /// The body.
    pub(crate) body: String,
}

/// How a stream of events ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Whole,
    BreaksOff,
    Stays,
}

/// A socket that answers. Its thread ends with the test process.
#[derive(Debug)]
pub(crate) struct FakeApi {
    dir: tempfile::TempDir,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl FakeApi {
    /// Answers by the first of these whose request line begins as theirs does: (request, status, JSON).
    pub(crate) fn answering(answers: &'static [(&'static str, u16, &'static str)]) -> Self {
        Self::speaking(move |asked, stream| {
            let found = answers.iter().find(|(line, ..)| asked.line.starts_with(line));
            let (_, status, json) = found.unwrap_or(&("", 404, r#"{"error": "there is no such route"}"#));
            let length = json.len();
            let _ = write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{json}");
        })
    }

    /// Writes these events to each client.
    pub(crate) fn telling(events: &'static [&'static str], end: End) -> Self {
        Self::speaking(move |_, stream| {
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            let _ = stream.write_all(head.as_bytes());
            for event in events {
                let _ = write!(stream, "{:x}\r\n{event}\r\n", event.len());
            }
            let _ = match end {
                End::Whole => stream.write_all(b"0\r\n\r\n"),
                End::BreaksOff => Ok(()),
                // Until the client goes.
                End::Stays => stream.read_to_end(&mut Vec::new()).map(drop),
            };
        })
    }

    fn speaking(speak: impl Fn(&Asked, &mut UnixStream) + Send + 'static) -> Self {
        let fake = Self { dir: tempfile::tempdir().expect("a temporary directory"), asked: Arc::default() };
        let listener = UnixListener::bind(fake.socket()).expect("a socket of the test");
        let kept = Arc::clone(&fake.asked);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let asked = read(&stream);
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
                speak(&asked, &mut stream);
            }
        });
        fake
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("portway.sock")
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn read(stream: &UnixStream) -> Asked {
    let mut reader = BufReader::new(stream);
    let mut lines = reader.by_ref().lines().map_while(Result::ok).map(|line| line.trim().to_owned());
    let line = lines.next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
    let head: Vec<String> =
        lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
    let length =
        head.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    let _ = reader.read_exact(&mut body);
    Asked { line, head, body: String::from_utf8_lossy(&body).into_owned() }
}
