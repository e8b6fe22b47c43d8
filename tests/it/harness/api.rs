//! A client of the API: plain HTTP/1.1 over either kind of socket, so that a test sees every byte.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::DEADLINE;

/// Where an API answers.
#[derive(Clone, Debug)]
pub(crate) enum Api {
    /// On a unix socket.
    Unix(PathBuf),
    /// Over TCP.
    Tcp(SocketAddr),
}

/// A connection that speaks HTTP, of either end.
#[derive(Debug)]
pub(crate) enum HttpStream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Read for HttpStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for HttpStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl HttpStream {
    /// Another handle of the same connection.
    pub(crate) fn twin(&self) -> Self {
        match self {
            Self::Unix(stream) => Self::Unix(stream.try_clone().expect("a descriptor")),
            Self::Tcp(stream) => Self::Tcp(stream.try_clone().expect("a descriptor")),
        }
    }

    /// Gives up a read or a write after the time that a test waits.
    pub(crate) fn set_deadline(&self) -> io::Result<()> {
        let (read, write) = match self {
            Self::Unix(stream) => {
                (stream.set_read_timeout(Some(DEADLINE)), stream.set_write_timeout(Some(DEADLINE)))
            }
            Self::Tcp(stream) => {
                (stream.set_read_timeout(Some(DEADLINE)), stream.set_write_timeout(Some(DEADLINE)))
            }
        };
        read.and(write)
    }

    /// Ends both directions, for every handle.
    pub(crate) fn close(&self) {
        let _ = match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    /// Reads to the end of the connection: the reply, if a whole one came.
    pub(crate) fn reply(mut self) -> Option<Reply> {
        let mut bytes = Vec::new();
        // What came before a reset counts.
        let _ = self.read_to_end(&mut bytes);
        Reply::parse(&bytes)
    }

    /// Reads one line.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        let mut bytes = Vec::new();
        let mut byte = [0];
        while !bytes.ends_with(b"\n") {
            match self.read(&mut byte) {
                Ok(1) => bytes.push(byte[0]),
                end => panic!("no line, but {end:?} after {:?}", String::from_utf8_lossy(&bytes)),
            }
        }
        String::from_utf8(bytes).expect("text").trim_end().to_owned()
    }
}

impl Api {
    pub(crate) fn unix(path: &Path) -> Self {
        Self::Unix(path.to_owned())
    }

    /// Connects.
    #[track_caller]
    pub(crate) fn connect(&self) -> HttpStream {
        self.try_connect().unwrap_or_else(|error| panic!("connect to {self:?}: {error}"))
    }

    /// Tries to.
    pub(crate) fn try_connect(&self) -> io::Result<HttpStream> {
        let stream = match self {
            Self::Unix(path) => HttpStream::Unix(UnixStream::connect(path)?),
            Self::Tcp(addr) => HttpStream::Tcp(TcpStream::connect_timeout(addr, DEADLINE)?),
        };
        stream.set_deadline()?;
        Ok(stream)
    }

    /// The host that a request names.
    pub(crate) fn host(&self) -> String {
        match self {
            Self::Unix(_) => "portway".to_owned(),
            Self::Tcp(addr) => addr.to_string(),
        }
    }

    /// Asks for a path.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], None)
    }

    /// Sends a request without a body.
    #[track_caller]
    pub(crate) fn call(&self, method: &str, path: &str) -> Reply {
        self.send(method, path, &[], None)
    }

    /// Sends JSON.
    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, &[("content-type", "application/json")], Some(&body.to_string()))
    }

    /// Sends a request. Headers of the test replace those that are usual.
    #[track_caller]
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Reply {
        let reply = self.raw(&self.request(method, path, headers, body));
        reply.unwrap_or_else(|| panic!("no reply to {method} {path} from {self:?}"))
    }

    /// The bytes of a request after which the connection closes.
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Vec<u8> {
        let mut text = format!("{method} {path} HTTP/1.1\r\n");
        let length = body.map(|body| body.len().to_string()).unwrap_or_default();
        let host = self.host();
        let mut usual = vec![("host", &*host), ("connection", "close")];
        if body.is_some() {
            usual.push(("content-length", &length));
        }
        let is_given = |name: &str| headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
        for (name, value) in usual.iter().filter(|(name, _)| !is_given(name)).chain(headers) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.push_str(body.unwrap_or_default());
        text.into_bytes()
    }

    /// Sends bytes, and reads to the end.
    #[track_caller]
    pub(crate) fn raw(&self, bytes: &[u8]) -> Option<Reply> {
        let mut line = self.connect();
        // A daemon that has heard enough may close before the end.
        let _ = line.write_all(bytes);
        line.reply()
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let headers = lines.map(header).collect::<Option<Vec<_>>>()?;
        let mut reply = Self { status, headers, body: String::new() };
        let body = &bytes[end + 4..];
        let body = match reply.header("transfer-encoding") {
            Some("chunked") => whole_of(body)?,
            _ => body.to_vec(),
        };
        reply.body = String::from_utf8(body).ok()?;
        Some(reply)
    }

    /// A header, if it is there.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| &**value)
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Fails unless it has this status.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "status of {self:?}");
        self
    }

    /// The error that it tells.
    #[track_caller]
    pub(crate) fn error(&self) -> String {
        let error = self.json()["error"].as_str().map(str::to_owned);
        error.unwrap_or_else(|| panic!("no error in {self:?}"))
    }
}

/// The body of chunks, if their end came.
fn whole_of(mut chunks: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = chunks.windows(2).position(|window| window == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&chunks[..end]).ok()?, 16).ok()?;
        let rest = chunks.get(end + 2..)?;
        if length == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(rest.get(..length)?);
        chunks = rest.get(length + 2..)?;
    }
}
