//! The try: one TCP connection, or a datagram and its answer.
//!
//! It sends nothing over TCP, and reads up to [`MOST`] bytes. Over UDP it sends a datagram of a
//! form of its own, so it cannot be made to talk to another service.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::AsyncReadExt as _,
    net::{TcpStream, UdpSocket},
    time::{Instant, sleep_until, timeout},
};

use super::{Outcome, Tried};
use crate::{
    mapping::Protocol,
    policy::{Nonce, PROBE_LENGTH, is_answer, question},
};

/// How long a connection, or an answer, may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How long the first bytes of a connection may take.
const FIRST_BYTES: Duration = Duration::from_secs(2);
/// The most bytes that are read.
const MOST: usize = 256;
/// When a datagram is sent again, from the start on: UDP may lose it.
const AGAIN: [Duration; 3] =
    [Duration::from_millis(500), Duration::from_millis(1500), Duration::from_millis(3000)];

/// Tries an address. `nonce` is for UDP.
pub(crate) async fn attempt(to: SocketAddr, protocol: Protocol, nonce: Nonce) -> Tried {
    let tried = match protocol {
        Protocol::Tcp => connect(to).await,
        Protocol::Udp => exchange(to, nonce).await,
    };
    Tried { address: to.ip().to_string(), port: to.port(), protocol: protocol.as_str().to_owned(), ..tried }
}

async fn connect(to: SocketAddr) -> Tried {
    let started = Instant::now();
    let connected = timeout(LIMIT, TcpStream::connect(to)).await;
    let tried = Tried { took_ms: millis(started), ..Tried::default() };
    let mut stream = match connected {
        Err(_late) => return tried,
        Ok(Err(error)) => return Tried { took_ms: tried.took_ms, ..failed(&error) },
        Ok(Ok(stream)) => stream,
    };
    let tried = Tried { outcome: Outcome::Connected, ..tried };
    let mut buffer = [0; MOST];
    let then = match timeout(FIRST_BYTES, stream.read(&mut buffer)).await {
        Err(_late) => "silent",
        Ok(Err(_)) => "reset",
        Ok(Ok(0)) => "closed",
        Ok(Ok(count)) => {
            let kind = Some(kind_of(&buffer[..count]).to_owned());
            return Tried { then: Some("bytes".into()), bytes: Some(count as u64), kind, ..tried };
        }
    };
    Tried { then: Some(then.into()), ..tried }
}

async fn exchange(to: SocketAddr, nonce: Nonce) -> Tried {
    let started = Instant::now();
    let outcome = match ask(to, nonce, started).await {
        Ok(outcome) => Tried { outcome, ..Tried::default() },
        Err(error) => failed(&error),
    };
    Tried { took_ms: millis(started), ..outcome }
}

async fn ask(to: SocketAddr, nonce: Nonce, started: Instant) -> io::Result<Outcome> {
    let any: SocketAddr = if to.is_ipv4() { ([0_u8; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    // From now on only what comes from there is received.
    socket.connect(to).await?;
    let question = question(nonce);
    socket.send(&question).await?;
    let mut again = AGAIN.into_iter().map(|after| started + after).chain([started + LIMIT]);
    let mut next = again.next();
    let mut buffer = [0; PROBE_LENGTH + 1];
    while let Some(at) = next {
        tokio::select! {
            received = socket.recv(&mut buffer) => {
                let count = received?;
                if is_answer(&buffer[..count], nonce) {
                    return Ok(Outcome::Answered);
                }
            }
            () = sleep_until(at) => {
                next = again.next();
                if next.is_some() {
                    socket.send(&question).await?;
                }
            }
        }
    }
    Ok(Outcome::Timeout)
}

/// What the system's word means.
fn failed(error: &io::Error) -> Tried {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Tried { outcome: Outcome::Refused, ..Tried::default() },
        io::ErrorKind::TimedOut => Tried::default(),
        _ => Tried { outcome: Outcome::Unreachable, error: Some(error.to_string()), ..Tried::default() },
    }
}

/// What the first bytes look like.
fn kind_of(bytes: &[u8]) -> &'static str {
    const STARTS: [(&[u8], &str); 5] =
        [(b"SSH-", "ssh"), (b"HTTP/", "http"), (b"RFB ", "vnc"), (b"\x15\x03", "tls"), (b"\x16\x03", "tls")];
    let known = STARTS.into_iter().find(|(start, _)| bytes.starts_with(start));
    let is_text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    known.map_or(if bytes.iter().all(is_text) { "text" } else { "binary" }, |(_, kind)| kind)
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::*;

    const NONCE: Nonce = [3; 16];

    async fn tcp(serve: impl AsyncFnOnce(TcpStream)) -> Tried {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let served = async { serve(listener.accept().await.unwrap().0).await };
        tokio::join!(attempt(to, Protocol::Tcp, NONCE), served).0
    }

    #[tokio::test]
    async fn a_connection_is_told_by_what_it_does_first() {
        let said = tcp(async |mut stream| stream.write_all(b"SSH-2.0-x\r\n").await.unwrap()).await;
        assert_eq!((said.outcome, said.then.as_deref()), (Outcome::Connected, Some("bytes")));
        assert_eq!((said.bytes, said.kind.as_deref()), (Some(11), Some("ssh")));
        let closed = tcp(async |stream| drop(stream)).await;
        assert_eq!((closed.outcome, closed.then.as_deref()), (Outcome::Connected, Some("closed")));
        let much = tcp(async |mut stream| stream.write_all(&[b'x'; 4096]).await.unwrap_or_default()).await;
        assert_eq!((much.bytes, much.kind.as_deref()), (Some(MOST as u64), Some("text")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_is_left_after_two_seconds() {
        let silent = tcp(async |mut stream| {
            let mut end = Vec::new();
            stream.read_to_end(&mut end).await.unwrap();
            assert_eq!(end, b"", "nothing is sent");
        })
        .await;
        assert_eq!((silent.outcome, silent.then.as_deref()), (Outcome::Connected, Some("silent")));
    }

    #[tokio::test]
    async fn a_port_that_is_closed_refuses() {
        // Held, so that no other test gets it: it does not listen.
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let held = tokio::net::TcpSocket::new_v4().unwrap();
        held.bind(any).unwrap();
        let tried = attempt(held.local_addr().unwrap(), Protocol::Tcp, NONCE).await;
        assert_eq!(tried.outcome, Outcome::Refused);
        // It takes datagrams of another one alone.
        let (held, other) = (UdpSocket::bind(any).await.unwrap(), UdpSocket::bind(any).await.unwrap());
        held.connect(other.local_addr().unwrap()).await.unwrap();
        let tried = attempt(held.local_addr().unwrap(), Protocol::Udp, NONCE).await;
        assert_eq!(tried.outcome, Outcome::Refused);
    }

    #[tokio::test(start_paused = true)]
    async fn a_datagram_is_sent_four_times_and_nothing_but_its_answer_counts() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = socket.local_addr().unwrap();
        let wrong = async {
            let mut buffer = [0; 64];
            let mut count = 0;
            while let Ok(received) = timeout(2 * LIMIT, socket.recv_from(&mut buffer)).await {
                let (length, from) = received.unwrap();
                assert_eq!(buffer[..length], question(NONCE));
                count += 1;
                // An echo, another number, and too much.
                for answer in [&question(NONCE)[..], &question([4; 16]), &[0; 64], b""] {
                    socket.send_to(answer, from).await.unwrap();
                }
            }
            count
        };
        let (tried, count) = tokio::join!(attempt(to, Protocol::Udp, NONCE), wrong);
        assert_eq!((tried.outcome, count), (Outcome::Timeout, 1 + AGAIN.len()));
    }

    #[test]
    fn first_bytes_are_known_by_their_start() {
        for (bytes, kind) in [
            (&b"HTTP/1.1 400"[..], "http"),
            (b"RFB 003.008\n", "vnc"),
            (b"\x15\x03\x01\x00\x02", "tls"),
            (b"220 mail ESMTP\r\n", "text"),
            (b"\x00\x01", "binary"),
        ] {
            assert_eq!(kind_of(bytes), kind);
        }
    }
}
