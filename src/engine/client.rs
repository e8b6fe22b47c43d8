//! Asks an engine: one connection for each request.

use std::{
    pin::{Pin, pin},
    time::{Duration, SystemTime},
};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::{EngineAddress, EngineError, address::Way};
use crate::{mapping::Timeout, sock::set_keepalive};

/// How long it may take to connect.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a connection may be silent before its peer is asked for a sign of life.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// The longest reason that is read of a refusal.
const LONGEST_WORDS: usize = 16 << 10;
/// The longest event: one has the labels of its container.
const LONGEST_EVENT: usize = 1 << 20;

/// An engine.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    address: EngineAddress,
}

/// How much an answer may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// The time until all of it is there.
    pub(crate) time: Duration,
    /// Its bytes.
    pub(crate) bytes: usize,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type Connection = http1::Connection<TokioIo<Box<dyn Io>>, Full<Bytes>>;

impl Engine {
    /// The engine at an address. It is connected for each request.
    pub(crate) fn at(address: EngineAddress) -> Self {
        Self { address }
    }

    /// Where it is.
    pub(crate) fn address(&self) -> &EngineAddress {
        &self.address
    }

    /// Asks for an action. One that is done already counts as done.
    ///
    /// # Errors
    /// [`EngineError`].
    pub(crate) async fn post(&self, path: &str, patience: Duration) -> Result<(), EngineError> {
        let asked = async {
            let (response, connection) = self.asked(Method::POST, path).await?;
            let status = response.status();
            // 304: it is so already.
            if status.is_success() || status.as_u16() == 304 {
                return Ok(());
            }
            Err(refused(response, connection).await)
        };
        timeout(patience, asked).await.unwrap_or(Err(EngineError::Late(patience)))
    }

    /// Reads what is at `path`, and the time of the engine's own clock, where the answer has it.
    ///
    /// # Errors
    /// [`EngineError`], also for an answer beyond `bounds`.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        bounds: Bounds,
    ) -> Result<(T, Option<SystemTime>), EngineError> {
        let asked = async {
            let (response, connection) = self.asked(Method::GET, path).await?;
            if !response.status().is_success() {
                return Err(refused(response, connection).await);
            }
            let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok());
            let date = date.and_then(httpdate);
            let bytes = Answer::of(response, connection).whole(bounds.bytes).await?;
            let value =
                serde_json::from_slice(&bytes).map_err(|error| EngineError::Strange(error.to_string()))?;
            Ok((value, date))
        };
        timeout(bounds.time, asked).await.unwrap_or(Err(EngineError::Late(bounds.time)))
    }

    /// Follows a stream of lines until it breaks, and gives each to `take`. May be dropped at any
    /// time.
    pub(crate) async fn follow(&self, path: &str, mut take: impl FnMut(&[u8])) -> EngineError {
        // Some engines begin to answer with the first event, so that nothing here has a limit.
        let (response, connection) = match self.asked(Method::GET, path).await {
            Ok(asked) => asked,
            Err(error) => return error,
        };
        if !response.status().is_success() {
            return refused(response, connection).await;
        }
        let (mut answer, mut line) = (Answer::of(response, connection), Vec::new());
        loop {
            let data = match answer.next().await {
                Ok(Some(data)) => data,
                Ok(None) => return EngineError::Ended,
                Err(error) => return error,
            };
            for piece in data.split_inclusive(|byte| *byte == b'\n') {
                if line.len() + piece.len() > LONGEST_EVENT {
                    return EngineError::Strange(format!(
                        "an event has more than {} MiB",
                        LONGEST_EVENT >> 20
                    ));
                }
                line.extend_from_slice(piece);
                if piece.ends_with(b"\n") {
                    take(line.trim_ascii());
                    line.clear();
                }
            }
        }
    }

    /// Sends a request, and waits for the start of the answer.
    async fn asked(
        &self,
        method: Method,
        path: &str,
    ) -> Result<(Response<Incoming>, Pin<Box<Connection>>), EngineError> {
        let stream = timeout(CONNECT, self.connect()).await.map_err(|_| EngineError::Late(CONNECT))?;
        let stream = TokioIo::new(stream.map_err(EngineError::Connect)?);
        let (mut sender, connection) = http1::handshake(stream).await.map_err(EngineError::Http)?;
        let mut connection = Box::pin(connection);
        let request = Request::builder().method(method).uri(path).header(header::HOST, self.host());
        let request = request.header(header::USER_AGENT, "portway").body(Full::default());
        let request = request.map_err(|error| EngineError::Strange(error.to_string()))?;
        let mut answer = pin!(sender.send_request(request));
        let response = tokio::select! {
            answer = &mut answer => answer,
            // The answer may be here already.
            _ = &mut connection => answer.await,
        };
        Ok((response.map_err(EngineError::Http)?, connection))
    }

    async fn connect(&self) -> std::io::Result<Box<dyn Io>> {
        match &self.address.way {
            Way::Unix(path) => UnixStream::connect(path).await.map(|stream| Box::new(stream) as _),
            Way::Tcp(host) => {
                let stream = TcpStream::connect(host).await?;
                keep_alive(&stream);
                Ok(Box::new(stream))
            }
        }
    }

    fn host(&self) -> &str {
        match &self.address.way {
            Way::Unix(_) => "localhost",
            Way::Tcp(host) => host,
        }
    }
}

/// A machine that goes away without a word is noticed: a stream of events may be silent for hours.
fn keep_alive(stream: &TcpStream) {
    // Without it, the list that is read from time to time still notices.
    let _ = set_keepalive(stream, Timeout::After(KEEPALIVE));
}

/// The body of an answer, and the connection that brings it.
struct Answer {
    body: Incoming,
    /// `None` once it has ended.
    connection: Option<Pin<Box<Connection>>>,
}

impl Answer {
    fn of(response: Response<Incoming>, connection: Pin<Box<Connection>>) -> Self {
        Self { body: response.into_body(), connection: Some(connection) }
    }

    /// The next piece, or `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, EngineError> {
        let frame = loop {
            let Some(connection) = &mut self.connection else { break self.body.frame().await };
            tokio::select! {
                frame = self.body.frame() => break frame,
                // The body may be here already.
                _ = connection => self.connection = None,
            }
        };
        let data = frame.transpose().map_err(EngineError::Http)?;
        Ok(data.map(|frame| frame.into_data().unwrap_or_default()))
    }

    /// All of it, if it has at most so many bytes.
    async fn whole(mut self, most: usize) -> Result<Vec<u8>, EngineError> {
        let mut bytes = Vec::new();
        while let Some(data) = self.next().await? {
            if bytes.len() + data.len() > most {
                return Err(EngineError::Strange(format!("it has more than {} KiB", most >> 10)));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes)
    }
}

/// The reason that the engine gives for its refusal.
async fn refused(response: Response<Incoming>, connection: Pin<Box<Connection>>) -> EngineError {
    #[derive(Deserialize)]
    struct Words {
        message: String,
    }
    let status = response.status();
    let bytes = Answer::of(response, connection).whole(LONGEST_WORDS).await.unwrap_or_default();
    let words = serde_json::from_slice::<Words>(&bytes).map(|words| words.message);
    let message = match words {
        Ok(message) if !message.trim().is_empty() => message.trim().to_owned(),
        _ => status.canonical_reason().unwrap_or("refused").to_owned(),
    };
    EngineError::Refused { status: status.as_u16(), message }
}

/// The time of a `Date` header: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn httpdate(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let [_, day, month, year, time, "GMT"] = text.split(' ').collect::<Vec<_>>()[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    humantime::parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z")).ok()
}
