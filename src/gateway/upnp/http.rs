//! The few HTTP requests that UPnP needs, and the transport of the library's requests.
//!
//! Owns how a request leaves. Where its answer ends is decided in [`reply`](super::reply). Knows
//! nothing of what is asked. The client is our own, because general ones write header names in
//! lower case and refuse answers that break a rule.
//!
//! Invariants: a request leaves from the address it is given, since routers open ports only for the
//! machine that asks; its header names have the spelling that the UPnP documents print, since some
//! routers compare them letter by letter; it ends within [`CALL`]; no more than [`MOST_TAGS`]
//! elements are handed to a parser that builds a tree, which takes some kilobytes for each;
//! redirects are not followed. Nothing is spawned and no connection is kept.

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use igd_next::{RequestError, aio::Provider};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::{
    markup,
    reply::{Reply, Wait},
};
use crate::gateway::router::CALL;

/// How long nothing may come before an answer that may be whole is taken as it is.
const QUIET: Duration = Duration::from_millis(500);

/// The most elements in an answer to a request. Real ones have a dozen.
const MOST_TAGS: usize = 1000;

/// A call of the library: where its requests leave from, and the last error of one.
#[derive(Debug)]
struct Call {
    source: IpAddr,
    error: Mutex<Option<RequestError>>,
}

tokio::task_local! {
    /// The call under way: the library's transport cannot get it in another way.
    static CALL_UNDER_WAY: Arc<Call>;
}

/// The transport of the library's requests; only inside [`sent_from`].
#[derive(Clone, Debug)]
pub(super) struct Bound;

/// Lets the requests of a call of the library leave from `source`.
///
/// The error is that of the last request. The library turns it into another type for each call;
/// this replaces them all.
pub(super) async fn sent_from<T, E: Display>(
    source: IpAddr,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, RequestError> {
    let under_way = Arc::new(Call { source, error: Mutex::default() });
    let outcome = CALL_UNDER_WAY.scope(Arc::clone(&under_way), call).await;
    outcome.map_err(|error| {
        let sent = under_way.error.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Without one, the library did not understand the answer.
        sent.unwrap_or_else(|| RequestError::InvalidResponse(error.to_string()))
    })
}

impl Provider for Bound {
    async fn send_async(url: &str, action: &str, body: &str) -> Result<String, RequestError> {
        let call = CALL_UNDER_WAY.try_with(Arc::clone);
        let call = call.map_err(|_| invalid("a request without a source address"))?;
        let outcome = send_soap(call.source, url, action, body).await;
        let (outcome, error) = match outcome {
            Ok(text) => (Ok(text), None),
            // What the library does next depends on the code.
            Err(RequestError::ErrorCode(code, text)) => {
                (Err(RequestError::ErrorCode(code, text.clone())), Some(RequestError::ErrorCode(code, text)))
            }
            Err(error) => (Err(invalid(&error.to_string())), Some(error)),
        };
        *call.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
        outcome
    }
}

/// Sends one request to do something.
pub(super) async fn send_soap(
    source: IpAddr,
    url: &str,
    action: &str,
    body: &str,
) -> Result<String, RequestError> {
    let rest = url.strip_prefix("http://").ok_or_else(|| invalid("not an http address"))?;
    let (to, path) = host_and_path(rest)?;
    let request = post(to, path, action, body)?;
    let (status, text) = exchange(source, to, request.as_bytes()).await?;
    fault(status, &text)?;
    Ok(text)
}

/// The two parts of an address without its scheme.
pub(super) fn host_and_path(rest: &str) -> Result<(SocketAddr, &str), RequestError> {
    let (to, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    Ok((to.parse().map_err(|_| invalid("not the address of a router"))?, path))
}

/// An answer that tells of an error, as one.
///
/// The library loses the code of a fault whose text is empty, and needs a tree to find it.
fn fault(status: u16, text: &str) -> Result<(), RequestError> {
    if text.bytes().filter(|byte| *byte == b'<').count() > MOST_TAGS || text.contains("<!DOCTYPE") {
        return Err(invalid("far more than an answer has"));
    }
    let code = markup::text(text, "errorCode").and_then(|code| code.parse().ok());
    match code {
        Some(code) => {
            Err(RequestError::ErrorCode(code, markup::text(text, "errorDescription").unwrap_or_default()))
        }
        None if status == 200 => Ok(()),
        None => Err(bare(status)),
    }
}

const BARE: &str = "HTTP status ";

/// A refusal that says no more than its status.
fn bare(status: u16) -> RequestError {
    RequestError::InvalidResponse(format!("{BARE}{status}"))
}

/// Whether the router refused without a word: that is how some do with a request that they do not
/// know.
pub(super) fn is_bare(error: &RequestError) -> bool {
    matches!(error, RequestError::InvalidResponse(text) if text.starts_with(BARE))
}

/// Fetches a document.
pub(super) async fn get(source: IpAddr, to: SocketAddr, path: &str) -> Result<String, RequestError> {
    let request = format!("{}\r\n", first_lines("GET", to, path)?);
    match exchange(source, to, request.as_bytes()).await? {
        (200, text) => Ok(text),
        (status, _) => Err(bare(status)),
    }
}

/// A request to do something. The spelling of the names is that of UPnP Device Architecture 1.0,
/// section 3.2.1, and for the action that of SOAP 1.1, section 6.1.1, which is what other programs
/// send.
fn post(to: SocketAddr, path: &str, action: &str, body: &str) -> Result<String, RequestError> {
    if action.contains(|c: char| c.is_control()) {
        return Err(invalid("not the name of an action"));
    }
    let first = first_lines("POST", to, path)?;
    let length = body.len();
    Ok(format!(
        "{first}CONTENT-LENGTH: {length}\r\nCONTENT-TYPE: text/xml; charset=\"utf-8\"\r\nSOAPAction: {action}\r\n\r\n{body}"
    ))
}

/// What every request begins with. The path comes from the router: it must not end its line.
fn first_lines(method: &str, to: SocketAddr, path: &str) -> Result<String, RequestError> {
    let path = if path.is_empty() { "/" } else { path };
    if !path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(invalid("not a path"));
    }
    // An address without the zone that it may have.
    let host = SocketAddr::new(to.ip(), to.port());
    Ok(format!("{method} {path} HTTP/1.1\r\nHOST: {host}\r\nConnection: close\r\n"))
}

/// One request on a connection of its own: the status, and the body as text.
async fn exchange(source: IpAddr, to: SocketAddr, request: &[u8]) -> Result<(u16, String), RequestError> {
    let exchange = async {
        let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(SocketAddr::new(source, 0))?;
        let mut stream = socket.connect(to).await?;
        // A router that refuses may close before it has read all: its answer counts all the same.
        let sent = stream.write_all(request).await;
        let mut reply = Reply::default();
        let received = receive(&mut stream, &mut reply).await;
        match (reply.finish(), sent, received) {
            // It is too long.
            (_, _, Err(error @ RequestError::InvalidResponse(_))) => Err(error),
            (Some(answer), ..) => Ok(answer),
            (None, Err(error), _) => Err(error.into()),
            (None, _, Err(error)) => Err(error),
            (None, Ok(()), Ok(())) => Err(invalid("no answer")),
        }
    };
    timeout(CALL, exchange).await?
}

/// Reads an answer to its end, or until nothing more comes of one that may be whole.
async fn receive(stream: &mut TcpStream, reply: &mut Reply) -> Result<(), RequestError> {
    let mut buffer = vec![0; 4096];
    loop {
        let patience = match reply.wait() {
            Wait::Over => return Ok(()),
            Wait::Briefly => QUIET,
            Wait::On => CALL,
        };
        match timeout(patience, stream.read(&mut buffer)).await {
            Ok(Ok(0)) | Err(_) => return Ok(()),
            Ok(Ok(length)) => {
                reply.take(&buffer[..length]).map_err(|_| invalid("its answer is too long"))?;
            }
            Ok(Err(error)) => return Err(error.into()),
        }
    }
}

fn invalid(why: &str) -> RequestError {
    RequestError::InvalidResponse(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Option<(u16, String)> {
        match fault(500, text) {
            Err(RequestError::ErrorCode(code, text)) => Some((code, text)),
            _ => None,
        }
    }

    #[test]
    fn the_code_of_a_fault_is_found_whatever_is_beside_it() {
        assert_eq!(code("<e:errorCode> 718 </e:errorCode>"), Some((718, String::new())));
        assert_eq!(code("<errorCode>718</errorCode><errorDescription/>"), Some((718, String::new())));
        let text = "<errorCode>606</errorCode><errorDescription>no</errorDescription>";
        assert_eq!(code(text), Some((606, "no".into())));
        assert_eq!(code("<errorCode>7180000</errorCode>"), None);
        assert!(fault(500, "").is_err());
        assert!(fault(200, "<x/>").is_ok());
    }

    #[test]
    fn a_request_has_the_names_of_the_documents_and_no_line_of_the_router() {
        let to = SocketAddr::from(([192, 168, 1, 1], 5000));
        assert_eq!(
            post(to, "/ctl", "\"urn:a:1#B\"", "<x/>").unwrap(),
            "POST /ctl HTTP/1.1\r\nHOST: 192.168.1.1:5000\r\nConnection: close\r\nCONTENT-LENGTH: 4\r\n\
             CONTENT-TYPE: text/xml; charset=\"utf-8\"\r\nSOAPAction: \"urn:a:1#B\"\r\n\r\n<x/>"
        );
        for path in ["/a b", "/a\r\nX: y", "/\u{0}", "a", "/\u{a0}"] {
            assert!(first_lines("GET", to, path).is_err(), "{path:?}");
        }
        assert!(post(to, "/ctl", "a\r\nX: y", "").is_err());
        assert!(first_lines("GET", to, "").unwrap().starts_with("GET / HTTP/1.1\r\n"));
    }

    #[test]
    fn an_answer_of_nothing_but_elements_never_reaches_a_tree() {
        assert!(fault(200, &"<a/>".repeat(MOST_TAGS)).is_ok());
        assert!(fault(200, &"<a/>".repeat(MOST_TAGS + 1)).is_err());
        assert!(fault(200, "<!DOCTYPE a [<!ENTITY b 'bbb'>]>").is_err());
    }
}
