//! How another portway is asked: over HTTP, over TLS, or at a socket of this machine.
//!
//! Owns one request: connect, ask, read the answer, close, all within [`PATIENCE`]. No redirect is
//! followed, and an answer has at most [`MOST`] bytes. portway has no TLS of its own, which would
//! end its static build without C: `https` is asked by the system's `curl`. The token reaches it
//! through its standard input, as everyone can read the arguments of a process.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream, lookup_host},
    time::timeout,
};

use super::{Question, Tried};
use crate::{
    config::{NodeUrl, Secret, WebUrl},
    job,
    status::view::Failure,
    text::clean,
};

/// How long the whole may take. The other node tries for up to seven seconds.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long one address of the other node may take to be connected.
const CONNECT: Duration = Duration::from_secs(4);
/// The largest answer.
const MOST: usize = 64 * 1024;
/// The route.
const ROUTE: &str = "/v1/probe";
/// What curl says of a name without an address of the family that was asked for, and of one that
/// cannot be connected.
const NO_WAY: [i32; 2] = [6, 7];

/// Another portway.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    url: NodeUrl,
    token: Option<Secret>,
}

/// Why another portway gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// It cannot be connected.
    #[error("{url} cannot be asked: {why}")]
    Connect {
        /// Where it is.
        url: String,
        /// What the system said.
        why: String,
    },
    /// It takes too long.
    #[error("{url} has not answered for {} s", PATIENCE.as_secs())]
    Slow {
        /// Where it is.
        url: String,
    },
    /// Something else answers.
    #[error("{url} does not answer as a portway does: {why}")]
    Stranger {
        /// Where it is.
        url: String,
        /// What shows that.
        why: String,
    },
    /// It refuses the request.
    #[error("{url} refuses: {why}")]
    Refused {
        /// Where it is.
        url: String,
        /// The status of HTTP.
        status: u16,
        /// Its words.
        why: String,
    },
    /// The program for TLS is missing.
    #[error("{0} is asked by curl, which is not installed")]
    NoCurl(String),
}

impl AskError {
    /// What the person can do.
    pub(crate) fn help(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "look whether that portway runs, and whether its [api] listen is reached",
            Self::Slow { .. } => "try again; the log of that portway may have the reason",
            Self::Stranger { .. } => {
                "name the address of its API: that of [api] listen, or of the proxy before it"
            }
            Self::Refused { status: 401, .. } => {
                "use the token of that portway's [probe] token_file: in this one's, or by --token-file"
            }
            Self::Refused { status: 403, .. } => {
                "ask over the way by which clients come in: not from that machine or its network, and not through a VPN"
            }
            Self::Refused { status: 404, .. } => "set [probe] token_file on that portway",
            Self::Refused { status: 421, .. } => {
                "add the name to [api] hosts on that portway, or use its address"
            }
            Self::Refused { status: 429, .. } => {
                "try again in a minute; `portway doctor NAME` tries one mapping"
            }
            Self::Refused { .. } => "its log may have the reason",
            Self::NoCurl(_) => "install curl, or ask over http where the way is private",
        }
    }
}

impl Node {
    /// The one at this address, which gets this token.
    pub(crate) fn new(url: NodeUrl, token: Option<Secret>) -> Self {
        Self { url, token }
    }

    /// Has it try a port of this machine.
    ///
    /// # Errors
    /// [`AskError`].
    pub(crate) async fn ask(&self, question: &Question) -> Result<Tried, AskError> {
        let body = serde_json::to_vec(question).expect("plain values");
        let asked = timeout(PATIENCE, Box::pin(self.exchange(body))).await;
        let (status, bytes) = asked.map_err(|_late| AskError::Slow { url: self.name() })??;
        let tried = match status {
            200 => serde_json::from_slice::<Tried>(&bytes),
            status => return Err(self.refused(status, &bytes)),
        };
        let mut tried = tried.map_err(|_| self.stranger("its answer is another one"))?;
        // It is shown, and the other side may have written anything.
        for text in [&mut tried.then, &mut tried.kind, &mut tried.error].into_iter().flatten() {
            *text = clean(text);
        }
        tried.address = clean(&tried.address);
        Ok(tried)
    }

    async fn exchange(&self, body: Vec<u8>) -> Result<(u16, Vec<u8>), AskError> {
        match &self.url {
            NodeUrl::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| self.unreached(&error))?;
                self.over(stream, ("localhost", ""), body).await
            }
            NodeUrl::Http(web) => {
                let stream = connect(web).await.map_err(|error| self.unreached(&error))?;
                self.over(stream, (&web.authority, &web.base), body).await
            }
            NodeUrl::Https(_) => {
                let node = self.clone();
                let asked = job::run_within(PATIENCE, "portway-curl", move || node.by_curl(&body)).await;
                asked.unwrap_or_else(|error| Err(self.not_run(&error)))
            }
        }
    }

    /// Asks over a connection.
    async fn over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        (host, base): (&str, &str),
        body: Vec<u8>,
    ) -> Result<(u16, Vec<u8>), AskError> {
        let strange = |error: hyper::Error| self.stranger(&error.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(strange)?;
        let mut request = Request::post(format!("{base}{ROUTE}"))
            .header(header::HOST, host)
            .header(header::USER_AGENT, "portway")
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, [b"Bearer ", token.as_bytes()].concat());
        }
        let request = request.body(Full::new(Bytes::from(body)));
        let request = request.map_err(|error| self.stranger(&error.to_string()))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(strange)?;
            let status = response.status().as_u16();
            let (mut body, mut bytes) = (response.into_body(), Vec::new());
            while let Some(frame) = body.frame().await {
                if let Ok(data) = frame.map_err(strange)?.into_data() {
                    bytes.extend_from_slice(&data);
                }
                if bytes.len() > MOST {
                    return Err(self.stranger("its answer is too long"));
                }
            }
            Ok((status, bytes))
        };
        let (mut answer, mut connection) = (std::pin::pin!(answer), std::pin::pin!(connection));
        tokio::select! {
            answer = &mut answer => answer,
            // The rest of the answer may be here already.
            _ = &mut connection => answer.await,
        }
    }

    /// Asks by curl: over IPv4, as the ports of home routers are, or else over IPv6. It blocks.
    fn by_curl(&self, body: &[u8]) -> Result<(u16, Vec<u8>), AskError> {
        match self.curl("--ipv4", body)? {
            (Some(code), _) if NO_WAY.contains(&code) => self.of_curl(self.curl("--ipv6", body)?),
            output => self.of_curl(output),
        }
    }

    fn curl(&self, family: &str, body: &[u8]) -> Result<(Option<i32>, std::process::Output), AskError> {
        let mut command = Command::new("curl");
        command.args(["-q", family, "--silent", "--show-error", "--proto", "=https", "--config", "-"]);
        command.args(["--connect-timeout", &CONNECT.as_secs().to_string()]);
        command.args(["--max-time", &(PATIENCE - Duration::from_secs(1)).as_secs().to_string()]);
        command.args(["--max-filesize", &MOST.to_string(), "--write-out", "\\n%{http_code}"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => AskError::NoCurl(self.name()),
            _ => self.not_run(&error),
        };
        let mut child = command.spawn().map_err(failed)?;
        let mut config = Vec::new();
        let mut option = |name: &str, parts: [&[u8]; 2]| {
            let quoted = parts.concat().into_iter().flat_map(|byte| {
                let escape = matches!(byte, b'"' | b'\\').then_some(b'\\');
                escape.into_iter().chain([byte])
            });
            config.extend([name.as_bytes(), b" = \""].concat().into_iter().chain(quoted).chain(*b"\"\n"));
        };
        option("url", [format!("{}{ROUTE}", self.url).as_bytes(), b""]);
        option("header", [b"Content-Type: application/json", b""]);
        if let Some(token) = &self.token {
            option("header", [b"Authorization: Bearer ", token.as_bytes()]);
        }
        option("data", [body, b""]);
        // It has no answer yet that could fill its pipes. One that ends early says why.
        let _ = child.stdin.take().map(|mut input| input.write_all(&config));
        let output = child.wait_with_output().map_err(failed)?;
        Ok((output.status.code(), output))
    }

    fn of_curl(
        &self,
        (code, output): (Option<i32>, std::process::Output),
    ) -> Result<(u16, Vec<u8>), AskError> {
        if code != Some(0) {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(AskError::Connect { url: self.name(), why: clean(&why) });
        }
        let at = output.stdout.iter().rposition(|byte| *byte == b'\n');
        let (body, status) = output.stdout.split_at(at.unwrap_or_default());
        let status = std::str::from_utf8(status).ok().and_then(|status| status.trim().parse().ok());
        let status = status.ok_or_else(|| self.stranger("curl does not say how it answers"))?;
        Ok((status, body.to_vec()))
    }

    /// What another status than 200 means.
    fn refused(&self, status: u16, bytes: &[u8]) -> AskError {
        match serde_json::from_slice::<Failure>(bytes) {
            Ok(failure) if !failure.error.is_empty() => {
                AskError::Refused { url: self.name(), status, why: clean(&failure.error) }
            }
            _ => self.stranger(&format!("HTTP {status} without a reason")),
        }
    }

    fn stranger(&self, why: &str) -> AskError {
        AskError::Stranger { url: self.name(), why: clean(why) }
    }

    fn not_run(&self, error: &dyn std::error::Error) -> AskError {
        AskError::Connect { url: self.name(), why: format!("curl cannot be run: {error}") }
    }

    fn unreached(&self, error: &io::Error) -> AskError {
        AskError::Connect { url: self.name(), why: clean(&error.to_string()) }
    }

    /// Where it is, for messages.
    pub(crate) fn name(&self) -> String {
        clean(&self.url.to_string())
    }

    /// Whether it is a socket of this machine: it does not see an address of its own.
    pub(crate) fn is_local(&self) -> bool {
        matches!(&self.url, NodeUrl::Unix(_))
    }
}

/// Connects over IPv4, as the ports of home routers are, or else over IPv6.
async fn connect(web: &WebUrl) -> io::Result<TcpStream> {
    let mut all: Vec<SocketAddr> = lookup_host((&*web.host, web.port)).await?.collect();
    all.sort_by_key(SocketAddr::is_ipv6);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for addr in all {
        match timeout(CONNECT, TcpStream::connect(addr)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_late) => last = io::Error::new(io::ErrorKind::TimedOut, "it does not answer"),
        }
    }
    Err(last)
}
