//! The few HTTP requests that UPnP needs, and the transport of the library's requests.
//!
//! Owns how a request leaves and how much of an answer is taken. Knows nothing of what is asked. Invariants: a request
//! leaves from the address it is given, since routers open ports only for the machine that asks; it ends within
//! [`CALL`]; no more than [`LARGEST`] bytes of an answer are read and no more than [`MOST_TAGS`] elements are handed to
//! a parser that builds a tree, which takes some kilobytes for each; redirects are not followed. Nothing is spawned and
//! no connection is kept.

use std::{
    net::{IpAddr, SocketAddr},
    pin::pin,
};

use http_body_util::{BodyExt, Limited};
use hyper::{
    Request,
    client::conn::http1,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use igd_next::{RequestError, aio::Provider};
use tokio::{net::TcpSocket, time::timeout};

use super::{super::driver::CALL, markup};

/// The longest body that is read. Descriptions have some 20 KiB.
const LARGEST: usize = 128 * 1024;

/// The most elements in an answer to a request. Real ones have a dozen.
const MOST_TAGS: usize = 1000;

tokio::task_local! {
    /// The address that the library's requests leave from: its transport has no other way to learn it.
    static SOURCE: IpAddr;
}

/// The transport of the library's requests; only inside [`sent_from`].
#[derive(Clone, Debug)]
pub(super) struct Bound;

/// Lets the library's requests in `calls` leave from `source`.
pub(super) async fn sent_from<F: Future>(source: IpAddr, calls: F) -> F::Output {
    SOURCE.scope(source, calls).await
}

impl Provider for Bound {
    async fn send_async(url: &str, action: &str, body: &str) -> Result<String, RequestError> {
        let source = SOURCE.try_with(|source| *source);
        let source = source.map_err(|_| invalid("a request without a source address"))?;
        let rest = url.strip_prefix("http://").ok_or_else(|| invalid("not an http address"))?;
        let (to, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let to = to.parse().map_err(|_| invalid("not the address of a router"))?;
        let request = Request::post(if path.is_empty() { "/" } else { path })
            .header(CONTENT_TYPE, "text/xml; charset=\"utf-8\"")
            .header(CONTENT_LENGTH, body.len())
            .header("SOAPAction", action);
        let (status, text) = exchange(source, to, request, body.to_owned()).await?;
        fault(status, &text)?;
        Ok(text)
    }
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

/// Whether the router refused without a word: that is how some do with a request that they do not know.
pub(super) fn is_bare(error: &RequestError) -> bool {
    matches!(error, RequestError::InvalidResponse(text) if text.starts_with(BARE))
}

/// Fetches a document.
pub(super) async fn get(source: IpAddr, to: SocketAddr, path: &str) -> Result<String, RequestError> {
    match exchange(source, to, Request::get(path), String::new()).await? {
        (200, text) => Ok(text),
        (status, _) => Err(bare(status)),
    }
}

/// One request on a connection of its own: the status, and the body as text.
async fn exchange(
    source: IpAddr,
    to: SocketAddr,
    request: hyper::http::request::Builder,
    body: String,
) -> Result<(u16, String), RequestError> {
    let exchange = async {
        let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(SocketAddr::new(source, 0))?;
        let io = TokioIo::new(socket.connect(to).await?);
        let mut http = http1::Builder::new();
        http.max_buf_size(16 * 1024);
        let (mut sender, connection) = http.handshake(io).await?;
        let host = SocketAddr::new(to.ip(), to.port()).to_string();
        let request = request.header(HOST, host).header(CONNECTION, "close").body(body)?;
        let mut answer = pin!(async {
            let response = sender.send_request(request).await?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), LARGEST).collect().await;
            let body = body.map_err(|e| RequestError::InvalidResponse(e.to_string()))?.to_bytes();
            // A text in another encoding is no reason to lose the numbers beside it.
            Ok((status, String::from_utf8_lossy(&body).into_owned()))
        });
        // The connection moves the bytes; at its end what it has read is still to be taken.
        tokio::select! {
            answer = &mut answer => answer,
            _ = connection => answer.await,
        }
    };
    timeout(CALL, exchange).await?
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
    fn an_answer_of_nothing_but_elements_never_reaches_a_tree() {
        assert!(fault(200, &"<a/>".repeat(MOST_TAGS)).is_ok());
        assert!(fault(200, &"<a/>".repeat(MOST_TAGS + 1)).is_err());
        assert!(fault(200, "<!DOCTYPE a [<!ENTITY b 'bbb'>]>").is_err());
    }
}
