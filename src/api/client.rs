//! A client of the API over the unix socket: for the commands of this program, and for `top`.
//!
//! Owns one request at a time: connect, ask, read the answer, close. Each step has a limit of time,
//! and an answer has one of bytes. A stream of events ([`Events`]) is an answer without an end: the
//! server's heartbeat says that it still lives. Knows no command, and prints nothing.
//!
//! A [`ClientError`] says what happened, and [`ClientError::help`] what the person can do.

mod error;
mod events;

use std::{
    io,
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

pub(crate) use error::ClientError;
pub(crate) use events::{Events, Received};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{net::UnixStream, time::timeout};

use crate::status::view::Failure;

/// How long the daemon may take to begin an answer, and to go on with it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
/// The same for a request that binds sockets and reads files.
pub(crate) const LONG_PATIENCE: Duration = Duration::from_mins(2);
/// The largest answer. A session takes about 300 bytes.
const LARGEST: usize = 512 << 20;

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    method: Method,
    path: String,
    body: Option<Value>,
    patience: Duration,
    header: Option<(&'static str, String)>,
}

impl Ask {
    /// Reads what is at `path`.
    pub(crate) fn get(path: &str) -> Self {
        Self::new(Method::GET, path)
    }

    /// Asks for an action.
    pub(crate) fn post(path: &str) -> Self {
        Self::new(Method::POST, path)
    }

    /// Makes what is at `path`, or changes it.
    pub(crate) fn put(path: &str) -> Self {
        Self::new(Method::PUT, path)
    }

    /// Removes what is at `path`.
    pub(crate) fn delete(path: &str) -> Self {
        Self::new(Method::DELETE, path)
    }

    fn new(method: Method, path: &str) -> Self {
        Self { method, path: path.to_owned(), body: None, patience: PATIENCE, header: None }
    }

    /// With another step of the path, encoded: the name of a mapping may have a slash.
    pub(crate) fn step(mut self, step: &str) -> Self {
        self.path.push('/');
        for byte in step.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    self.path.push(char::from(byte));
                }
                _ => self.path.push_str(&format!("%{byte:02X}")),
            }
        }
        self
    }

    /// With a parameter, where it has a value.
    pub(crate) fn with(mut self, name: &str, value: Option<&str>) -> Self {
        if let Some(value) = value {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            self.path.push(if self.path.contains('?') { '&' } else { '?' });
            self.path.push_str(&query.append_pair(name, value).finish());
        }
        self
    }

    /// With a body.
    pub(crate) fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// With more time until the answer begins.
    pub(crate) fn patiently(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn header(mut self, name: &'static str, value: String) -> Self {
        self.header = Some((name, value));
        self
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(&self.method).uri(&*self.path);
        request = request.header(header::HOST, "localhost").header(header::USER_AGENT, "portway");
        if let Some((name, value)) = &self.header {
            request = request.header(*name, value);
        }
        let body = self.body.as_ref().map(|body| Bytes::from(body.to_string()));
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        // The path is encoded and the header is a number.
        request.body(Full::new(body.unwrap_or_default())).expect("a request of plain characters")
    }
}

/// An answer that says that it went well.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    socket: PathBuf,
    /// Its JSON.
    pub(crate) json: Value,
}

impl Answer {
    /// Reads the value in it.
    ///
    /// # Errors
    /// JSON of another kind.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        T::deserialize(&self.json).map_err(|error| ClientError::stranger(&self.socket, error))
    }
}

/// A daemon, by the places where its socket may be.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    sockets: Vec<PathBuf>,
}

impl Client {
    /// A client of the first of these sockets that a daemon listens on.
    pub(crate) fn new(sockets: Vec<PathBuf>) -> Self {
        Self { sockets }
    }

    /// Asks, and reads the whole answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) async fn ask(&self, ask: &Ask) -> Result<Answer, ClientError> {
        let (socket, stream) = self.connect().await?;
        let (mut sender, connection) = handshake(&socket, stream).await?;
        let exchange = async {
            let response = sent(&socket, &mut sender, ask).await?;
            let status = response.status();
            let bytes = whole(&socket, response.into_body()).await?;
            answer(&socket, status, &bytes)
        };
        let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
        tokio::select! {
            answer = &mut exchange => answer,
            // The rest of the answer may be here already.
            _ = &mut connection => exchange.await,
        }
    }

    /// Follows what happens: all from now on, or with `after` also what came behind that number
    /// (0 is all that the daemon remembers).
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) async fn follow(&self, ask: Ask, after: Option<u64>) -> Result<Events, ClientError> {
        let (socket, stream) = self.connect().await?;
        let ask = match after {
            Some(after) => ask.header("last-event-id", after.to_string()),
            None => ask,
        };
        let (mut sender, connection) = handshake(&socket, stream).await?;
        let mut connection = Box::pin(connection);
        let head = {
            let mut head = pin!(sent(&socket, &mut sender, &ask));
            tokio::select! {
                head = &mut head => head,
                _ = &mut connection => head.await,
            }
        };
        let response = head?;
        let status = response.status();
        if status.is_success() {
            return Events::new(socket, response, connection);
        }
        let mut body = pin!(whole(&socket, response.into_body()));
        let bytes = tokio::select! {
            bytes = &mut body => bytes,
            _ = &mut connection => body.await,
        };
        Err(match answer(&socket, status, &bytes?) {
            Err(error) => error,
            Ok(_) => ClientError::stranger(&socket, "it answers with another status"),
        })
    }

    /// Connects to the first socket that a daemon listens on.
    async fn connect(&self) -> Result<(PathBuf, UnixStream), ClientError> {
        let mut denied = None;
        for socket in &self.sockets {
            match timeout(PATIENCE, UnixStream::connect(socket)).await {
                Ok(Ok(stream)) => return Ok((socket.clone(), stream)),
                Ok(Err(error)) => match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {}
                    io::ErrorKind::PermissionDenied => {
                        denied.get_or_insert_with(|| ClientError::denied(socket));
                    }
                    _ => return Err(ClientError::Connect { socket: socket.clone(), error }),
                },
                Err(_) => return Err(ClientError::Slow { socket: socket.clone(), limit: PATIENCE }),
            }
        }
        Err(denied.unwrap_or_else(|| ClientError::NoDaemon(self.sockets.clone())))
    }
}

type Sender = http1::SendRequest<Full<Bytes>>;
type Connection = http1::Connection<TokioIo<UnixStream>, Full<Bytes>>;

async fn handshake(socket: &Path, stream: UnixStream) -> Result<(Sender, Connection), ClientError> {
    http1::handshake(TokioIo::new(stream)).await.map_err(|error| ClientError::of_http(socket, &error))
}

/// Sends the request, and waits for the start of the answer.
async fn sent(socket: &Path, sender: &mut Sender, ask: &Ask) -> Result<Response<Incoming>, ClientError> {
    match timeout(ask.patience, sender.send_request(ask.request())).await {
        Ok(response) => response.map_err(|error| ClientError::of_http(socket, &error)),
        Err(_) => Err(ClientError::Slow { socket: socket.to_owned(), limit: ask.patience }),
    }
}

/// Reads a body to its end.
async fn whole(socket: &Path, mut body: Incoming) -> Result<Vec<u8>, ClientError> {
    let mut bytes = Vec::new();
    loop {
        let frame = timeout(PATIENCE, body.frame()).await;
        let late = |_| ClientError::Slow { socket: socket.to_owned(), limit: PATIENCE };
        let Some(frame) = frame.map_err(late)? else { return Ok(bytes) };
        let frame = frame.map_err(|error| ClientError::of_http(socket, &error))?;
        if let Ok(data) = frame.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > LARGEST {
            return Err(ClientError::stranger(socket, format!("more than {} MiB", LARGEST >> 20)));
        }
    }
}

/// What an answer with this status and this body says.
fn answer(socket: &Path, status: StatusCode, bytes: &[u8]) -> Result<Answer, ClientError> {
    let json = if bytes.is_empty() { Ok(Value::Null) } else { serde_json::from_slice::<Value>(bytes) };
    let stranger = |what: String| ClientError::stranger(socket, what);
    let json = json.map_err(|_| stranger(format!("its answer (HTTP {}) is not JSON", status.as_u16())))?;
    let answer = Answer { socket: socket.to_owned(), json };
    if status.is_success() {
        return Ok(answer);
    }
    match answer.read::<Failure>() {
        Ok(failure) if !failure.error.is_empty() => {
            Err(ClientError::Refused { status: status.as_u16(), failure, json: answer.json })
        }
        _ => Err(stranger(format!("it answers HTTP {} without a reason", status.as_u16()))),
    }
}

#[cfg(test)]
pub(crate) mod tests;
